//! The one error type of this crate, and what each of CUDA's codes means for the caller.
//!
//! Nothing here calls CUDA: the table is a pure function, so it is tested without a device.

use cudarc::driver::sys::CUresult;
use thiserror::Error;

/// What a failure means for whoever must go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The call failed, the device is fine: the same work may be tried again.
    Retry,
    /// Device or page-locked memory does not suffice: ask for less.
    OutOfMemory,
    /// The process can never use CUDA again, on any device: it must be replaced.
    Sticky,
    /// The device is gone or unusable: another process is no better off until it returns.
    DeviceLost,
    /// A library, a symbol, a driver that is new enough or a device is missing on this machine.
    Missing,
    /// The request itself is wrong; CUDA was not asked, or cannot serve it on this device.
    Usage,
}

impl ErrorKind {
    /// True if CUDA must not be called again in this process, not even to free memory.
    #[must_use]
    pub fn poisons(self) -> bool {
        matches!(self, Self::Sticky | Self::DeviceLost)
    }
}

/// A failed CUDA, NVRTC or cublasLt call, or a request refused before one was made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{call}: {name}{}{}{detail}", coded(*code), if detail.is_empty() { "" } else { ": " })]
pub struct CudaError {
    /// The call that failed, such as `cuMemAlloc`, or the function that refused.
    pub call: &'static str,
    /// The library's code; 0 where no library was asked.
    pub code: u32,
    /// The library's name of the code, such as `CUDA_ERROR_ILLEGAL_ADDRESS`.
    pub name: String,
    /// The values involved and the remedy; may be empty.
    pub detail: String,
    /// What it means for the caller.
    pub kind: ErrorKind,
}

impl CudaError {
    /// A request that is wrong in itself; `detail` names the value and the remedy.
    #[must_use]
    pub fn usage(call: &'static str, detail: impl Into<String>) -> Self {
        Self {
            call,
            code: 0,
            name: "refused".to_owned(),
            detail: detail.into(),
            kind: ErrorKind::Usage,
        }
    }

    /// Something this machine lacks; `detail` names it and where it was looked for.
    #[must_use]
    pub fn missing(call: &'static str, detail: impl Into<String>) -> Self {
        Self {
            call,
            code: 0,
            name: "missing".to_owned(),
            detail: detail.into(),
            kind: ErrorKind::Missing,
        }
    }

    /// A code of the driver, classified by [`classify`].
    pub(crate) fn driver(call: &'static str, result: CUresult, detail: impl Into<String>) -> Self {
        let code = result as u32;
        Self {
            call,
            code,
            name: format!("{result:?}"),
            detail: detail.into(),
            kind: classify(code),
        }
    }

    /// A code of another library, whose meaning the caller knows.
    pub(crate) fn library(
        call: &'static str,
        code: u32,
        name: impl Into<String>,
        kind: ErrorKind,
        detail: impl Into<String>,
    ) -> Self {
        Self { call, code, name: name.into(), detail: detail.into(), kind }
    }

    /// The same failure at start-up, where a missing or busy device is no loss of one.
    pub(crate) fn at_start(mut self) -> Self {
        match self.code {
            100 | 101 | 34 | 803 | 804 => self.kind = ErrorKind::Missing,
            46 | 802 | 999 => self.kind = ErrorKind::DeviceLost,
            _ => {}
        }
        self
    }

    /// The same failure with more about its circumstances.
    #[must_use]
    pub fn with(mut self, detail: impl AsRef<str>) -> Self {
        if !self.detail.is_empty() {
            self.detail.push_str("; ");
        }
        self.detail.push_str(detail.as_ref());
        self
    }
}

/// A code as it is shown; where no library was asked there is none.
fn coded(code: u32) -> String {
    if code == 0 { String::new() } else { format!(" ({code})") }
}

/// What a code of the driver means once a device is in use.
///
/// 201 (invalid context) counts as sticky: every call binds its context first, so the code only
/// appears when a fault destroyed it.
#[must_use]
pub fn classify(code: u32) -> ErrorKind {
    match code {
        2 => ErrorKind::OutOfMemory,
        // Invalid or destroyed context; uncorrectable ECC or NVLink errors, contained or not.
        201 | 709 | 214 | 220 | 226 => ErrorKind::Sticky,
        // Illegal address, launch timeout, assertion, stack, instruction, alignment, address space,
        // program counter, launch failure, leaked tensor memory.
        700 | 702 | 710 | 714..=719 | 721 => ErrorKind::Sticky,
        // Unavailable, gone, not a device, not ready, client ended, unknown.
        46 | 100 | 101 | 802 | 810 | 999 => ErrorKind::DeviceLost,
        _ => ErrorKind::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_ends_the_process_poisons_and_no_other_does() {
        let sticky = [201, 709, 214, 220, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721];
        for code in sticky {
            assert_eq!(classify(code), ErrorKind::Sticky, "{code}");
        }
        for code in [46, 100, 101, 802, 810, 999] {
            assert_eq!(classify(code), ErrorKind::DeviceLost, "{code}");
        }
        assert_eq!(classify(2), ErrorKind::OutOfMemory);
        for code in [1, 3, 200, 209, 218, 222, 400, 500, 600, 701, 720, 900, 901, 912] {
            assert_eq!(classify(code), ErrorKind::Retry, "{code}");
            assert!(!classify(code).poisons(), "{code}");
        }
        assert!(sticky.iter().all(|code| classify(*code).poisons()));
        assert!(!ErrorKind::OutOfMemory.poisons());
    }

    #[test]
    fn no_device_at_start_is_missing_and_later_is_lost() {
        let error = CudaError::driver("cuInit", CUresult::CUDA_ERROR_NO_DEVICE, "");
        assert_eq!(error.kind, ErrorKind::DeviceLost);
        assert_eq!(error.at_start().kind, ErrorKind::Missing);
    }

    #[test]
    fn the_message_names_call_code_and_circumstances() {
        let error =
            CudaError::driver("cuMemAlloc", CUresult::CUDA_ERROR_OUT_OF_MEMORY, "5 bytes for x");
        assert_eq!(error.to_string(), "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2): 5 bytes for x");
        assert_eq!(
            error.with("1 byte free").to_string(),
            "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2): 5 bytes for x; 1 byte free"
        );
        let bare = CudaError::driver("cuInit", CUresult::CUDA_ERROR_UNKNOWN, "");
        assert_eq!(bare.to_string(), "cuInit: CUDA_ERROR_UNKNOWN (999)");
    }
}
