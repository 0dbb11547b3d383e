//! Device memory: one allocation at a time, cut into aligned pieces by a [`Carver`].
//!
//! Nothing here allocates from a pool or while work runs; the engine allocates at start only.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::fault::{check, check_drop, first_fault};
use super::stream::Stream;
use crate::error::{CudaError, ErrorKind};

/// Where each carved piece begins: the driver's own alignment, and enough for every vector access,
/// tensor map and matrix kernel.
pub const ALIGNMENT: usize = 256;

/// `bytes` rounded up to the next multiple of [`ALIGNMENT`].
#[must_use]
pub const fn aligned(bytes: usize) -> usize {
    bytes.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

/// An address on the device. It owns nothing and is only meaningful while its memory lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DevicePtr(u64);

impl DevicePtr {
    /// No memory: for an argument that a kernel does not read.
    pub const NULL: Self = Self(0);

    pub(crate) fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }

    /// The address as a number.
    #[must_use]
    pub fn addr(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for DevicePtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevicePtr({:#x})", self.0)
    }
}

/// One allocation on the device.
#[derive(Debug)]
pub struct DeviceMemory {
    context: Arc<Context>,
    base: DevicePtr,
    bytes: usize,
    what: &'static str,
}

impl DeviceMemory {
    /// Allocates `bytes` for `what`, a word for messages. The content is undefined.
    ///
    /// # Errors
    /// [`OutOfMemory`](ErrorKind::OutOfMemory) with what was free,
    /// [`Usage`](ErrorKind::Usage) for zero bytes, or the driver's failure.
    pub fn allocate(
        context: &Arc<Context>,
        bytes: usize,
        what: &'static str,
    ) -> Result<Self, CudaError> {
        if bytes == 0 {
            return Err(CudaError::usage("cuMemAlloc", format!("no bytes asked for {what}")));
        }
        context.enter()?;
        let mut address = 0;
        // SAFETY: `address` is a place for the result, and a context is bound.
        check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) }).map_err(
            |error| {
                let free = match context.memory_free() {
                    Ok((free, total)) if error.kind == ErrorKind::OutOfMemory => {
                        format!("; {free} of {total} bytes are free on {}", context.info().name)
                    }
                    _ => String::new(),
                };
                error.with(format!("{bytes} bytes for {what}{free}"))
            },
        )?;
        Ok(Self { context: Arc::clone(context), base: DevicePtr::new(address), bytes, what })
    }

    /// Size of the allocation.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its first address.
    #[must_use]
    pub fn base(&self) -> DevicePtr {
        self.base
    }

    /// Sets all of it to zero, asynchronously.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn zero(&self, stream: &Stream) -> Result<(), CudaError> {
        stream.fill(self.base, 0, self.bytes).map_err(|error| error.with(self.what))
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if first_fault().is_none() && self.context.enter().is_ok() {
            // SAFETY: allocated once, freed once; the driver first finishes work that uses it.
            check_drop("cuMemFree", unsafe { sys::cuMemFree_v2(self.base.addr()) });
        }
    }
}

/// Cuts one allocation into pieces that begin at multiples of [`ALIGNMENT`].
#[derive(Debug)]
pub struct Carver<'a> {
    memory: &'a DeviceMemory,
    cursor: Cursor,
}

impl<'a> Carver<'a> {
    /// Starts at the beginning of `memory`.
    #[must_use]
    pub fn new(memory: &'a DeviceMemory) -> Self {
        Self { memory, cursor: Cursor { used: 0, capacity: memory.bytes } }
    }

    /// The next piece of `bytes`.
    ///
    /// # Errors
    /// [`Usage`](ErrorKind::Usage) if the rest is smaller.
    pub fn take(&mut self, bytes: usize) -> Result<DevicePtr, CudaError> {
        match self.cursor.take(bytes) {
            Some(offset) => Ok(self.memory.base.offset(offset)),
            None => Err(CudaError::usage(
                "Carver::take",
                format!(
                    "{bytes} bytes do not fit into {}: {} of {} are used; allocate more",
                    self.memory.what, self.cursor.used, self.cursor.capacity
                ),
            )),
        }
    }
}

/// The arithmetic of a [`Carver`].
#[derive(Debug)]
struct Cursor {
    used: usize,
    capacity: usize,
}

impl Cursor {
    /// Offset of the next `bytes`, which begin at a multiple of [`ALIGNMENT`].
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let offset = self.used.checked_next_multiple_of(ALIGNMENT)?;
        let end = offset.checked_add(bytes)?;
        if end > self.capacity {
            return None;
        }
        self.used = end;
        Some(offset)
    }
}

/// Copies `src` to the device and waits for it. For start-up and tests.
///
/// # Errors
/// The driver's failure, or that of work enqueued before.
pub fn upload(stream: &Stream, dst: DevicePtr, src: &[u8]) -> Result<(), CudaError> {
    if src.is_empty() {
        return Ok(());
    }
    // SAFETY: `src` is borrowed until the stream is idle; if waiting fails, the device does no more.
    unsafe { stream.copy_to_device(dst, src) }?;
    stream.synchronize()
}

/// Fills `dst` from the device and waits for it. For tests and reports.
///
/// # Errors
/// The driver's failure, or that of work enqueued before.
pub fn download(stream: &Stream, src: DevicePtr, dst: &mut [u8]) -> Result<(), CudaError> {
    if dst.is_empty() {
        return Ok(());
    }
    stream.context().enter()?;
    // SAFETY: `dst` is writable for its length and borrowed until the stream is idle.
    check("cuMemcpyDtoHAsync", unsafe {
        sys::cuMemcpyDtoHAsync_v2(dst.as_mut_ptr().cast(), src.addr(), dst.len(), stream.raw())
    })?;
    stream.synchronize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_round_up_to_the_alignment() {
        for (bytes, expected) in [(0, 0), (1, 256), (255, 256), (256, 256), (257, 512)] {
            assert_eq!(aligned(bytes), expected, "{bytes}");
        }
        assert_eq!(aligned(usize::MAX) % ALIGNMENT, 0);
    }

    #[test]
    fn a_full_cursor_refuses_and_keeps_its_place() {
        let mut cursor = Cursor { used: 0, capacity: 600 };
        assert_eq!(cursor.take(1), Some(0));
        assert_eq!(cursor.take(100), Some(256));
        assert_eq!(cursor.take(89), None);
        assert_eq!(cursor.take(usize::MAX), None);
        assert_eq!(cursor.used, 356);
        assert_eq!(cursor.take(88), Some(512));
        assert_eq!(cursor.take(0), None, "the next aligned place is past the end");
    }

    proptest! {
        #[test]
        fn pieces_are_aligned_disjoint_and_inside(
            sizes in prop::collection::vec(0_usize..2000, 1..40),
            spare in 0_usize..3000,
        ) {
            let capacity = sizes.iter().map(|bytes| aligned(*bytes)).sum::<usize>() / 2 + spare;
            let mut cursor = Cursor { used: 0, capacity };
            let mut end = 0;
            for bytes in sizes {
                match cursor.take(bytes) {
                    Some(offset) => {
                        prop_assert_eq!(offset % ALIGNMENT, 0);
                        prop_assert!(offset >= end);
                        end = offset + bytes;
                        prop_assert!(end <= capacity);
                        prop_assert_eq!(cursor.used, end);
                    }
                    None => prop_assert!(aligned(end) + bytes > capacity),
                }
            }
        }

        #[test]
        fn pieces_of_rounded_sizes_fill_their_sum(
            sizes in prop::collection::vec(1_usize..2000, 1..40),
        ) {
            let capacity = sizes.iter().map(|bytes| aligned(*bytes)).sum();
            let mut cursor = Cursor { used: 0, capacity };
            for bytes in sizes {
                prop_assert!(cursor.take(bytes).is_some());
            }
        }
    }
}
