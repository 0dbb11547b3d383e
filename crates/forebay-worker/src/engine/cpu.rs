//! The CPU rung: ONNX Runtime for the encoder, plain Rust for pooling. The slot is host memory, so
//! the two copy steps have nothing to copy.

use std::collections::BTreeMap;

use forebay_arena::{ClaimedSlot, WorkerArena};
use forebay_model::{ModelFolder, PoolingSpec, pooling};
use forebay_onnx::{EngineOptions, OnnxError, Precision, Session, SubBatchLimits, TokenStates};
use forebay_protocol::{ErrorClass, WorkerExit, WorkerSpec};

use super::{Engine, EngineInfo, Step, StepError};

/// Token ids of the self-check; every BERT vocabulary has them.
const SELF_CHECK_IDS: [u32; 5] = [1, 2, 3, 2, 1];

/// Opens the engine of the `cpu` device and runs one batch through it.
///
/// # Errors
/// [`StepError::Fatal`] with [`WorkerExit::Config`] for whatever a restart cannot cure.
pub fn open_cpu_engine(
    spec: &WorkerSpec,
    _: &WorkerArena,
) -> Result<Engine<(), TokenStates, ()>, StepError> {
    let config = |error: &dyn std::fmt::Display| StepError::Fatal {
        exit: WorkerExit::Config,
        message: error.to_string(),
    };
    let folder = ModelFolder::open_unverified(&spec.model).map_err(|error| config(&error))?;
    let precision: Precision = spec.precision.parse().map_err(|error: OnnxError| config(&error))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sessions = spec.cpu.sessions.max(1) as usize;
    let intra_threads = match spec.cpu.threads_per_session {
        0 => cores.div_ceil(sessions),
        threads => threads as usize,
    };
    let options = EngineOptions {
        library: spec.cpu.onnxruntime.clone(),
        precision,
        intra_threads,
        spinning: spec.cpu.spinning,
        sub_batch: SubBatchLimits {
            rows_max: spec.cpu.sub_batch_rows_max as usize,
            tokens_max: spec.cpu.sub_batch_tokens_max as usize,
            ..SubBatchLimits::default()
        },
    };
    let mut loaded: Vec<Session> = Vec::with_capacity(sessions);
    for _ in 0..sessions {
        let mut session = Session::load_beside(&folder, &options, loaded.first())
            .map_err(|error| config(&error))?;
        self_check(&mut session).map_err(|message| config(&message))?;
        loaded.push(session);
    }
    let step = |session| Box::new(Infer { session, padded_tokens: None }) as Box<dyn Step<_, _>>;
    let infer: Vec<Box<dyn Step<(), TokenStates>>> = loaded.into_iter().map(step).collect();
    let version =
        forebay_onnx::runtime_version(&options.library).map_err(|error| config(&error))?;
    Ok(Engine {
        info: EngineInfo {
            engine: format!("onnxruntime {version}"),
            device: "cpu".to_owned(),
            precision: spec.precision.clone(),
            width: folder.width() as u32,
            details: BTreeMap::from([
                ("sessions".to_owned(), sessions.to_string()),
                ("threads".to_owned(), (sessions * intra_threads).to_string()),
            ]),
        },
        copy_in: Box::new(SlotView),
        infer,
        pool: Box::new(Pool { spec: PoolingSpec { normalize: false, ..*folder.pooling() } }),
        copy_out: Box::new(SlotView),
    })
}

/// The first run allocates and is slow; it belongs to the start, and its numbers must be sound.
fn self_check(session: &mut Session) -> Result<(), String> {
    let boundaries = [0, 2, SELF_CHECK_IDS.len() as u32];
    let states = session.encode(&SELF_CHECK_IDS, &boundaries).map_err(|error| error.to_string())?;
    if states.row(0).iter().chain(states.row(1)).all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err("self-check of the encoder gave a number that is not finite; the weights or the \
             library are broken"
            .to_owned())
    }
}

struct SlotView;

impl Step<(), ()> for SlotView {
    fn run(&mut self, _: &mut ClaimedSlot, (): ()) -> Result<(), StepError> {
        Ok(())
    }
}

struct Infer {
    session: Session,
    padded_tokens: Option<u32>,
}

impl Step<(), TokenStates> for Infer {
    fn run(&mut self, slot: &mut ClaimedSlot, (): ()) -> Result<TokenStates, StepError> {
        let states = self.session.encode(slot.ids(), slot.cu_seqlens()).map_err(|error| {
            let class = if error.is_input() { ErrorClass::Input } else { ErrorClass::Retry };
            StepError::Batch { class, message: error.to_string() }
        })?;
        self.padded_tokens = u32::try_from(states.padded_tokens()).ok();
        Ok(states)
    }

    fn padded_tokens(&self) -> Option<u32> {
        self.padded_tokens
    }
}

struct Pool {
    spec: PoolingSpec,
}

impl Step<TokenStates, ()> for Pool {
    fn run(&mut self, slot: &mut ClaimedSlot, states: TokenStates) -> Result<(), StepError> {
        let width = states.width();
        let rows = slot.output_mut().chunks_exact_mut(width + 1);
        for (index, output) in rows.enumerate() {
            let (row, length) = output.split_at_mut(width);
            pooling::pool_rows(&self.spec, states.row(index), width, row).map_err(|error| {
                StepError::Batch {
                    class: ErrorClass::NonFinite,
                    message: format!("row {index}: {error}"),
                }
            })?;
            length[0] = pooling::normalize(row);
        }
        Ok(())
    }
}
