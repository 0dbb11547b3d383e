//! Faults on request: which rung is meant, and who brings the fault about. The runtime has refused
//! what is not enabled before it asks here.

use std::fmt;
use std::sync::Arc;

use forebay_protocol::Fault;
use kameo::actor::ActorRef;
use kameo::message::{Context, Message};

use super::Supervisor;
use crate::config::Device;
use crate::error::InjectError;
use crate::worker_process::actor::WorkerProcess;
use crate::worker_process::spawn::LaunchSpec;

/// Brings a fault about that is neither a worker's nor the supervisor's own; must not block.
#[derive(Clone)]
pub(crate) struct FaultHook(pub(crate) Arc<dyn Fn(Fault) + Send + Sync>);

impl fmt::Debug for FaultHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultHook")
    }
}

/// Where faults of parts beside the workers go; `None` where there is no such part.
#[derive(Debug, Clone, Default)]
pub(crate) struct FaultHooks {
    /// [`Fault::MonitorHang`] and [`Fault::MonitorLies`].
    pub(crate) monitor: Option<FaultHook>,
    /// [`Fault::LogDiskFull`].
    pub(crate) event_log: Option<FaultHook>,
}

/// Starts of one rung that are to fail.
#[derive(Debug, Default)]
pub(crate) struct FailStarts(u32);

impl FailStarts {
    /// How the next start is launched.
    pub(crate) fn next(&mut self, launch: &Arc<LaunchSpec>) -> Arc<LaunchSpec> {
        if self.0 == 0 {
            return Arc::clone(launch);
        }
        self.0 -= 1;
        let mut failing = LaunchSpec::clone(launch);
        failing.worker.fail_start = true;
        Arc::new(failing)
    }
}

/// Brings a fault about, on `device` if it is one of a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inject {
    pub(crate) device: Option<Device>,
    pub(crate) fault: Fault,
}

impl Message<Inject> for Supervisor {
    /// The worker that is to bring it about, where that is not done here: who asks goes on to it, so
    /// that this actor waits for no other.
    type Reply = Result<Option<ActorRef<WorkerProcess>>, InjectError>;

    async fn handle(
        &mut self,
        Inject { device, fault }: Inject,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        if fault.is_of_device() {
            return self.worker_for(device, fault);
        }
        let hooks = &self.args.fault_hooks;
        let hook =
            if matches!(fault, Fault::LogDiskFull(_)) { &hooks.event_log } else { &hooks.monitor };
        let FaultHook(hook) = hook.as_ref().ok_or(InjectError::NoSuchPart { fault })?;
        tracing::warn!(%fault, "a fault is injected");
        self.chronicle.fault_injected(None, &fault.to_string());
        hook(fault);
        Ok(None)
    }
}

impl Supervisor {
    fn worker_for(
        &mut self,
        device: Option<Device>,
        fault: Fault,
    ) -> Result<Option<ActorRef<WorkerProcess>>, InjectError> {
        let device = device.ok_or(InjectError::NoDevice { fault })?;
        let slot = self.rungs.iter().position(|rung| rung.launch.device == device);
        let rung = slot.and_then(|slot| Some((slot, self.rungs.get_mut(slot)?)));
        let (slot, rung) =
            rung.ok_or_else(|| InjectError::UnknownDevice { device: device.to_string() })?;
        if let Fault::FailStarts(starts) = fault {
            tracing::warn!(%device, %fault, "a fault is injected");
            rung.fail_starts = FailStarts(starts);
            self.chronicle.fault_injected(Some(slot), &fault.to_string());
            return Ok(None);
        }
        let gone = || InjectError::NoWorker { device: device.to_string() };
        let worker = rung.worker.as_ref().map(|worker| worker.actor.clone()).ok_or_else(gone)?;
        self.chronicle.fault_injected(Some(slot), &fault.to_string());
        Ok(Some(worker))
    }
}
