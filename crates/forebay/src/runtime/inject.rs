//! Faults on request: the part of the runtime's interface that tests, drills and soak runs use.

use forebay_protocol::Fault;
use kameo::error::SendError;

use super::Runtime;
use crate::config::Device;
use crate::error::InjectError;
use crate::supervisor::Inject;
use crate::worker_process::inject::Inject as InjectInto;

impl Runtime {
    /// Brings `fault` about, on `device` if it is a fault of a device. Returns when it has been
    /// asked for, which is before it shows: a worker brings it about with its next batch.
    ///
    /// # Errors
    /// [`InjectError`]; nothing happens then.
    pub async fn inject(&self, device: Option<Device>, fault: Fault) -> Result<(), InjectError> {
        if !self.config.faults.enabled {
            return Err(InjectError::NotEnabled { fault });
        }
        let asked = self.supervisor.ask(Inject { device, fault }).send().await;
        let worker = asked.map_err(|error| refusal(error, InjectError::Ending))?;
        let (Some(worker), Some(device)) = (worker, device) else { return Ok(()) };
        let gone = InjectError::NoWorker { device: device.to_string() };
        let asked = worker.ask(InjectInto(fault)).send().await;
        asked.map_err(|error| refusal(error, gone))
    }
}

/// What the actor said, or `otherwise` if it is not there.
fn refusal<M>(error: SendError<M, InjectError>, otherwise: InjectError) -> InjectError {
    match error {
        SendError::HandlerError(refused) => refused,
        _ => otherwise,
    }
}
