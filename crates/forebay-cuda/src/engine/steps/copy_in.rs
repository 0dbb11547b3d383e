//! Copy-in: checks a batch and brings its boundaries and ids to where the encoder reads them.

use std::sync::Arc;

use super::settled;
use crate::edge::{DevicePtr, PinnedBuffer, Stream};
use crate::engine::error::{EngineError, InputError};
use crate::engine::input::check_input;
use crate::engine::layers::Input;
use crate::engine::memory::part;
use crate::engine::pipeline::Shared;
use crate::engine::rows::write_boundaries;
use crate::engine::split::{Chunk, split};

/// A batch whose input the encoder can read.
#[derive(Debug)]
pub struct Staged {
    pub(crate) slot: u32,
    /// The device batches it is run in, one after the other; at least one.
    pub(crate) chunks: Vec<StagedChunk>,
    /// Whether kernels read and write the host's memory instead of copies of it.
    pub(crate) mapped: bool,
}

/// One device batch of a staged batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StagedChunk {
    pub input: Input,
    /// Its first row within the batch.
    pub first_row: u32,
}

/// The first part of the pipeline.
pub struct CopyIn {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    /// Per slot, the boundaries of chunks, each counted from its own start. Empty if every batch
    /// that fits a slot is one device batch.
    boundaries: Vec<PinnedBuffer>,
}

impl CopyIn {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, EngineError> {
        let context = &shared.loaded.context;
        let plan = shared.loaded.workspace.plan();
        let splits = shared.shape.tokens_max > plan.tokens_max;
        let buffers = if splits { shared.layout.slots } else { 0 };
        let bytes = shared.shape.chunk_boundaries_bytes() as usize;
        let boundaries =
            (0..buffers).map(|_| PinnedBuffer::new(context, bytes)).collect::<Result<_, _>>()?;
        Ok(Self { stream: Stream::new(context)?, shared, boundaries })
    }

    /// Checks the batch in `slot` and enqueues its copy. `ids` and `cu` are the slot's token ids
    /// and row boundaries as the host sees them.
    ///
    /// # Errors
    /// [`EngineError::Input`] for a batch that no model or slot takes; [`EngineError::Cuda`].
    pub fn run(&mut self, slot: u32, ids: &[u32], cu: &[u32]) -> Result<Staged, EngineError> {
        let layout = self.shared.layout;
        let fits = slot < layout.slots
            && ids.len() <= layout.tokens_max as usize
            && cu.len() <= layout.rows_max as usize + 1;
        if !fits {
            return Err(EngineError::Input(InputError::Slot {
                slot,
                rows: cu.len().saturating_sub(1),
                tokens: ids.len(),
                slots: layout.slots,
                rows_max: layout.rows_max,
                tokens_max: layout.tokens_max,
            }));
        }
        let plan = *self.shared.loaded.workspace.plan();
        check_input(&self.shared.loaded.geometry, ids, cu)?;
        let chunks = split(cu, plan.tokens_max, plan.rows_max)?;
        let result = self.stage(slot, ids.len(), cu, &chunks);
        settled(result, &self.stream, &[])
    }

    fn stage(
        &mut self,
        slot: u32,
        tokens: usize,
        cu: &[u32],
        chunks: &[Chunk],
    ) -> Result<Staged, EngineError> {
        let own_boundaries = chunks.len() > 1;
        let mapped = tokens <= self.shared.mapped_tokens_max as usize;
        if own_boundaries {
            self.write_chunk_boundaries(slot, cu, chunks)?;
        }
        let (boundaries, ids, chunk_boundaries) = if mapped {
            self.in_place(slot, own_boundaries)?
        } else {
            self.copy(slot, tokens, own_boundaries)?
        };
        let mut next_boundary = 0;
        let staged = |chunk: &Chunk| {
            let boundaries = match own_boundaries {
                true => chunk_boundaries.offset(next_boundary * size_of::<u32>()),
                false => boundaries,
            };
            next_boundary += chunk.rows.len() + 1;
            StagedChunk {
                input: Input {
                    ids: ids.offset(chunk.tokens.start * size_of::<u32>()),
                    boundaries,
                    tokens: chunk.token_count(),
                    rows: chunk.row_count(),
                },
                first_row: chunk.rows.start as u32,
            }
        };
        Ok(Staged { slot, chunks: chunks.iter().map(staged).collect(), mapped })
    }

    fn write_chunk_boundaries(
        &mut self,
        slot: u32,
        cu: &[u32],
        chunks: &[Chunk],
    ) -> Result<(), EngineError> {
        let Some(buffer) = self.boundaries.get_mut(slot as usize) else {
            return Err(EngineError::Pipeline("a batch was split that is one device batch"));
        };
        let mut rest = buffer.as_mut_bytes()?;
        for chunk in chunks {
            let (own, behind) = rest.split_at_mut((chunk.rows.len() + 1) * size_of::<u32>());
            write_boundaries(own, chunk, cu);
            rest = behind;
        }
        Ok(())
    }

    /// Addresses of boundaries, ids and chunk boundaries in the host's memory.
    fn in_place(
        &self,
        slot: u32,
        own_boundaries: bool,
    ) -> Result<(DevicePtr, DevicePtr, DevicePtr), EngineError> {
        let Shared { host, layout, .. } = &*self.shared;
        let at = layout.at(slot);
        let chunk_boundaries = match self.boundaries.get(slot as usize) {
            Some(buffer) if own_boundaries => buffer.device_ptr(0),
            _ => DevicePtr::NULL,
        };
        Ok((host.device_ptr(at), host.device_ptr(at + layout.ids_offset), chunk_boundaries))
    }

    /// Enqueues the copy, and gives the addresses of boundaries, ids and chunk boundaries on the
    /// device. Boundaries and ids lie together in the slot, so one copy brings both.
    fn copy(
        &self,
        slot: u32,
        tokens: usize,
        own_boundaries: bool,
    ) -> Result<(DevicePtr, DevicePtr, DevicePtr), EngineError> {
        let Shared { loaded, host, layout, shape, timed, .. } = &*self.shared;
        let events = self.shared.events(slot)?;
        let Some(at) = loaded.workspace.slot(slot) else {
            return Err(EngineError::Pipeline("a slot that was not planned"));
        };
        if *timed {
            events.copy_started.record(&self.stream)?;
        }
        let bytes = layout.ids_offset + tokens * size_of::<u32>();
        host.copy_in(layout.at(slot), at.staging, bytes, &self.stream)?;
        let chunk_boundaries = at.staging.offset(part(shape.input_bytes()) as usize);
        if let Some(buffer) = self.boundaries.get(slot as usize).filter(|_| own_boundaries) {
            buffer.copy_in(0, chunk_boundaries, buffer.bytes(), &self.stream)?;
        }
        events.copied.record(&self.stream)?;
        Ok((at.staging, at.staging.offset(layout.ids_offset), chunk_boundaries))
    }
}

impl Drop for CopyIn {
    /// Batches on their way may still be going to read their boundaries.
    fn drop(&mut self) {
        self.shared.keep(std::mem::take(&mut self.boundaries));
    }
}
