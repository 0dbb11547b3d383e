//! The context of one device: the primary one, shared with every library of the process.
//!
//! Each thread must make it current before it calls CUDA; [`Context::enter`] does so on a thread's
//! first call and costs a comparison afterwards.

use std::cell::Cell;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys;

use super::device::{DeviceInfo, initialize, probe};
use super::fault::{check, check_drop, first_fault, healthy};
use super::library;
use crate::error::CudaError;

/// A number for each opened context: an address could be reused after a context is released.
static OPENED: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Which opened context this thread made current last; 0 is none.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// A device in use.
#[derive(Debug)]
pub struct Context {
    raw: sys::CUcontext,
    device: sys::CUdevice,
    info: DeviceInfo,
    id: u64,
}

// SAFETY: the handle may be used from every thread; each makes it current for itself.
unsafe impl Send for Context {}
// SAFETY: as above; the rest is never changed.
unsafe impl Sync for Context {}

impl Context {
    /// Opens the device `ordinal` and binds it to the calling thread.
    ///
    /// # Errors
    /// [`Missing`](crate::ErrorKind::Missing) without a driver or such a device,
    /// [`DeviceLost`](crate::ErrorKind::DeviceLost) for one that cannot be used, or the driver's
    /// failure. None of these ends CUDA for the process.
    pub fn open(ordinal: u32) -> Result<Arc<Self>, CudaError> {
        healthy()?;
        library::load(&[])?;
        initialize()?;
        let (device, info) = probe(ordinal)?;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for the handle and `device` comes from the driver.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut raw, device) };
        if result != sys::CUresult::CUDA_SUCCESS {
            let detail = format!("device {ordinal} ({}, {})", info.name, info.pci);
            return Err(CudaError::driver("cuDevicePrimaryCtxRetain", result, detail).at_start());
        }
        let id = OPENED.fetch_add(1, Ordering::Relaxed);
        let context = Arc::new(Self { raw, device, info, id });
        context.bind()?;
        Ok(context)
    }

    /// Makes the context current on the calling thread, whatever was current before.
    ///
    /// # Errors
    /// The process's first fault, or the driver's failure.
    pub fn bind(&self) -> Result<(), CudaError> {
        healthy()?;
        // SAFETY: the handle is retained until this object is dropped.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.raw) })?;
        CURRENT.set(self.id);
        Ok(())
    }

    /// [`Context::bind`], unless this thread did so last.
    pub(crate) fn enter(&self) -> Result<(), CudaError> {
        healthy()?;
        if CURRENT.get() == self.id { Ok(()) } else { self.bind() }
    }

    /// What is known about the device.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Free and total memory of the device in bytes.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn memory_free(&self) -> Result<(u64, u64), CudaError> {
        self.enter()?;
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: both are places for the results, and a context is bound.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((free as u64, total as u64))
    }

    /// Blocks the thread until all work of the device is done, on every stream.
    ///
    /// # Errors
    /// The driver's failure, or that of the work waited for.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.enter()?;
        // SAFETY: a context is bound.
        check("cuCtxSynchronize", unsafe { sys::cuCtxSynchronize() })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if first_fault().is_none() {
            // SAFETY: this object retained the device's context once and releases it once; nothing
            // made in the context outlives it, as everything holds an `Arc` of this object.
            check_drop("cuDevicePrimaryCtxRelease", unsafe {
                sys::cuDevicePrimaryCtxRelease_v2(self.device)
            });
        }
    }
}
