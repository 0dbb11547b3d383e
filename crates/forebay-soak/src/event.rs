//! What happens in a run, on its way to the recorder. Times are microseconds since the run began.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};

use crate::plan::Planned;
use crate::stats::Span;

/// One thing that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// From now on, for a while, everything counts.
    Measure(Span),
    /// A request is about to be sent.
    Invoke { request: Planned, scheduled_us: u64, at_us: u64 },
    /// It was not, after all.
    Unsent { request: Planned, scheduled_us: u64, at_us: u64 },
    /// A request is over.
    Done(Box<Done>),
    /// An answer came that nobody had asked for.
    Stray { at_us: u64, request: Option<u64>, why: String },
    /// Time goes on, whether or not anything is answered.
    Tick { at_us: u64 },
    /// The harness stood still, so that nobody could take an answer.
    Stall { from_us: u64, to_us: u64 },
    /// A fault is about to be injected. Faults are counted from 0, in the order of these.
    Fault { at_us: u64, on: String, fault: String },
    /// The fault with this number is over: it has healed, or its time to heal has passed.
    FaultOver { at_us: u64, index: usize },
    /// The level from now on.
    Level { at_us: u64, level: String },
    /// Everything is there, or was waited for long enough.
    End { at_us: u64 },
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) request: Planned,
    pub(crate) scheduled_us: u64,
    /// By how much that was later than it could, being due and free.
    pub(crate) lag_us: u64,
    /// Time until the target let go of whoever sent it.
    pub(crate) submit_us: u64,
    /// When it left, having found a connection.
    pub(crate) sent_us: u64,
    pub(crate) at_us: u64,
    pub(crate) outcome: Outcome,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With vectors and their digests.
    Rows(Vec<(u64, Vec<f32>)>),
    /// It was not accepted.
    Refused(Cow<'static, str>),
    /// With an error.
    Error(Cow<'static, str>),
    /// With success and what is no list of vectors.
    Unreadable(String),
    /// No reply will come.
    Lost(String),
}

/// A digest of a vector's bits.
pub(crate) fn digest(vector: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    vector.iter().for_each(|value| hasher.write_u32(value.to_bits()));
    hasher.finish()
}
