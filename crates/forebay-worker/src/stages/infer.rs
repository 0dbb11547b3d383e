//! Infer: token ids to token states. There may be several of it on one lane, one per session.

use std::time::Instant;

use forebay_protocol::DescriptorKind;
use forebay_stage::{LaneReceiver, LaneSender, StageClock, StageFailure, run_lane};

use super::{fatal_ends, successor_gone};
use crate::engine::Step;
use crate::faults::Faults;
use crate::work::{Work, saturating_us};

pub(crate) const NAME: &str = "infer";

pub(crate) fn run<Staged: 'static, States: 'static>(
    lane: &LaneReceiver<Work<Staged>>,
    mut step: Box<dyn Step<Staged, States>>,
    next: &LaneSender<Work<States>>,
    faults: &Faults,
    clock: &StageClock,
) -> Result<(), StageFailure> {
    run_lane(lane, clock, |mut work| {
        let start = Instant::now();
        work.times.wait_us = saturating_us(start - work.received_at);
        step.runs_beside(work.request.kind == DescriptorKind::RunBeside);
        let mut work = work.advance(|slot, staged| {
            faults.before_encoding(|fault| step.inject(fault))?;
            fatal_ends(step.run(slot, staged))
        });
        work.times.infer_us = saturating_us(start.elapsed());
        // Of a batch that was not computed the step still has the figures of the one before.
        if work.state.is_ok()
            && let Some(padded_tokens) = step.padded_tokens()
        {
            work.padded_tokens = padded_tokens;
        }
        next.send(work).map_err(|_| successor_gone(NAME))
    })
}
