//! The faults of a history, by the names under which they can be injected into a real runtime, and
//! what each does to the processes and devices of the simulator.

use std::time::Duration;

use forebay_protocol::WorkerExit;
use rand::Rng;
use rand::rngs::SmallRng;

use super::stalls::Holds;
use super::world::{Due, World};
use crate::dispatch::WorkerId;
use crate::supervisor::{DeviceNews, EndCause, QuarantineReason, Restored};

/// A fault poisons a CUDA process at once, and shows in a call that returns this much later.
const STICKY_SURFACES: Duration = Duration::from_millis(770);

/// One fault. Those that a real device has and the injector does not are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SimFault {
    Kill,
    Stop,
    /// As `Stop`, and it goes on after a while.
    Pause,
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
    /// Messages within the host take long.
    Busy,
    /// The next end of its process takes long.
    Unkillable,
}

impl SimFault {
    pub(super) fn any(random: &mut SmallRng) -> Self {
        match random.random_range(0..25) {
            0..3 => Self::Kill,
            3 => Self::Stop,
            4 => Self::Trap,
            5 => Self::IllegalAddress,
            6 => Self::EndlessKernel,
            7 => Self::DeviceOutOfMemory,
            8..10 => Self::Slow,
            10 => Self::FlipOutputBit,
            11..14 => Self::FlipWeightBit,
            14 => Self::FailStarts(random.random_range(1..7)),
            15 => Self::MonitorHang,
            16 => Self::MonitorLies,
            17 => Self::NeedsReset,
            18 => Self::TooHot,
            19 => Self::Xid,
            20 => Self::Pause,
            21..23 => Self::Busy,
            _ => Self::Unkillable,
        }
    }
}

impl SimFault {
    /// Whether it keeps a worker from answering in time.
    fn delays(self) -> bool {
        matches!(
            self,
            Self::Stop
                | Self::Pause
                | Self::Trap
                | Self::IllegalAddress
                | Self::EndlessKernel
                | Self::Slow
        )
    }
}

impl World {
    /// The fault happens on this rung.
    pub(super) fn inject(&mut self, slot: usize, fault: SimFault) {
        self.report.faults += 1;
        match fault {
            SimFault::FailStarts(starts) => return self.failing_starts[slot] = starts,
            SimFault::Busy => return self.get_busy(),
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
        self.change(id, |process| process.ill |= fault.delays());
        match fault {
            SimFault::Kill => self.die(id, EndCause::Signal(9)),
            SimFault::Pause => self.pause(id),
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

    /// Draws the load and the faults.
    pub(super) fn plan(&mut self) {
        let length = Duration::from_millis(self.random.random_range(300..3_000));
        for _ in 0..self.random.random_range(4..24) {
            let at = length.mul_f64(self.random.random());
            self.at(self.start + at, Due::Burst);
        }
        for starts in &mut self.failing_starts {
            if self.random.random_bool(0.1) {
                *starts = self.random.random_range(1..3);
            }
        }
        for _ in 0..self.random.random_range(0..7) {
            let at = self.start + length.mul_f64(self.random.random());
            let fault = SimFault::any(&mut self.random);
            let both = self.random.random_bool(0.2);
            let slot = self.random.random_range(0..self.rungs.len());
            for other in 0..self.rungs.len() {
                if other == slot || both {
                    self.at(at, Due::Fault(other, fault));
                }
            }
        }
        // Everything at once: each rung has faults of its own.
        if self.random.random_bool(0.1) {
            let at = self.start + length.mul_f64(self.random.random());
            for slot in 0..self.rungs.len() {
                for _ in 0..self.random.random_range(1..4) {
                    let after = Duration::from_micros(self.random.random_range(0..5_000));
                    let fault = SimFault::any(&mut self.random);
                    self.at(at + after, Due::Fault(slot, fault));
                }
            }
        }
        if self.random.random_bool(0.3) {
            for _ in 0..self.random.random_range(1..4) {
                let at = self.start + length.mul_f64(self.random.random());
                let holds = match self.random.random() {
                    true => Holds::Host,
                    false => Holds::Everything,
                };
                let still = self.any_standstill();
                self.at(at, Due::StandsStill(still, holds));
            }
        }
    }

    /// What an earlier run has left in quarantine.
    pub(super) fn left_in_quarantine(&mut self) -> Vec<Restored> {
        let mut left = Vec::new();
        for slot in 0..self.rungs.len() {
            if self.random.random_bool(0.05) {
                self.sometimes("a quarantine was left by an earlier run");
                let all = QuarantineReason::ALL;
                let reason = all[self.random.random_range(0..all.len())];
                if reason == QuarantineReason::Operator {
                    self.sometimes("a rung waited for somebody to release it");
                }
                let probe_after = Duration::from_millis(self.random.random_range(0..2_000));
                let detail = "an earlier run".to_owned();
                left.push(Restored { slot, reason, detail, probe_after });
            }
        }
        left
    }
}
