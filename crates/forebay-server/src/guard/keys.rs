//! Bearer keys: only their SHA-256 sums are ever held, and comparing takes the same time whatever a
//! key has in common with a right one. Neither keys nor sums are logged.

use std::fmt;
use std::path::Path;

use forebay::config::AuthConfig;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::ServeError;

/// Sums that a file may have, and the bytes of such a file.
const HASHES_MAX: usize = 4_096;
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keys that are known; none means that nobody is asked for one.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    hashes: Vec<[u8; 32]>,
    /// Whether keys were configured: then an empty list lets nobody in.
    required: bool,
}

impl Keys {
    /// The keys of the configuration and of its file.
    ///
    /// # Errors
    /// The file cannot be read, or has a line that is no sum.
    pub(crate) fn load(auth: &AuthConfig) -> Result<Self, ServeError> {
        let mut hashes = Vec::new();
        for text in &auth.key_hashes {
            hashes.push(decode(text).ok_or(ServeError::Key { place: "auth.key_hashes".into() })?);
        }
        let file = &auth.key_hashes_file;
        if !file.as_os_str().is_empty() {
            read(file, &mut hashes)?;
        }
        let required = !auth.key_hashes.is_empty() || !file.as_os_str().is_empty();
        Ok(Self { hashes, required })
    }

    /// Whether a request needs a key.
    pub(crate) fn are_required(&self) -> bool {
        self.required
    }

    /// Whether these headers have exactly one key, and a known one.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> bool {
        if !self.required {
            return true;
        }
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let value = value.as_bytes();
        let Some((scheme, key)) = value.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && self.has(key.trim_ascii())
    }

    /// Looks at every sum, whichever fits.
    fn has(&self, key: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let found = self
            .hashes
            .iter()
            .fold(Choice::from(0), |found, known| found | known.as_slice().ct_eq(hash.as_slice()));
        found.into()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.hashes.len())
    }
}

fn read(path: &Path, hashes: &mut Vec<[u8; 32]>) -> Result<(), ServeError> {
    let unreadable = |source| ServeError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(ServeError::Key { place: format!("{} ({size} bytes)", path.display()) });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let number: usize = number;
        let place = || format!("{} line {number}", path.display());
        let hash = decode(line).filter(|_| hashes.len() < HASHES_MAX);
        hashes.push(hash.ok_or_else(|| ServeError::Key { place: place() })?);
    }
    Ok(())
}

/// 64 hexadecimal digits as 32 bytes.
fn decode(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let [high, low] = [digit(*pair.first()?)?, digit(*pair.last()?)?];
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(key: &str) -> String {
        Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn any_of_several_keys_opens_and_nothing_else_does() {
        let auth = AuthConfig {
            key_hashes: vec![sum("one"), sum("two").to_uppercase()],
            ..AuthConfig::default()
        };
        let keys = Keys::load(&auth).expect("sums");
        for good in ["Bearer one", "bearer two", "BEARER  two"] {
            assert!(keys.admit(&headers(&[good])), "{good}");
        }
        for bad in ["Bearer three", "Bearer", "Basic one", "one", "Bearer one two", "Bearer ", ""] {
            assert!(!keys.admit(&headers(&[bad])), "{bad}");
        }
        assert!(!keys.admit(&headers(&["Bearer one", "Bearer two"])), "one is enough");
        assert!(!keys.admit(&HeaderMap::new()));
        assert!(Keys::default().admit(&HeaderMap::new()), "no key is asked for");
        assert!(!format!("{keys:?}").contains(&sum("one")[..8]));
    }

    #[test]
    fn a_file_has_sums_and_comments_and_an_empty_one_lets_nobody_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let auth = AuthConfig { key_hashes_file: path.clone(), ..AuthConfig::default() };
        assert!(matches!(Keys::load(&auth), Err(ServeError::File { .. })));
        std::fs::write(&path, format!("# keys\n\n{} # robot\n", sum("k"))).expect("writes");
        assert!(Keys::load(&auth).expect("sums").admit(&headers(&["Bearer k"])));
        std::fs::write(&path, "# none\n").expect("writes");
        assert!(!Keys::load(&auth).expect("no sums").admit(&headers(&["Bearer k"])));
        std::fs::write(&path, "\nsecret\n").expect("writes");
        let message = Keys::load(&auth).expect_err("no sum").to_string();
        assert!(message.contains("line 2") && !message.contains("secret"), "{message}");
    }
}
