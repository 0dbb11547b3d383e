//! Where in a text each of its tokens stands.
//!
//! The tokenizer that serves keeps no places: it is built for speed. The published `tokenizers`
//! 0.22 does, so it is loaded beside it when places are first asked for. The two agree on the ids
//! but for a few rare scalars (see [`crate::tokenizer`]); where they do not, the ids that would be
//! embedded are what counts, and no places are given. Nothing here is on the way of a text that is
//! embedded.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::Value;
use tokenizers022::Tokenizer;

use crate::error::TokenizeError;
use crate::files::{self, TOKENIZER_BYTES_MAX};
use crate::tokenizer::lowercase_first;

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The part of the text that it stands for; its name in the vocabulary if it stands for none.
    pub text: String,
    /// It was put around the text.
    pub special: bool,
    /// Where it begins, in characters (Unicode scalars) of the text; `None` if it is special or its
    /// place is not known.
    pub start: Option<usize>,
    /// The character before which it ends; `None` where `start` is.
    pub stop: Option<usize>,
}

impl Token {
    /// A token that was put around the text.
    pub(crate) fn special(id: u32, name: String) -> Self {
        Self { id, text: name, special: true, start: None, stop: None }
    }

    /// A token of `text`, with its place if that is known.
    pub(crate) fn of(
        text: &str,
        id: u32,
        place: Option<&Place>,
        name: impl FnOnce() -> String,
    ) -> Self {
        let found = place.and_then(|place| Some((place, text.get(place.bytes.clone())?)));
        match found {
            Some((place, part)) => Self {
                id,
                text: part.to_owned(),
                special: false,
                start: Some(place.chars.start),
                stop: Some(place.chars.end),
            },
            None => Self { id, text: name(), special: false, start: None, stop: None },
        }
    }
}

/// The place of one token in its text.
pub(crate) struct Place {
    bytes: Range<usize>,
    chars: Range<usize>,
}

/// Finds places; loads what it needs for that once.
pub(crate) struct Places {
    path: PathBuf,
    lowercase: bool,
    tokenizer: OnceLock<Tokenizer>,
    loading: Mutex<()>,
}

impl Places {
    /// Those of the tokenizer in the file at `path`, which is not read yet. `lowercase`: texts are
    /// put into lower case before anything else.
    pub(crate) fn new(path: PathBuf, lowercase: bool) -> Self {
        Self { path, lowercase, tokenizer: OnceLock::new(), loading: Mutex::new(()) }
    }

    /// The place of each token of `text`, whose tokens have these `ids`; `None` if they are not
    /// known.
    pub(crate) fn of(&self, text: &str, ids: &[u32]) -> Result<Option<Vec<Place>>, TokenizeError> {
        let encoding = self.tokenizer()?.encode(text, false).map_err(|error| {
            TokenizeError::Refused { bytes: text.len(), reason: error.to_string() }
        })?;
        if encoding.get_ids() != ids {
            return Ok(None);
        }
        Ok(places(text, encoding.get_offsets()))
    }

    fn tokenizer(&self) -> Result<&Tokenizer, TokenizeError> {
        // Many that ask at once wait for one of them to load it.
        let _loading = match self.tokenizer.get() {
            Some(tokenizer) => return Ok(tokenizer),
            None => self.loading.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let loaded = self.load().map_err(|reason| {
            let path = self.path.clone();
            TokenizeError::Places { path, reason }
        })?;
        Ok(self.tokenizer.get_or_init(|| loaded))
    }

    fn load(&self) -> Result<Tokenizer, String> {
        let json = files::read_json(&self.path, TOKENIZER_BYTES_MAX, "put the file back");
        let mut json: Value = json.map_err(|error| error.to_string())?;
        if self.lowercase {
            lowercase_first(&mut json);
        }
        let mut tokenizer: Tokenizer =
            json.to_string().parse().map_err(|error: tokenizers022::Error| error.to_string())?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        Ok(tokenizer)
    }
}

/// Places in bytes and in characters, from those in bytes; `None` if one is not in the text.
fn places(text: &str, bytes: &[(usize, usize)]) -> Option<Vec<Place>> {
    // A token never begins before the one before it, so the text is counted through once.
    let mut counted = (0, 0);
    let mut chars_before = |at: usize| {
        if at < counted.0 {
            counted = (0, 0);
        }
        counted.1 += text.get(counted.0..at)?.chars().count();
        counted.0 = at;
        Some(counted.1)
    };
    let place = |&(start, stop): &(usize, usize)| {
        let first = chars_before(start)?;
        let chars = text.get(start..stop)?.chars().count();
        Some(Place { bytes: start..stop, chars: first..first + chars })
    };
    bytes.iter().map(place).collect()
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test reports by panicking")]
mod tests {
    use super::*;

    #[test]
    fn places_in_bytes_become_places_in_characters() {
        let text = "aé €b";
        let found = places(text, &[(0, 1), (1, 3), (4, 7), (7, 8), (1, 8)]).unwrap();
        let chars: Vec<_> = found.iter().map(|place| place.chars.clone()).collect();
        assert_eq!(chars, [0..1, 1..2, 3..4, 4..5, 1..5]);
        assert!(places(text, &[(0, 2)]).is_none(), "within a character");
        assert!(places(text, &[(0, 99)]).is_none());
    }
}
