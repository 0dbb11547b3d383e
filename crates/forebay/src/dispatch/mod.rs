//! Batch and dispatch: which waiting texts run where, and what happens to those whose worker ended.
//!
//! One thread owns all decisions. The decisions themselves are a state machine ([`core`]) that
//! sees workers through a trait and time as an argument, so that tests and a simulator drive the
//! very code that serves. The thread around it ([`thread`]) only waits and passes events in.
//! [`lane`] is one worker as the dispatcher sees it: its arena, its slots and its socket; [`roster`]
//! is which of them there are, by tier.

pub(crate) mod answer;
mod budget;
pub(crate) mod core;
#[cfg(test)]
mod core_tests;
pub(crate) mod due;
pub(crate) mod lane;
mod lateness;
pub(crate) mod port;
mod roster;
pub(crate) mod thread;

pub(crate) use port::{EndedWorker, Standing, WorkerId, WorkerNews};
pub(crate) use thread::{CancelNotice, DispatchEvent, DispatchSender};
