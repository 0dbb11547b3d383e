//! Streams and events: order on the device, without a wait on the host.
//!
//! Streams do not synchronise with the default stream. A wait that blocks the host exists for
//! start-up and tests; the engine polls [`Event::is_complete`].

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::context::Context;
use super::fault::{check, check_drop, first_fault};
use super::memory::DevicePtr;
use crate::error::CudaError;

/// A queue of work on one device.
#[derive(Debug)]
pub struct Stream {
    context: Arc<Context>,
    raw: sys::CUstream,
}

// SAFETY: a stream handle may be used from every thread; the driver locks it, and each use binds
// the context to its thread first.
unsafe impl Send for Stream {}
// SAFETY: as above; there is no state on the host's side.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream that does not wait for the default stream.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn new(context: &Arc<Context>) -> Result<Arc<Self>, CudaError> {
        context.enter()?;
        let mut raw = ptr::null_mut();
        let flags = sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: `raw` is a place for the handle, and a context is bound.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut raw, flags) })?;
        Ok(Arc::new(Self { context: Arc::clone(context), raw }))
    }

    /// The context in which the stream's work runs.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Makes work enqueued from now on wait for `event`; a never recorded event does not delay.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: both handles are alive.
        check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) })
    }

    /// Blocks the thread until everything enqueued so far is done.
    ///
    /// # Errors
    /// The driver's failure, or that of the work waited for.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the handle is alive.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.raw) })
    }

    /// True if nothing is enqueued or running; not to be asked during a capture.
    ///
    /// # Errors
    /// The driver's failure, or that of work which failed.
    pub fn is_idle(&self) -> Result<bool, CudaError> {
        self.context.enter()?;
        // SAFETY: the handle is alive.
        ready("cuStreamQuery", unsafe { sys::cuStreamQuery(self.raw) })
    }

    /// Copies `src` to the device asynchronously.
    ///
    /// # Safety
    /// `src` must stay alive and unchanged until an event recorded after this call is complete.
    ///
    /// # Errors
    /// The driver's failure.
    pub unsafe fn copy_to_device(&self, dst: DevicePtr, src: &[u8]) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: `src` is readable for its length, and the caller keeps it until the copy is done.
        check("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(dst.addr(), src.as_ptr().cast(), src.len(), self.raw)
        })
    }

    /// Copies `bytes` from one place of the device to another, asynchronously. They must not
    /// overlap.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn copy_within_device(
        &self,
        src: DevicePtr,
        dst: DevicePtr,
        bytes: usize,
    ) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: only device memory is touched; a wrong address is reported by the device.
        check("cuMemcpyDtoDAsync", unsafe {
            sys::cuMemcpyDtoDAsync_v2(dst.addr(), src.addr(), bytes, self.raw)
        })
    }

    /// Sets `bytes` of device memory to `value`, asynchronously.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn fill(&self, dst: DevicePtr, value: u8, bytes: usize) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: only device memory is touched; a wrong address is reported by the device.
        check("cuMemsetD8Async", unsafe {
            sys::cuMemsetD8Async(dst.addr(), value, bytes, self.raw)
        })
    }

    pub(crate) fn raw(&self) -> sys::CUstream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if first_fault().is_none() && self.context.enter().is_ok() {
            // SAFETY: the handle is alive and used for the last time; work still enqueued is
            // finished by the driver first.
            check_drop("cuStreamDestroy", unsafe { sys::cuStreamDestroy_v2(self.raw) });
        }
    }
}

/// A point in a stream that others can wait for or measure from.
#[derive(Debug)]
pub struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
    timing: bool,
}

// SAFETY: an event handle may be used from every thread; the driver locks it.
unsafe impl Send for Event {}
// SAFETY: as above; there is no state on the host's side.
unsafe impl Sync for Event {}

impl Event {
    /// A new event; with `timing` it can be measured from, which makes recording dearer.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn new(context: &Arc<Context>, timing: bool) -> Result<Self, CudaError> {
        context.enter()?;
        let mut raw = ptr::null_mut();
        let flags = if timing {
            sys::CUevent_flags_enum::CU_EVENT_DEFAULT
        } else {
            sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING
        };
        // SAFETY: `raw` is a place for the handle, and a context is bound.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut raw, flags as u32) })?;
        Ok(Self { context: Arc::clone(context), raw, timing })
    }

    /// Moves the event to the end of what is enqueued on `stream`.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: both handles are alive.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, stream.raw) })
    }

    /// True if the work before the event is done, or the event was never recorded.
    ///
    /// # Errors
    /// The driver's failure, or that of the work before the event.
    pub fn is_complete(&self) -> Result<bool, CudaError> {
        self.context.enter()?;
        // SAFETY: the handle is alive.
        ready("cuEventQuery", unsafe { sys::cuEventQuery(self.raw) })
    }

    /// Blocks the thread until the work before the event is done.
    ///
    /// # Errors
    /// The driver's failure, or that of the work before the event.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the handle is alive.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.raw) })
    }

    /// Device time from this event to `end`, in microseconds.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) if one of them keeps no time; the driver's failure, also
    /// if one of them is not complete.
    pub fn elapsed_us(&self, end: &Self) -> Result<f64, CudaError> {
        if !(self.timing && end.timing) {
            return Err(CudaError::usage(
                "cuEventElapsedTime",
                "the event keeps no time; create both with timing",
            ));
        }
        self.context.enter()?;
        let mut milliseconds = 0_f32;
        // SAFETY: both handles are alive and `milliseconds` is a place for the result.
        check("cuEventElapsedTime", unsafe {
            sys::cuEventElapsedTime_v2(&raw mut milliseconds, self.raw, end.raw)
        })?;
        Ok(f64::from(milliseconds) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if first_fault().is_none() && self.context.enter().is_ok() {
            // SAFETY: the handle is alive and used for the last time.
            check_drop("cuEventDestroy", unsafe { sys::cuEventDestroy_v2(self.raw) });
        }
    }
}

/// "Not ready" is an answer, not a failure.
fn ready(call: &'static str, result: CUresult) -> Result<bool, CudaError> {
    if result == CUresult::CUDA_ERROR_NOT_READY {
        return Ok(false);
    }
    check(call, result).map(|()| true)
}
