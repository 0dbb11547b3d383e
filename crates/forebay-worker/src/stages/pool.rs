//! Pool: token states to one row per text, before anything is copied out: what leaves the device
//! is shorter by the sequence length.

use std::time::Instant;

use forebay_stage::{LaneReceiver, LaneSender, StageClock, StageFailure, run_lane};

use super::{fatal_ends, successor_gone};
use crate::engine::Step;
use crate::work::{Work, saturating_us};

pub(crate) const NAME: &str = "pool";

pub(crate) fn run<States: 'static, Rows: 'static>(
    lane: &LaneReceiver<Work<States>>,
    mut step: Box<dyn Step<States, Rows>>,
    next: &LaneSender<Work<Rows>>,
    clock: &StageClock,
) -> Result<(), StageFailure> {
    run_lane(lane, clock, |work| {
        let start = Instant::now();
        let mut work = work.advance(|slot, states| fatal_ends(step.run(slot, states)));
        work.times.pool_us = saturating_us(start.elapsed());
        next.send(work).map_err(|_| successor_gone(NAME))
    })
}
