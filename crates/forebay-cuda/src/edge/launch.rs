//! The arguments and the shape of a kernel launch, held on the stack.
//!
//! Nothing here calls CUDA or allocates, so that a launch costs little more than the driver's part.

use std::ffi::c_void;

use super::memory::DevicePtr;
use super::tensor_map::TensorMap;
use crate::error::CudaError;

/// How many blocks of how many threads run, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks along x, y and z.
    pub grid: (u32, u32, u32),
    /// Threads of a block, along x.
    pub block: u32,
    /// Dynamic shared memory of a block; above 48 KiB the kernel must opt in first.
    pub shared_bytes: u32,
    /// Blocks of a cluster along x; 1 is none. It must divide the grid's x.
    pub cluster: u32,
    /// True if the kernel may begin before the one in front of it ends; it must then wait for it
    /// itself (`griddepcontrol.wait`) before it reads what that one writes.
    pub overlap_previous: bool,
}

impl LaunchConfig {
    /// `blocks` along x of `block` threads, without shared memory, cluster or overlap.
    #[must_use]
    pub const fn linear(blocks: u32, block: u32) -> Self {
        Self { grid: (blocks, 1, 1), block, shared_bytes: 0, cluster: 1, overlap_previous: false }
    }

    /// Refuses what no device can run.
    pub(crate) fn validate(&self) -> Result<(), CudaError> {
        let (x, y, z) = self.grid;
        let fits = x > 0
            && x <= i32::MAX as u32
            && (1..=65_535).contains(&y)
            && (1..=65_535).contains(&z)
            && (1..=1024).contains(&self.block)
            && (1..=8).contains(&self.cluster)
            && x.is_multiple_of(self.cluster);
        if fits {
            Ok(())
        } else {
            Err(CudaError::usage(
                "cuLaunchKernelEx",
                format!(
                    "grid {:?}, block {}, cluster {}: need blocks in every direction, 1 to 1024 \
                     threads, and a cluster of 1 to 8 that divides the grid's x",
                    self.grid, self.block, self.cluster
                ),
            ))
        }
    }
}

/// Most arguments of a kernel.
const COUNT_MAX: usize = 32;
/// Room for their values.
const BYTES_MAX: usize = 1024;

/// A kernel's arguments in the order of its parameters.
///
/// Too many are remembered and refused at the launch, so that calls can be chained:
/// `Args::new().ptr(x).u32(n)`.
#[derive(Debug)]
pub struct Args {
    values: Values,
    offsets: [u16; COUNT_MAX],
    count: usize,
    used: usize,
    overflowed: bool,
}

/// Aligned like a tensor map, which needs the most.
#[derive(Debug)]
#[repr(align(128))]
struct Values([u8; BYTES_MAX]);

impl Default for Args {
    fn default() -> Self {
        Self::new()
    }
}

impl Args {
    /// No arguments yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            values: Values([0; BYTES_MAX]),
            offsets: [0; COUNT_MAX],
            count: 0,
            used: 0,
            overflowed: false,
        }
    }

    /// A pointer to device memory.
    pub fn ptr(&mut self, value: DevicePtr) -> &mut Self {
        self.push(&value.addr().to_ne_bytes(), 8)
    }

    /// An `unsigned`.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.push(&value.to_ne_bytes(), 4)
    }

    /// An `unsigned long long`.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.push(&value.to_ne_bytes(), 8)
    }

    /// A `float`.
    pub fn f32(&mut self, value: f32) -> &mut Self {
        self.push(&value.to_ne_bytes(), 4)
    }

    /// A tensor map by value (`const __grid_constant__ CUtensorMap`).
    pub fn tensor_map(&mut self, value: &TensorMap) -> &mut Self {
        self.push(&value.to_bytes(), 128)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, value: &[u8], alignment: usize) -> &mut Self {
        let offset = self.used.next_multiple_of(alignment);
        let end = offset + value.len();
        match (self.values.0.get_mut(offset..end), self.offsets.get_mut(self.count)) {
            (Some(place), Some(entry)) => {
                place.copy_from_slice(value);
                // BYTES_MAX fits.
                *entry = offset as u16;
                self.count += 1;
                self.used = end;
            }
            _ => self.overflowed = true,
        }
        self
    }

    /// Pointers to the values, as the driver wants them; valid while `self` is not moved.
    pub(crate) fn pointers(&mut self) -> Result<[*mut c_void; COUNT_MAX], CudaError> {
        if self.overflowed {
            return Err(CudaError::usage(
                "cuLaunchKernelEx",
                format!("more than {COUNT_MAX} arguments or {BYTES_MAX} bytes of them"),
            ));
        }
        let mut pointers = [std::ptr::null_mut(); COUNT_MAX];
        let base = self.values.0.as_mut_ptr();
        for (pointer, offset) in pointers.iter_mut().zip(&self.offsets[..self.count]) {
            *pointer = base.wrapping_add(usize::from(*offset)).cast();
        }
        Ok(pointers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_order_aligned_to_their_size() {
        let mut args = Args::new();
        args.u32(1).ptr(DevicePtr::new(2)).f32(3.0).u32(4).u64(5);
        assert_eq!(&args.offsets[..5], &[0, 8, 16, 20, 24]);
        assert_eq!(args.values.0[8..16], 2_u64.to_ne_bytes());
        assert_eq!(args.values.0[16..20], 3_f32.to_ne_bytes());
        assert_eq!(args.len(), 5);
        let base = args.values.0.as_ptr() as usize;
        assert_eq!(base % 128, 0);
        let pointers = args.pointers().unwrap();
        assert_eq!(pointers[3] as usize, base + 20);
        assert!(pointers[5].is_null());
    }

    #[test]
    fn a_tensor_map_is_aligned_and_does_not_disturb_its_neighbours() {
        let map = TensorMap::filled_for_test(7);
        let mut args = Args::new();
        args.u32(1).tensor_map(&map).u32(2);
        assert_eq!(&args.offsets[..3], &[0, 128, 256]);
        assert_eq!(args.values.0[128..256], map.to_bytes());
        assert_eq!(args.values.0[0..4], 1_u32.to_ne_bytes());
        assert_eq!(args.values.0[256..260], 2_u32.to_ne_bytes());
    }

    #[test]
    fn the_last_argument_that_fits_is_taken_and_one_more_is_refused() {
        let mut args = Args::new();
        for value in 0..32 {
            args.u32(value);
        }
        assert!(args.pointers().is_ok());
        args.u32(32);
        assert_eq!(args.pointers().unwrap_err().kind, crate::ErrorKind::Usage);

        let map = TensorMap::filled_for_test(1);
        let mut args = Args::new();
        for _ in 0..8 {
            args.tensor_map(&map);
        }
        assert!(args.pointers().is_ok());
        assert!(args.u32(0).pointers().is_err());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let good = LaunchConfig::linear(8, 128);
        assert!(good.validate().is_ok());
        assert!(LaunchConfig { cluster: 4, ..good }.validate().is_ok());
        let bad = [
            LaunchConfig::linear(0, 128),
            LaunchConfig::linear(8, 0),
            LaunchConfig::linear(8, 1025),
            LaunchConfig { cluster: 0, ..good },
            LaunchConfig { cluster: 3, ..good },
            LaunchConfig { cluster: 16, grid: (16, 1, 1), ..good },
            LaunchConfig { grid: (8, 65_536, 1), ..good },
            LaunchConfig { grid: (u32::MAX, 1, 1), ..good },
        ];
        for config in bad {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
