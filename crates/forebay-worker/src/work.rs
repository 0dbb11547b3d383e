//! One batch on its way through the stages.

use std::time::{Duration, Instant};

use forebay_arena::ClaimedSlot;
use forebay_protocol::{BatchTimes, Descriptor};

use crate::engine::StepError;

/// A batch with its slot. `state` is what the previous step left for the next one, or the failure
/// that the last stage reports.
pub(crate) struct Work<T> {
    pub(crate) slot: ClaimedSlot,
    pub(crate) request: Descriptor,
    pub(crate) received_at: Instant,
    pub(crate) padded_tokens: u32,
    pub(crate) times: BatchTimes,
    pub(crate) state: Result<T, StepError>,
}

impl<T> Work<T> {
    /// The same batch with what `step` made of it; a batch that has failed already stays failed.
    pub(crate) fn advance<U>(
        self,
        step: impl FnOnce(&mut ClaimedSlot, T) -> Result<U, StepError>,
    ) -> Work<U> {
        let Self { mut slot, request, received_at, padded_tokens, times, state } = self;
        let state = state.and_then(|state| step(&mut slot, state));
        Work { slot, request, received_at, padded_tokens, times, state }
    }
}

/// A duration in whole microseconds as descriptors carry it.
pub(crate) fn saturating_us(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
