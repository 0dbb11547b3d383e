//! Host memory that the device reads and writes directly: pages of a shared mapping, or an own
//! page-locked buffer.
//!
//! Copies are asynchronous and checked against the bounds of the region; both kinds wait for the
//! device before they let go of their pages.

use std::fmt::Display;
use std::ptr;
use std::slice;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::Context;
use super::fault::{check, check_drop, first_fault};
use super::memory::DevicePtr;
use super::stream::{Event, Stream};
use crate::error::CudaError;

/// A region of host memory and its address on the device.
#[derive(Debug)]
struct Region {
    context: Arc<Context>,
    base: *mut u8,
    mapped: DevicePtr,
    bytes: usize,
}

impl Region {
    fn copy_in(
        &self,
        offset: usize,
        dst: DevicePtr,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        within("copy_in", offset, bytes, self.bytes)?;
        self.context.enter()?;
        // SAFETY: the range is inside the region, which lives until the device is done with it.
        check("cuMemcpyHtoDAsync", unsafe {
            let src = self.base.add(offset).cast_const().cast();
            sys::cuMemcpyHtoDAsync_v2(dst.addr(), src, bytes, stream.raw())
        })
    }

    fn copy_out(
        &self,
        src: DevicePtr,
        offset: usize,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        within("copy_out", offset, bytes, self.bytes)?;
        self.context.enter()?;
        // SAFETY: the range is inside the region, which lives until the device is done with it.
        check("cuMemcpyDtoHAsync", unsafe {
            let dst = self.base.add(offset).cast();
            sys::cuMemcpyDtoHAsync_v2(dst, src.addr(), bytes, stream.raw())
        })
    }

    /// The device's address of the byte at `offset`.
    fn device_ptr(&self, offset: usize) -> DevicePtr {
        debug_assert!(offset <= self.bytes, "{offset} of {}", self.bytes);
        self.mapped.offset(offset)
    }

    /// Waits for the device; false if the pages must be leaked instead of released.
    fn is_released_by_device(&self) -> bool {
        first_fault().is_none() && self.context.synchronize().is_ok()
    }
}

/// Pages of the host, such as a shared mapping, registered with the device.
#[derive(Debug)]
pub struct HostPages {
    region: Region,
    page_locked: bool,
}

// SAFETY: the pages belong to no thread; who may touch which bytes when is the contract of
// `register`.
unsafe impl Send for HostPages {}
// SAFETY: as above; the object's own fields are never changed.
unsafe impl Sync for HostPages {}

impl HostPages {
    /// Registers `bytes` of memory from `base` on. A device that reads the host's page tables but
    /// cannot register uses the memory as it is.
    ///
    /// # Safety
    /// The memory must stay mapped until the object is dropped, or for the life of the process
    /// after a fault. While a copy into a range or a kernel that writes it is under way, nobody may
    /// hold a Rust reference to that range; while one that reads it is, nobody may write it.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for no bytes or a device that can neither register nor
    /// share pages; the driver's failure, such as a limit on locked memory.
    pub unsafe fn register(
        context: &Arc<Context>,
        base: *mut u8,
        bytes: usize,
    ) -> Result<Self, CudaError> {
        if base.is_null() || bytes == 0 {
            return Err(CudaError::usage("cuMemHostRegister", "no memory given to register"));
        }
        context.enter()?;
        let info = context.info();
        let region = Region {
            context: Arc::clone(context),
            base,
            mapped: DevicePtr::new(base as u64),
            bytes,
        };
        if !info.host_register {
            return if info.host_page_tables {
                Ok(Self { region, page_locked: false })
            } else {
                Err(CudaError::usage(
                    "cuMemHostRegister",
                    format!("{} can neither register nor share host memory", info.name),
                ))
            };
        }
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the caller promises memory of that size which stays mapped.
        check("cuMemHostRegister", unsafe { sys::cuMemHostRegister_v2(base.cast(), bytes, flags) })
            .map_err(|error| error.with(format!("{bytes} bytes at {base:p}")))?;
        // From here on a return unregisters.
        let mut pages = Self { region, page_locked: true };
        pages.region.mapped = mapped_address(base)?;
        Ok(pages)
    }

    /// Size of the region.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.region.bytes
    }

    /// True if the pages are registered, so that copies run at full speed and do not block.
    #[must_use]
    pub fn is_page_locked(&self) -> bool {
        self.page_locked
    }

    /// The address at which the device sees the byte at `offset`, for kernels that read or write
    /// the host's memory themselves.
    #[must_use]
    pub fn device_ptr(&self, offset: usize) -> DevicePtr {
        self.region.device_ptr(offset)
    }

    /// Copies `bytes` at `offset` of the region to `dst`, asynchronously.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a range outside the region; the driver's failure.
    pub fn copy_in(
        &self,
        offset: usize,
        dst: DevicePtr,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        self.region.copy_in(offset, dst, bytes, stream)
    }

    /// Copies `bytes` from `src` to `offset` of the region, asynchronously.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a range outside the region; the driver's failure.
    pub fn copy_out(
        &self,
        src: DevicePtr,
        offset: usize,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        self.region.copy_out(src, offset, bytes, stream)
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        if self.region.is_released_by_device() && self.page_locked {
            // SAFETY: registered once, unregistered once, and the device is idle.
            check_drop("cuMemHostUnregister", unsafe {
                sys::cuMemHostUnregister(self.region.base.cast())
            });
        }
    }
}

/// A page-locked buffer of our own; ordinary cached memory, so that reading it is fast too.
///
/// It remembers its last copy: its bytes can only be seen or changed once no copy is under way.
#[derive(Debug)]
pub struct PinnedBuffer {
    region: Region,
    last_copy: Event,
}

// SAFETY: the memory belongs to this object alone and to no thread.
unsafe impl Send for PinnedBuffer {}
// SAFETY: through a shared reference the bytes are only read.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Allocates `bytes`, set to zero.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for zero bytes; the driver's failure.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, CudaError> {
        if bytes == 0 {
            return Err(CudaError::usage("cuMemHostAlloc", "no bytes asked for"));
        }
        let last_copy = Event::new(context, false)?;
        context.enter()?;
        let mut base = ptr::null_mut();
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: `base` is a place for the result, and a context is bound.
        check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut base, bytes, flags) })
            .map_err(|error| error.with(format!("{bytes} bytes")))?;
        let base: *mut u8 = base.cast();
        // SAFETY: the driver has just given `bytes` writable bytes, which nobody else knows of.
        unsafe { ptr::write_bytes(base, 0, bytes) };
        let region = Region { context: Arc::clone(context), base, mapped: DevicePtr::NULL, bytes };
        // From here on a return frees the memory.
        let mut buffer = Self { region, last_copy };
        buffer.region.mapped = mapped_address(base)?;
        Ok(buffer)
    }

    /// Size of the buffer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.region.bytes
    }

    /// The content, once no copy is under way.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) while one is; the failure of work before the copy.
    pub fn as_bytes(&self) -> Result<&[u8], CudaError> {
        self.settled("as_bytes")?;
        // SAFETY: the memory is initialised, lives as long as `self`, and nothing writes it: no copy
        // is under way and starting one that writes needs `&mut self`.
        Ok(unsafe { slice::from_raw_parts(self.region.base, self.region.bytes) })
    }

    /// The content for writing, once no copy is under way.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) while one is; the failure of work before the copy.
    pub fn as_mut_bytes(&mut self) -> Result<&mut [u8], CudaError> {
        self.settled("as_mut_bytes")?;
        // SAFETY: as in `as_bytes`, and `&mut self` keeps every other access away.
        Ok(unsafe { slice::from_raw_parts_mut(self.region.base, self.region.bytes) })
    }

    /// The address at which kernels see the byte at `offset`. Kernels that write there are not
    /// tracked: whoever launches them must not call [`as_bytes`](Self::as_bytes) meanwhile.
    #[must_use]
    pub fn device_ptr(&self, offset: usize) -> DevicePtr {
        self.region.device_ptr(offset)
    }

    /// Copies `bytes` at `offset` of the buffer to `dst`, asynchronously. Not for a capture.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a range outside the buffer; the driver's failure.
    pub fn copy_in(
        &self,
        offset: usize,
        dst: DevicePtr,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        // After the one before, so that one event stands for all.
        stream.wait(&self.last_copy)?;
        self.region.copy_in(offset, dst, bytes, stream)?;
        self.last_copy.record(stream)
    }

    /// Copies `bytes` from `src` to `offset` of the buffer, asynchronously. Not for a capture.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a range outside the buffer; the driver's failure.
    pub fn copy_out(
        &mut self,
        src: DevicePtr,
        offset: usize,
        bytes: usize,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        stream.wait(&self.last_copy)?;
        self.region.copy_out(src, offset, bytes, stream)?;
        self.last_copy.record(stream)
    }

    fn settled(&self, call: &'static str) -> Result<(), CudaError> {
        if self.last_copy.is_complete()? {
            Ok(())
        } else {
            Err(CudaError::usage(call, "a copy is under way; wait for it first"))
        }
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        if self.region.is_released_by_device() {
            // SAFETY: allocated once, freed once, and the device is idle.
            check_drop("cuMemFreeHost", unsafe { sys::cuMemFreeHost(self.region.base.cast()) });
        }
    }
}

/// The device's address of registered memory.
fn mapped_address(base: *mut u8) -> Result<DevicePtr, CudaError> {
    let mut address = 0;
    // SAFETY: `address` is a place for the result, and `base` was registered before.
    check("cuMemHostGetDevicePointer", unsafe {
        sys::cuMemHostGetDevicePointer_v2(&raw mut address, base.cast(), 0)
    })?;
    Ok(DevicePtr::new(address))
}

/// Refuses a range that is not inside a region of `capacity` bytes.
fn within(
    call: &'static str,
    offset: usize,
    bytes: usize,
    capacity: usize,
) -> Result<(), CudaError> {
    let outside = |end: &dyn Display| {
        CudaError::usage(call, format!("{bytes} bytes at {offset} end at {end}, past {capacity}"))
    };
    match offset.checked_add(bytes) {
        Some(end) if end <= capacity => Ok(()),
        Some(end) => Err(outside(&end)),
        None => Err(outside(&"no address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn only_ranges_inside_the_region_pass() {
        for (offset, bytes) in [(0, 0), (0, 100), (100, 0), (99, 1), (50, 50)] {
            assert!(within("copy_in", offset, bytes, 100).is_ok(), "{offset}+{bytes}");
        }
        let outside = [(0, 101), (100, 1), (101, 0), (1, usize::MAX), (usize::MAX, usize::MAX)];
        for (offset, bytes) in outside {
            let error = within("copy_in", offset, bytes, 100).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Usage, "{offset}+{bytes}");
            assert!(error.to_string().contains("100"), "{error}");
        }
    }
}
