//! The CPU rung: ONNX Runtime for the encoder, plain Rust for pooling. The slot is host memory, so
//! the two copy steps have nothing to copy.
//!
//! With `cpu.sessions = 0` there are three sessions: one with all threads for a batch that has the
//! machine to itself, which both encoders share, and one of half the threads for each encoder, for
//! batches that run side by side. All give a row the same bits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_arena::{ClaimedSlot, WorkerArena};
use forebay_model::{GraphSource, ModelFolder, PoolingSpec, pooling};
use forebay_onnx::{EngineOptions, OnnxError, Precision, Session, SubBatchLimits, TokenStates};
use forebay_protocol::{CpuSpec, ErrorClass, WorkerExit, WorkerSpec};

use super::{Engine, EngineInfo, Step, StepError};

/// Token ids of the self-check; every BERT vocabulary has them.
const SELF_CHECK_IDS: [u32; 5] = [1, 2, 3, 2, 1];
/// Batches that run side by side where the number of sessions is left to us.
const SIDE_BY_SIDE: usize = 2;
/// Above so many bytes of weights that number is one: each further session holds them once more.
const WEIGHTS_BYTES_MAX: u64 = 512 << 20;

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
    let layout = Layout::of(&spec.cpu, weights_bytes(&folder).map_err(|error| config(&error))?);
    let options = EngineOptions {
        library: spec.cpu.onnxruntime.clone(),
        precision,
        intra_threads: layout.threads,
        spinning: spec.cpu.spinning,
        sub_batch: SubBatchLimits {
            rows_max: spec.cpu.sub_batch_rows_max as usize,
            tokens_max: spec.cpu.sub_batch_tokens_max as usize,
            ..SubBatchLimits::default()
        },
    };
    let load = |intra_threads, other: Option<&Session>| {
        let options = EngineOptions { intra_threads, ..options.clone() };
        let mut session =
            Session::load_beside(&folder, &options, other).map_err(|error| config(&error))?;
        self_check(&mut session).map_err(|message| config(&message))?;
        Ok::<_, StepError>(session)
    };
    let first = load(layout.threads, None)?;
    let mut own = Vec::with_capacity(layout.encoders);
    let whole = if layout.side_by_side > 1 {
        for _ in 0..layout.encoders {
            own.push(load(layout.threads_of(own.len()), Some(&first))?);
        }
        Some(Arc::new(Mutex::new(first)))
    } else {
        own.push(first);
        for _ in 1..layout.encoders {
            own.push(load(layout.threads_of(own.len()), own.first())?);
        }
        None
    };
    let step = |own| {
        let whole = whole.clone();
        Box::new(Infer { own, whole, beside: false, padded_tokens: None }) as Box<dyn Step<_, _>>
    };
    let infer: Vec<Box<dyn Step<(), TokenStates>>> = own.into_iter().map(step).collect();
    let version =
        forebay_onnx::runtime_version(&options.library).map_err(|error| config(&error))?;
    Ok(Engine {
        info: EngineInfo {
            engine: format!("onnxruntime {version}"),
            device: "cpu".to_owned(),
            precision: spec.precision.clone(),
            width: folder.width() as u32,
            side_by_side: layout.side_by_side as u32,
            details: layout.details(),
        },
        copy_in: Box::new(SlotView),
        infer,
        pool: Box::new(Pool { spec: PoolingSpec { normalize: false, ..*folder.pooling() } }),
        copy_out: Box::new(SlotView),
    })
}

/// Which sessions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// Encoders, each with a session of its own.
    encoders: usize,
    /// Threads of a session that may use all that its encoder has.
    threads: usize,
    /// More than one: the encoders share a session of all threads, and their own have a part of them.
    side_by_side: usize,
}

impl Layout {
    fn of(spec: &CpuSpec, weights_bytes: u64) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sessions = spec.sessions.max(1) as usize;
        let threads = match spec.threads_per_session {
            0 => cores.div_ceil(sessions),
            threads => threads as usize,
        };
        if spec.sessions == 0 && threads >= SIDE_BY_SIDE && weights_bytes <= WEIGHTS_BYTES_MAX {
            Self { encoders: SIDE_BY_SIDE, threads, side_by_side: SIDE_BY_SIDE }
        } else {
            Self { encoders: sessions, threads, side_by_side: 1 }
        }
    }

    /// Threads of this encoder's own session: as equal a part as there can be.
    fn threads_of(&self, encoder: usize) -> usize {
        match self.side_by_side {
            1 => self.threads,
            _ => (self.threads + encoder) / self.encoders,
        }
    }

    fn details(&self) -> BTreeMap<String, String> {
        let Self { encoders, threads, side_by_side } = *self;
        let (sessions, threads) = match side_by_side {
            1 => (encoders.to_string(), threads * encoders),
            _ => (format!("1 of all threads, {encoders} of a part"), threads),
        };
        BTreeMap::from([
            ("sessions".to_owned(), sessions),
            ("threads".to_owned(), threads.to_string()),
        ])
    }
}

/// Bytes of the files that hold the weights.
fn weights_bytes(folder: &ModelFolder) -> Result<u64, String> {
    let files = match folder.graph() {
        GraphSource::Safetensors { files } => files.as_slice(),
        GraphSource::Onnx { file } => std::slice::from_ref(file),
    };
    let bytes = |file: &PathBuf| match std::fs::metadata(file) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) => Err(format!("{}: {error}; put the file back", file.display())),
    };
    files.iter().map(bytes).sum()
}

/// The first run allocates and is slow; it belongs to the start, and its numbers must be sound. One of
/// the largest size would triple the time that three sessions take to start, so what that allocates
/// comes with the first such batch of each.
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
    own: Session,
    /// The session of all threads for a batch that runs alone; `None` if `own` is that.
    whole: Option<Arc<Mutex<Session>>>,
    /// The batch that comes next runs beside others.
    beside: bool,
    padded_tokens: Option<u32>,
}

impl Step<(), TokenStates> for Infer {
    fn run(&mut self, slot: &mut ClaimedSlot, (): ()) -> Result<TokenStates, StepError> {
        let (ids, boundaries) = (slot.ids(), slot.cu_seqlens());
        let states = match &self.whole {
            // The host sends one such batch at a time, and known answers; those wait here. An encoder
            // that panicked ends the process.
            Some(whole) if !self.beside => {
                whole.lock().unwrap_or_else(PoisonError::into_inner).encode(ids, boundaries)
            }
            _ => self.own.encode(ids, boundaries),
        };
        let states = states.map_err(|error| {
            let class = if error.is_input() { ErrorClass::Input } else { ErrorClass::Retry };
            StepError::Batch { class, message: error.to_string() }
        })?;
        self.padded_tokens = u32::try_from(states.padded_tokens()).ok();
        Ok(states)
    }

    fn padded_tokens(&self) -> Option<u32> {
        self.padded_tokens
    }

    fn runs_beside(&mut self, beside: bool) {
        self.beside = beside;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sessions: u32, threads_per_session: u32, weights_bytes: u64) -> Layout {
        let spec = CpuSpec {
            onnxruntime: "/lib".into(),
            sessions,
            threads_per_session,
            spinning: true,
            sub_batch_rows_max: 64,
            sub_batch_tokens_max: 1_024,
        };
        Layout::of(&spec, weights_bytes)
    }

    #[test]
    fn batches_run_side_by_side_where_there_are_threads_and_memory_for_it() {
        let two = Layout { encoders: 2, threads: 4, side_by_side: 2 };
        assert_eq!(layout(0, 4, WEIGHTS_BYTES_MAX), two);
        let one = Layout { encoders: 1, threads: 4, side_by_side: 1 };
        assert_eq!(layout(0, 4, WEIGHTS_BYTES_MAX + 1), one);
        assert_eq!(layout(0, 1, 0), Layout { threads: 1, ..one });
        assert_eq!(layout(1, 4, 0), one);
        assert_eq!(layout(3, 4, 0), Layout { encoders: 3, ..one });
    }

    #[test]
    fn no_thread_is_left_out() {
        for threads in 2..20 {
            let layout = layout(0, threads, 0);
            let parts: Vec<usize> =
                (0..layout.encoders).map(|own| layout.threads_of(own)).collect();
            assert_eq!(parts.iter().sum::<usize>(), threads as usize, "{parts:?}");
            assert!(parts.iter().max() <= parts.iter().map(|part| part + 1).min().as_ref());
        }
        assert_eq!(layout(3, 4, 0).threads_of(2), 4, "each has a session of its own size");
    }
}
