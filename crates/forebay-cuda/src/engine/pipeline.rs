//! The engine as four parts for four threads, joined by events alone.
//!
//! ```text
//! slot ─► CopyIn ─► Infer ─► Pool ─► CopyOut ─► slot
//!          stream 0  stream 1  stream 2  stream 3
//! ```
//!
//! Each part enqueues its work and hands the batch on at once; the streams wait for each other by
//! events, and only [`CopyOut`] waits for the device. A batch that is larger than one device batch
//! is run in chunks, one after the other, and pooled into the same slot.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_model::ModelFolder;

use super::completion::Completion;
use super::error::EngineError;
use super::faults::DeviceFaults;
use super::loading::{self, Loaded, SlotRequest};
use super::memory::{MemoryReport, RINGS, SlotShape};
use super::options::EngineOptions;
use super::steps::{CopyIn, CopyOut, Infer, Pool, RingToken};
use crate::edge::{Context, DevicePtr, Event, HostPages, PinnedBuffer};
use crate::gemm::PlanCounts;
use crate::{CudaError, DeviceInfo, Dtype};

/// Where the parts of a slot lie in the host's pages: offsets from the start of the slot in bytes.
/// Row boundaries come first, at offset 0, then the token ids, then the output rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLayout {
    /// Number of slots.
    pub slots: u32,
    /// Distance from one slot to the next.
    pub slot_bytes: usize,
    /// Offset of the token ids.
    pub ids_offset: usize,
    /// Offset of the output rows.
    pub output_offset: usize,
    /// Tokens of one slot, all rows together.
    pub tokens_max: u32,
    /// Rows of one slot.
    pub rows_max: u32,
    /// `f32` values of one output row: the embedding, then its length before scaling.
    pub row_values: u32,
}

impl SlotLayout {
    /// First byte of a slot.
    pub(crate) fn at(&self, slot: u32) -> usize {
        self.slot_bytes * slot as usize
    }

    /// Checks that the parts follow each other, and that the pages hold all slots.
    fn check(&self, row_values: u32, pages: usize) -> Result<(), EngineError> {
        let refuse = |option, value: u64, expected: String| {
            Err(EngineError::Option { option, value: value.to_string(), expected })
        };
        if self.row_values != row_values {
            let expected = format!("{row_values}, the model's width and one more");
            return refuse("row_values", u64::from(self.row_values), expected);
        }
        let boundaries = (self.rows_max as usize + 1) * size_of::<u32>();
        if self.ids_offset < boundaries || !self.ids_offset.is_multiple_of(size_of::<u32>()) {
            let expected = format!("a multiple of 4 from {boundaries} on");
            return refuse("ids_offset", self.ids_offset as u64, expected);
        }
        let ids_end = self.ids_offset + self.tokens_max as usize * size_of::<u32>();
        if self.output_offset < ids_end || !self.output_offset.is_multiple_of(size_of::<f32>()) {
            let expected = format!("a multiple of 4 from {ids_end} on");
            return refuse("output_offset", self.output_offset as u64, expected);
        }
        let rows = self.rows_max as usize * row_values as usize * size_of::<f32>();
        if self.slot_bytes < self.output_offset + rows {
            let expected = format!("at least {}", self.output_offset + rows);
            return refuse("slot_bytes", self.slot_bytes as u64, expected);
        }
        if pages < self.at(self.slots) {
            let expected = format!("at least {}, the size of all slots", self.at(self.slots));
            return refuse("host pages", pages as u64, expected);
        }
        Ok(())
    }
}

/// What the engine says of itself once it is open.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineInfo {
    /// The device.
    pub device: DeviceInfo,
    /// Arithmetic of matrices and activations.
    pub precision: Dtype,
    /// Why this arithmetic.
    pub precision_reason: String,
    /// Where the kernels came from.
    pub kernels: String,
    /// Who computes the matrix products.
    pub products: &'static str,
    /// Values of one embedding.
    pub width: u32,
    /// Longest text in tokens.
    pub row_tokens_max: u32,
    /// Where the device memory goes.
    pub memory: MemoryReport,
    /// What happened to the library's product plans; `None` if no product is the library's.
    pub plans: Option<PlanCounts>,
    /// The CUDA version of the driver, 13000 for 13.0.
    pub driver: u32,
}

/// What all parts read.
pub(crate) struct Shared {
    pub loaded: Arc<Loaded>,
    pub host: HostPages,
    pub layout: SlotLayout,
    pub shape: SlotShape,
    pub slots: Vec<SlotEvents>,
    /// Recorded when the pooling of what is in this buffer has been enqueued.
    pub pooled: [Event; RINGS],
    /// Batches of at most this many tokens are read and written in host memory by the kernels.
    pub mapped_tokens_max: u32,
    /// Whether events keep the time.
    pub timed: bool,
    /// What a part that has ended leaves to those behind it.
    kept: Mutex<Vec<PinnedBuffer>>,
}

/// Points in the life of the batch in one slot. Starts are recorded only if time is kept.
pub(crate) struct SlotEvents {
    pub copy_started: Event,
    pub copied: Event,
    pub infer_started: Event,
    pub inferred: Event,
    pub pool_started: Event,
    pub pooled: Event,
    pub out_started: Event,
    pub done: Event,
}

impl SlotEvents {
    fn new(context: &Arc<Context>, timed: bool) -> Result<Self, CudaError> {
        let event = || Event::new(context, timed);
        Ok(Self {
            copy_started: event()?,
            copied: event()?,
            infer_started: event()?,
            inferred: event()?,
            pool_started: event()?,
            pooled: event()?,
            out_started: event()?,
            done: event()?,
        })
    }
}

impl Shared {
    /// The events of `slot`. Slots are checked against the layout when a batch enters.
    pub(crate) fn events(&self, slot: u32) -> Result<&SlotEvents, EngineError> {
        self.slots.get(slot as usize).ok_or(EngineError::Pipeline("a slot that does not exist"))
    }

    /// Keeps memory that later parts may still have to read until all parts have ended.
    pub(crate) fn keep(&self, buffers: Vec<PinnedBuffer>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend(buffers);
    }

    /// Where row `first_row` of the batch in `slot` is pooled to.
    pub(crate) fn rows_at(
        &self,
        slot: u32,
        first_row: u32,
        mapped: bool,
    ) -> Result<DevicePtr, EngineError> {
        let behind = first_row as usize * self.layout.row_values as usize * size_of::<f32>();
        if mapped {
            let output = self.layout.at(slot) + self.layout.output_offset;
            return Ok(self.host.device_ptr(output + behind));
        }
        match self.loaded.workspace.slot(slot) {
            Some(at) => Ok(at.rows.offset(behind)),
            None => Err(EngineError::Pipeline("a slot that was not planned")),
        }
    }
}

/// The four parts of an open engine, each for a thread of its own.
pub struct Pipeline {
    /// First part.
    pub copy_in: CopyIn,
    /// Second part.
    pub infer: Infer,
    /// Third part.
    pub pool: Pool,
    /// Last part.
    pub copy_out: CopyOut,
    /// What the engine says of itself.
    pub info: PipelineInfo,
}

/// Loads the model in `folder` onto the device of `context` and opens the parts over the slots that
/// lie in `host` as `layout` says. Libraries must have been found already, as opening a context
/// does; `options.slots` and `options.rows_max` are not looked at.
///
/// # Errors
/// Any [`EngineError`] but one of class input.
pub fn open_pipeline(
    context: &Arc<Context>,
    folder: &ModelFolder,
    options: &EngineOptions,
    host: HostPages,
    layout: SlotLayout,
) -> Result<Pipeline, EngineError> {
    let row_values = folder.width() as u32 + 1;
    layout.check(row_values, host.bytes())?;
    let (slots, rows_max) = (layout.slots, layout.rows_max);
    let shape =
        SlotShape { tokens_max: layout.tokens_max, rows_max, ids_offset: layout.ids_offset as u64 };
    let options = EngineOptions { slots, rows_max, ..options.clone() };
    let request = SlotRequest { slots, shape: Some(shape) };
    let encoder = loading::load(context, folder, &options, request)?;
    let loaded = Arc::clone(encoder.loaded());

    let faults = options.faults.then(|| DeviceFaults::load(&loaded)).transpose()?;
    let device = context.info();
    let readable = host.is_page_locked() || device.host_page_tables;
    let mapped_tokens_max = options.mapped_tokens_max(device.integrated, readable);
    let info = PipelineInfo {
        device: device.clone(),
        precision: loaded.dtype,
        precision_reason: loaded.reason.clone(),
        kernels: loaded.kernels.origin().to_owned(),
        products: encoder.products_name(),
        width: loaded.geometry.hidden,
        row_tokens_max: loaded.geometry.row_tokens_max,
        memory: encoder.report(),
        plans: encoder.plan_counts(),
        driver: crate::load(&[])?.driver,
    };
    let shared = Arc::new(Shared {
        slots: (0..slots)
            .map(|_| SlotEvents::new(context, options.stage_times))
            .collect::<Result<_, _>>()?,
        pooled: [Event::new(context, false)?, Event::new(context, false)?],
        timed: options.stage_times,
        mapped_tokens_max,
        kept: Mutex::default(),
        loaded,
        host,
        layout,
        shape,
    });
    let (give_back, tokens) = sync_channel(RINGS);
    for ring in 0..RINGS {
        // Dropped at once: that is how a token is given back.
        drop(RingToken::new(ring, give_back.clone()));
    }
    Ok(Pipeline {
        copy_in: CopyIn::new(Arc::clone(&shared))?,
        infer: Infer::new(Arc::clone(&shared), encoder, tokens, give_back, faults)?,
        pool: Pool::new(Arc::clone(&shared))?,
        copy_out: CopyOut::new(shared, Completion::new(options.completion_spin_us))?,
        info,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: SlotLayout = SlotLayout {
        slots: 3,
        slot_bytes: 8192,
        ids_offset: 64,
        output_offset: 64 + 4 * 100,
        tokens_max: 100,
        rows_max: 4,
        row_values: 385,
    };

    #[test]
    fn the_parts_may_move_to_their_threads() {
        fn movable<T: Send + 'static>() {}
        movable::<CopyIn>();
        movable::<Infer>();
        movable::<Pool>();
        movable::<CopyOut>();
        movable::<crate::CudaEngine>();
    }

    #[test]
    fn a_layout_whose_parts_overlap_or_leave_the_pages_is_refused() {
        LAYOUT.check(385, 3 * 8192).unwrap();
        let expect = |layout: SlotLayout, pages, name: &str| {
            let error = layout.check(385, pages).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        let pages = 3 * 8192;
        expect(SlotLayout { row_values: 384, ..LAYOUT }, pages, "row_values");
        expect(SlotLayout { ids_offset: 16, ..LAYOUT }, pages, "ids_offset");
        expect(SlotLayout { tokens_max: 101, ..LAYOUT }, pages, "output_offset");
        expect(SlotLayout { slot_bytes: 6000, ..LAYOUT }, pages, "slot_bytes");
        expect(LAYOUT, pages - 1, "host pages");
    }
}
