//! Functions of NVML that its wrapper does not have, and the comparison of two of its handles.

use std::mem::size_of;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::nvmlMarginTemperature_v1_t;

/// Why clocks are lower than they could be, with bits that the wrapper does not know.
///
/// # Errors
/// [`NvmlError`] as NVML gives it; a function that the library lacks is one.
pub(super) fn clocks_event_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let library = device.nvml().lib();
    // The second is the name by which libraries before release 535 know it.
    let call = nvml_sym(library.nvmlDeviceGetCurrentClocksEventReasons.as_ref())
        .or_else(|_| nvml_sym(library.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref()))?;
    let mut reasons = 0;
    // SAFETY: the symbol was found in the library that `device` belongs to and has this type in
    // NVIDIA's header; the handle is valid while `Nvml` lives, which `device` borrows; `reasons` is
    // a writable value of the type that is written.
    unsafe { nvml_try(call(device.handle(), &raw mut reasons))? };
    Ok(reasons)
}

/// Degrees Celsius that are left until the hardware slows down. Newer devices say this instead of
/// the temperatures at which they do.
///
/// # Errors
/// [`NvmlError`] as NVML gives it; a function that the library lacks is one.
pub(super) fn slowdown_margin_c(device: &Device<'_>) -> Result<i32, NvmlError> {
    let library = device.nvml().lib();
    let call = nvml_sym(library.nvmlDeviceGetMarginTemperature.as_ref())?;
    // NVIDIA's header: the size of the structure, and its version in the highest byte.
    let version = size_of::<nvmlMarginTemperature_v1_t>() as u32 | (1 << 24);
    let mut margin = nvmlMarginTemperature_v1_t { version, marginTemperature: 0 };
    // SAFETY: as above; `margin` is a writable structure of the version that it names.
    unsafe { nvml_try(call(device.handle(), &raw mut margin))? };
    Ok(margin.marginTemperature)
}

/// Whether both are the same device. A lost one cannot be asked who it is.
pub(super) fn same(one: &Device<'_>, other: &Device<'_>) -> bool {
    // SAFETY: the handles are compared and not used.
    unsafe { one.handle() == other.handle() }
}
