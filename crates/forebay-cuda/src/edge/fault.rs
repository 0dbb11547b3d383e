//! The process's first fault, and the check every driver call goes through.
//!
//! After a fault every call of the process fails on every device, with codes that say less and less
//! about the cause. So the first one is kept, and returned before CUDA is asked again.

use std::sync::OnceLock;

use cudarc::driver::sys::CUresult;

use crate::error::CudaError;

static FIRST: OnceLock<CudaError> = OnceLock::new();

/// The first failure that ended CUDA for this process, if there was one.
#[must_use]
pub fn first_fault() -> Option<&'static CudaError> {
    FIRST.get()
}

/// Fails with the first fault if there was one.
pub(crate) fn healthy() -> Result<(), CudaError> {
    match FIRST.get() {
        Some(first) => Err(first.clone()),
        None => Ok(()),
    }
}

/// Keeps `error` as the process's first fault if it is one and the first.
pub(crate) fn record_fault(error: CudaError) -> CudaError {
    if error.kind.poisons() && FIRST.set(error.clone()).is_ok() {
        tracing::error!(%error, "cuda is lost to this process");
    }
    error
}

/// The result of the driver's `call`.
pub(crate) fn check(call: &'static str, result: CUresult) -> Result<(), CudaError> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(failed(call, result)) }
}

#[cold]
fn failed(call: &'static str, result: CUresult) -> CudaError {
    record_fault(CudaError::driver(call, result, ""))
}

/// [`check`] for destructors: there is nobody to tell, so it is logged.
pub(crate) fn check_drop(call: &'static str, result: CUresult) {
    if let Err(error) = check(call, result) {
        tracing::warn!(%error, "cuda object not released");
    }
}
