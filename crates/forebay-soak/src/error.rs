//! Why a soak test cannot be carried out. What it finds is no error but its verdict.

use std::path::PathBuf;

use forebay::Level;

/// Why a soak test cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoakError {
    /// The profile, or what else was asked for, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The target cannot be reached, or does not start.
    #[error("{target} cannot be reached: {reason}")]
    Unreachable {
        /// The target.
        target: String,
        /// Why not.
        reason: String,
    },
    /// The best level did not come before the load.
    #[error(
        "{target} is at level {found} and not at {expected} after {wait_s} s: see why with `forebay \
         doctor`, or say with --expect-level at which level it is as it should be"
    )]
    NotBest {
        /// The target.
        target: String,
        /// Its level.
        found: Level,
        /// The level to wait for.
        expected: Level,
        /// How long it was waited for, in seconds.
        wait_s: f64,
    },
    /// The harness itself failed.
    #[error("the harness failed: {0}")]
    Harness(String),
}

impl SoakError {
    pub(crate) fn file(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File { what, path: path.to_owned(), source }
    }

    pub(crate) fn harness(error: impl std::fmt::Display) -> Self {
        Self::Harness(error.to_string())
    }
}
