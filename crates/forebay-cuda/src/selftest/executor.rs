//! What the checks need from whoever computes: one call for each kernel, host memory in and out.
//!
//! The device is one executor. The checks see only this trait, so that they are themselves tested
//! on the CPU with an executor that can be told to make a mistake. All matrices are rounded values
//! as bits, row-major, followed by poison rows up to the bucket and a guard; an executor passes
//! buffers on as they are and judges nothing.

use forebay_model::{Activation, PoolingMode};

use super::output::Output;
use crate::{CudaError, Dtype};

/// Scale, shift and ε of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm<'a> {
    /// `[hidden]`.
    pub(super) gamma: &'a [f32],
    /// `[hidden]`.
    pub(super) beta: &'a [f32],
    /// Added to the variance.
    pub(super) eps: f32,
}

/// The sizes of a packed batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a> {
    /// Starts of the rows and the end of the last, then values that nobody may use.
    pub(super) cu: &'a [u32],
    /// Real tokens.
    pub(super) tokens: usize,
    /// Sequences.
    pub(super) rows: usize,
    /// Token rows of every buffer.
    pub(super) bucket: usize,
}

/// Sum of word, position and type embeddings, normalised.
#[derive(Debug, Clone, Copy)]
pub(super) struct EmbedNormRun<'a> {
    pub(super) batch: Packed<'a>,
    pub(super) ids: &'a [u32],
    /// `[vocab, hidden]`.
    pub(super) word: &'a [u16],
    /// `[positions, hidden]`.
    pub(super) position: &'a [u16],
    /// `[hidden]`.
    pub(super) token_type: &'a [u16],
    pub(super) norm: Norm<'a>,
    pub(super) position_offset: u32,
}

/// What the embedding kernel writes.
#[derive(Debug)]
pub(super) struct EmbedNormOut {
    /// `[tokens, hidden]`.
    pub(super) x: Output<u16>,
    /// rows + 1 values, one in each row.
    pub(super) cu: Output<u32>,
    /// Tokens and rows.
    pub(super) sizes: Output<u32>,
}

/// Self-attention within each sequence, from `qkv` `[tokens, 3·hidden]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionRun<'a> {
    pub(super) heads: usize,
    pub(super) batch: Packed<'a>,
    pub(super) qkv: &'a [u16],
}

/// Layer normalisation of y + bias + residual.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResidualNormRun<'a> {
    pub(super) batch: Packed<'a>,
    pub(super) y: &'a [u16],
    pub(super) bias: &'a [f32],
    /// The residual, or nothing if the output holds it and is to be overwritten.
    pub(super) residual: Option<&'a [u16]>,
    pub(super) norm: Norm<'a>,
}

/// Activation of x + bias in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct BiasActivationRun<'a> {
    pub(super) width: usize,
    pub(super) batch: Packed<'a>,
    pub(super) bias: &'a [f32],
}

/// Pooling and normalisation of each sequence into width + 1 singles.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoolRun<'a> {
    pub(super) batch: Packed<'a>,
    pub(super) x: &'a [u16],
    pub(super) mode: PoolingMode,
}

/// Which implementation of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    /// cublasLt: bias, nothing else.
    CublasLt,
    /// The product with bias and, if wanted, an activation in its epilogue.
    Rows,
    /// The product with bias, residual and layer normalisation in its epilogue.
    Norm,
}

/// a·weightᵀ + bias, with `weight` `[n, k]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct GemmRun<'a> {
    pub(super) dtype: Dtype,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) batch: Packed<'a>,
    pub(super) a: &'a [u16],
    pub(super) weight: &'a [u16],
    /// Exact in the 16-bit type, since cublasLt takes it as such; not for every product of it.
    pub(super) bias: Option<&'a [f32]>,
    /// Only for [`Product::Rows`].
    pub(super) activation: Option<Activation>,
    /// Only for [`Product::Norm`]: the residual `[tokens, n]` and the normalisation.
    pub(super) residual: Option<(&'a [u16], Norm<'a>)>,
}

/// Runs the kernels of one shape and type. Each call completes before it returns; output rows lie behind the guard of the
/// [`Output`], which goes to the device and comes back whole.
pub(super) trait Executor {
    /// The embedding kernel.
    fn embed_norm(
        &mut self,
        run: &EmbedNormRun<'_>,
        out: &mut EmbedNormOut,
    ) -> Result<(), CudaError>;
    /// The attention kernel.
    fn attention(&mut self, run: &AttentionRun<'_>, out: &mut Output<u16>)
    -> Result<(), CudaError>;
    /// The residual kernel.
    fn residual_norm(
        &mut self,
        run: &ResidualNormRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError>;
    /// The activation kernel, on the content of `x`.
    fn bias_activation(
        &mut self,
        run: &BiasActivationRun<'_>,
        x: &mut Output<u16>,
    ) -> Result<(), CudaError>;
    /// The pooling kernel.
    fn pool(&mut self, run: &PoolRun<'_>, out: &mut Output<u32>) -> Result<(), CudaError>;
    /// The products that this executor has for these sizes.
    fn products(&self, n: usize, k: usize) -> Vec<Product>;
    /// One product.
    fn gemm(
        &mut self,
        product: Product,
        run: &GemmRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError>;
}
