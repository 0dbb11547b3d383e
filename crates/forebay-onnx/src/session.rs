//! One loaded encoder and the way a batch goes through it.
//!
//! A session checks the batch, cuts it, fills the input buffers of each run and copies the states
//! back into the caller's order. Buffers are kept between calls. It holds no queue and no thread.

use std::sync::Arc;

use forebay_model::{EncoderConfig, EncoderWeights, GraphSource, ModelFolder};
use ort::inputs;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session as OrtSession, SessionOutputs};
use ort::value::TensorRef;

use crate::encoder;
use crate::error::OnnxError;
use crate::exported::{self, Interface};
use crate::operators;
use crate::options::{EngineOptions, Precision, SubBatchLimits};
use crate::plan::{self, Block, SubBatch};
use crate::runtime;
use crate::states::TokenStates;
use crate::tables::Tables;

/// How long an idle thread of a spinning pool looks for work, in microseconds. It bridges the gap
/// between two layers of a run and between two requests of a busy caller. Left at the library's
/// own, longer default, the spinning thread holds a core that the stages around the encoder need
/// to wake up on, and the slowest of the single requests take twice as long.
const SPIN_US: &str = "200";

/// An encoder ready to run. Several may be loaded and used from different threads; each has its own
/// copy of the weights, but for the embedding tables if they are loaded [beside](Self::load_beside)
/// one another.
#[derive(Debug)]
pub struct Session {
    session: OrtSession,
    layout: Layout,
    config: EncoderConfig,
    limits: SubBatchLimits,
    buffers: Buffers,
}

#[derive(Debug)]
enum Layout {
    /// Our own graph over packed tokens.
    Packed(Arc<Tables>),
    /// An exported graph over padded rows.
    Padded(Interface),
}

/// Inputs of one run; `wide` is what exported graphs take.
#[derive(Debug, Default)]
struct Buffers {
    embeddings: Vec<f32>,
    slots: Vec<i32>,
    returns: Vec<i32>,
    mask: Vec<f32>,
    wide_ids: Vec<i64>,
    wide_mask: Vec<i64>,
    wide_types: Vec<i64>,
}

impl Session {
    /// Loads the encoder of `folder`.
    ///
    /// # Errors
    /// The library's, the options' or the weights' error, or what ONNX Runtime said while it
    /// compiled the graph.
    pub fn load(folder: &ModelFolder, options: &EngineOptions) -> Result<Self, OnnxError> {
        Self::load_beside(folder, options, None)
    }

    /// The same, with the embedding tables of `other`, a session of the same folder.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_beside(
        folder: &ModelFolder,
        options: &EngineOptions,
        other: Option<&Self>,
    ) -> Result<Self, OnnxError> {
        options.check()?;
        let builder = builder(options)?;
        let config = folder.encoder().clone();
        let mut limits = options.sub_batch;
        let (session, layout) = match folder.graph() {
            GraphSource::Safetensors { .. } => {
                let weights = folder.weights()?;
                let weights = EncoderWeights::from(&weights, &config)?;
                let (precision, blocks) = (options.precision, limits.widths_max);
                let session = encoder::build(&config, &weights, precision, blocks, &builder)?;
                let tables = match other {
                    Some(Self { layout: Layout::Packed(tables), .. }) => Arc::clone(tables),
                    _ => Arc::new(Tables::read(&config, &weights)?),
                };
                (session, Layout::Packed(tables))
            }
            GraphSource::Onnx { file } if options.precision != Precision::F32 => {
                return Err(OnnxError::ExportedPrecision { path: file.clone() });
            }
            GraphSource::Onnx { file } => {
                let (session, interface) = exported::load(file, &config, builder)?;
                limits.widths_max = 1;
                (session, Layout::Padded(interface))
            }
        };
        tracing::debug!(
            model = folder.name(),
            precision = %options.precision,
            intra_threads = options.intra_threads,
            packed = matches!(layout, Layout::Packed(_)),
            "encoder loaded"
        );
        Ok(Self { session, layout, config, limits, buffers: Buffers::default() })
    }

    /// Computes the states of all tokens.
    ///
    /// `ids` holds the tokens of all rows one after another and `cu_seqlens` where each row starts,
    /// with the number of ids at its end: `rows + 1` values. No row is dropped or reordered.
    ///
    /// The width of a row's attention block depends on its own length only, and every other step
    /// works on one token at a time, so a row's states do not depend on its neighbours. They are
    /// the same bits alone and in company wherever ONNX Runtime's matrix product computes an
    /// element the same way for every number of rows; its own kernels do, and the tests check it on
    /// the machine they run on. An exported graph makes no such promise.
    ///
    /// # Errors
    /// An error of the input (see [`OnnxError::is_input`]) before anything is computed, or what
    /// ONNX Runtime said while it ran.
    pub fn encode(&mut self, ids: &[u32], cu_seqlens: &[u32]) -> Result<TokenStates, OnnxError> {
        let lengths = self.check(ids, cu_seqlens)?;
        let plan = plan::cut(&lengths, &self.limits, self.config.position_limit());
        let mut states = TokenStates::zeros(cu_seqlens, self.config.hidden);
        states.set_cost(plan.iter().map(SubBatch::padded_tokens).sum(), plan.len());
        // Each row is in one run, which takes its place.
        let mut places: Vec<Option<&mut [f32]>> = states.rows_mut().into_iter().map(Some).collect();
        for run in &plan {
            let row = |row: usize| &ids[cu_seqlens[row] as usize..cu_seqlens[row + 1] as usize];
            let rows: Vec<&[u32]> = run.rows.iter().map(|&index| row(index)).collect();
            let own = run.rows.iter().filter_map(|&index| places[index].take()).collect();
            match &self.layout {
                Layout::Packed(_) => self.run_packed(run, &rows, own)?,
                Layout::Padded(_) => self.run_padded(run, &rows, own)?,
            }
        }
        Ok(states)
    }

    /// Refuses what the graph would answer with garbage or a less clear error.
    fn check(&self, ids: &[u32], cu_seqlens: &[u32]) -> Result<Vec<usize>, OnnxError> {
        let boundaries = |reason| OnnxError::Boundaries { ids: ids.len(), reason };
        // Token times 3·heads, rows·heads·width and the byte counts behind them stay in i32.
        let tokens_max = i32::MAX as usize / (4 * self.config.hidden.max(self.config.intermediate));
        if ids.len() > tokens_max {
            return Err(OnnxError::BatchTooLarge { tokens: ids.len(), tokens_max });
        }
        match (cu_seqlens.first(), cu_seqlens.last()) {
            (Some(0), Some(&last)) if last as usize == ids.len() => {}
            (Some(first), Some(last)) => {
                return Err(boundaries(format!("they run from {first} to {last}")));
            }
            _ => return Err(boundaries("there are none".to_owned())),
        }
        let tokens_max = self.config.position_limit();
        let mut lengths = Vec::with_capacity(cu_seqlens.len() - 1);
        for (row, pair) in cu_seqlens.windows(2).enumerate() {
            let (start, end) = (pair[0] as usize, pair[1] as usize);
            if start > end || end > ids.len() {
                return Err(boundaries(format!("row {row} runs from {start} to {end}")));
            }
            let tokens = end - start;
            if tokens == 0 {
                return Err(OnnxError::EmptyRow { row });
            }
            if tokens > tokens_max {
                return Err(OnnxError::RowTooLong { row, tokens, tokens_max });
            }
            let vocab = self.config.vocab;
            if let Some(position) = ids[start..end].iter().position(|&id| id as usize >= vocab) {
                let id = ids[start + position];
                return Err(OnnxError::TokenOutOfVocabulary { row, position, id, vocab });
            }
            lengths.push(tokens);
        }
        Ok(lengths)
    }

    /// Runs `rows` and leaves the states of each in its place.
    fn run_packed(
        &mut self,
        run: &SubBatch,
        rows: &[&[u32]],
        states: Vec<&mut [f32]>,
    ) -> Result<(), OnnxError> {
        let Layout::Packed(tables) = &self.layout else { return Ok(()) };
        let (hidden, heads) = (self.config.hidden, self.config.heads);
        let buffers = &mut self.buffers;
        buffers.fill_packed(run, rows, heads);
        buffers.embeddings.clear();
        rows.iter().for_each(|row| tables.embed(row, &mut buffers.embeddings));
        let tokens = buffers.embeddings.len() / hidden;
        let mut inputs = inputs! {
            encoder::INPUT_EMBEDDINGS => view([tokens, hidden], &buffers.embeddings)?,
            encoder::INPUT_RETURNS => view([tokens, heads], &buffers.returns)?,
        };
        let (mut slots, mut mask) = (buffers.slots.as_slice(), buffers.mask.as_slice());
        for block in 0..self.limits.widths_max {
            let Block { rows, width } = run.blocks.get(block).copied().unwrap_or(Block::EMPTY);
            let (own, rest) = slots.split_at(rows * width);
            inputs.push((encoder::input_slots(block).into(), view([rows, 1, width], own)?.into()));
            slots = rest;
            let (own, rest) = mask.split_at(rows * width);
            inputs
                .push((encoder::input_mask(block).into(), view([rows, 1, 1, width], own)?.into()));
            mask = rest;
        }
        let outputs = run_session(&mut self.session, inputs)?;
        let values = extract(&outputs, encoder::OUTPUT_STATES, &[tokens, hidden])?;
        let mut rest = values;
        for row in states {
            let (own, after) = rest.split_at(row.len());
            row.copy_from_slice(own);
            rest = after;
        }
        Ok(())
    }

    /// As [`run_packed`](Self::run_packed), for an exported graph.
    fn run_padded(
        &mut self,
        run: &SubBatch,
        rows: &[&[u32]],
        states: Vec<&mut [f32]>,
    ) -> Result<(), OnnxError> {
        let Layout::Padded(interface) = &self.layout else { return Ok(()) };
        let Some(&Block { rows: count, width }) = run.blocks.first() else { return Ok(()) };
        let (shape, hidden) = ([count, width], self.config.hidden);
        let buffers = &mut self.buffers;
        buffers.fill_padded(rows, width, self.config.pad_id);
        let mut inputs = inputs! {
            exported::INPUT_IDS => view(shape, &buffers.wide_ids)?,
            exported::INPUT_MASK => view(shape, &buffers.wide_mask)?,
        };
        if interface.token_types {
            let types = view(shape, &buffers.wide_types)?;
            inputs.push((exported::INPUT_TOKEN_TYPES.into(), types.into()));
        }
        let outputs = run_session(&mut self.session, inputs)?;
        let values = extract(&outputs, &interface.states, &[shape[0], shape[1], hidden])?;
        let blocks = values.chunks_exact(width * hidden);
        for (row, block) in states.into_iter().zip(blocks) {
            row.copy_from_slice(&block[..row.len()]);
        }
        Ok(())
    }
}

impl Buffers {
    fn fill_packed(&mut self, run: &SubBatch, rows: &[&[u32]], heads: usize) {
        self.slots.clear();
        self.returns.clear();
        self.mask.clear();
        let mut first = 0;
        for (row, width) in rows.iter().zip(run.widths()) {
            // Places of the rows so far, for one head; there are as many slots.
            let places = self.slots.len();
            for place in 0..width {
                // Unused places repeat the row's own first token: whatever they hold, it is this
                // row's.
                let used = place < row.len();
                let token = if used { first + place } else { first };
                self.slots.push((token * 3 * heads) as i32);
                self.mask.push(if used { 0.0 } else { encoder::MASKED });
            }
            for place in 0..row.len() {
                let head = |head: usize| (places * heads + head * width + place) as i32;
                self.returns.extend((0..heads).map(head));
            }
            first += row.len();
        }
    }

    fn fill_padded(&mut self, rows: &[&[u32]], width: usize, pad_id: u32) {
        self.wide_ids.clear();
        self.wide_mask.clear();
        for (block, row) in rows.iter().enumerate() {
            let end = (block + 1) * width;
            self.wide_ids.extend(row.iter().map(|&id| i64::from(id)));
            self.wide_mask.resize(self.wide_ids.len(), 1);
            self.wide_ids.resize(end, i64::from(pad_id));
            self.wide_mask.resize(end, 0);
        }
        self.wide_types.resize(rows.len() * width, 0);
    }
}

/// Session options that every graph uses.
fn builder(options: &EngineOptions) -> Result<SessionBuilder, OnnxError> {
    let environment = runtime::environment(&options.library)?;
    let action = "configure a session";
    OrtSession::builder(&environment)
        .map_err(OnnxError::runtime(action))?
        .with_optimization_level(GraphOptimizationLevel::Level1)
        .map_err(OnnxError::runtime(action))?
        .with_intra_threads(options.intra_threads)
        .map_err(OnnxError::runtime(action))?
        .with_intra_op_spinning(options.spinning)
        .map_err(OnnxError::runtime(action))?
        .with_config_entry("session.intra_op.spin_duration_us", SPIN_US)
        .map_err(OnnxError::runtime(action))?
        // One pattern per input shape would be kept forever, and shapes vary without end.
        .with_memory_pattern(false)
        .map_err(OnnxError::runtime(action))?
        .with_operators(operators::domain(options.intra_threads)?)
        .map_err(OnnxError::runtime(action))
}

fn view<T, const N: usize>(shape: [usize; N], values: &[T]) -> Result<TensorRef<'_, T>, OnnxError>
where
    T: ort::value::PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    TensorRef::from_array_view((shape, values)).map_err(OnnxError::runtime("bind an input"))
}

fn run_session<'s, 'i, 'v: 'i>(
    session: &'s mut OrtSession,
    inputs: Vec<(std::borrow::Cow<'i, str>, ort::session::SessionInputValue<'v>)>,
) -> Result<SessionOutputs<'s>, OnnxError> {
    session.run(inputs).map_err(OnnxError::runtime("run the encoder"))
}

/// The values of the output `name`, which has to have the shape `expected`.
fn extract<'o>(
    outputs: &'o SessionOutputs<'_>,
    name: &str,
    expected: &[usize],
) -> Result<&'o [f32], OnnxError> {
    let mismatch = |found| OnnxError::OutputShape { expected: expected.to_vec(), found };
    let value = outputs.get(name).ok_or_else(|| mismatch(Vec::new()))?;
    let (shape, values) =
        value.try_extract_tensor::<f32>().map_err(OnnxError::runtime("read the states"))?;
    if shape.iter().map(|&size| size as usize).eq(expected.iter().copied()) {
        Ok(values)
    } else {
        Err(mismatch(shape.to_vec()))
    }
}
