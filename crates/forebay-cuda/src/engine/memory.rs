//! The account of device memory: what an engine needs, and how it shrinks to fit.
//!
//! Every byte that is allocated is planned here first, so that a limit holds before anything is
//! allocated and the report is exact. When memory does not suffice, the batch size is halved:
//! larger requests are then split more often, and nothing that would have run is refused.

use serde::Serialize;

use super::buckets::BUCKET_STEP;
use super::error::EngineError;
use crate::edge::ALIGNMENT;
use crate::weights::Geometry;

/// Device batches never shrink below this; it holds the longest sequence of any supported model.
pub const TOKENS_MAX_MIN: u32 = 512;

/// Buffers of token states, so that one batch is pooled while the next one is encoded.
pub(crate) const RINGS: usize = 2;

/// Scratch memory of library matrix products: every algorithm for current devices runs with it.
pub(crate) const GEMM_WORKSPACE_BYTES: u64 = 32 << 20;

/// What an instantiated graph of an encoder takes, estimated; the report carries measured figures.
pub(crate) const GRAPH_BYTES_ESTIMATE: u64 = 256 << 10;

/// Left alone when the limit is what is free: the driver and other processes allocate as well.
const FREE_RESERVE_BYTES: u64 = 64 << 20;

/// Bytes of one element of an activation or matrix (F16 or BF16).
pub(crate) const ELEMENT_BYTES: u64 = 2;

/// Size of the device's `Sizes { u32 tokens; u32 rows; }`.
pub(crate) const SIZES_BYTES: u64 = 8;

/// What fits into one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotShape {
    /// Tokens of one slot, all rows together.
    pub tokens_max: u32,
    /// Rows of one slot.
    pub rows_max: u32,
    /// Offset of the ids behind the boundaries in bytes.
    pub ids_offset: u64,
}

impl SlotShape {
    /// A slot of just these dimensions, its ids behind its boundaries.
    pub(crate) fn of(tokens_max: u32, rows_max: u32) -> Self {
        Self { tokens_max, rows_max, ids_offset: part((u64::from(rows_max) + 1) * 4) }
    }

    /// Bytes of boundaries and ids.
    pub(crate) fn input_bytes(&self) -> u64 {
        self.ids_offset + u64::from(self.tokens_max) * 4
    }

    /// Bytes of the boundaries of all chunks, each counted from its own start, for a batch that is
    /// split: one more than rows for each chunk, and a chunk has a row at least.
    pub(crate) fn chunk_boundaries_bytes(&self) -> u64 {
        2 * u64::from(self.rows_max) * 4
    }

    /// Bytes of the pooled rows.
    pub(crate) fn rows_bytes(&self, row_values: u32) -> u64 {
        u64::from(self.rows_max) * u64::from(row_values) * 4
    }
}

/// What is asked of [`MemoryPlan::fitting`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryRequest {
    /// Most tokens of one device batch, before any shrinking.
    pub tokens_max: u32,
    /// Most rows of one device batch.
    pub rows_max: u32,
    /// Number of slots.
    pub slots: u32,
    /// Shape of the slots; `None` for slots of one device batch.
    pub slot: Option<SlotShape>,
    /// Whether the result of some product is added to the residual by a separate kernel.
    pub product_buffer: bool,
    /// Whether a library computes some product.
    pub gemm_workspace: bool,
    /// Captured graphs kept.
    pub graphs_max: u32,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// The limit on all of it in bytes, if there is one.
    pub limit: Option<u64>,
    /// Bytes free on the device now, before the weights are there.
    pub free: u64,
}

/// Sizes of every buffer, in bytes unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    /// Most tokens of one device batch; the largest bucket.
    pub tokens_max: u32,
    /// Most rows of one device batch.
    pub rows_max: u32,
    /// Number of slots.
    pub slots: u32,
    /// Shape of one slot.
    pub slot: SlotShape,
    /// One buffer of token states; there are [`RINGS`].
    pub states: u64,
    /// The union of projections with attention output, and of the feed-forward rows.
    pub scratch: u64,
    /// Result of a product that a separate kernel adds to the residual; 0 if there is none.
    pub product: u64,
    /// Scratch memory of the library; 0 without it.
    pub gemm_workspace: u64,
    /// Boundaries of one ring's current batch.
    pub boundaries: u64,
    /// Input of one slot.
    pub staging: u64,
    /// Pooled rows of one slot.
    pub rows: u64,
    /// The weights.
    pub weights: u64,
    /// Estimate for the graphs.
    pub graphs: u64,
    /// The limit that the plan was made for.
    pub available: u64,
}

impl MemoryPlan {
    /// The plan with the largest batch that fits, starting from the one asked for and halving.
    ///
    /// # Errors
    /// [`EngineError::Memory`] if batches of [`TOKENS_MAX_MIN`] tokens do not fit either.
    pub(crate) fn fitting(
        geometry: &Geometry,
        request: &MemoryRequest,
    ) -> Result<Self, EngineError> {
        let mut tokens_max = request.tokens_max.max(TOKENS_MAX_MIN).next_multiple_of(BUCKET_STEP);
        loop {
            let plan = Self::of(geometry, request, tokens_max);
            let needed = plan.total();
            if needed <= plan.available {
                if tokens_max < request.tokens_max {
                    tracing::warn!(
                        asked = request.tokens_max,
                        tokens_max,
                        available_bytes = plan.available,
                        "device memory does not suffice for the batch size asked for; larger \
                         batches are split"
                    );
                }
                return Ok(plan);
            }
            if tokens_max == TOKENS_MAX_MIN {
                let available = plan.available;
                let by_limit = request.limit.is_some_and(|limit| needed > limit);
                return Err(EngineError::Memory { needed, available, tokens_max, by_limit });
            }
            tokens_max = (tokens_max / 2).max(TOKENS_MAX_MIN).next_multiple_of(BUCKET_STEP);
        }
    }

    fn of(geometry: &Geometry, request: &MemoryRequest, tokens_max: u32) -> Self {
        let rows = |width: u32| part(u64::from(tokens_max) * u64::from(width) * ELEMENT_BYTES);
        let slot = request.slot.unwrap_or_else(|| SlotShape::of(tokens_max, request.rows_max));
        let free = request.free.saturating_sub(FREE_RESERVE_BYTES);
        let only_if = |wanted, bytes| if wanted { bytes } else { 0 };
        Self {
            tokens_max,
            rows_max: request.rows_max,
            slots: request.slots,
            slot,
            states: rows(geometry.hidden),
            scratch: rows((4 * geometry.hidden).max(geometry.intermediate)),
            product: only_if(request.product_buffer, rows(geometry.hidden)),
            gemm_workspace: only_if(request.gemm_workspace, GEMM_WORKSPACE_BYTES),
            boundaries: part((u64::from(request.rows_max) + 1) * 4),
            staging: part(slot.input_bytes()) + part(slot.chunk_boundaries_bytes()),
            rows: part(slot.rows_bytes(geometry.row_values())),
            weights: request.weights_bytes,
            graphs: u64::from(request.graphs_max) * GRAPH_BYTES_ESTIMATE,
            available: request.limit.map_or(free, |limit| limit.min(free)),
        }
    }

    /// Token states, scratch and product buffers.
    pub(crate) fn activations(&self) -> u64 {
        RINGS as u64 * self.states + self.scratch + self.product
    }

    /// Inputs and pooled rows of all slots, and what belongs to the current batches.
    pub(crate) fn slot_bytes(&self) -> u64 {
        RINGS as u64 * (self.boundaries + part(SIZES_BYTES))
            + u64::from(self.slots) * (self.staging + self.rows)
    }

    /// Size of the one allocation that holds everything but the weights.
    pub(crate) fn workspace(&self) -> u64 {
        self.activations() + self.slot_bytes() + self.gemm_workspace
    }

    /// Everything, the estimate for graphs included.
    pub(crate) fn total(&self) -> u64 {
        self.weights + self.workspace() + self.graphs
    }

    /// The report, with what `graphs` graphs were measured to take.
    pub(crate) fn report(&self, graphs: u64, graphs_bytes: u64) -> MemoryReport {
        MemoryReport {
            tokens_max: self.tokens_max,
            weights_bytes: self.weights,
            activations_bytes: self.activations(),
            slots_bytes: self.slot_bytes(),
            gemm_workspace_bytes: self.gemm_workspace,
            graphs,
            graphs_bytes,
            total_bytes: self.weights + self.workspace() + graphs_bytes,
            limit_bytes: self.available,
        }
    }
}

/// Where an engine's device memory goes. Kernels, context and stacks belong to the driver and are
/// not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// Most tokens of one device batch, after shrinking.
    pub tokens_max: u32,
    /// Weights in bytes.
    pub weights_bytes: u64,
    /// Token states and scratch of one batch under way and one being pooled, in bytes.
    pub activations_bytes: u64,
    /// Staged inputs and pooled rows of all slots, in bytes.
    pub slots_bytes: u64,
    /// Scratch memory of the library's matrix products, in bytes.
    pub gemm_workspace_bytes: u64,
    /// Captured graphs held now.
    pub graphs: u64,
    /// What they were measured to take, in bytes: free memory before and after each capture.
    pub graphs_bytes: u64,
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// The limit in bytes: the option's, or what was free.
    pub limit_bytes: u64,
}

/// `bytes` rounded up to where the next part may start.
pub(crate) fn part(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::EngineErrorClass;
    use crate::weights::mini_geometry;

    const REQUEST: MemoryRequest = MemoryRequest {
        tokens_max: 8192,
        rows_max: 1024,
        slots: 4,
        slot: None,
        product_buffer: false,
        gemm_workspace: false,
        graphs_max: 48,
        weights_bytes: 45 << 20,
        limit: None,
        free: 100 << 30,
    };

    #[test]
    fn activations_of_8192_tokens_stay_below_40_mb() {
        let plan = MemoryPlan::fitting(&mini_geometry(), &REQUEST).unwrap();
        assert_eq!(plan.tokens_max, 8192);
        assert_eq!(plan.activations(), 8192 * 2 * (2 * 384 + 4 * 384));
        assert!(plan.activations() <= 40_000_000);
        let library = MemoryRequest { product_buffer: true, ..REQUEST };
        let with = MemoryPlan::fitting(&mini_geometry(), &library).unwrap();
        assert_eq!(with.activations() - plan.activations(), 8192 * 2 * 384);
    }

    #[test]
    fn a_limit_halves_the_batch_and_never_refuses_before_the_smallest() {
        let geometry = mini_geometry();
        let full = MemoryPlan::fitting(&geometry, &REQUEST).unwrap().total();
        let mut last = 8192;
        for limit in (0..=full).rev().step_by(1 << 20) {
            let request = MemoryRequest { limit: Some(limit), ..REQUEST };
            match MemoryPlan::fitting(&geometry, &request) {
                Ok(plan) => {
                    assert!(plan.total() <= limit && plan.tokens_max <= last);
                    assert!([8192, 4096, 2048, 1024, 512].contains(&plan.tokens_max));
                    last = plan.tokens_max;
                }
                Err(error) => {
                    let by_limit = matches!(
                        error,
                        EngineError::Memory { tokens_max: 512, by_limit: true, .. }
                    );
                    assert!(by_limit && error.class() == EngineErrorClass::Config, "{error}");
                    assert_eq!(last, 512, "refused although smaller batches were possible");
                }
            }
        }
        assert_eq!(last, 512);
    }

    #[test]
    fn free_memory_is_a_limit_too() {
        let request = MemoryRequest { free: 1 << 20, ..REQUEST };
        let error = MemoryPlan::fitting(&mini_geometry(), &request).unwrap_err();
        assert!(matches!(error, EngineError::Memory { available: 0, .. }), "{error}");
        assert_eq!(error.class(), EngineErrorClass::OutOfMemory, "it may be free later");
    }

    #[test]
    fn the_report_adds_up() {
        let report = MemoryPlan::fitting(&mini_geometry(), &REQUEST).unwrap().report(3, 5 << 20);
        let parts = report.weights_bytes
            + report.activations_bytes
            + report.slots_bytes
            + report.gemm_workspace_bytes
            + report.graphs_bytes;
        assert_eq!(report.total_bytes, parts);
        assert!(report.total_bytes <= report.limit_bytes);
    }

    #[test]
    fn slots_of_another_shape_do_not_follow_the_batch() {
        let slot = SlotShape { tokens_max: 100_000, rows_max: 300, ids_offset: 1216 };
        let request = MemoryRequest { slot: Some(slot), ..REQUEST };
        let plan = MemoryPlan::fitting(&mini_geometry(), &request).unwrap();
        assert!(plan.staging >= 1216 + 400_000);
        assert!(plan.rows >= 300 * 385 * 4);
    }
}
