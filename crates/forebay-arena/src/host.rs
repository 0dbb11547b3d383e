//! The host's side: write a leased slot's input, read a finished slot's output.

use std::os::fd::BorrowedFd;

use forebay_protocol::ArenaSpec;

use crate::mapping::Mapping;
use crate::{ArenaError, ArenaLayout, SlotLease, SlotTable};

/// Values that are copied out at a time: half of a usual first-level data cache.
const PIECE_VALUES: usize = 4_096;

/// The arena as the host sees it. Every access takes the lease of the slot it touches; a lease
/// exists once, so two threads of the host can never touch one slot at a time.
pub struct HostArena {
    mapping: Mapping,
    layout: ArenaLayout,
    table_id: u64,
}

impl HostArena {
    /// A new sealed arena and the table that leases its slots.
    ///
    /// # Errors
    /// [`ArenaError`] for impossible dimensions or when the operating system refuses memory.
    pub fn create<T>(spec: ArenaSpec) -> Result<(Self, SlotTable<T>), ArenaError> {
        let layout = ArenaLayout::of(spec)?;
        let mapping = Mapping::create(&layout)?;
        let table = SlotTable::new(spec.slots);
        Ok((Self { mapping, layout, table_id: table.id() }, table))
    }

    /// The memfd, for the worker to inherit.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.mapping.fd()
    }

    /// The arena's layout.
    #[must_use]
    pub fn layout(&self) -> &ArenaLayout {
        &self.layout
    }

    /// Writes the rows of one batch into the leased slot: each item is the token ids of a row.
    /// Returns (rows, tokens).
    ///
    /// # Errors
    /// [`ArenaError::DoesNotFit`] if the rows exceed the slot or there is none; nothing that the
    /// worker may look at has been handed over then.
    pub fn write_rows<'a>(
        &self,
        lease: &mut SlotLease,
        rows: impl Iterator<Item = &'a [u32]> + Clone,
    ) -> Result<(u32, u32), ArenaError> {
        self.check(lease)?;
        let (count, tokens) = rows
            .clone()
            .fold((0_u64, 0_u64), |(rows, tokens), ids| (rows + 1, tokens + ids.len() as u64));
        self.layout.check_fit(count, tokens)?;
        let slot = lease.slot();
        let mut boundary = 0_u32;
        self.store(self.layout.boundaries_at(slot), 0, &[boundary]);
        for (index, ids) in rows.enumerate() {
            self.store(self.layout.ids_at(slot), boundary as usize, ids);
            boundary += ids.len() as u32;
            self.store(self.layout.boundaries_at(slot), index + 1, &[boundary]);
        }
        Ok((count as u32, boundary))
    }

    /// Copies the first `values` output values of the leased slot out of the arena.
    ///
    /// # Errors
    /// [`ArenaError::DoesNotFit`] if the slot holds fewer.
    pub fn read_output(&self, lease: &SlotLease, values: usize) -> Result<Vec<f32>, ArenaError> {
        let mut out = Vec::new();
        self.read_output_into(lease, values, &mut out, |_| {})?;
        Ok(out)
    }

    /// The same into `out`, whose memory is used again; what it held is gone. The copy is made
    /// piece by piece, and `seen` is shown each while it is still in the processor's nearest cache.
    ///
    /// # Errors
    /// [`ArenaError::DoesNotFit`] if the slot holds fewer; `out` is as it was then.
    pub fn read_output_into(
        &self,
        lease: &SlotLease,
        values: usize,
        out: &mut Vec<f32>,
        mut seen: impl FnMut(&[f32]),
    ) -> Result<(), ArenaError> {
        self.check(lease)?;
        if values > self.layout.output_values() {
            let ArenaSpec { rows_max, tokens_max, row_values, .. } = self.layout.spec();
            let rows = (values as u64).div_ceil(u64::from(row_values));
            return Err(ArenaError::DoesNotFit { rows, tokens: 0, rows_max, tokens_max });
        }
        out.clear();
        out.reserve(values);
        while out.len() < values {
            let done = out.len();
            let piece = (values - done).min(PIECE_VALUES);
            // SAFETY: the layout puts `output_values()` aligned `f32` at this offset inside the
            // mapping, `done + piece` is no more than `values` and thus than that, and `out` has
            // room for them behind its `done` first. Any bit pattern is an `f32`. The bytes are
            // copied through raw pointers: should a faulty worker still write there, the copy holds
            // mixed values, which the reply check judges, and no reference has been formed over
            // them.
            unsafe {
                let source = self.mapping.base().add(self.layout.output_at(lease.slot()));
                let source = source.cast::<f32>().add(done);
                std::ptr::copy_nonoverlapping(source, out.as_mut_ptr().add(done), piece);
                out.set_len(done + piece);
            }
            seen(&out[done..]);
        }
        Ok(())
    }

    /// Copies up to `bytes` bytes of the leased slot's output area, where a failed batch's
    /// message stands, and reads them as text. Invalid UTF-8 is replaced.
    ///
    /// # Errors
    /// [`ArenaError::ForeignLease`] for a lease of another arena.
    pub fn read_message(&self, lease: &SlotLease, bytes: usize) -> Result<String, ArenaError> {
        let bytes = bytes.min(self.layout.output_values() * size_of::<f32>());
        let values = self.read_output(lease, bytes.div_ceil(size_of::<f32>()))?;
        let text: Vec<u8> =
            values.iter().flat_map(|value| value.to_ne_bytes()).take(bytes).collect();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn check(&self, lease: &SlotLease) -> Result<(), ArenaError> {
        if lease.table_id() != self.table_id {
            return Err(ArenaError::ForeignLease { slot: lease.slot() });
        }
        self.layout.check_slot(lease.slot())
    }

    /// Stores `values` at element `index` of the `u32` array that starts `offset` bytes into the
    /// mapping. The callers have checked that the array holds them.
    fn store(&self, offset: usize, index: usize, values: &[u32]) {
        debug_assert!(offset + 4 * (index + values.len()) <= self.mapping.bytes());
        // SAFETY: `check_fit` and the layout keep `index + values.len()` within the part at
        // `offset`, which is aligned to 64 bytes; the caller holds the slot's only lease, so no
        // other thread of this process touches it, and the worker has not been given it yet.
        unsafe {
            let target = self.mapping.base().add(offset).cast::<u32>().add(index);
            std::ptr::copy_nonoverlapping(values.as_ptr(), target, values.len());
        }
    }
}

impl std::fmt::Debug for HostArena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostArena").field("spec", &self.layout.spec()).finish_non_exhaustive()
    }
}
