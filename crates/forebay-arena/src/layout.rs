//! Where each part of a slot stands, computed alike on both sides.

use forebay_protocol::ArenaSpec;

use crate::ArenaError;

/// Slots start on a page, so that one slot can be registered or advised alone.
const SLOT_ALIGN: u64 = 4096;
/// Parts start on a cache line: the two sides never share one.
const PART_ALIGN: u64 = 64;
/// Largest arena, a guard against nonsense dimensions.
const ARENA_BYTES_MAX: u64 = 16 << 30;

/// Byte offsets of the parts of each slot.
///
/// One slot is: `rows_max + 1` row boundaries (`u32`), `tokens_max` token ids (`u32`),
/// `rows_max * row_values` output values (`f32`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaLayout {
    spec: ArenaSpec,
    ids_offset: usize,
    output_offset: usize,
    slot_bytes: usize,
}

impl ArenaLayout {
    /// The layout of an arena with these dimensions.
    ///
    /// # Errors
    /// [`ArenaError::Dimension`] for a dimension of zero or a size above 16 GiB.
    pub fn of(spec: ArenaSpec) -> Result<Self, ArenaError> {
        let dimensions = [
            ("slots", spec.slots, 1 << 10),
            ("tokens_max", spec.tokens_max, 1 << 26),
            ("rows_max", spec.rows_max, 1 << 20),
            ("row_values", spec.row_values, 1 << 16),
        ];
        for (name, value, max) in dimensions {
            if value == 0 || value > max {
                let (value, max) = (u64::from(value), u64::from(max));
                return Err(ArenaError::Dimension { name, value, min: 1, max });
            }
        }
        let boundaries = (u64::from(spec.rows_max) + 1) * 4;
        let ids_offset = boundaries.next_multiple_of(PART_ALIGN);
        let output_offset =
            (ids_offset + u64::from(spec.tokens_max) * 4).next_multiple_of(PART_ALIGN);
        let output = u64::from(spec.rows_max) * u64::from(spec.row_values) * 4;
        let slot_bytes = (output_offset + output).next_multiple_of(SLOT_ALIGN);
        let total = slot_bytes * u64::from(spec.slots);
        if total > ARENA_BYTES_MAX {
            let max = ARENA_BYTES_MAX;
            return Err(ArenaError::Dimension { name: "bytes", value: total, min: 1, max });
        }
        Ok(Self {
            spec,
            ids_offset: ids_offset as usize,
            output_offset: output_offset as usize,
            slot_bytes: slot_bytes as usize,
        })
    }

    /// The dimensions that the layout was made from.
    #[must_use]
    pub fn spec(&self) -> ArenaSpec {
        self.spec
    }

    /// Size of the whole arena in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slot_bytes * self.spec.slots as usize
    }

    /// Output values (`f32`) that one slot holds.
    #[must_use]
    pub fn output_values(&self) -> usize {
        self.spec.rows_max as usize * self.spec.row_values as usize
    }

    /// Distance from one slot to the next in bytes.
    #[must_use]
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Offset of the token ids from the start of their slot in bytes; the row boundaries are at 0.
    #[must_use]
    pub fn ids_offset(&self) -> usize {
        self.ids_offset
    }

    /// Offset of the output values from the start of their slot in bytes.
    #[must_use]
    pub fn output_offset(&self) -> usize {
        self.output_offset
    }

    pub(crate) fn boundaries_at(&self, slot: u32) -> usize {
        self.slot_bytes * slot as usize
    }

    pub(crate) fn ids_at(&self, slot: u32) -> usize {
        self.boundaries_at(slot) + self.ids_offset
    }

    pub(crate) fn output_at(&self, slot: u32) -> usize {
        self.boundaries_at(slot) + self.output_offset
    }

    pub(crate) fn check_slot(&self, slot: u32) -> Result<(), ArenaError> {
        if slot < self.spec.slots {
            Ok(())
        } else {
            Err(ArenaError::NoSuchSlot { slot, slots: self.spec.slots })
        }
    }

    pub(crate) fn check_fit(&self, rows: u64, tokens: u64) -> Result<(), ArenaError> {
        let (rows_max, tokens_max) = (self.spec.rows_max, self.spec.tokens_max);
        let fits = (1..=u64::from(rows_max)).contains(&rows)
            && (1..=u64::from(tokens_max)).contains(&tokens);
        if fits {
            Ok(())
        } else {
            Err(ArenaError::DoesNotFit { rows, tokens, rows_max, tokens_max })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        for (slots, tokens_max, rows_max, row_values) in
            [(1, 1, 1, 1), (3, 4096, 64, 384), (16, 7, 3, 5)]
        {
            let layout = ArenaLayout::of(ArenaSpec { slots, tokens_max, rows_max, row_values })
                .expect("valid");
            for slot in 0..slots {
                let start = layout.boundaries_at(slot);
                assert_eq!(start % 4096, 0);
                assert!(start + 4 * (rows_max as usize + 1) <= layout.ids_at(slot));
                assert!(layout.ids_at(slot) + 4 * tokens_max as usize <= layout.output_at(slot));
                let end = layout.output_at(slot) + 4 * layout.output_values();
                assert!(end <= start + layout.slot_bytes && end <= layout.bytes());
                assert_eq!(layout.ids_at(slot) % 64, 0);
                assert_eq!(layout.output_at(slot) % 64, 0);
            }
        }
    }

    #[test]
    fn nonsense_dimensions_are_refused() {
        let good = ArenaSpec { slots: 2, tokens_max: 64, rows_max: 4, row_values: 8 };
        assert!(ArenaLayout::of(ArenaSpec { slots: 0, ..good }).is_err());
        assert!(ArenaLayout::of(ArenaSpec { row_values: 0, ..good }).is_err());
        let huge = ArenaSpec { slots: 1024, rows_max: 1 << 20, row_values: 1 << 16, ..good };
        assert!(matches!(ArenaLayout::of(huge), Err(ArenaError::Dimension { name: "bytes", .. })));
    }
}
