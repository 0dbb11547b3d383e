//! Loaded device code and the kernels in it.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction_attribute, CUjit_option};

use super::context::Context;
use super::fault::{check, check_drop, first_fault};
use super::launch::{Args, LaunchConfig};
use super::stream::Stream;
use crate::error::{CudaError, ErrorKind};

/// Room for what the driver's compiler has to say about an image.
const LOG_BYTES: usize = 8192;

/// Device code loaded into a context.
#[derive(Debug)]
pub struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
    what: String,
}

// SAFETY: the handle may be used from every thread; the driver locks it.
unsafe impl Send for Module {}
// SAFETY: as above; there is no state on the host's side.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin, or PTX which the driver then compiles. `what` names it in messages.
    ///
    /// # Errors
    /// [`Usage`](ErrorKind::Usage) with the compiler's log for an image that this device or driver
    /// cannot use; the driver's failure.
    pub fn from_image(
        context: &Arc<Context>,
        image: &[u8],
        what: &str,
    ) -> Result<Arc<Self>, CudaError> {
        context.enter()?;
        // The driver finds the end of PTX by a zero, that of a cubin by its header.
        let mut image = image.to_vec();
        image.push(0);
        let mut log = vec![0_u8; LOG_BYTES];
        let mut options = [
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // The driver takes numbers in the place of pointers here.
        let mut values =
            [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
        let mut raw = ptr::null_mut();
        // SAFETY: the image ends with a zero and the driver copies what it keeps; options and values
        // have the stated number of entries, and the log has the stated size.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &raw mut raw,
                image.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        check("cuModuleLoadData", result).map_err(|mut error| {
            // No image for this device, invalid image or PTX, PTX newer than the driver.
            if matches!(error.code, 200 | 209 | 218 | 222) {
                error.kind = ErrorKind::Usage;
            }
            let log = log.split(|byte| *byte == 0).next().unwrap_or_default();
            let (major, minor) = context.info().capability;
            error.with(format!(
                "{what} on compute capability {major}.{minor}: {}",
                String::from_utf8_lossy(log).trim()
            ))
        })?;
        Ok(Arc::new(Self { context: Arc::clone(context), raw, what: what.to_owned() }))
    }

    /// The kernel with the unmangled name `name`.
    ///
    /// # Errors
    /// [`Missing`](ErrorKind::Missing) if there is none; the driver's failure.
    pub fn kernel(self: &Arc<Self>, name: &str) -> Result<Kernel, CudaError> {
        self.context.enter()?;
        let text = CString::new(name)
            .map_err(|_| CudaError::usage("cuModuleGetFunction", "the name contains a zero"))?;
        let mut raw = ptr::null_mut();
        // SAFETY: the module is alive, the name ends with a zero, `raw` is a place for the handle.
        check("cuModuleGetFunction", unsafe {
            sys::cuModuleGetFunction(&raw mut raw, self.raw, text.as_ptr())
        })
        .map_err(|mut error| {
            if error.code == 500 {
                error.kind = ErrorKind::Missing;
            }
            error.with(format!("{name} in {}", self.what))
        })?;
        Ok(Kernel { module: Arc::clone(self), raw, name: name.to_owned() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if first_fault().is_none() && self.context.enter().is_ok() {
            // SAFETY: the handle is alive and used for the last time: kernels hold the module.
            check_drop("cuModuleUnload", unsafe { sys::cuModuleUnload(self.raw) });
        }
    }
}

/// One kernel of a [`Module`].
#[derive(Clone, Debug)]
pub struct Kernel {
    module: Arc<Module>,
    raw: sys::CUfunction,
    name: String,
}

// SAFETY: the handle may be used from every thread and lives as long as its module.
unsafe impl Send for Kernel {}
// SAFETY: as above; there is no state on the host's side.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// The name it was found by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allows blocks up to `bytes` of dynamic shared memory; needed above 48 KiB.
    ///
    /// # Errors
    /// [`Usage`](ErrorKind::Usage) for more than the device has; the driver's failure.
    pub fn set_shared_bytes(&self, bytes: u32) -> Result<(), CudaError> {
        let context = &self.module.context;
        context.enter()?;
        let most = context.info().shared_bytes_max;
        let value = match i32::try_from(bytes) {
            Ok(value) if bytes <= most => value,
            _ => {
                return Err(CudaError::usage(
                    "cuFuncSetAttribute",
                    format!("{}: {bytes} bytes of shared memory, of {most}", self.name),
                ));
            }
        };
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the handle is alive.
        check("cuFuncSetAttribute", unsafe { sys::cuFuncSetAttribute(self.raw, attribute, value) })
            .map_err(|error| error.with(format!("{}: {bytes} bytes of shared memory", self.name)))
    }

    /// How many blocks of `block` threads with `shared_bytes` run on a multiprocessor at once.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn occupancy(&self, block: u32, shared_bytes: u32) -> Result<u32, CudaError> {
        self.module.context.enter()?;
        let threads = i32::try_from(block)
            .map_err(|_| CudaError::usage("occupancy", format!("{block} threads")))?;
        let mut blocks = 0;
        // SAFETY: the handle is alive and `blocks` is a place for the result.
        check("cuOccupancyMaxActiveBlocksPerMultiprocessor", unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &raw mut blocks,
                self.raw,
                threads,
                shared_bytes as usize,
            )
        })
        .map_err(|error| error.with(&self.name))?;
        Ok(u32::try_from(blocks).unwrap_or(0))
    }

    /// Enqueues the kernel on `stream`.
    ///
    /// # Safety
    /// `args` must be as many and of such types as the kernel's parameters say, and with them and
    /// `config` the kernel must only touch memory that lives until it ends and that nobody else
    /// uses in a conflicting way meanwhile.
    ///
    /// # Errors
    /// [`Usage`](ErrorKind::Usage) for an impossible shape or too many arguments; the driver's
    /// failure. A fault of the kernel itself appears at a later call.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        config: &LaunchConfig,
        args: &mut Args,
    ) -> Result<(), CudaError> {
        config.validate()?;
        let mut pointers = args.pointers()?;
        self.module.context.enter()?;

        let mut attributes: [sys::CUlaunchAttribute; 2] = [attribute_none(), attribute_none()];
        let mut count = 0;
        if config.cluster > 1 {
            attributes[count].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            attributes[count].value.clusterDim =
                sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: config.cluster, y: 1, z: 1 };
            count += 1;
        }
        if config.overlap_previous {
            attributes[count].id =
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
            attributes[count].value.programmaticStreamSerializationAllowed = 1;
            count += 1;
        }
        let launch = sys::CUlaunchConfig {
            gridDimX: config.grid.0,
            gridDimY: config.grid.1,
            gridDimZ: config.grid.2,
            blockDimX: config.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: config.shared_bytes,
            hStream: stream.raw(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: count as u32,
        };
        // SAFETY: configuration, attributes and arguments live until the call returns, which copies
        // them; that they fit the kernel is the caller's promise.
        check("cuLaunchKernelEx", unsafe {
            sys::cuLaunchKernelEx(
                &raw const launch,
                self.raw,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        })
        .map_err(|error| error.with(format!("{} with {config:?}", self.name)))
    }
}

fn attribute_none() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_IGNORE,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    }
}
