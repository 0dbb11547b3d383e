//! Faults on request: what an engine that is told to allow them does to itself, on its own stream,
//! between two batches. It is for tests and drills, and never for a device that others rely on.

use crate::CudaError;
use crate::edge::{DeviceMemory, Stream, download, upload};
use crate::engine::error::EngineError;
use crate::engine::loading::Loaded;
use crate::kernels::FaultKernels;
use crate::weights::worst_flip;

/// A fault that the engine brings about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFault {
    /// A kernel executes a trap.
    Trap,
    /// A kernel writes where there is no memory.
    IllegalAddress,
    /// A kernel never ends.
    EndlessKernel,
    /// The driver is asked for more memory than the device has, and refuses.
    OutOfMemory,
    /// One bit of one weight of the first layer is flipped.
    FlipWeightBit,
}

/// What is needed for that, and what is to happen with the next batch.
#[derive(Debug)]
pub(crate) struct DeviceFaults {
    kernels: FaultKernels,
    next: Option<DeviceFault>,
}

impl DeviceFaults {
    /// Loads the kernels.
    pub(crate) fn load(loaded: &Loaded) -> Result<Self, CudaError> {
        Ok(Self { kernels: FaultKernels::load(&loaded.context)?, next: None })
    }

    /// Notes what is to happen with the next batch.
    pub(crate) fn ask(&mut self, fault: DeviceFault) {
        self.next = Some(fault);
    }

    /// Brings about what was asked for on `stream`, which runs the encoder.
    pub(crate) fn before_batch(
        &mut self,
        loaded: &Loaded,
        stream: &Stream,
    ) -> Result<(), EngineError> {
        let Some(fault) = self.next.take() else { return Ok(()) };
        tracing::warn!(?fault, "a fault was asked for");
        match fault {
            DeviceFault::Trap => self.kernels.trap(stream)?,
            DeviceFault::IllegalAddress => self.kernels.illegal_address(stream)?,
            DeviceFault::EndlessKernel => self.kernels.endless(stream)?,
            DeviceFault::OutOfMemory => {
                let (_, total) = loaded.context.memory_free()?;
                // More than there is: the driver's own refusal, and nobody else loses memory.
                let bytes = usize::try_from(total).unwrap_or(usize::MAX).saturating_mul(2);
                DeviceMemory::allocate(&loaded.context, bytes, "a fault that was asked for")?;
            }
            DeviceFault::FlipWeightBit => flip_weight_bit(loaded, stream)?,
        }
        Ok(())
    }
}

/// Flips one bit in the shift of the first layer's last normalisation: it is added to every token of
/// every text, whatever the text is.
fn flip_weight_bit(loaded: &Loaded, stream: &Stream) -> Result<(), EngineError> {
    let Some(layer) = loaded.weights.map().layers.first() else {
        return Err(EngineError::Pipeline("a model without a layer"));
    };
    let shift = layer.output_norm.beta;
    let mut bytes = vec![0; loaded.geometry.hidden as usize * size_of::<f32>()];
    download(stream, loaded.weights.at(shift), &mut bytes)?;
    let (words, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let Some((index, flipped)) = worst_flip(&values) else {
        return Err(EngineError::Pipeline("a model without a width"));
    };
    let at = loaded.weights.at(shift + index * size_of::<f32>());
    Ok(upload(stream, at, &flipped.to_le_bytes())?)
}
