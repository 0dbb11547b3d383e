//! Which devices there are and what they can do.
//!
//! Probing opens no context, so it leaves no mark on a device that another process uses.

use std::ffi::{CStr, c_char};

use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};
use serde::Serialize;

use super::fault::healthy;
use super::library;
use crate::error::{CudaError, ErrorKind};

/// What the driver says about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// Its number among the devices that this process may see.
    pub ordinal: u32,
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability, major and minor: (9, 0) is sm_90.
    pub capability: (u32, u32),
    /// All memory of the device.
    pub memory_bytes: u64,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Size of the level-2 cache.
    pub l2_bytes: u32,
    /// Most shared memory that a block may have, if its kernel opts in.
    pub shared_bytes_max: u32,
    /// True if the device shares its memory with the host's processor.
    pub integrated: bool,
    /// True if pages of the host can be registered for the device.
    pub host_register: bool,
    /// True if the device reads any host memory through the host's page tables.
    pub host_page_tables: bool,
    /// Such as `GPU-8c1d5c3e-....`.
    pub uuid: String,
    /// Address on the PCI bus, such as `0000:19:00.0`.
    pub pci: String,
}

/// Every device that this process may see, in the driver's order; none is not an error.
///
/// # Errors
/// [`Missing`](ErrorKind::Missing) without a usable driver, or the driver's failure.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    healthy()?;
    library::load(&[])?;
    match initialize() {
        Ok(()) => {}
        Err(error) if error.code == CUresult::CUDA_ERROR_NO_DEVICE as u32 => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    (0..count()?).map(|ordinal| probe(ordinal).map(|(_, info)| info)).collect()
}

/// Starts the driver; once is enough, more often is harmless.
pub(crate) fn initialize() -> Result<(), CudaError> {
    // SAFETY: the driver's library is loaded; the call has no other precondition.
    at_start("cuInit", unsafe { sys::cuInit(0) })
}

fn count() -> Result<u32, CudaError> {
    let mut count = 0;
    // SAFETY: `count` is a place for the result.
    at_start("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    Ok(u32::try_from(count).unwrap_or(0))
}

/// The device's handle and description.
pub(crate) fn probe(ordinal: u32) -> Result<(sys::CUdevice, DeviceInfo), CudaError> {
    let count = count()?;
    let index = match i32::try_from(ordinal) {
        Ok(index) if ordinal < count => index,
        _ => {
            return Err(CudaError::missing(
                "cuDeviceGet",
                format!("there is no device {ordinal}; this process sees {count}"),
            ));
        }
    };
    let mut device = 0;
    // SAFETY: `device` is a place for the handle.
    at_start("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, index) })?;

    let mut memory_bytes = 0_usize;
    // SAFETY: `memory_bytes` is a place for the result.
    at_start("cuDeviceTotalMem", unsafe {
        sys::cuDeviceTotalMem_v2(&raw mut memory_bytes, device)
    })?;
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: `uuid` is a place for the result.
    at_start("cuDeviceGetUuid", unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, device) })?;

    use CUdevice_attribute as A;
    let of = |attribute| attribute_of(device, attribute);
    let info = DeviceInfo {
        ordinal,
        // SAFETY: the buffer has the length passed, and the driver ends the text in it.
        name: text("cuDeviceGetName", |buffer, length| unsafe {
            sys::cuDeviceGetName(buffer, length, device)
        })?,
        capability: (
            of(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            of(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        memory_bytes: memory_bytes as u64,
        multiprocessors: of(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: of(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        shared_bytes_max: of(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        integrated: of(A::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
        host_register: of(A::CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)? != 0,
        host_page_tables: of(A::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES)?
            != 0,
        uuid: uuid_text(uuid.bytes.map(|byte| byte as u8)),
        // SAFETY: the buffer has the length passed, and the driver ends the text in it.
        pci: text("cuDeviceGetPCIBusId", |buffer, length| unsafe {
            sys::cuDeviceGetPCIBusId(buffer, length, device)
        })?,
    };
    Ok((device, info))
}

fn attribute_of(device: sys::CUdevice, attribute: CUdevice_attribute) -> Result<u32, CudaError> {
    let mut value = 0;
    // SAFETY: `value` is a place for the result.
    at_start("cuDeviceGetAttribute", unsafe {
        sys::cuDeviceGetAttribute(&raw mut value, attribute, device)
    })
    .map_err(|error| error.with(format!("{attribute:?}")))?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// Text that `fill` writes, ended by a zero, into a buffer of the length that it is told.
fn text(
    call: &'static str,
    fill: impl FnOnce(*mut c_char, i32) -> CUresult,
) -> Result<String, CudaError> {
    let mut buffer = [0_u8; 256];
    at_start(call, fill(buffer.as_mut_ptr().cast(), 256))?;
    let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}

/// A failure while probing says something about the machine and does not end CUDA for the process.
fn at_start(call: &'static str, result: CUresult) -> Result<(), CudaError> {
    match result {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => Err(CudaError::library(
            call,
            result as u32,
            format!("{result:?}"),
            ErrorKind::Missing,
            "the driver's library and its kernel module differ; restart after an update",
        )),
        _ => Err(CudaError::driver(call, result, "").at_start()),
    }
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (index, byte) in bytes.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_the_driver_tools_write_it() {
        let mut bytes = [0_u8; 16];
        for (index, byte) in (0_u8..).zip(&mut bytes) {
            *byte = index * 17;
        }
        assert_eq!(uuid_text(bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
