//! Faults on request, as far as one worker process is concerned: the signals that the host sends
//! itself, and the requests that it passes on. What is enabled was decided before.

use forebay_protocol::Fault;
use kameo::message::{Context, Message};
use rustix::process::{Pid, Signal, kill_process};

use super::actor::WorkerProcess;
use crate::error::InjectError;

/// Brings a fault of this worker about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inject(pub(crate) Fault);

impl Message<Inject> for WorkerProcess {
    type Reply = Result<(), InjectError>;

    async fn handle(
        &mut self,
        Inject(fault): Inject,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        tracing::warn!(device = %self.device(), %fault, "a fault is injected");
        let gone = || InjectError::NoWorker { device: self.device().to_string() };
        match fault {
            Fault::Kill | Fault::Stop => {
                let pid = self.living_pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
                let pid = pid.ok_or_else(gone)?;
                let signal = if fault == Fault::Kill { Signal::KILL } else { Signal::STOP };
                kill_process(pid, signal).map_err(|_| gone())
            }
            fault => {
                let lane = self.serving_lane().ok_or_else(gone)?;
                lane.inject(fault).map_err(|_| gone())
            }
        }
    }
}
