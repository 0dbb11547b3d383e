//! The operator's cap on the service level: which slots must not serve although they could.
//!
//! The level counts GPUs, so only GPUs are ever capped. A capped worker is kept and answers its
//! canaries, but gets no text; what it holds when it is capped it finishes. When there is room below
//! the cap again, because the cap was lifted or another GPU has fallen, it is on its way back with
//! its next known answers.

use super::slot::Slot;
use super::{Action, Ladder, Level, WorkerState};
use crate::config::Device;

/// GPUs that may serve under a cap.
pub(super) fn gpus_max(cap: Option<Level>) -> usize {
    match cap {
        None => usize::MAX,
        Some(Level::Gpu(gpus)) => gpus as usize,
        Some(Level::Cpu | Level::Down) => 0,
    }
}

impl Ladder {
    /// Whether any of these devices could serve under this cap.
    pub(crate) fn leaves_something(devices: &[Device], cap: Option<Level>) -> bool {
        let could = |device: &Device| match device {
            Device::Cpu => cap != Some(Level::Down),
            Device::Cuda(_) => gpus_max(cap) > 0,
        };
        devices.iter().any(could)
    }

    /// Takes GPUs beyond the cap out of service, the worst first, and brings capped ones back while
    /// there is room: those that serve have a claim first, then those on their way.
    pub(super) fn keep_to_cap(&mut self) {
        let Self { slots, actions: out, cap, .. } = self;
        let mut room = gpus_max(*cap);
        let is_gpu = |slot: &&mut Slot| matches!(slot.device(), Device::Cuda(_));
        for state in [WorkerState::Serving, WorkerState::Probation, WorkerState::Warming] {
            for slot in slots.iter_mut().filter(is_gpu).filter(|slot| slot.state() == state) {
                slot.capped = cap.filter(|_| room == 0);
                room = room.saturating_sub(1);
                // One that warms up gets nothing yet; its known answers make it a capped one.
                if let Some(level) = slot.capped.filter(|_| state != WorkerState::Warming) {
                    slot.cap(level, out);
                }
            }
        }
        let capped = slots.iter_mut().filter(|slot| slot.state() == WorkerState::Capped);
        for slot in capped.take(room) {
            slot.uncap(out);
        }
    }
}

impl Slot {
    pub(super) fn cap(&mut self, level: Level, out: &mut Vec<Action>) {
        self.go(WorkerState::Capped, format!("the operator has capped the level at {level}"), out);
        self.hold_back(out);
    }

    fn uncap(&mut self, out: &mut Vec<Action>) {
        self.capped = None;
        self.go(WorkerState::Warming, "there is room below the cap on the level", out);
        self.ask_for_canary(out);
    }
}
