//! The faults of a history, by the names under which they can be injected into a real runtime, and
//! what each does to the processes and devices of the simulator.

use std::time::Duration;

use forebay_protocol::WorkerExit;
use rand::Rng;
use rand::rngs::SmallRng;

use super::world::{Due, World};
use crate::dispatch::WorkerId;
use crate::supervisor::{DeviceNews, EndCause, QuarantineReason};

/// A fault poisons a CUDA process at once, and shows in a call that returns this much later.
const STICKY_SURFACES: Duration = Duration::from_millis(770);

/// One fault. Those that a real device has and the injector does not are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimFault {
    Kill,
    Stop,
    Trap,
    IllegalAddress,
    EndlessKernel,
    DeviceOutOfMemory,
    Slow,
    FlipOutputBit,
    FlipWeightBit,
    FailStarts(u32),
    /// The monitor says nothing of the device.
    MonitorHang,
    /// The monitor says that the device is ill although it is not.
    MonitorLies,
    /// The device needs a reset, which comes a while later.
    NeedsReset,
    /// It should not be given more than it has, for a while.
    TooHot,
    /// Something was reported that may have hurt what runs.
    Xid,
    /// The next end of its process takes long.
    Unkillable,
}

impl SimFault {
    pub(super) fn any(random: &mut SmallRng) -> Self {
        match random.random_range(0..20) {
            0..3 => Self::Kill,
            3 => Self::Stop,
            4 => Self::Trap,
            5 => Self::IllegalAddress,
            6 => Self::EndlessKernel,
            7 => Self::DeviceOutOfMemory,
            8..10 => Self::Slow,
            10 => Self::FlipOutputBit,
            11..13 => Self::FlipWeightBit,
            13 => Self::FailStarts(random.random_range(1..7)),
            14 => Self::MonitorHang,
            15 => Self::MonitorLies,
            16 => Self::NeedsReset,
            17 => Self::TooHot,
            18 => Self::Xid,
            _ => Self::Unkillable,
        }
    }
}

impl World {
    /// The fault happens on this rung.
    pub(super) fn inject(&mut self, slot: usize, fault: SimFault) {
        self.report.faults += 1;
        match fault {
            SimFault::FailStarts(starts) => return self.failing_starts[slot] = starts,
            SimFault::MonitorHang => return self.device(slot, DeviceNews::Unknown),
            SimFault::MonitorLies | SimFault::NeedsReset => {
                let reason = match fault {
                    SimFault::NeedsReset => QuarantineReason::Reset,
                    _ => QuarantineReason::Lost,
                };
                return self.device(slot, DeviceNews::Unfit(reason, "recovery action".to_owned()));
            }
            SimFault::TooHot => {
                return self.device(slot, DeviceNews::Hold("too hot".to_owned()));
            }
            SimFault::Xid => return self.device(slot, DeviceNews::Shaken("xid 94".to_owned())),
            _ => {}
        }
        let Some(id) = self.running(slot) else { return };
        match fault {
            SimFault::Kill => self.die(id, EndCause::Signal(9)),
            SimFault::Stop | SimFault::EndlessKernel => self.change(id, |p| p.stopped = true),
            SimFault::Trap | SimFault::IllegalAddress => {
                self.change(id, |process| process.stopped = true);
                let at = self.now + STICKY_SURFACES;
                self.at(at, Due::Dies(id, EndCause::Exit(WorkerExit::StickyCuda)));
            }
            SimFault::DeviceOutOfMemory => {
                let batches = self.random.random_range(1..5);
                self.change(id, |process| process.failing_batches = batches);
            }
            SimFault::Slow => self.change(id, |process| process.slow = 10),
            SimFault::FlipOutputBit => self.change(id, |process| process.flip_output = true),
            SimFault::FlipWeightBit => self.flip_weights(id),
            SimFault::Unkillable => self.change(id, |process| process.unkillable = true),
            _ => {}
        }
    }

    fn device(&mut self, slot: usize, news: DeviceNews) {
        self.tell_ladder(crate::supervisor::LadderEvent::Device(slot, news));
        let after = Duration::from_millis(self.random.random_range(10..2_000));
        self.at(self.now + after, Due::Well(slot));
    }

    fn flip_weights(&mut self, id: WorkerId) {
        let now = self.now;
        self.change(id, |process| process.flipped_weights = true);
        self.flipped_at.entry(id).or_insert(now);
    }
}
