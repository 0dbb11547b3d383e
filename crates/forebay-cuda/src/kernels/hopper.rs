//! Fused matrix products for compute capability 9.0: `kernels/gemm_rows.cu` and
//! `kernels/gemm_norm.cu` with the shapes that they are launched in.
//!
//! They exist because an encoder with short rows (hidden size 384) spends as much time around its
//! products as in them: here bias, activation, residual and normalisation cost no pass over memory.
//! Every shape of tile sums in the same order, so the choice below is one of speed alone and never
//! shows in a result. `docs/gpu.md` has what was measured.

use std::sync::Arc;

use forebay_model::Activation;

use super::launch::overlap_pays;
use super::source::{GEMM_NORM, GEMM_ROWS};
use super::{KernelOptions, load_file};
use crate::Dtype;
use crate::edge::{Args, Context, DevicePtr, Kernel, LaunchConfig, Stream, TensorMap};
use crate::error::CudaError;

/// The hidden size that the kernels are made for: inner size of [`GemmRows`], columns of
/// [`GemmNorm`].
const HIDDEN: u32 = 384;
/// Columns of one swizzled tile.
const TILE_COLUMNS: u32 = 64;
/// Bytes of a tile's row.
const TILE_ROW_BYTES: u32 = 128;
/// Shared memory that aligning the tiles may cost.
const ALIGN_BYTES: u32 = 1024;
/// Bytes of one barrier in shared memory.
const BARRIER_BYTES: u32 = 8;

/// Columns per CTA of `gemm_rows`: narrow slices for few rows, which need many CTAs, wide ones for
/// many rows, which need few passes over them. The middle ones leave room for a CTA of another
/// kernel beside them.
const ROWS_NARROW: u32 = 64;
const ROWS_MIDDLE: u32 = 96;
const ROWS_WIDE: u32 = 192;
/// Most rows for which narrow slices are faster.
const ROWS_NARROW_BUCKET_MAX: u32 = 256;
/// Most rows for which slices of middle width are faster than wide ones.
const ROWS_MIDDLE_BUCKET_MAX: u32 = 512;
const ROWS_TILE: u32 = 64;
const ROWS_CONSUMERS: u32 = 2;

/// Most rows for which `gemm_norm` with 64 rows and 64 columns per CTA is faster.
const NORM_NARROW_BUCKET_MAX: u32 = 2048;

/// `d = activation(a wᵀ + bias)`, row-major, 16-bit except the bias.
#[derive(Clone, Copy, Debug)]
pub struct GemmRows {
    /// `[a_rows, k]`.
    pub a: DevicePtr,
    /// Rows that may be read of `a`, at least `bucket`.
    pub a_rows: u32,
    /// `[n, k]`.
    pub w: DevicePtr,
    /// `[n]`, f32.
    pub bias: DevicePtr,
    /// `[bucket, n]`; rows past the batch's tokens are not written.
    pub d: DevicePtr,
    /// Columns of the result.
    pub n: u32,
    /// Inner size.
    pub k: u32,
    /// What follows the bias, if anything.
    pub activation: Option<Activation>,
    /// The batch's real size on the device.
    pub sizes: DevicePtr,
    /// Most tokens.
    pub bucket: u32,
}

/// `d = layer_norm(a wᵀ + bias + residual)`, row-major, 16-bit except the vectors.
#[derive(Clone, Copy, Debug)]
pub struct GemmNorm {
    /// `[a_rows, k]`.
    pub a: DevicePtr,
    /// Rows that may be read of `a`, at least `bucket`.
    pub a_rows: u32,
    /// `[n, k]`.
    pub w: DevicePtr,
    /// `[n]`, f32.
    pub bias: DevicePtr,
    /// `[bucket, n]`.
    pub residual: DevicePtr,
    /// `[n]`, f32.
    pub gamma: DevicePtr,
    /// `[n]`, f32.
    pub beta: DevicePtr,
    /// ε of the normalisation.
    pub eps: f32,
    /// `[bucket, n]`, may be `residual`; rows past the batch's tokens are not written.
    pub d: DevicePtr,
    /// Columns of the result.
    pub n: u32,
    /// Inner size.
    pub k: u32,
    /// The batch's real size on the device.
    pub sizes: DevicePtr,
    /// Most tokens.
    pub bucket: u32,
}

/// A compiled kernel with the launch shape that belongs to it.
#[derive(Clone, Debug)]
struct RowsKernel {
    kernel: Kernel,
    columns: u32,
}

/// One shape of `gemm_norm`.
#[derive(Clone, Debug)]
struct NormKernel {
    kernel: Kernel,
    columns: u32,
    warpgroups: u32,
    stages: u32,
}

impl NormKernel {
    fn cluster(&self) -> u32 {
        HIDDEN / self.columns
    }

    fn rows(&self) -> u32 {
        64 * self.warpgroups
    }

    /// Rows of `a` that one CTA fetches: a share, if the cluster's shares are whole groups of 8.
    fn fetched_rows(&self) -> u32 {
        if self.rows().is_multiple_of(8 * self.cluster()) {
            self.rows() / self.cluster()
        } else {
            self.rows()
        }
    }

    fn shared_bytes(&self) -> u32 {
        let stage = (self.rows() + self.columns) * TILE_ROW_BYTES;
        let partials = (HIDDEN / TILE_COLUMNS) * self.rows() * 8;
        let vectors = 3 * self.columns * 4;
        ALIGN_BYTES + self.stages * stage + partials + vectors + 2 * self.stages * BARRIER_BYTES
    }
}

/// The fused products of one element type.
#[derive(Clone, Debug)]
pub struct HopperGemms {
    dtype: Dtype,
    multiprocessors: u32,
    /// By activation (none, erf GELU, tanh GELU, ReLU), then from narrow to wide.
    rows: [[RowsKernel; 3]; 4],
    norm_narrow: NormKernel,
    norm_wide: NormKernel,
}

impl HopperGemms {
    /// Loads the kernels; `None` if the device cannot run them: they need capability 9.0 exactly,
    /// and NVRTC or a cubin cached by an earlier start, because there is no portable form of them.
    ///
    /// # Errors
    /// A failure that is none of these.
    pub fn new(
        context: &Arc<Context>,
        options: &KernelOptions,
        dtype: Dtype,
    ) -> Result<Option<Self>, CudaError> {
        if context.info().capability != (9, 0) {
            return Ok(None);
        }
        let loaded = load_file(context, options, &GEMM_ROWS)
            .and_then(|rows| Ok((rows, load_file(context, options, &GEMM_NORM)?)));
        let (rows_module, norm_module) = match loaded {
            Ok(((rows, _), (norm, _))) => (rows, norm),
            Err(error) if error.kind.poisons() => return Err(error),
            Err(error) => {
                tracing::warn!("no fused products, cuBLASLt computes them instead: {error}");
                return Ok(None);
            }
        };
        let t = dtype.name();
        let rows = |name: &str| -> Result<[RowsKernel; 3], CudaError> {
            let one = |columns: u32| -> Result<RowsKernel, CudaError> {
                let kernel = rows_module.kernel(&format!("gemm_rows_{t}_n{columns}_{name}"))?;
                kernel.set_shared_bytes(rows_shared_bytes(columns, HIDDEN))?;
                Ok(RowsKernel { kernel, columns })
            };
            Ok([one(ROWS_NARROW)?, one(ROWS_MIDDLE)?, one(ROWS_WIDE)?])
        };
        let norm = |columns: u32, warpgroups: u32, stages: u32| -> Result<NormKernel, CudaError> {
            let name = format!("gemm_norm_{t}_h{HIDDEN}_n{columns}_r{warpgroups}");
            let kernel = norm_module.kernel(&name)?;
            let made = NormKernel { kernel, columns, warpgroups, stages };
            made.kernel.set_shared_bytes(made.shared_bytes())?;
            Ok(made)
        };
        Ok(Some(Self {
            dtype,
            multiprocessors: context.info().multiprocessors,
            rows: [rows("none")?, rows("gelu")?, rows("gelu_tanh")?, rows("relu")?],
            norm_narrow: norm(64, 1, 6)?,
            norm_wide: norm(192, 2, 5)?,
        }))
    }

    /// Whether [`rows`](Self::rows) computes `n` columns with inner size `k`.
    #[must_use]
    pub fn supports_rows(&self, n: u32, k: u32) -> bool {
        rows_fit(n, k)
    }

    /// Whether [`norm`](Self::norm) computes `n` columns with inner size `k`.
    #[must_use]
    pub fn supports_norm(&self, n: u32, k: u32) -> bool {
        norm_fits(n, k)
    }

    /// Enqueues a product with bias and activation.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for sizes that are not supported; the driver's failure.
    pub fn rows(&self, stream: &Stream, gemm: &GemmRows) -> Result<(), CudaError> {
        let GemmRows { n, k, bucket, .. } = *gemm;
        if !rows_fit(n, k) || bucket == 0 || gemm.a_rows < bucket {
            return Err(unsupported("gemm_rows", n, k, bucket, gemm.a_rows));
        }
        let by_width = &self.rows[activation_index(gemm.activation)];
        let width = usize::from(bucket > ROWS_NARROW_BUCKET_MAX)
            + usize::from(bucket > ROWS_MIDDLE_BUCKET_MAX);
        let RowsKernel { kernel, columns } = &by_width[width];
        let slices = n / columns;
        let tiles = bucket.div_ceil(ROWS_TILE);
        let groups = (self.multiprocessors / slices).clamp(1, tiles);
        let config = LaunchConfig {
            grid: (slices * groups, 1, 1),
            block: 128 * (ROWS_CONSUMERS + 1),
            shared_bytes: rows_shared_bytes(*columns, k),
            cluster: 1,
            overlap_previous: true,
        };
        let mut args = Args::new();
        args.tensor_map(&self.map(gemm.a, gemm.a_rows, k, ROWS_TILE)?)
            .tensor_map(&self.map(gemm.w, n, k, *columns)?)
            .ptr(gemm.bias)
            .ptr(gemm.d)
            .ptr(gemm.sizes)
            .u32(n)
            .u32(k / TILE_COLUMNS);
        // SAFETY: the arguments are those of `gemm_rows` in its order. The matrices have the stated
        // extents in the engine's own memory; the kernel reads rows below `a_rows` and writes rows
        // below the batch's tokens, which are at most `bucket`.
        unsafe { kernel.launch(stream, &config, &mut args) }
    }

    /// Enqueues a product with bias, residual and layer normalisation.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for sizes that are not supported; the driver's failure.
    pub fn norm(&self, stream: &Stream, gemm: &GemmNorm) -> Result<(), CudaError> {
        let GemmNorm { n, k, bucket, .. } = *gemm;
        if !norm_fits(n, k) || bucket == 0 || gemm.a_rows < bucket {
            return Err(unsupported("gemm_norm", n, k, bucket, gemm.a_rows));
        }
        let shape = match bucket > NORM_NARROW_BUCKET_MAX {
            true => &self.norm_wide,
            false => &self.norm_narrow,
        };
        let blocks = shape.cluster() * bucket.div_ceil(shape.rows());
        let config = LaunchConfig {
            grid: (blocks, 1, 1),
            block: 128 * (shape.warpgroups + 1),
            shared_bytes: shape.shared_bytes(),
            cluster: shape.cluster(),
            // The wide shape has a multiprocessor for itself, wherever it is placed.
            overlap_previous: shape.columns == self.norm_wide.columns
                || overlap_pays(blocks, self.multiprocessors),
        };
        let mut args = Args::new();
        args.tensor_map(&self.map(gemm.a, gemm.a_rows, k, shape.fetched_rows())?)
            .tensor_map(&self.map(gemm.w, n, k, shape.columns)?)
            .ptr(gemm.bias)
            .ptr(gemm.residual)
            .ptr(gemm.gamma)
            .ptr(gemm.beta)
            .f32(gemm.eps)
            .ptr(gemm.d)
            .ptr(gemm.sizes)
            .u32(k / TILE_COLUMNS);
        // SAFETY: the arguments are those of `gemm_norm` in its order. The matrices have the stated
        // extents in the engine's own memory; the kernel reads rows of `a` below `a_rows`, and reads
        // and writes rows below the batch's tokens, which are at most `bucket`.
        unsafe { shape.kernel.launch(stream, &config, &mut args) }
    }

    fn map(
        &self,
        base: DevicePtr,
        rows: u32,
        columns: u32,
        box_rows: u32,
    ) -> Result<TensorMap, CudaError> {
        let row_bytes = u64::from(columns) * 2;
        let bf16 = self.dtype == Dtype::BF16;
        let (rows, columns) = (u64::from(rows), u64::from(columns));
        TensorMap::rows_2d(base, rows, columns, row_bytes, box_rows, TILE_COLUMNS, bf16)
    }
}

/// Stages of a consumer's ring in `gemm_rows`.
fn rows_stages(columns: u32) -> u32 {
    if columns == ROWS_MIDDLE { 2 } else { 4 }
}

/// Shared memory of `gemm_rows`: the slice of weights, a ring per consumer, bias and barriers.
fn rows_shared_bytes(columns: u32, k: u32) -> u32 {
    let k_tiles = k / TILE_COLUMNS;
    let stages = rows_stages(columns);
    let rings = ROWS_CONSUMERS * stages * ROWS_TILE * TILE_ROW_BYTES;
    let barriers = (2 * ROWS_CONSUMERS * stages + k_tiles) * BARRIER_BYTES;
    ALIGN_BYTES + k_tiles * columns * TILE_ROW_BYTES + rings + columns * 4 + barriers
}

pub(crate) fn rows_fit(n: u32, k: u32) -> bool {
    k == HIDDEN && n > 0 && n.is_multiple_of(ROWS_WIDE)
}

pub(crate) fn norm_fits(n: u32, k: u32) -> bool {
    n == HIDDEN && k > 0 && k.is_multiple_of(TILE_COLUMNS)
}

fn activation_index(activation: Option<Activation>) -> usize {
    match activation {
        None => 0,
        Some(Activation::GeluErf) => 1,
        Some(Activation::GeluTanh) => 2,
        Some(Activation::Relu) => 3,
    }
}

fn unsupported(kernel: &'static str, n: u32, k: u32, bucket: u32, a_rows: u32) -> CudaError {
    CudaError::usage(
        kernel,
        format!(
            "{n} columns with inner size {k}, {bucket} of {a_rows} rows: no such fused product; \
             ask supports_rows and supports_norm first"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_of_an_encoder_of_hidden_size_384_are_supported_and_others_are_not() {
        for (n, k) in [(1152, 384), (1536, 384), (384, 384)] {
            assert!(rows_fit(n, k), "{n} {k}");
        }
        for (n, k) in [(2304, 768), (1000, 384), (0, 384), (384, 1536)] {
            assert!(!rows_fit(n, k), "{n} {k}");
        }
        assert!(norm_fits(384, 384) && norm_fits(384, 1536));
        assert!(!norm_fits(768, 768) && !norm_fits(384, 0) && !norm_fits(384, 100));
    }

    #[test]
    fn shared_memory_fits_a_multiprocessor() {
        // What a CTA may have on capability 9.0.
        const SHARED_BYTES_MAX: u32 = 227 * 1024;
        assert!(rows_shared_bytes(ROWS_WIDE, HIDDEN) <= SHARED_BYTES_MAX);
        for columns in [ROWS_NARROW, ROWS_MIDDLE] {
            assert!(rows_shared_bytes(columns, HIDDEN) <= SHARED_BYTES_MAX / 2);
        }
    }
}
