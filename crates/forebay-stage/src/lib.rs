//! One stage of a pipeline: an actor for its life, a named thread for its work, a bounded lane
//! for its input.
//!
//! Control and data go separate ways. The actor ([`StageActor`]) reports the end of the stage to
//! whoever is linked to it; it never touches an item. The items flow
//! through [`lane`]s from thread to thread; one item is one batch, so a lane's cost is paid per
//! batch. A sender that finds a lane full waits, and the wait is on the lane's clock: that is
//! the backpressure of the pipeline, measured where it arises.
//!
//! A stage drains by closing its lane: when every sender is gone the thread finishes what is
//! queued and ends. A panic in the thread becomes a [`StageFailure`]; it never crosses a stage.

mod actor;
mod clock;
mod failure;
mod lane;

pub use actor::{Stage, StageActor, StageArgs};
pub use clock::StageClock;
pub use failure::StageFailure;
pub use lane::{
    LaneClosed, LaneReceiver, LaneSender, LaneStats, RecvTimeout, SendRefused, WaitMode, lane,
};

/// Runs `process` on each item of a lane until the lane is closed and empty.
///
/// # Errors
/// The first [`StageFailure`] that `process` returns; what is queued stays in the lane.
pub fn run_lane<T>(
    lane: &LaneReceiver<T>,
    clock: &StageClock,
    mut process: impl FnMut(T) -> Result<(), StageFailure>,
) -> Result<(), StageFailure> {
    while let Ok(item) = lane.recv() {
        clock.measure(|| process(item))?;
    }
    Ok(())
}
