//! Descriptors with which Hopper's copy unit reads and writes tiles of a matrix.
//!
//! Only one shape is offered, the one that the matrix kernels use: rows of 16-bit elements, tiles
//! in shared memory swizzled by 128 bytes, zeros outside the matrix.

use cudarc::driver::sys;

use super::fault::check;
use super::memory::DevicePtr;
use crate::error::CudaError;

/// Describes a matrix and its tiles to the copy unit; passed to kernels by value.
#[derive(Clone, Copy, Debug)]
pub struct TensorMap(sys::CUtensorMap);

impl TensorMap {
    /// A row-major matrix of 16-bit elements: `rows` by `columns`, each row `row_bytes` after the
    /// one before, read in tiles of `box_rows` by `box_columns`. The tile's inner dimension is the
    /// columns; coordinates are (column, row).
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for what the copy unit cannot do: a base or row length
    /// that is no multiple of 16 bytes, a tile wider than 128 bytes or with more than 256 rows; the
    /// driver's failure.
    pub fn rows_2d(
        base: DevicePtr,
        rows: u64,
        columns: u64,
        row_bytes: u64,
        box_rows: u32,
        box_columns: u32,
        bf16: bool,
    ) -> Result<Self, CudaError> {
        super::fault::healthy()?;
        let shape = Shape { rows, columns, row_bytes, box_rows, box_columns };
        shape.validate(base)?;
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let element = if bf16 {
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
        } else {
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16
        };
        // SAFETY: the map is a place for the result with the alignment of its type; the arrays have
        // as many entries as the rank says (one fewer stride); the address is not followed.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                element,
                2,
                base.addr() as *mut _,
                [columns, rows].as_ptr(),
                [row_bytes].as_ptr(),
                [box_columns, box_rows].as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("cuTensorMapEncodeTiled", result)
            .map_err(|error| error.with(format!("{shape:?} at {base:?}")))?;
        Ok(Self(map))
    }

    /// The descriptor as the kernel receives it.
    pub(crate) fn to_bytes(self) -> [u8; 128] {
        let mut bytes = [0; 128];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.0.opaque) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[cfg(test)]
    pub(crate) fn filled_for_test(word: u64) -> Self {
        Self(sys::CUtensorMap { opaque: [word; 16] })
    }
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: u64,
    columns: u64,
    row_bytes: u64,
    box_rows: u32,
    box_columns: u32,
}

impl Shape {
    fn validate(self, base: DevicePtr) -> Result<(), CudaError> {
        let dimension_max = 1 << 32;
        let problem = if base.addr() == 0 || !base.addr().is_multiple_of(16) {
            "the base must be a multiple of 16 bytes"
        } else if !(1..=dimension_max).contains(&self.rows)
            || !(1..=dimension_max).contains(&self.columns)
        {
            "rows and columns must be 1 to 2^32"
        } else if !self.row_bytes.is_multiple_of(16) || self.row_bytes >= 1 << 40 {
            "a row must be a multiple of 16 bytes, below 2^40"
        } else if self.row_bytes < self.columns * 2 {
            "a row is shorter than its columns"
        } else if !(1..=256).contains(&self.box_rows) {
            "a tile must have 1 to 256 rows"
        } else if self.box_columns == 0
            || self.box_columns > 64
            || !self.box_columns.is_multiple_of(8)
        {
            "a tile's row must be 16 to 128 bytes in steps of 16"
        } else {
            return Ok(());
        };
        Err(CudaError::usage("cuTensorMapEncodeTiled", format!("{problem}: {self:?} at {base:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_the_copy_unit_cannot_read_are_refused() {
        let base = DevicePtr::new(4096);
        let good =
            Shape { rows: 100, columns: 384, row_bytes: 768, box_rows: 128, box_columns: 64 };
        assert!(good.validate(base).is_ok());
        assert!(good.validate(DevicePtr::new(4104)).is_err());
        assert!(good.validate(DevicePtr::NULL).is_err());
        let bad = [
            Shape { rows: 0, ..good },
            Shape { columns: 1 << 33, ..good },
            Shape { row_bytes: 760, ..good },
            Shape { row_bytes: 752, ..good },
            Shape { box_rows: 257, ..good },
            Shape { box_rows: 0, ..good },
            Shape { box_columns: 72, ..good },
            Shape { box_columns: 4, ..good },
        ];
        for shape in bad {
            assert!(shape.validate(base).is_err(), "{shape:?}");
        }
    }
}
