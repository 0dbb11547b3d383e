//! The process's first fault, and the check every driver call goes through.
//!
//! After a fault every call of the process fails on every device, with codes that say less and less
//! about the cause. So the first one is kept, and returned before CUDA is asked again.

use std::sync::OnceLock;

use cudarc::driver::sys::CUresult;

use crate::error::{CudaError, ErrorKind};

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
        // Whoever is given the error makes the one record of it, with the batch it befell.
        tracing::debug!(%error, "cuda is lost to this process");
    }
    error
}

/// Gives CUDA up for this process, as a device that does not finish its work would hold up every
/// later wait for it, those of destructors included.
pub(crate) fn give_up(what: impl std::fmt::Display) {
    record_fault(CudaError::library("wait", 0, "stuck", ErrorKind::Sticky, what.to_string()));
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
