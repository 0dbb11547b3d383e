//! The manifest of a bundle: what it is, and the SHA-256 of every file.
//!
//! It is also what `sha256sum --check` reads. The last line is the sum of the lines before it. It
//! proves that nothing has changed since the bundle was made; it is no signature and does not say by
//! whom it was made.

use std::collections::BTreeMap;

use super::sum::sum_of_bytes;
use super::{FILES_MAX, is_plain};

const FORMAT: &str = "# forebay-bundle 1";
const VERSION: &str = "# version ";
const TARGET: &str = "# target ";
const FINGERPRINT: &str = "# model-fingerprint ";
const SEAL: &str = "# seal ";

/// What a bundle is and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Version of the program.
    pub(crate) version: String,
    /// The machines that it is for, as a target triple.
    pub(crate) target: String,
    /// Identity of the model's files.
    pub(crate) model_fingerprint: String,
    /// Path to SHA-256 in lower-case hexadecimal, of every file but the manifest.
    pub(crate) files: BTreeMap<String, String>,
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("its first line is not `{FORMAT}`")]
    Format,
    #[error("line {line} is not what belongs there: {what}")]
    Line { line: usize, what: &'static str },
    #[error("line {line} names {path:?}, which is not a plain path inside the bundle")]
    Path { line: usize, path: String },
    #[error("it lists more than {FILES_MAX} files")]
    TooMany,
    #[error("it has been changed or cut: its lines do not add up to the seal at its end")]
    Seal,
}

impl Manifest {
    /// The file's content.
    pub(crate) fn to_text(&self) -> String {
        let Self { version, target, model_fingerprint, files } = self;
        let mut text = format!(
            "{FORMAT}\n{VERSION}{version}\n{TARGET}{target}\n{FINGERPRINT}{model_fingerprint}\n"
        );
        for (path, sum) in files {
            text.push_str(&format!("{sum}  {path}\n"));
        }
        let seal = sum_of_bytes(text.as_bytes());
        text.push_str(&format!("{SEAL}{seal}\n"));
        text
    }

    /// Reads the file's content.
    pub(crate) fn parse(text: &str) -> Result<Self, ManifestError> {
        let rest = text.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix('\n'));
        if rest.is_none() {
            return Err(ManifestError::Format);
        }
        let at = text.rfind(SEAL).ok_or(ManifestError::Seal)?;
        let (sealed, seal) = text.split_at(at);
        if seal != format!("{SEAL}{}\n", sum_of_bytes(sealed.as_bytes())) {
            return Err(ManifestError::Seal);
        }
        let mut lines = (1..).zip(sealed.lines()).skip(1);
        let mut field = |prefix: &'static str| {
            let (line, text) = lines.next().ok_or(ManifestError::Format)?;
            let value = text.strip_prefix(prefix).map(str::to_owned);
            value.ok_or(ManifestError::Line { line, what: prefix })
        };
        let (version, target) = (field(VERSION)?, field(TARGET)?);
        let model_fingerprint = field(FINGERPRINT)?;
        let mut files = BTreeMap::new();
        for (line, text) in lines {
            let (sum, path) = text
                .split_once("  ")
                .filter(|(sum, _)| is_sum(sum))
                .ok_or(ManifestError::Line { line, what: "a sum, two spaces and a path" })?;
            if !is_plain(path) {
                return Err(ManifestError::Path { line, path: path.to_owned() });
            }
            if files.insert(path.to_owned(), sum.to_owned()).is_some() {
                return Err(ManifestError::Line { line, what: "a path that is not there yet" });
            }
            if files.len() > FILES_MAX {
                return Err(ManifestError::TooMany);
            }
        }
        Ok(Self { version, target, model_fingerprint, files })
    }
}

fn is_sum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(paths: &[&str]) -> Manifest {
        let sum = |path: &&str| ((*path).to_owned(), sum_of_bytes(path.as_bytes()));
        Manifest {
            version: "1.2.3".to_owned(),
            target: "x86_64-unknown-linux-gnu".to_owned(),
            model_fingerprint: "ab".to_owned(),
            files: paths.iter().map(sum).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_every_change_is_noticed() {
        let manifest = manifest(&["a", "b/c d", "# seal x"]);
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(&text), Ok(manifest));
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(Manifest::parse(&changed).is_err(), "byte {at}");
            assert!(Manifest::parse(&text[..at]).is_err(), "cut at {at}");
        }
        assert!(Manifest::parse(&format!("{text}more\n")).is_err());
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in ["../a", "/etc/passwd", "a/../../b"] {
            let text = manifest(&[path]).to_text();
            let refused = ManifestError::Path { line: 5, path: path.to_owned() };
            assert_eq!(Manifest::parse(&text), Err(refused));
        }
    }
}
