//! The run-time compiler: one program in, one image and what the compiler said out.
//!
//! It needs no driver and no device. What is compiled, and with which options, is decided above.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use crate::error::{CudaError, ErrorKind};

/// What a compilation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// A cubin for an architecture given as `sm_..`, or PTX without a final zero for `compute_..`.
    pub image: Vec<u8>,
    /// Warnings, and what was asked for with `--ptxas-options=-v`.
    pub log: String,
}

/// Compiles `source`, called `name` in messages, with `options`, of which `-arch=` decides what
/// comes out. NVRTC must have been opened ([`load_nvrtc`](super::load_nvrtc)).
///
/// # Errors
/// [`Usage`](ErrorKind::Usage) with the compiler's log for a source or an architecture it refuses;
/// its own failure otherwise.
pub fn compile(name: &str, source: &str, options: &[String]) -> Result<Compiled, CudaError> {
    super::load_nvrtc(&[])?;
    let text = |text: &str| {
        CString::new(text).map_err(|_| CudaError::usage("nvrtc", format!("{name} contains a zero")))
    };
    let source = text(source)?;
    let title = text(name)?;
    let texts = options.iter().map(|option| text(option)).collect::<Result<Vec<_>, _>>()?;
    let pointers: Vec<*const c_char> = texts.iter().map(|option| option.as_ptr()).collect();

    let mut program = Program(ptr::null_mut());
    // SAFETY: both texts end with a zero and outlive the call; there are no headers.
    check("nvrtcCreateProgram", name, unsafe {
        sys::nvrtcCreateProgram(
            &raw mut program.0,
            source.as_ptr(),
            title.as_ptr(),
            0,
            ptr::null(),
            ptr::null(),
        )
    })?;
    // The number of options is a handful.
    let count = pointers.len() as i32;
    // SAFETY: the program is alive and there are `count` pointers to texts that end with a zero.
    let result = unsafe { sys::nvrtcCompileProgram(program.0, count, pointers.as_ptr()) };
    let log = program.log();
    check("nvrtcCompileProgram", name, result).map_err(|error| {
        error.with(format!("options {}", options.join(" "))).with(format!("its log:\n{log}"))
    })?;
    let is_ptx = options.iter().any(|option| option.starts_with("-arch=compute_"));
    let image = if is_ptx {
        let mut image =
            program.read("nvrtcGetPTX", name, sys::nvrtcGetPTXSize, sys::nvrtcGetPTX)?;
        while image.last() == Some(&0) {
            image.pop();
        }
        image
    } else {
        program.read("nvrtcGetCUBIN", name, sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN)?
    };
    Ok(Compiled { image, log })
}

/// A program, destroyed with this.
struct Program(nvrtcProgram);

type Size = unsafe fn(nvrtcProgram, *mut usize) -> nvrtcResult;
type Get = unsafe fn(nvrtcProgram, *mut c_char) -> nvrtcResult;

impl Program {
    /// A result that is asked for by its size, then by its bytes.
    fn read(
        &self,
        call: &'static str,
        name: &str,
        size: Size,
        get: Get,
    ) -> Result<Vec<u8>, CudaError> {
        let mut bytes = 0;
        // SAFETY: the program is alive and `bytes` is a place for the result.
        check(call, name, unsafe { size(self.0, &raw mut bytes) })?;
        let mut out = vec![0_u8; bytes];
        // SAFETY: the program is alive and `out` has the size that was asked for.
        check(call, name, unsafe { get(self.0, out.as_mut_ptr().cast()) })?;
        Ok(out)
    }

    /// What the compiler said; empty if even that fails.
    fn log(&self) -> String {
        let read = self.read(
            "nvrtcGetProgramLog",
            "",
            sys::nvrtcGetProgramLogSize,
            sys::nvrtcGetProgramLog,
        );
        let bytes = read.unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the program is alive and used for the last time.
            unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
        }
    }
}

fn check(call: &'static str, name: &str, result: nvrtcResult) -> Result<(), CudaError> {
    let kind = match result {
        nvrtcResult::NVRTC_SUCCESS => return Ok(()),
        nvrtcResult::NVRTC_ERROR_OUT_OF_MEMORY => ErrorKind::Retry,
        _ => ErrorKind::Usage,
    };
    // SAFETY: the call gives a text that ends with a zero and lives as long as the library.
    let said = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(result)) };
    Err(CudaError::library(call, result as u32, said.to_string_lossy(), kind, name))
}
