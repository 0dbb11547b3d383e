//! The CUDA rung: one device, found by its ordinal among those that this process sees.
//!
//! The four steps are the four parts of `forebay-cuda`'s pipeline, each with its own stream. The
//! arena is page-locked once, so that the device reads token ids and writes rows where the host has
//! them. Before the host hears that the worker is ready, known answers go through all four parts.

mod black_box;
mod canary;
mod steps;
mod timeline;
mod times;

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_arena::WorkerArena;
use forebay_cuda::edge::{Context, HostPages};
use forebay_cuda::{
    CopyChoice, CudaError, EngineError, EngineErrorClass, EngineOptions, ErrorKind, GemmChoice,
    KernelSource, Pipeline, PipelineInfo, PlanCounts, PrecisionChoice, SlotLayout, open_pipeline,
};
use forebay_model::ModelFolder;
use forebay_protocol::{
    CudaCopies, CudaGemm, CudaKernels, CudaPrecision, CudaSpec, WorkerExit, WorkerSpec,
};

use super::{Engine, EngineInfo, StepError};
use black_box::BlackBox;
use steps::{CopyInStep, CopyOutStep, InferStep, Passed, PoolStep};
use timeline::TimelineFile;

/// What the device has staged, computed and pooled of a batch, on its way through the steps.
pub(crate) type Staged = Passed<forebay_cuda::Staged>;
pub(crate) type States = Passed<forebay_cuda::States>;
pub(crate) type Rows = Passed<forebay_cuda::Rows>;

/// Opens the engine of a `cuda:N` device and puts known answers through it.
///
/// # Errors
/// [`StepError::Fatal`]: [`WorkerExit::Config`] for what a restart cannot cure,
/// [`WorkerExit::DeviceMissing`] and [`WorkerExit::DeviceBusy`] for a device that is not there or
/// has too little free memory now, [`WorkerExit::CanaryMismatch`] for wrong numbers, and the exit of
/// the CUDA failure otherwise.
pub(crate) fn open_cuda_engine(
    spec: &WorkerSpec,
    arena: &WorkerArena,
) -> Result<Engine<Staged, States, Rows>, StepError> {
    let folder = ModelFolder::open_unverified(&spec.model)
        .map_err(|error| fatal(WorkerExit::Config, &error))?;
    let folder = Arc::new(folder);
    // What the model must answer is computed on the CPU while the device gets ready. A device that
    // does not is reported at once; the process ends under the thread then.
    let (of_thread, tokens_max) = (Arc::clone(&folder), arena.layout().spec().tokens_max as usize);
    let known = std::thread::Builder::new()
        .name("fb-canary".to_owned())
        .spawn(move || canary::answers(&of_thread, tokens_max))
        .map_err(|error| fatal(WorkerExit::HostOutOfMemory, &error))?;
    let mut pipeline = open(spec, arena, &folder)?;
    let known = match known.join() {
        Ok(known) => known.map_err(|error| fatal(WorkerExit::Config, &error))?,
        Err(_) => return Err(fatal(WorkerExit::Panic, &"computing the known answers panicked")),
    };
    let checked = canary::run(&mut pipeline, arena, &known)?;
    let timeline = match &spec.cuda.trace {
        Some(path) => Some(
            TimelineFile::create(path, pipeline.copy_out.time_zero())
                .map_err(|error| fatal(WorkerExit::Config, &error))?,
        ),
        None => None,
    };
    let Pipeline { copy_in, infer, pool, copy_out, info } = pipeline;
    let black_box = BlackBox::new(device_of(&info, &spec.device), arena.layout().spec().slots);
    let black_box = Arc::new(black_box);
    Ok(Engine {
        info: describe(&info, &spec.device, &checked),
        copy_in: Box::new(CopyInStep::new(copy_in, Arc::clone(&black_box))),
        infer: vec![Box::new(InferStep::new(infer, Arc::clone(&black_box)))],
        pool: Box::new(PoolStep::new(pool, Arc::clone(&black_box))),
        copy_out: Box::new(CopyOutStep::new(copy_out, timeline, black_box)),
    })
}

/// The device as the record of a fault names it.
fn device_of(info: &PipelineInfo, device: &str) -> String {
    let (name, pci) = (&info.device.name, &info.device.pci);
    let driver = crate::probe::version(info.driver);
    format!("device={device} name={name:?} pci={pci} driver={driver}")
}

/// Opens the pipeline with every product measured and every graph captured.
fn open(
    spec: &WorkerSpec,
    arena: &WorkerArena,
    folder: &ModelFolder,
) -> Result<Pipeline, StepError> {
    let context = open_device(&spec.cuda)?;
    let options = options(&spec.cuda, arena, spec.faults_enabled);
    let pages = page_lock(&context, arena).map_err(|error| start_failed(&error.into()))?;
    let prepare = || {
        let mut pipeline = open_pipeline(&context, folder, &options, pages, slot_layout(arena))?;
        pipeline.infer.prepare_all()?;
        pipeline.info.memory = pipeline.infer.report();
        pipeline.info.plans = pipeline.infer.plan_counts();
        Ok(pipeline)
    };
    prepare().map_err(|error: EngineError| start_failed(&error))
}

/// Opens CUDA's libraries and the device's context.
fn open_device(spec: &CudaSpec) -> Result<Arc<Context>, StepError> {
    let failed = |error: CudaError| start_failed(&error.into());
    forebay_cuda::load(&spec.libraries).map_err(failed)?;
    let devices = forebay_cuda::devices().map_err(failed)?;
    if !devices.iter().any(|device| device.ordinal == spec.ordinal) {
        let detail = match devices.len() {
            0 => {
                "the driver sees no device; check nvidia-smi, and in a container that it is \
                  given one"
            }
            _ => "the driver sees fewer devices; list one that is there",
        };
        let error = CudaError::missing("find the device", detail);
        return Err(fatal(WorkerExit::DeviceMissing, &error));
    }
    Context::open(spec.ordinal).map_err(failed)
}

fn options(spec: &CudaSpec, arena: &WorkerArena, faults: bool) -> EngineOptions {
    let arena = arena.layout().spec();
    EngineOptions {
        // A slot is one device batch; memory may make the engine split it.
        tokens_max: arena.tokens_max.max(forebay_cuda::TOKENS_MAX_MIN),
        rows_max: arena.rows_max,
        slots: arena.slots,
        stage_times: spec.trace.is_some(),
        faults,
        ..cuda_engine_options(spec)
    }
}

/// The options of an engine that uses its device as `spec` says. Sizes of batches are the default.
pub fn cuda_engine_options(spec: &CudaSpec) -> EngineOptions {
    EngineOptions {
        ordinal: spec.ordinal,
        precision: match spec.precision {
            CudaPrecision::Auto => PrecisionChoice::Auto,
            CudaPrecision::F16 => PrecisionChoice::F16,
            CudaPrecision::Bf16 => PrecisionChoice::Bf16,
        },
        memory_bytes_max: (spec.memory_bytes_max > 0).then_some(spec.memory_bytes_max),
        graphs_max: spec.graphs_max,
        copies: match spec.copies {
            CudaCopies::Auto => CopyChoice::Auto,
            CudaCopies::Copy => CopyChoice::Copy,
            CudaCopies::Mapped => CopyChoice::Mapped,
        },
        zero_copy_tokens_max: spec.zero_copy_tokens_max,
        completion_spin_us: spec.completion_spin_us,
        gemm: match spec.gemm {
            CudaGemm::Auto => GemmChoice::Auto,
            CudaGemm::CublasLt => GemmChoice::CublasLt,
            CudaGemm::Native => GemmChoice::Native,
        },
        kernels: match spec.kernels {
            CudaKernels::Auto => KernelSource::Auto,
            CudaKernels::Nvrtc => KernelSource::Nvrtc,
            CudaKernels::Ptx => KernelSource::Ptx,
        },
        libraries: spec.libraries.clone(),
        cache_dir: spec.cache_dir.clone(),
        ..EngineOptions::default()
    }
}

fn page_lock(context: &Arc<Context>, arena: &WorkerArena) -> Result<HostPages, CudaError> {
    // SAFETY: the arena stays mapped for the life of the process, which keeps a handle to it for
    // ever and ends by `_exit` without unmapping. The slots' protocol gives each slot one owner at a
    // time; the steps take a reference to a slot's output only when the device has finished with
    // it, and nobody writes a slot's input while the worker has the slot.
    unsafe { HostPages::register(context, arena.base(), arena.layout().bytes()) }
}

fn slot_layout(arena: &WorkerArena) -> SlotLayout {
    let layout = arena.layout();
    let spec = layout.spec();
    SlotLayout {
        slots: spec.slots,
        slot_bytes: layout.slot_bytes(),
        ids_offset: layout.ids_offset(),
        output_offset: layout.output_offset(),
        tokens_max: spec.tokens_max,
        rows_max: spec.rows_max,
        row_values: spec.row_values,
    }
}

fn describe(info: &PipelineInfo, device: &str, canary: &str) -> EngineInfo {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let (major, minor) = info.device.capability;
    let memory = &info.memory;
    let details = [
        ("gpu", format!("{}, capability {major}.{minor}", info.device.name)),
        ("kernels", info.kernels.clone()),
        ("products", info.products.to_owned()),
        ("precision_reason", info.precision_reason.clone()),
        ("tokens_max", memory.tokens_max.to_string()),
        ("memory_weights", mib(memory.weights_bytes)),
        ("memory_activations", mib(memory.activations_bytes)),
        ("memory_slots", mib(memory.slots_bytes)),
        ("memory_gemm_workspace", mib(memory.gemm_workspace_bytes)),
        ("memory_graphs", format!("{} in {} graphs", mib(memory.graphs_bytes), memory.graphs)),
        ("memory_total", format!("{} of {}", mib(memory.total_bytes), mib(memory.limit_bytes))),
        ("canary", canary.to_owned()),
    ];
    EngineInfo {
        engine: format!("cuda {}", info.products),
        device: device.to_owned(),
        precision: info.precision.to_string(),
        width: info.width,
        side_by_side: 1,
        details: details
            .into_iter()
            .chain(info.plans.map(|plans| ("product_plans", plans_text(plans))))
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn plans_text(plans: PlanCounts) -> String {
    let PlanCounts { tuned, restored, stale, load_failures, save_failures } = plans;
    format!(
        "{restored} from the cache, {tuned} measured of which {stale} were out of date; failures to \
         read the cache {load_failures}, to write it {save_failures}"
    )
}

/// The exit that tells the host what kind of end an engine's failure is; `None` if the process can
/// go on.
fn exit_of(error: &EngineError) -> Option<WorkerExit> {
    // Wrong numbers, found by the engine's own probe before the canary's turn.
    if matches!(error, EngineError::SelfCheck(_)) {
        return Some(WorkerExit::CanaryMismatch);
    }
    match error.class() {
        EngineErrorClass::Sticky => Some(WorkerExit::StickyCuda),
        EngineErrorClass::DeviceLost => Some(WorkerExit::DeviceLost),
        EngineErrorClass::Config => Some(WorkerExit::Config),
        EngineErrorClass::Input
        | EngineErrorClass::Retry
        | EngineErrorClass::OutOfMemory
        | EngineErrorClass::NonFinite
        | EngineErrorClass::Internal => None,
    }
}

/// CUDA's codes for "no device" and "no such device". At the start they do not mean that one was
/// lost.
const NO_DEVICE: [u32; 2] = [100, 101];

/// A failure before the worker serves. What might pass by itself is worth another start.
fn start_failed(error: &EngineError) -> StepError {
    fatal(start_exit(error), error)
}

fn start_exit(error: &EngineError) -> WorkerExit {
    match error {
        EngineError::Cuda(CudaError { kind: ErrorKind::Missing, code, .. })
            if NO_DEVICE.contains(code) =>
        {
            return WorkerExit::DeviceMissing;
        }
        _ => {}
    }
    match error.class() {
        EngineErrorClass::Retry => WorkerExit::StickyCuda,
        EngineErrorClass::OutOfMemory => WorkerExit::DeviceBusy,
        _ => exit_of(error).unwrap_or(WorkerExit::Config),
    }
}

fn fatal(exit: WorkerExit, error: &dyn std::fmt::Display) -> StepError {
    StepError::Fatal { exit, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_are_never_called_a_matter_of_configuration() {
        let wrong = EngineError::SelfCheck("row 0 has length 2".to_owned());
        assert_eq!(exit_of(&wrong), Some(WorkerExit::CanaryMismatch));
        let stuck = EngineError::Stuck { what: "a batch", seconds: 1 };
        assert_eq!(exit_of(&stuck), Some(WorkerExit::StickyCuda));
        assert_eq!(exit_of(&EngineError::NonFinite { row: 0, norm: f32::NAN }), None);
    }

    #[test]
    fn a_start_is_given_up_only_for_what_does_not_pass() {
        let memory =
            |by_limit| EngineError::Memory { needed: 2, available: 1, tokens_max: 512, by_limit };
        assert_eq!(start_exit(&memory(true)), WorkerExit::Config);
        assert_eq!(start_exit(&memory(false)), WorkerExit::DeviceBusy);
        let cuda = |code, kind| {
            let name = String::new();
            EngineError::Cuda(CudaError { call: "call", code, name, detail: String::new(), kind })
        };
        assert_eq!(start_exit(&cuda(2, ErrorKind::OutOfMemory)), WorkerExit::DeviceBusy);
        assert_eq!(start_exit(&cuda(100, ErrorKind::Missing)), WorkerExit::DeviceMissing);
        assert_eq!(start_exit(&cuda(101, ErrorKind::Missing)), WorkerExit::DeviceMissing);
        // A library, or a driver that is too old.
        assert_eq!(start_exit(&cuda(0, ErrorKind::Missing)), WorkerExit::Config);
        assert_eq!(start_exit(&cuda(803, ErrorKind::Missing)), WorkerExit::Config);
        assert_eq!(start_exit(&cuda(46, ErrorKind::DeviceLost)), WorkerExit::DeviceLost);
        assert_eq!(start_exit(&cuda(700, ErrorKind::Sticky)), WorkerExit::StickyCuda);
        assert_eq!(start_exit(&cuda(3, ErrorKind::Retry)), WorkerExit::StickyCuda);
    }
}
