//! From the configuration and the model folder to how each rung is launched.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_model::{ModelFolder, TextTokenizer};
use forebay_protocol::{
    self as protocol, ArenaSpec, CpuSpec, CudaDevice, CudaSpec, WaitSpec, WorkerSpec,
};

use crate::canary::Canary;
use crate::config::{
    CachePlace, Config, CudaCopies, CudaGemm, CudaKernels, CudaPrecision, Device, Fallback, Rungs,
    WorkerConfig,
};
use crate::error::StartError;
use crate::worker_process::locate::{self, absolute};
use crate::worker_process::probe::probe;
use crate::worker_process::spawn::LaunchSpec;
use crate::worker_process::visible::Visibility;

/// The rungs of a ladder, best first.
pub(super) struct Plan {
    pub(super) devices: Vec<Device>,
    pub(super) rungs: Vec<Arc<LaunchSpec>>,
    /// What CUDA said of the devices, if it was asked.
    pub(super) probed: Vec<CudaDevice>,
    /// Tokens and rows of the largest batch that any rung takes; each slot has its own limits.
    pub(super) batch_max: (u32, u32),
}

/// The rungs without repetition, the fallback last. Looks for devices if the configuration leaves
/// that open; what cannot be looked at is not there.
pub(super) async fn devices(config: &Config) -> (Vec<Device>, Vec<CudaDevice>) {
    let (mut devices, probed) = match &config.devices.rungs {
        Rungs::Auto => found(config).await,
        Rungs::Listed(listed) => (listed.clone(), Vec::new()),
    };
    if config.devices.fallback == Fallback::Cpu && !devices.contains(&Device::Cpu) {
        devices.push(Device::Cpu);
    }
    (devices, probed)
}

/// Every GPU, or the CPU if there is none.
async fn found(config: &Config) -> (Vec<Device>, Vec<CudaDevice>) {
    let probed = match probe(config).await {
        Ok(report) => {
            let problem = report.problem.as_deref().unwrap_or("none");
            tracing::info!(gpus = report.devices.len(), problem, "looked for devices");
            report.devices
        }
        Err(error) => {
            tracing::warn!("no GPU is used: {error}");
            Vec::new()
        }
    };
    let gpus = probed.iter().map(|device| device.ordinal);
    let gpus = gpus.filter(|index| *index <= Device::CUDA_INDEX_MAX);
    let gpus: Vec<Device> = gpus.map(Device::Cuda).collect();
    (if gpus.is_empty() { vec![Device::Cpu] } else { gpus }, probed)
}

/// How each rung is launched.
///
/// # Errors
/// [`StartError`] for a missing program or library, or a GPU that must not be used.
pub(super) fn plan(
    config: &Config,
    folder: &ModelFolder,
    tokenizer: &TextTokenizer,
    (devices, probed): (Vec<Device>, Vec<CudaDevice>),
) -> Result<Plan, StartError> {
    let program = locate::worker_program(config)?;
    let onnxruntime = match devices.contains(&Device::Cpu) {
        true => absolute(&locate::onnxruntime_library(config, &program)?)?,
        false => PathBuf::new(),
    };
    let base = WorkerSpec {
        device: String::new(),
        model: absolute(folder.path())?,
        precision: config.model.precision.to_string(),
        cpu: CpuSpec {
            onnxruntime,
            sessions: config.cpu.sessions,
            threads_per_session: config.cpu.threads_per_session,
            spinning: config.cpu.spinning,
            sub_batch_rows_max: config.cpu.sub_batch_rows_max,
            sub_batch_tokens_max: config.cpu.sub_batch_tokens_max,
        },
        cuda: spec_if(config, devices.iter().any(|device| matches!(device, Device::Cuda(_))))?,
        wait: match config.lanes.spin().as_micros() {
            0 => WaitSpec::Park,
            spin_us => {
                WaitSpec::SpinThenPark { spin_us: u64::try_from(spin_us).unwrap_or(u64::MAX) }
            }
        },
        faults_enabled: config.faults.enabled,
        fail_start: false,
    };
    let canary = Canary::new(tokenizer, folder.tokens_max(), config.canary.cosine_min);
    let canary =
        Arc::new(canary.map_err(|error| StartError::Canary { reason: error.to_string() })?);
    let visibility = Visibility::of_this_process();
    let gpus = devices.iter().filter(|device| matches!(device, Device::Cuda(_))).count();
    let rung = |device: &Device| {
        let mut worker = WorkerSpec { device: device.to_string(), ..base.clone() };
        let mut environment = Vec::new();
        if let Device::Cuda(index) = device {
            environment = visibility.only(*index).map_err(|reason| StartError::DeviceHidden {
                device: device.to_string(),
                reason,
            })?;
            if gpus > 1 {
                worker.cuda.trace = worker.cuda.trace.map(|path| with_index(&path, *index));
            }
        }
        let (tokens_max, rows_max) = batch_max(config, *device);
        Ok(Arc::new(LaunchSpec {
            program: program.clone(),
            device: *device,
            worker,
            environment,
            arena: ArenaSpec {
                slots: config.worker.slots,
                // A slot holds at least the longest text that the model takes.
                tokens_max: tokens_max.max(folder.tokens_max() as u32),
                rows_max,
                row_values: ArenaSpec::row_values_of(folder.width() as u32),
            },
            config: timing(config, *device),
            canary: Arc::clone(&canary),
        }))
    };
    let rungs = devices.iter().map(rung).collect::<Result<_, StartError>>()?;
    let largest = devices.iter().map(|device| batch_max(config, *device));
    let batch_max = largest.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
    Ok(Plan { devices, rungs, probed, batch_max: batch_max.unwrap_or((1, 1)) })
}

/// The times that a worker of this device has.
fn timing(config: &Config, device: Device) -> WorkerConfig {
    let worker = config.worker.clone();
    match device {
        Device::Cpu => worker,
        Device::Cuda(_) => WorkerConfig {
            batch_deadline_ms: config.cuda.batch_deadline_ms,
            batch_deadline_ms_per_1k_tokens: config.cuda.batch_deadline_ms_per_1k_tokens,
            ..worker
        },
    }
}

/// Tokens and rows of the largest batch for this device.
fn batch_max(config: &Config, device: Device) -> (u32, u32) {
    match device {
        Device::Cpu => (config.batch.tokens_max, config.batch.rows_max),
        Device::Cuda(_) => (config.cuda.tokens_max, config.cuda.rows_max),
    }
}

/// How a CUDA engine is to use its device by this configuration, as a worker would be told; the
/// first device.
///
/// # Errors
/// [`StartError`] for a path that another process could not be given.
pub fn cuda_spec(config: &Config) -> Result<CudaSpec, StartError> {
    spec_if(config, true)
}

/// What `used` changes: the folder for compiled kernels is looked for only if a GPU is used.
fn spec_if(config: &Config, used: bool) -> Result<CudaSpec, StartError> {
    let cuda = &config.cuda;
    let cache_dir = match &cuda.cache {
        _ if !used => None,
        CachePlace::None => None,
        CachePlace::At(path) => Some(absolute(path)?),
        CachePlace::Auto => {
            let place = users_cache(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"));
            if place.is_none() {
                tracing::warn!(
                    "compiled kernels are not kept: neither XDG_CACHE_HOME nor HOME names a \
                     folder; set cuda.cache"
                );
            }
            place
        }
    };
    Ok(CudaSpec {
        // A worker sees its own device and no other.
        ordinal: 0,
        precision: match cuda.precision {
            CudaPrecision::Auto => protocol::CudaPrecision::Auto,
            CudaPrecision::F16 => protocol::CudaPrecision::F16,
            CudaPrecision::Bf16 => protocol::CudaPrecision::Bf16,
        },
        memory_bytes_max: cuda.memory_bytes_max,
        graphs_max: cuda.graphs_max,
        zero_copy_tokens_max: cuda.zero_copy_tokens_max,
        completion_spin_us: cuda.spin_us,
        gemm: match cuda.gemm {
            CudaGemm::Auto => protocol::CudaGemm::Auto,
            CudaGemm::CublasLt => protocol::CudaGemm::CublasLt,
            CudaGemm::Native => protocol::CudaGemm::Native,
        },
        kernels: match cuda.kernels {
            CudaKernels::Auto => protocol::CudaKernels::Auto,
            CudaKernels::Nvrtc => protocol::CudaKernels::Nvrtc,
            CudaKernels::Ptx => protocol::CudaKernels::Ptx,
        },
        copies: match cuda.copies {
            CudaCopies::Auto => protocol::CudaCopies::Auto,
            CudaCopies::Copy => protocol::CudaCopies::Copy,
            CudaCopies::Mapped => protocol::CudaCopies::Mapped,
        },
        libraries: locate::cuda_libraries(config)?,
        cache_dir,
        trace: cuda.trace.as_deref().map(absolute).transpose()?,
    })
}

/// `forebay` in the user's cache folder, by the rules of the XDG base directories: a relative
/// `XDG_CACHE_HOME` does not count. A path that cannot be passed on does not, either.
fn users_cache(
    xdg: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    let usable = |path: &PathBuf| path.is_absolute() && path.to_str().is_some();
    let xdg = xdg.map(PathBuf::from).filter(usable);
    let cache = xdg.or_else(|| Some(PathBuf::from(home?).join(".cache")).filter(usable))?;
    Some(cache.join("forebay"))
}

/// `trace.json` as `trace-cuda1.json`: one file for each GPU.
fn with_index(path: &Path, index: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let end = path.extension().map(|end| format!(".{}", end.to_string_lossy()));
    let end = end.unwrap_or_default();
    path.with_file_name(format!("{stem}-cuda{index}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_xdg() {
        let cache = |xdg: Option<&str>, home: Option<&str>| {
            users_cache(xdg.map(Into::into), home.map(Into::into))
        };
        assert_eq!(cache(Some("/x"), Some("/h")), Some("/x/forebay".into()));
        assert_eq!(cache(Some("x"), Some("/h")), Some("/h/.cache/forebay".into()));
        assert_eq!(cache(Some(""), Some("/h")), Some("/h/.cache/forebay".into()));
        assert_eq!(cache(None, Some("")), None);
        assert_eq!(cache(None, None), None);
    }

    #[test]
    fn each_gpu_has_a_timeline_of_its_own() {
        assert_eq!(with_index(Path::new("/t/a.b.json"), 1), Path::new("/t/a.b-cuda1.json"));
        assert_eq!(with_index(Path::new("/t/trace"), 0), Path::new("/t/trace-cuda0"));
    }

    #[test]
    fn listed_devices_are_taken_as_they_are_and_the_fallback_comes_last() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let rungs = |listed: &str, fallback| {
            let mut config = Config::default();
            config.devices.rungs = listed.parse().expect("devices");
            config.devices.fallback = fallback;
            // Nothing is looked for: there is no program to ask.
            config.worker.program = Some("/nowhere".into());
            let (devices, _) = runtime.block_on(devices(&config));
            devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!(rungs("cuda:1,cuda:0", Fallback::Cpu), "cuda:1,cuda:0,cpu");
        assert_eq!(rungs("cuda:0", Fallback::None), "cuda:0");
        assert_eq!(rungs("cpu,cuda:0", Fallback::Cpu), "cpu,cuda:0");
        assert_eq!(rungs("auto", Fallback::None), "cpu", "what cannot be looked at is not there");
    }
}
