//! The four stages. Each file is one stage: what it takes from its lane, what it leaves.

pub(crate) mod copy_in;
pub(crate) mod copy_out;
pub(crate) mod infer;
pub(crate) mod pool;

use std::sync::atomic::{AtomicBool, Ordering};

use forebay_protocol::WorkerExit;
use forebay_stage::StageFailure;

use crate::engine::StepError;

/// Passes a batch error on and turns a fatal one into the end of the process, with its reason as
/// the last line that the host reads.
pub(crate) fn fatal_ends<T>(result: Result<T, StepError>) -> Result<T, StepError> {
    if let Err(StepError::Fatal { exit, message }) = &result {
        only_once();
        tracing::error!(exit = exit.name(), "{message}");
        crate::os::exit_now(*exit);
    }
    result
}

/// A failure that ends the process is met by every stage within microseconds. The first says what
/// happened and ends the process; any other waits for that here.
fn only_once() {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        loop {
            std::thread::park();
        }
    }
}

/// The host said something that it must never say.
pub(crate) fn protocol_violation(error: &dyn std::fmt::Display) -> ! {
    tracing::error!(exit = WorkerExit::Protocol.name(), "{error}");
    crate::os::exit_now(WorkerExit::Protocol)
}

/// The stage behind this one has ended, so this one cannot go on.
pub(crate) fn successor_gone(stage: &'static str) -> StageFailure {
    StageFailure::new(stage, "the next stage has ended")
}
