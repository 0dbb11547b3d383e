//! From the configuration and the model folder to how each rung is launched.

use std::path::Path;
use std::sync::Arc;

use forebay_model::ModelFolder;
use forebay_protocol::{ArenaSpec, CpuSpec, WaitSpec, WorkerSpec};

use crate::config::{Config, Device, Fallback, Rungs};
use crate::error::StartError;
use crate::worker_process::locate;
use crate::worker_process::spawn::LaunchSpec;

/// The rungs of a ladder, best first.
pub(super) struct Plan {
    pub(super) devices: Vec<Device>,
    pub(super) rungs: Vec<Arc<LaunchSpec>>,
}

/// Which rungs there are and how each is launched.
///
/// # Errors
/// [`StartError`] for a device without an engine, a missing program or library, or a slot too
/// small for the longest text.
pub(super) fn plan(config: &Config, folder: &ModelFolder) -> Result<Plan, StartError> {
    let devices = devices(config)?;
    let program = locate::worker_program(config)?;
    let library = locate::onnxruntime_library(config, &program)?;
    let arena = ArenaSpec {
        slots: config.worker.slots,
        // A slot holds at least the longest text that the model takes.
        tokens_max: config.batch.tokens_max.max(folder.tokens_max() as u32),
        rows_max: config.batch.rows_max,
        row_values: ArenaSpec::row_values_of(folder.width() as u32),
    };
    let wait = match config.lanes.spin().as_micros() {
        0 => WaitSpec::Park,
        spin_us => WaitSpec::SpinThenPark { spin_us: u64::try_from(spin_us).unwrap_or(u64::MAX) },
    };
    let rung = |device: &Device| {
        Ok(Arc::new(LaunchSpec {
            program: program.clone(),
            worker: WorkerSpec {
                device: device.to_string(),
                model: absolute(folder.path())?,
                precision: config.model.precision.to_string(),
                cpu: CpuSpec {
                    onnxruntime: absolute(&library)?,
                    sessions: config.cpu.sessions,
                    threads_per_session: config.cpu.threads_per_session,
                    spinning: config.cpu.spinning,
                    sub_batch_rows_max: config.cpu.sub_batch_rows_max,
                    sub_batch_tokens_max: config.cpu.sub_batch_tokens_max,
                },
                wait,
            },
            arena,
            config: config.worker.clone(),
        }))
    };
    let rungs = devices.iter().map(rung).collect::<Result<_, StartError>>()?;
    Ok(Plan { devices, rungs })
}

/// The configured rungs without repetition, the fallback last.
fn devices(config: &Config) -> Result<Vec<Device>, StartError> {
    let mut devices = match &config.devices.rungs {
        // Only the CPU has an engine in this build.
        Rungs::Auto => vec![Device::Cpu],
        Rungs::Listed(listed) => listed.clone(),
    };
    if config.devices.fallback == Fallback::Cpu && !devices.contains(&Device::Cpu) {
        devices.push(Device::Cpu);
    }
    match devices.iter().find(|device| **device != Device::Cpu) {
        Some(device) => Err(StartError::NoEngine { device: device.to_string() }),
        None => Ok(devices),
    }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, StartError> {
    let path = std::path::absolute(path)
        .map_err(|source| StartError::Os { what: "find the current directory", source })?;
    // The handshake carries paths as text.
    if path.to_str().is_none() {
        return Err(StartError::Path { path });
    }
    Ok(path)
}
