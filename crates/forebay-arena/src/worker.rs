//! The worker's side: claim a slot that a descriptor hands over, read its rows, write its output.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use forebay_protocol::ArenaSpec;

#[cfg(not(all(test, feature = "interleavings")))]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(all(test, feature = "interleavings"))]
use shuttle::sync::atomic::{AtomicBool, Ordering};

use crate::mapping::Mapping;
use crate::{ArenaError, ArenaLayout};

/// The arena as its worker sees it.
#[derive(Clone)]
pub struct WorkerArena {
    shared: Arc<Shared>,
}

struct Shared {
    mapping: Mapping,
    layout: ArenaLayout,
    claimed: Box<[AtomicBool]>,
}

impl WorkerArena {
    /// Maps the inherited memfd after checking its size and seals.
    ///
    /// # Errors
    /// [`ArenaError`] if the memory is not the sealed arena that `spec` describes.
    pub fn open(fd: OwnedFd, spec: ArenaSpec) -> Result<Self, ArenaError> {
        let layout = ArenaLayout::of(spec)?;
        let mapping = Mapping::open(fd, &layout)?;
        let claimed = (0..spec.slots).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { shared: Arc::new(Shared { mapping, layout, claimed }) })
    }

    /// First byte of the mapping, for page-locking it once.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.shared.mapping.base()
    }

    /// The arena's layout.
    #[must_use]
    pub fn layout(&self) -> &ArenaLayout {
        &self.shared.layout
    }

    /// Takes the slot that a descriptor hands over and checks its row boundaries.
    ///
    /// # Errors
    /// [`ArenaError`] if the slot does not exist, is still claimed, cannot hold so many rows and
    /// tokens, or its boundaries do not rise from 0 to `tokens`. An empty row is refused too.
    pub fn claim(&self, slot: u32, rows: u32, tokens: u32) -> Result<ClaimedSlot, ArenaError> {
        let layout = &self.shared.layout;
        layout.check_slot(slot)?;
        layout.check_fit(u64::from(rows), u64::from(tokens))?;
        if self.shared.claimed[slot as usize].swap(true, Ordering::Acquire) {
            return Err(ArenaError::InUse { slot });
        }
        let claimed = ClaimedSlot { shared: Arc::clone(&self.shared), slot, rows, tokens };
        claimed.check_boundaries()?;
        Ok(claimed)
    }

    /// Puts a batch of the worker's own into a slot and claims it, to run the pipeline before the
    /// host is told that it is ready: until then the host writes to no slot.
    ///
    /// # Errors
    /// As [`claim`](Self::claim), and [`ArenaError::DoesNotFit`] for boundaries without a row.
    pub fn rehearse(
        &self,
        slot: u32,
        ids: &[u32],
        boundaries: &[u32],
    ) -> Result<ClaimedSlot, ArenaError> {
        let layout = &self.shared.layout;
        layout.check_slot(slot)?;
        let (rows, tokens) = (boundaries.len().saturating_sub(1), ids.len());
        layout.check_fit(rows as u64, tokens as u64)?;
        if self.shared.claimed[slot as usize].swap(true, Ordering::Acquire) {
            return Err(ArenaError::InUse { slot });
        }
        // Both fit 32 bits, as the layout's dimensions do.
        let (rows, tokens) = (rows as u32, tokens as u32);
        let claimed = ClaimedSlot { shared: Arc::clone(&self.shared), slot, rows, tokens };
        let parts = [(layout.boundaries_at(slot), boundaries), (layout.ids_at(slot), ids)];
        for (offset, values) in parts {
            // SAFETY: the slot exists and holds so many rows and tokens (checked above), and the
            // layout aligns the part. The claim is unique in this process, nobody holds a reference
            // into the slot yet, and the host writes to no slot before it hears of readiness.
            unsafe {
                let start = self.shared.mapping.base().add(offset).cast::<u32>();
                std::ptr::copy_nonoverlapping(values.as_ptr(), start, values.len());
            }
        }
        claimed.check_boundaries()?;
        Ok(claimed)
    }
}

/// One slot while the worker owns it. Dropping it ends the claim; the host learns of that by
/// the descriptor that is sent afterwards.
pub struct ClaimedSlot {
    shared: Arc<Shared>,
    slot: u32,
    rows: u32,
    tokens: u32,
}

impl ClaimedSlot {
    /// Number of the slot.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Rows of the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// Token ids of all rows, one after the other, without padding.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        self.input(self.shared.layout.ids_at(self.slot), self.tokens as usize)
    }

    /// Row boundaries: row `i` is `ids()[cu_seqlens()[i]..cu_seqlens()[i + 1]]`; `rows() + 1`
    /// values that rise strictly from 0.
    #[must_use]
    pub fn cu_seqlens(&self) -> &[u32] {
        self.input(self.shared.layout.boundaries_at(self.slot), self.rows as usize + 1)
    }

    /// Where the pooled rows go: `rows() * row_values` values, row after row.
    #[must_use]
    pub fn output_mut(&mut self) -> &mut [f32] {
        let values = self.rows as usize * self.shared.layout.spec().row_values as usize;
        self.output_part(values)
    }

    /// Writes a failure message into the output area, cut to what fits, and returns its length
    /// in bytes.
    pub fn write_message(&mut self, message: &str) -> u32 {
        let values = self.shared.layout.output_values();
        let mut length = message.len().min(values * size_of::<f32>());
        while !message.is_char_boundary(length) {
            length -= 1;
        }
        let out = self.output_part(length.div_ceil(size_of::<f32>()));
        for (value, bytes) in out.iter_mut().zip(message.as_bytes()[..length].chunks(4)) {
            let mut word = [0_u8; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            *value = f32::from_ne_bytes(word);
        }
        length as u32
    }

    fn input(&self, offset: usize, count: usize) -> &[u32] {
        // SAFETY: `claim` checked that the slot exists and holds `rows` and `tokens`, the layout
        // aligns the part to 64 bytes, and any bit pattern is a `u32`. The host gave the slot
        // away with the descriptor and does not write to it before it gets it back, which it
        // cannot while this claim lives: the answer is sent after the claim has ended. The output
        // part, which `output_mut` may borrow, does not overlap the input parts.
        unsafe {
            let start = self.shared.mapping.base().add(offset).cast::<u32>();
            std::slice::from_raw_parts(start, count)
        }
    }

    fn output_part(&mut self, values: usize) -> &mut [f32] {
        debug_assert!(values <= self.shared.layout.output_values());
        // SAFETY: the layout puts at least `values` aligned `f32` there. The claim is unique in
        // this process (`claimed` flag) and is borrowed mutably; the host does not read the slot
        // before it gets it back.
        unsafe {
            let at = self.shared.layout.output_at(self.slot);
            let start = self.shared.mapping.base().add(at).cast::<f32>();
            std::slice::from_raw_parts_mut(start, values)
        }
    }

    fn check_boundaries(&self) -> Result<(), ArenaError> {
        let (boundaries, tokens) = (self.cu_seqlens(), self.tokens);
        let error = |index, value| Err(ArenaError::Boundaries { index, value, tokens });
        for (index, &value) in boundaries.iter().enumerate() {
            let rises = match index.checked_sub(1) {
                None => value == 0,
                Some(before) => value > boundaries[before],
            };
            let ends = index + 1 < boundaries.len() || value == tokens;
            if !rises || !ends || value > tokens {
                return error(index, value);
            }
        }
        Ok(())
    }
}

impl Drop for ClaimedSlot {
    fn drop(&mut self) {
        self.shared.claimed[self.slot as usize].store(false, Ordering::Release);
    }
}

impl std::fmt::Debug for ClaimedSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimedSlot")
            .field("slot", &self.slot)
            .field("rows", &self.rows)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "interleavings"))]
mod interleavings;
