//! One typed launch per kernel: grids, blocks and arguments in the order of the kernel's parameters.
//!
//! Nothing here waits or allocates. That the pointers lead to memory of the right size is the
//! engine's construction; what can be compared is compared before the launch.

use forebay_model::PoolingMode;

use super::KernelSet;
use crate::edge::{Args, DevicePtr, Kernel, LaunchConfig, Stream};
use crate::error::CudaError;

/// Tokens of a block of the embedding and normalising kernels: one warp each.
const NORM_TOKENS: u32 = 4;
const NORM_THREADS: u32 = 128;
/// Tokens of a block of the attention kernel, for one head.
const ATTENTION_TOKENS: u32 = 128;
pub(super) const ATTENTION_THREADS: u32 = 128;
/// Tokens and columns of a block of the activation kernel.
const ACTIVATION_TOKENS: u32 = 16;
const ACTIVATION_COLUMNS: u32 = 512;
const ACTIVATION_THREADS: u32 = 256;
/// Threads of a block of the pooling kernel, which has one row.
const POOL_THREADS: u32 = 384;

/// Token ids to normalised embeddings. Tables are in the engine's type, `gamma` and `beta` in f32.
#[derive(Clone, Copy, Debug)]
pub struct EmbedNorm {
    /// `[tokens]` u32, each below the number of rows of `word`; may be mapped host memory.
    pub ids: DevicePtr,
    /// Row boundaries, `[rows + 1]` u32, rising from 0 to `tokens`; may be mapped host memory.
    pub cu: DevicePtr,
    /// Number of tokens, at least `rows`.
    pub tokens: u32,
    /// Number of rows, at least 1.
    pub rows: u32,
    /// `[vocabulary, hidden]`.
    pub word: DevicePtr,
    /// `[positions, hidden]`, with at least `position_offset` plus the longest row's tokens.
    pub position: DevicePtr,
    /// The first token type, `[hidden]`.
    pub type0: DevicePtr,
    /// Scale of the normalisation, `[hidden]`.
    pub gamma: DevicePtr,
    /// Shift of the normalisation, `[hidden]`.
    pub beta: DevicePtr,
    /// Added to the variance.
    pub eps: f32,
    /// Position of a row's first token.
    pub position_offset: u32,
    /// The result, `[tokens, hidden]`.
    pub x: DevicePtr,
    /// Where the boundaries are copied to.
    pub cu_out: DevicePtr,
    /// Where `tokens` and `rows` are written, two u32.
    pub sizes_out: DevicePtr,
}

/// Attention within each row.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// `[bucket, 3 hidden]`: queries, keys and values.
    pub qkv: DevicePtr,
    /// Row boundaries.
    pub cu: DevicePtr,
    /// Tokens and rows, two u32.
    pub sizes: DevicePtr,
    /// The result, `[bucket, hidden]`.
    pub ctx: DevicePtr,
    /// Number of heads.
    pub heads: u32,
    /// Most tokens of a batch.
    pub bucket: u32,
}

/// `out = normalise(y + bias + residual)`; parameters are f32.
#[derive(Clone, Copy, Debug)]
pub struct ResidualNorm {
    /// `[bucket, hidden]`.
    pub y: DevicePtr,
    /// `[hidden]`.
    pub bias: DevicePtr,
    /// `[bucket, hidden]`; may be `out`.
    pub residual: DevicePtr,
    /// Scale of the normalisation, `[hidden]`.
    pub gamma: DevicePtr,
    /// Shift of the normalisation, `[hidden]`.
    pub beta: DevicePtr,
    /// Added to the variance.
    pub eps: f32,
    /// Tokens and rows, two u32.
    pub sizes: DevicePtr,
    /// The result, `[bucket, hidden]`.
    pub out: DevicePtr,
    /// Most tokens of a batch.
    pub bucket: u32,
}

/// `x = activation(x + bias)` in place.
#[derive(Clone, Copy, Debug)]
pub struct BiasActivation {
    /// `[bucket, width]`.
    pub x: DevicePtr,
    /// `[width]` f32.
    pub bias: DevicePtr,
    /// Tokens and rows, two u32.
    pub sizes: DevicePtr,
    /// Number of columns, a multiple of 8.
    pub width: u32,
    /// Most tokens of a batch.
    pub bucket: u32,
}

/// Token states to unit vectors.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// `[tokens, hidden]`.
    pub x: DevicePtr,
    /// Row boundaries.
    pub cu: DevicePtr,
    /// Number of rows, at least 1.
    pub rows: u32,
    /// How a row's tokens become one vector.
    pub mode: PoolingMode,
    /// `[rows, hidden + 1]` f32: the unit vector, and its length before.
    pub out: DevicePtr,
}

impl KernelSet {
    /// Enqueues [`EmbedNorm`].
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for an empty batch or fewer tokens than rows; the driver's
    /// failure.
    pub fn embed_norm(&self, stream: &Stream, of: &EmbedNorm) -> Result<(), CudaError> {
        let EmbedNorm { tokens, rows, .. } = *of;
        if rows == 0 || tokens < rows {
            return Err(refused("embed_norm", format!("{tokens} tokens in {rows} rows")));
        }
        let config = LaunchConfig::linear(tokens.div_ceil(NORM_TOKENS), NORM_THREADS);
        let mut args = Args::new();
        args.ptr(of.ids).ptr(of.cu).u32(tokens).u32(rows);
        args.ptr(of.word).ptr(of.position).ptr(of.type0).ptr(of.gamma).ptr(of.beta);
        args.f32(of.eps).u32(of.position_offset).ptr(of.x).ptr(of.cu_out).ptr(of.sizes_out);
        enqueue(&self.embed_norm, stream, &config, &mut args)
    }

    /// Enqueues [`Attention`].
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for heads that do not make the hidden size; the driver's
    /// failure.
    pub fn attention(&self, stream: &Stream, of: &Attention) -> Result<(), CudaError> {
        if of.heads.checked_mul(self.head_dim) != Some(self.hidden) || of.bucket == 0 {
            return Err(refused(
                "attention",
                format!(
                    "{} heads of {} for hidden size {}, {} tokens",
                    of.heads, self.head_dim, self.hidden, of.bucket
                ),
            ));
        }
        let mut config = self.in_graph(of.bucket.div_ceil(ATTENTION_TOKENS), ATTENTION_THREADS);
        config.grid.1 = self.attention_columns(config.grid.0, of.heads);
        let blocks = config.grid.0 * config.grid.1;
        config.overlap_previous = self.overlap && overlap_pays(blocks, self.multiprocessors);
        let mut args = Args::new();
        args.ptr(of.qkv).ptr(of.cu).ptr(of.sizes).ptr(of.ctx).u32(of.heads);
        enqueue(&self.attention, stream, &config, &mut args)
    }

    /// CTAs beside each other for `heads` heads: as many as find room on the device at once beside
    /// `tiles` of them, so that there is no second, half-empty round; the rest of the heads follow in
    /// the same CTAs.
    fn attention_columns(&self, tiles: u32, heads: u32) -> u32 {
        let rounds = tiles.saturating_mul(heads).div_ceil(self.attention_ctas.max(1));
        heads.div_ceil(rounds.max(1))
    }

    /// Enqueues [`ResidualNorm`].
    ///
    /// # Errors
    /// The driver's failure.
    pub fn residual_norm(&self, stream: &Stream, of: &ResidualNorm) -> Result<(), CudaError> {
        let config = self.in_graph(of.bucket.div_ceil(NORM_TOKENS), NORM_THREADS);
        let mut args = Args::new();
        args.ptr(of.y).ptr(of.bias).ptr(of.residual).ptr(of.gamma).ptr(of.beta);
        args.f32(of.eps).ptr(of.sizes).ptr(of.out);
        enqueue(&self.residual_norm, stream, &config, &mut args)
    }

    /// Enqueues [`BiasActivation`].
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a width that is no multiple of 8; the driver's failure.
    pub fn bias_activation(&self, stream: &Stream, of: &BiasActivation) -> Result<(), CudaError> {
        if of.width == 0 || !of.width.is_multiple_of(8) {
            return Err(refused("bias_activation", format!("width {}, not in eights", of.width)));
        }
        let mut config = self.in_graph(of.bucket.div_ceil(ACTIVATION_TOKENS), ACTIVATION_THREADS);
        config.grid.1 = of.width.div_ceil(ACTIVATION_COLUMNS);
        let mut args = Args::new();
        args.ptr(of.x).ptr(of.bias).ptr(of.sizes).u32(of.width);
        enqueue(&self.bias_activation, stream, &config, &mut args)
    }

    /// Enqueues [`Pool`].
    ///
    /// # Errors
    /// The driver's failure.
    pub fn pool(&self, stream: &Stream, of: &Pool) -> Result<(), CudaError> {
        let config = LaunchConfig::linear(of.rows, POOL_THREADS);
        let mut args = Args::new();
        args.ptr(of.x).ptr(of.cu).u32(of.rows).u32(self.hidden);
        args.u32(pool_mode(of.mode)).ptr(of.out);
        enqueue(&self.pool, stream, &config, &mut args)
    }

    /// The shape of a kernel that is part of a graph and waits by itself for the one in front.
    fn in_graph(&self, blocks: u32, threads: u32) -> LaunchConfig {
        LaunchConfig { overlap_previous: self.overlap, ..LaunchConfig::linear(blocks, threads) }
    }
}

/// Whether a kernel of `blocks` CTAs that share multiprocessors should be placed while the kernel in
/// front of it still runs. Few CTAs find room side by side, and more than there are multiprocessors
/// fill them all in any case; a number in between crowds on those that the other kernel left free,
/// several to each, and is slow there while the rest of the device falls idle a microsecond later.
pub(super) fn overlap_pays(blocks: u32, multiprocessors: u32) -> bool {
    blocks <= multiprocessors / 2 || blocks > multiprocessors
}

/// The number by which the kernel knows a mode.
fn pool_mode(mode: PoolingMode) -> u32 {
    match mode {
        PoolingMode::Mean => 0,
        PoolingMode::Cls => 1,
        PoolingMode::Max => 2,
        PoolingMode::LastToken => 3,
        PoolingMode::MeanSqrtLen => 4,
    }
}

fn refused(kernel: &'static str, what: String) -> CudaError {
    CudaError::usage(kernel, what)
}

fn enqueue(
    kernel: &Kernel,
    stream: &Stream,
    config: &LaunchConfig,
    args: &mut Args,
) -> Result<(), CudaError> {
    // SAFETY: every caller in this file passes the parameters of the kernel it names, in order. The
    // pointers are to memory that the engine allocated for these sizes and keeps while its streams
    // run, and one stream orders all its users. A wrong one would fault the device, never the host.
    unsafe { kernel.launch(stream, config, args) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::source::{ATTENTION, POOL, SourceFile};

    /// The value of `constexpr u32 NAME = value;` in a source.
    fn constant(file: &SourceFile, name: &str) -> u32 {
        let text = file.text();
        let found = text.split_once(&format!("{name} = ")).unwrap().1;
        let value = found.split([';', ',']).next().unwrap();
        value.parse().unwrap()
    }

    #[test]
    fn kernels_that_would_crowd_wait_for_the_one_in_front() {
        let pays = |blocks| overlap_pays(blocks, 132);
        assert!([1, 24, 66, 133, 192, 768].into_iter().all(pays));
        assert!(![67, 96, 132].into_iter().any(pays));
    }

    #[test]
    fn shapes_agree_with_the_sources() {
        let warps = constant(&ATTENTION, "u32 ATTENTION_WARPS");
        assert_eq!(warps * 32, ATTENTION_THREADS);
        assert_eq!(warps * constant(&ATTENTION, "u32 WARP_TOKENS"), ATTENTION_TOKENS);
        assert_eq!(constant(&POOL, "u32 POOL_THREADS"), POOL_THREADS);
        for (name, mode) in [
            ("POOL_MEAN", PoolingMode::Mean),
            ("POOL_CLS", PoolingMode::Cls),
            ("POOL_MAX", PoolingMode::Max),
            ("POOL_LAST", PoolingMode::LastToken),
            ("POOL_MEAN_SQRT_LEN", PoolingMode::MeanSqrtLen),
        ] {
            assert_eq!(constant(&POOL, name), pool_mode(mode), "{name}");
        }
    }
}
