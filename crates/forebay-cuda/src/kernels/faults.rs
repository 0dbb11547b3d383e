//! Kernels that break on purpose. They come from the embedded PTX, which the driver translates in a
//! moment: no compiler is asked and nothing is kept. Only an engine that is told to loads them.

use std::sync::Arc;

use super::{KernelOptions, KernelSource, load_file, source};
use crate::edge::{Args, Context, DevicePtr, Kernel, LaunchConfig, Stream};
use crate::error::CudaError;

/// An address that is never memory, aligned so that nothing else is wrong with it.
const NOWHERE: usize = 64;

/// The three kernels.
#[derive(Debug)]
pub struct FaultKernels {
    trap: Kernel,
    illegal_address: Kernel,
    endless: Kernel,
}

impl FaultKernels {
    /// Loads them.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) if the driver cannot use the PTX; the driver's failure.
    pub fn load(context: &Arc<Context>) -> Result<Self, CudaError> {
        let options = KernelOptions { source: KernelSource::Ptx, ..KernelOptions::default() };
        let (module, _) = load_file(context, &options, &source::FAULTS)?;
        Ok(Self {
            trap: module.kernel("fault_trap")?,
            illegal_address: module.kernel("fault_illegal_address")?,
            endless: module.kernel("fault_endless")?,
        })
    }

    /// Enqueues a trap.
    ///
    /// # Errors
    /// The driver's failure. What the kernel does shows at a later call.
    pub fn trap(&self, stream: &Stream) -> Result<(), CudaError> {
        enqueue(&self.trap, stream, &mut Args::new())
    }

    /// Enqueues a write to where there is no memory.
    ///
    /// # Errors
    /// As for [`FaultKernels::trap`].
    pub fn illegal_address(&self, stream: &Stream) -> Result<(), CudaError> {
        let mut args = Args::new();
        args.ptr(DevicePtr::NULL.offset(NOWHERE));
        enqueue(&self.illegal_address, stream, &mut args)
    }

    /// Enqueues a kernel that never ends.
    ///
    /// # Errors
    /// As for [`FaultKernels::trap`].
    pub fn endless(&self, stream: &Stream) -> Result<(), CudaError> {
        enqueue(&self.endless, stream, &mut Args::new())
    }
}

fn enqueue(kernel: &Kernel, stream: &Stream, args: &mut Args) -> Result<(), CudaError> {
    // SAFETY: every caller in this file passes the parameters of the kernel it names. The kernels
    // touch no memory, but for one that writes where the device has none: the device refuses that,
    // and the host's memory is out of its reach at this address.
    unsafe { kernel.launch(stream, &LaunchConfig::linear(1, 1), args) }
}
