//! The model's tokenizer for callers: which tokens a text has, and which text some ids are.
//!
//! It goes beside the pipeline: it takes no permit, waits for nobody and runs on the caller's
//! thread.

use forebay_model::{TextTokenizer, Token, TokenizeError};

use super::Runtime;
use crate::error::EmbedError;

/// The tokenizer that texts of a [`Runtime`] go through. Cheap to clone; clones share the
/// vocabulary and can be used by any number of threads.
#[derive(Debug, Clone)]
pub struct Tokenizer(pub(super) TextTokenizer);

impl Tokenizer {
    /// The tokens of `text`, uncut, each with its place in characters; with those that the model
    /// wants around every text if `add_special_tokens`. A place is `None` for those, and for all
    /// tokens of a text with one of the rare characters that [`Token`] cannot place.
    ///
    /// It works on this thread for as long as the text needs. The first call reads
    /// `tokenizer.json` again, which for a vocabulary of 30,000 takes tens of milliseconds.
    ///
    /// # Errors
    /// [`EmbedError::Tokenize`] if the tokenizer refuses the text; [`EmbedError::Internal`] if its
    /// file is no longer there the first time.
    pub fn tokenize(&self, text: &str, add_special_tokens: bool) -> Result<Vec<Token>, EmbedError> {
        self.0.tokenize(text, add_special_tokens).map_err(|error| match error {
            TokenizeError::Places { .. } => EmbedError::Internal { message: error.to_string() },
            error => EmbedError::Tokenize { message: error.to_string() },
        })
    }

    /// The text that `ids` stand for, as far as the tokenizer keeps it, without special tokens if
    /// `skip_special_tokens`.
    ///
    /// # Errors
    /// [`EmbedError::TokenId`] for an id beyond the vocabulary; [`EmbedError::Tokenize`] if they
    /// make no text.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, EmbedError> {
        let vocab = self.0.vocab();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(EmbedError::TokenId { id, vocab });
        }
        let decoded = self.0.decode(ids, skip_special_tokens);
        decoded.map_err(|error| EmbedError::Tokenize { message: error.to_string() })
    }
}

impl Runtime {
    /// The tokenizer that texts go through.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}
