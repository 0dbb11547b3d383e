//! The four parts of the pipeline. Each file is one part: what it waits for, what it enqueues, what
//! it records.

mod copy_in;
mod copy_out;
mod infer;
mod pool;
mod timeline;

pub use copy_in::{CopyIn, Staged};
pub use copy_out::CopyOut;
pub use infer::{Infer, RingToken, States};
pub use pool::{Pool, Rows};
pub use timeline::{StageSpan, StageTimes};

use super::completion::Completion;
use super::error::EngineError;
use crate::edge::{Event, Stream, give_up};

/// After a failure, lets what has been enqueued for the slot come to its end before the slot
/// changes hands: what is before the `earlier` events, which the parts before this one recorded and
/// which this part's stream may not have come to wait for, and this part's own `stream`. A failure
/// of this wait outranks `result`'s. A device that is stuck is not waited for again: it is given
/// up. After a fault there is nothing to wait for, and the fault comes back.
pub(super) fn settled<T>(
    result: Result<T, EngineError>,
    stream: &Stream,
    earlier: &[&Event],
) -> Result<T, EngineError> {
    let wait = || {
        // Nobody is in a hurry here.
        let completion = Completion::new(0);
        for event in earlier {
            completion.wait(event, "the work before a failure")?;
        }
        finish(stream, completion)
    };
    settle(result, wait, |stuck| give_up(stuck))
}

/// Waits until everything on `stream` is done, as long as any batch may take and no longer.
fn finish(stream: &Stream, completion: Completion) -> Result<(), EngineError> {
    let end = Event::new(stream.context(), false)?;
    end.record(stream)?;
    completion.wait(&end, "the work of a part")
}

fn settle<T>(
    result: Result<T, EngineError>,
    wait: impl FnOnce() -> Result<(), EngineError>,
    give_up: impl FnOnce(&EngineError),
) -> Result<T, EngineError> {
    let failed = match result {
        Ok(_) | Err(EngineError::Stuck { .. }) => result,
        Err(_) => wait().and(result),
    };
    if let Err(stuck @ EngineError::Stuck { .. }) = &failed {
        give_up(stuck);
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = (bool, bool, Result<(), EngineError>);

    fn outcome(result: Result<(), EngineError>, of_wait: Result<(), EngineError>) -> Outcome {
        let (mut waited, mut gave_up) = (false, false);
        let wait = || {
            waited = true;
            of_wait
        };
        let result = settle(result, wait, |_| gave_up = true);
        (waited, gave_up, result)
    }

    fn stuck() -> Result<(), EngineError> {
        Err(EngineError::Stuck { what: "a batch", seconds: 1 })
    }

    fn failure(what: &'static str) -> Result<(), EngineError> {
        Err(EngineError::Pipeline(what))
    }

    #[test]
    fn a_failure_is_waited_out_and_a_stuck_device_is_given_up_without_a_wait() {
        assert!(matches!(outcome(Ok(()), stuck()), (false, false, Ok(()))));
        let failed = outcome(failure("of the step"), Ok(()));
        assert!(matches!(failed, (true, false, Err(EngineError::Pipeline("of the step")))));
        let failed = outcome(failure("of the step"), failure("of the wait"));
        assert!(matches!(failed, (true, false, Err(EngineError::Pipeline("of the wait")))));
        let is_stuck = outcome(stuck(), Ok(()));
        assert!(matches!(is_stuck, (false, true, Err(EngineError::Stuck { .. }))), "{is_stuck:?}");
        let became_stuck = outcome(failure("of the step"), stuck());
        assert!(matches!(became_stuck, (true, true, Err(EngineError::Stuck { .. }))));
    }
}
