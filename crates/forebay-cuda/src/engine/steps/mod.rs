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

use super::error::EngineError;
use crate::edge::Stream;

/// After a failure, lets what a part has enqueued come to its end before the slot changes hands.
/// Only this part's own stream is waited for; its failure outranks `result`'s.
fn settled<T>(result: Result<T, EngineError>, stream: &Stream) -> Result<T, EngineError> {
    if result.is_err() {
        stream.synchronize()?;
    }
    result
}
