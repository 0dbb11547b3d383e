//! The one allocation of working memory, cut up as the plan says.
//!
//! The buffers of token states form a ring, so that one batch is pooled while the next one is
//! encoded. The scratch memory is a union: the fused projections and the attention output lie in it
//! together, and later the feed-forward rows take their place. Everything starts as zeros, so that
//! rows past a batch's end, which library products compute along, hold finite numbers.

use std::sync::Arc;

use super::memory::{ELEMENT_BYTES, MemoryPlan, RINGS, SIZES_BYTES};
use crate::CudaError;
use crate::edge::{Carver, Context, DeviceMemory, DevicePtr, Stream};
use crate::weights::Geometry;

/// What belongs to one buffer of token states.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring {
    /// Token states, `[tokens_max, hidden]`.
    pub states: DevicePtr,
    /// Row boundaries of the batch in it, written by the embedding kernel.
    pub boundaries: DevicePtr,
    /// `Sizes` of the batch in it, written by the embedding kernel.
    pub sizes: DevicePtr,
}

/// What belongs to one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotAt {
    /// Boundaries, then ids, as they lie in the host's slot.
    pub staging: DevicePtr,
    /// Pooled rows, `[rows_max, hidden + 1]` in f32.
    pub rows: DevicePtr,
}

/// Working memory.
#[derive(Debug)]
pub(crate) struct Workspace {
    plan: MemoryPlan,
    rings: [Ring; RINGS],
    /// Fused projections, `[tokens_max, 3 * hidden]`.
    pub projections: DevicePtr,
    /// Attention output, `[tokens_max, hidden]`, behind the projections.
    pub attended: DevicePtr,
    /// Feed-forward rows, `[tokens_max, intermediate]`, over both of them.
    pub wide: DevicePtr,
    /// Result of a product before its residual is added; null if no path needs it.
    pub product: DevicePtr,
    /// Scratch memory of library products; null if there are none.
    pub gemm: DevicePtr,
    slots: Vec<SlotAt>,
    // Owns what all the addresses point into.
    _memory: DeviceMemory,
}

impl Workspace {
    /// Allocates, cuts up and zeroes the memory; waits for the zeroes.
    ///
    /// # Errors
    /// The driver's failure.
    pub(crate) fn allocate(
        context: &Arc<Context>,
        geometry: &Geometry,
        plan: MemoryPlan,
        stream: &Stream,
    ) -> Result<Self, CudaError> {
        let memory = DeviceMemory::allocate(context, plan.workspace() as usize, "workspace")?;
        let mut carver = Carver::new(&memory);
        let mut take = |bytes: u64| match bytes {
            0 => Ok(DevicePtr::NULL),
            bytes => carver.take(bytes as usize),
        };
        let mut ring = || {
            Ok::<_, CudaError>(Ring {
                states: take(plan.states)?,
                boundaries: take(plan.boundaries)?,
                sizes: take(SIZES_BYTES)?,
            })
        };
        let rings = [ring()?, ring()?];
        let projections = take(plan.scratch)?;
        let projected = u64::from(plan.tokens_max) * u64::from(3 * geometry.hidden) * ELEMENT_BYTES;
        let product = take(plan.product)?;
        let gemm = take(plan.gemm_workspace)?;
        let slots = (0..plan.slots)
            .map(|_| Ok(SlotAt { staging: take(plan.staging)?, rows: take(plan.rows)? }))
            .collect::<Result<_, CudaError>>()?;
        memory.zero(stream)?;
        stream.synchronize()?;
        Ok(Self {
            plan,
            rings,
            projections,
            attended: projections.offset(projected as usize),
            wide: projections,
            product,
            gemm,
            slots,
            _memory: memory,
        })
    }

    /// The sizes it was made with.
    pub(crate) fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// The ring's buffer `index`, below [`RINGS`].
    pub(crate) fn ring(&self, index: usize) -> Ring {
        self.rings[index % RINGS]
    }

    /// The memory of `slot`, or `None` if there are not so many.
    pub(crate) fn slot(&self, slot: u32) -> Option<SlotAt> {
        self.slots.get(slot as usize).copied()
    }
}
