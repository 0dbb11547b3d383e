//! The engine for one caller: blocking, on one stream. The self-test and the benchmarks use it; the
//! worker uses the pipeline, which runs the same encoder.
//!
//! A request of any size is split into device batches that go through a fixed number of slots of
//! page-locked memory, so memory does not grow with the request.

use std::sync::Arc;

use forebay_model::ModelFolder;

use super::completion::{Completion, Enqueued};
use super::encoder::Encoder;
use super::error::EngineError;
use super::input::check_input;
use super::layers::{Input, Layers};
use super::loading::{self, SlotRequest};
use super::memory::{MemoryReport, SlotShape};
use super::options::EngineOptions;
use super::rows::{check_norms, store, write_input};
use super::split::{Chunk, split};
use super::steps::settled;
use crate::edge::{Context, DevicePtr, Event, PinnedBuffer, Stream};
use crate::weights::Geometry;
use crate::{DeviceInfo, Dtype};

/// The engine uses one buffer of token states: on one stream nothing overlaps.
const RING: usize = 0;

/// The encoder with pooling, for one thread.
pub struct CudaEngine {
    encoder: Encoder,
    stream: Arc<Stream>,
    slots: Vec<HostSlot>,
    shape: SlotShape,
    row_values: usize,
    mapped_tokens_max: u32,
    completion: Completion,
    start: Event,
    end: Event,
}

/// Page-locked memory of one device batch.
struct HostSlot {
    input: PinnedBuffer,
    rows: PinnedBuffer,
    done: Event,
    /// The batch that is under way.
    work: Enqueued,
}

/// How a request is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    /// Kernel by kernel instead of by graphs.
    Eager,
}

impl CudaEngine {
    /// Opens the device, loads the model and runs a probe batch.
    ///
    /// # Errors
    /// Any [`EngineError`] but one of class input.
    pub fn open(folder: &ModelFolder, options: &EngineOptions) -> Result<Self, EngineError> {
        options.check()?;
        crate::load(&options.libraries)?;
        let context = Context::open(options.ordinal)?;
        let slots = SlotRequest { slots: options.slots, shape: None };
        let encoder = loading::load(&context, folder, options, slots)?;
        let loaded = encoder.loaded();
        let shape = loaded.workspace.plan().slot;
        let row_values = loaded.geometry.row_values();
        let slots = (0..options.slots)
            .map(|_| {
                Ok(HostSlot {
                    input: PinnedBuffer::new(&context, shape.input_bytes() as usize)?,
                    rows: PinnedBuffer::new(&context, shape.rows_bytes(row_values) as usize)?,
                    done: Event::new(&context, false)?,
                    work: Enqueued::now(0),
                })
            })
            .collect::<Result<_, EngineError>>()?;
        // Memory that the driver gave is readable for every device.
        let mapped_tokens_max = options.mapped_tokens_max(context.info().integrated, true);
        Ok(Self {
            slots,
            shape,
            row_values: row_values as usize,
            mapped_tokens_max,
            completion: Completion::new(options.completion_spin_us),
            start: Event::new(&context, true)?,
            end: Event::new(&context, true)?,
            stream: Stream::new(&context)?,
            encoder,
        })
    }

    /// Encodes rows of token ids: row `i` is `ids[cu[i]..cu[i + 1]]`. Gives one row of
    /// `width + 1` values for each: the embedding scaled to unit length, then the length it had.
    ///
    /// # Errors
    /// [`EngineError::Input`], [`EngineError::NonFinite`], or the device's failure.
    pub fn encode(&mut self, ids: &[u32], cu: &[u32]) -> Result<Vec<f32>, EngineError> {
        let mut rows = vec![0.0; cu.len().saturating_sub(1) * self.row_values];
        self.encode_with(ids, cu, Mode::Plain, &mut rows)?;
        Ok(rows)
    }

    /// [`encode`](Self::encode) without graphs: every kernel is launched by itself. It is slower and
    /// gives the same bits, which is what it is for.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_eager(&mut self, ids: &[u32], cu: &[u32]) -> Result<Vec<f32>, EngineError> {
        let mut rows = vec![0.0; cu.len().saturating_sub(1) * self.row_values];
        self.encode_with(ids, cu, Mode::Eager, &mut rows)?;
        Ok(rows)
    }

    /// [`encode`](Self::encode) into memory of the caller's, which holds all rows exactly. After a
    /// failure its content means nothing.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn encode_into(
        &mut self,
        ids: &[u32],
        cu: &[u32],
        rows: &mut [f32],
    ) -> Result<(), EngineError> {
        self.encode_with(ids, cu, Mode::Plain, rows)
    }

    /// Device time of a run whose input stays on the device and whose rows are not copied out, in
    /// microseconds: encoder and pooling alone. Measures `groups` times, each the mean of `runs`
    /// runs back to back, without a wait of the host between them.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode); [`EngineError::Option`] if the request needs more device
    /// batches than there are slots.
    pub fn device_times(
        &mut self,
        ids: &[u32],
        cu: &[u32],
        groups: usize,
        runs: usize,
    ) -> Result<Vec<f64>, EngineError> {
        let chunks = self.chunks(ids, cu)?;
        if chunks.len() > self.slots.len() {
            return Err(EngineError::Option {
                option: "slots",
                value: self.slots.len().to_string(),
                expected: format!("at least {}, the device batches of this request", chunks.len()),
            });
        }
        let mut inputs = Vec::with_capacity(chunks.len());
        for (slot, chunk) in chunks.iter().enumerate() {
            self.write(slot, chunk, ids, cu)?;
            inputs.push(self.copy_in(slot, chunk)?);
        }
        let runs = runs.max(1);
        let mut times = Vec::with_capacity(groups);
        for _ in 0..groups {
            self.start.record(&self.stream)?;
            for _ in 0..runs {
                for (slot, input) in inputs.iter().enumerate() {
                    self.encoder.run(RING, input, &self.stream)?;
                    let out = self.device_rows(slot)?;
                    Layers::pool(self.encoder.loaded(), RING, input.rows, out, &self.stream)?;
                }
            }
            self.end.record(&self.stream)?;
            self.completion.wait(&self.end, "runs with resident input")?;
            times.push(self.start.elapsed_us(&self.end)? / runs as f64);
        }
        Ok(times)
    }

    /// Measures products and captures graphs of every bucket, so that no batch is slow later.
    ///
    /// # Errors
    /// The device's failure.
    pub fn prepare_all(&mut self) -> Result<(), EngineError> {
        self.encoder.prepare_all(1, &self.stream)?;
        Ok(self.stream.synchronize()?)
    }

    /// Where the device memory goes.
    #[must_use]
    pub fn report(&self) -> MemoryReport {
        self.encoder.report()
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &DeviceInfo {
        self.encoder.loaded().context.info()
    }

    /// Arithmetic of matrices and activations, and why.
    #[must_use]
    pub fn precision(&self) -> (Dtype, &str) {
        (self.encoder.loaded().dtype, &self.encoder.loaded().reason)
    }

    /// Where the kernels came from, and who computes the matrix products.
    #[must_use]
    pub fn origins(&self) -> (&str, &'static str) {
        (self.encoder.loaded().kernels.origin(), self.encoder.products_name())
    }

    /// Sizes of the model.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.encoder.loaded().geometry
    }

    /// Most rows of one device batch; requests with more are split.
    #[must_use]
    pub fn rows_max(&self) -> u32 {
        self.encoder.loaded().workspace.plan().rows_max
    }

    /// Bytes of the device's memory that nobody uses, other processes included.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn memory_free(&self) -> Result<u64, EngineError> {
        Ok(self.encoder.loaded().context.memory_free()?.0)
    }

    /// Values of one embedding.
    #[must_use]
    pub fn width(&self) -> usize {
        self.row_values - 1
    }

    fn chunks(&self, ids: &[u32], cu: &[u32]) -> Result<Vec<Chunk>, EngineError> {
        let loaded = self.encoder.loaded();
        check_input(&loaded.geometry, ids, cu)?;
        let plan = loaded.workspace.plan();
        Ok(split(cu, plan.tokens_max, plan.rows_max)?)
    }

    fn encode_with(
        &mut self,
        ids: &[u32],
        cu: &[u32],
        mode: Mode,
        rows: &mut [f32],
    ) -> Result<(), EngineError> {
        let chunks = self.chunks(ids, cu)?;
        let expected = (cu.len() - 1) * self.row_values;
        if rows.len() != expected {
            return Err(EngineError::Option {
                option: "room for rows",
                value: rows.len().to_string(),
                expected: format!("{expected} values"),
            });
        }
        let finished = self.run_chunks(&chunks, ids, cu, mode, rows);
        self.settled(finished)?;
        check_norms(rows, self.row_values)
    }

    fn run_chunks(
        &mut self,
        chunks: &[Chunk],
        ids: &[u32],
        cu: &[u32],
        mode: Mode,
        rows: &mut [f32],
    ) -> Result<(), EngineError> {
        let slots = self.slots.len();
        for (index, chunk) in chunks.iter().enumerate() {
            if let Some(before) = index.checked_sub(slots) {
                self.collect(before % slots, &chunks[before], rows)?;
            }
            self.enqueue(index % slots, chunk, ids, cu, mode)?;
        }
        let waiting = chunks.len().saturating_sub(slots);
        for (index, chunk) in chunks.iter().enumerate().skip(waiting) {
            self.collect(index % slots, chunk, rows)?;
        }
        Ok(())
    }

    fn enqueue(
        &mut self,
        slot: usize,
        chunk: &Chunk,
        ids: &[u32],
        cu: &[u32],
        mode: Mode,
    ) -> Result<(), EngineError> {
        self.write(slot, chunk, ids, cu)?;
        let mapped = chunk.token_count() <= self.mapped_tokens_max;
        let input = match mapped {
            true => {
                let host = &self.slots[slot].input;
                let (boundaries, ids) =
                    (host.device_ptr(0), host.device_ptr(self.shape.ids_offset as usize));
                let (tokens, rows) = (chunk.token_count(), chunk.row_count());
                Input { ids, boundaries, tokens, rows }
            }
            false => self.copy_in(slot, chunk)?,
        };
        match mode {
            Mode::Eager => self.encoder.run_eager(RING, &input, &self.stream)?,
            Mode::Plain => {
                self.encoder.run(RING, &input, &self.stream)?;
            }
        }
        let out = match mapped {
            true => self.slots[slot].rows.device_ptr(0),
            false => self.device_rows(slot)?,
        };
        Layers::pool(self.encoder.loaded(), RING, input.rows, out, &self.stream)?;
        let host = &mut self.slots[slot];
        if !mapped {
            let bytes = chunk.rows.len() * self.row_values * size_of::<f32>();
            host.rows.copy_out(out, 0, bytes, &self.stream)?;
        }
        host.done.record(&self.stream)?;
        host.work = Enqueued::now(input.tokens);
        Ok(())
    }

    fn write(
        &mut self,
        slot: usize,
        chunk: &Chunk,
        ids: &[u32],
        cu: &[u32],
    ) -> Result<(), EngineError> {
        let bytes = self.slots[slot].input.as_mut_bytes()?;
        let (boundaries, ids_bytes) = bytes.split_at_mut(self.shape.ids_offset as usize);
        write_input(boundaries, ids_bytes, chunk, ids, cu);
        Ok(())
    }

    fn copy_in(&self, slot: usize, chunk: &Chunk) -> Result<Input, EngineError> {
        let staging = self.slot_at(slot)?.staging;
        let ids_offset = self.shape.ids_offset as usize;
        let bytes = ids_offset + chunk.tokens.len() * size_of::<u32>();
        self.slots[slot].input.copy_in(0, staging, bytes, &self.stream)?;
        Ok(Input {
            ids: staging.offset(ids_offset),
            boundaries: staging,
            tokens: chunk.token_count(),
            rows: chunk.row_count(),
        })
    }

    fn device_rows(&self, slot: usize) -> Result<DevicePtr, EngineError> {
        self.slot_at(slot).map(|at| at.rows)
    }

    fn slot_at(&self, slot: usize) -> Result<super::workspace::SlotAt, EngineError> {
        let at = self.encoder.loaded().workspace.slot(slot as u32);
        at.ok_or(EngineError::Pipeline("a slot that was not planned"))
    }

    /// Waits for a batch and copies its rows to their place.
    fn collect(&mut self, slot: usize, chunk: &Chunk, rows: &mut [f32]) -> Result<(), EngineError> {
        let host = &self.slots[slot];
        self.completion.wait_for(&host.done, host.work, "a batch")?;
        let range = chunk.rows.start * self.row_values..chunk.rows.end * self.row_values;
        store(host.rows.as_bytes()?, &mut rows[range]);
        Ok(())
    }

    /// After a failure nothing may be under way that still reads or writes the slots.
    fn settled(&self, result: Result<(), EngineError>) -> Result<(), EngineError> {
        settled(result, &self.stream, &[])
    }
}
