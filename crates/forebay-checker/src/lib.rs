//! Judges what a soak test's clients have written down. It shares no code with the runtime nor with
//! the harness: the format of a history is read here by itself, and what is right is said here by
//! itself.
//!
//! A history is lines of comma-separated fields, in the order in which things happened; times are
//! microseconds since the run began.
//!
//! ```text
//! forebay-soak-history,2
//! rule,TOLERANCE,SLACK,WAIT               the rules of this run, see [`Rules`]
//! length,unit|own                         vectors are of length 1, which holds without this line, or
//!                                         as long as the known answer of their text
//! tolerance,LEVEL,TOLERANCE               what was sent and answered at this level is held to this
//! text,TEXT,VECTOR                        the known answer of a text (base64 of little-endian F32)
//! invoke,REQUEST,FIRST,COUNT,DEADLINE,SCHEDULED,AT
//!                                         requests are numbered from 0 on; COUNT texts from FIRST on are about
//!                                         to be sent; a deadline
//!                                         counts from SCHEDULED, 0 is none
//! unsent,REQUEST,AT,KIND                  it was not sent after all
//! refused,REQUEST,AT,KIND                 it was not accepted
//! vector,ID,VECTOR                        a vector that was not seen before
//! ok,REQUEST,SENT,AT,VECTORS              an accepted request, which had left at SENT, was answered
//!                                         with these vectors: their IDs with spaces between them
//! err,REQUEST,SENT,AT,KIND                the same with an error
//! unreadable,REQUEST,SENT,AT,WHY          it was answered with what is no list of vectors
//! lost,REQUEST,AT,WHY                     it is certain that no answer will come
//! stray,AT,WHY[,REQUEST]                  an answer came that nobody had asked for, after that of this
//!                                         request on its connection
//! stall,FROM,TO                           who takes the replies stood still meanwhile, so that as much
//!                                         of a reply's time is not the target's; none begins before
//!                                         the last has ended
//! fault,AT,WHERE,FAULT                    a fault is about to be injected
//! level,AT,LEVEL                          the level from now on
//! end,AT                                  every reply is here, or was waited for long enough
//! ```

mod doubts;
mod judge;
mod lateness;
mod levels;
mod read;
mod vectors;

use std::collections::BTreeMap;
use std::io::BufRead;

pub use judge::{FORM, PROMISES, WHOLE};

/// Why a history cannot be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be read.
    #[error("the history cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It is something else.
    #[error(
        "its first line is {found:?} and not {expected:?}: name the history of a soak test; one in \
         another version is judged by the release that wrote it"
    )]
    Header {
        /// The line found, cut.
        found: String,
        /// What stands there in a history.
        expected: &'static str,
    },
}

/// The rules by which a run is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// A vector is right if 1 - cosine of it and the known answer is at most this.
    pub tolerance: f64,
    /// Time beyond its deadline within which a reply must be there, in microseconds.
    pub slack_us: u64,
    /// Time within which a request without a deadline must be answered from when it left, in
    /// microseconds.
    pub wait_us: u64,
}

/// How long a right vector is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// 1.
    #[default]
    Unit,
    /// As long as the known answer of its text.
    Own,
}

/// How many of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were about to be sent.
    pub requests: u64,
    /// Texts in them.
    pub texts: u64,
    /// Requests that were not sent after all.
    pub unsent: u64,
    /// Requests that were not accepted.
    pub refused: u64,
    /// Requests answered with vectors.
    pub answered: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Different vectors.
    pub vectors: u64,
    /// Faults injected.
    pub faults: u64,
}

/// A promise that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// How often.
    pub count: u64,
    /// The break in the lowest line.
    pub first: CounterExample,
}

/// A line that breaks a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterExample {
    /// The line in the history, from 1.
    pub line: u64,
    /// The promise.
    pub promise: &'static str,
    /// What is wrong.
    pub what: String,
    /// The request, if it is about one.
    pub request: Option<u64>,
    /// The first text of that request, if it is known.
    pub text: Option<u64>,
}

/// What a history comes to.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How many of each.
    pub counts: Counts,
    /// The promises that are broken.
    pub broken: BTreeMap<&'static str, Broken>,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.broken.is_empty()
    }

    /// The break in the lowest line.
    #[must_use]
    pub fn first(&self) -> Option<&CounterExample> {
        self.broken.values().map(|broken| &broken.first).min_by_key(|first| first.line)
    }
}

/// Judges a history. It is read line by line; what is kept is what is open, what may still be explained
/// (a bounded number of breaks), and of each different vector whether it is right. No line makes it take
/// more memory than the lines so far are long.
///
/// # Errors
/// [`CheckError`]; what breaks a promise is no error but in the verdict.
pub fn check(history: impl BufRead) -> Result<Verdict, CheckError> {
    judge::Judge::run(history)
}

#[cfg(test)]
mod tests;
