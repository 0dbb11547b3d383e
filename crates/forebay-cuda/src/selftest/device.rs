//! The executor that the self-test is for: every call copies its operands to the device, launches
//! one kernel, waits for it, and copies the output back with its guards.
//!
//! All operands of a call lie in one allocation that the next call reuses. Nothing here judges a
//! result, and nothing is fast: the waits keep a failure next to the kernel that caused it.

use std::path::Path;
use std::sync::Arc;

use bytemuck::{cast_slice, cast_slice_mut};

use super::executor::{
    AttentionRun, BiasActivationRun, EmbedNormOut, EmbedNormRun, Executor, GemmRun, Packed,
    PoolRun, Product, ResidualNormRun,
};
use super::output::Output;
use super::shape::Shape;
use super::values::encode;
use crate::edge::{Carver, Context, DeviceMemory, DevicePtr, Stream, download, upload};
use crate::gemm::{GemmPlans, GemmShape};
use crate::kernels::hopper::{GemmNorm, GemmRows, HopperGemms};
use crate::kernels::{
    Attention, BiasActivation, EmbedNorm, KernelOptions, KernelSet, Pool, ResidualNorm,
};
use crate::{CudaError, Dtype, ErrorKind};

/// Working memory of cublasLt.
const LIBRARY_BYTES: usize = 32 << 20;

/// Token rows of the largest batch of a quick and of a full run, guards included.
const ROWS_QUICK: usize = 512;
const ROWS_FULL: usize = 4224;

/// Kernels on a device, for one shape and type.
pub(super) struct DeviceExecutor {
    // Plans go before the memory that they work in.
    library: Option<GemmPlans>,
    _library_memory: Option<DeviceMemory>,
    native: Option<HopperGemms>,
    kernels: KernelSet,
    memory: DeviceMemory,
    stream: Arc<Stream>,
    quick: bool,
}

impl DeviceExecutor {
    /// Loads or compiles the kernels. A machine without cublasLt is tested without it.
    pub(super) fn open(
        context: &Arc<Context>,
        options: &KernelOptions,
        shape: &Shape,
        dtype: Dtype,
        quick: bool,
    ) -> Result<Self, CudaError> {
        let size = |value: usize| value as u32;
        let kernels = KernelSet::load(
            context,
            options,
            dtype,
            size(shape.hidden),
            size(shape.head_dim()),
            shape.activation,
        )?;
        let native = HopperGemms::new(context, options, dtype)?;
        let memory = DeviceMemory::allocate(context, operand_bytes(shape, quick), "the self-test")?;
        let stream = Stream::new(context)?;
        let (library_memory, library) = library(context, options.cache_dir.as_deref())?;
        let _library_memory = library_memory;
        Ok(Self { library, _library_memory, native, kernels, memory, stream, quick })
    }

    /// Where the kernels come from.
    pub(super) fn origin(&self) -> &str {
        self.kernels.origin()
    }

    fn desk(&self) -> Desk<'_> {
        Desk { carver: Carver::new(&self.memory), stream: &self.stream }
    }
}

/// The library with its working memory, or neither if this machine has no cublasLt.
fn library(
    context: &Arc<Context>,
    cache_dir: Option<&Path>,
) -> Result<(Option<DeviceMemory>, Option<GemmPlans>), CudaError> {
    let memory = DeviceMemory::allocate(context, LIBRARY_BYTES, "cublasLt in the self-test")?;
    match GemmPlans::new(context, cache_dir, memory.base(), memory.bytes()) {
        Ok(plans) => Ok((Some(memory), Some(plans))),
        Err(error) if error.kind == ErrorKind::Missing => Ok((None, None)),
        Err(error) => Err(error),
    }
}

/// What the largest call of a shape takes on the device.
fn operand_bytes(shape: &Shape, quick: bool) -> usize {
    let rows = if quick { ROWS_QUICK } else { ROWS_FULL };
    let Shape { hidden, intermediate, .. } = *shape;
    // The largest sum of a token's operands: the products of the feed-forward block with their
    // residual, or projections and context; then a weight, or the embedding tables.
    let per_token = 2 * (intermediate.max(3 * hidden) + 2 * hidden) + 64;
    let fixed = 2 * hidden * intermediate.max(3 * hidden).max(2048);
    rows * per_token + fixed + (1 << 20)
}

/// Puts operands on the device, one after the other.
struct Desk<'a> {
    carver: Carver<'a>,
    stream: &'a Stream,
}

impl Desk<'_> {
    fn put<T: bytemuck::NoUninit>(&mut self, values: &[T]) -> Result<DevicePtr, CudaError> {
        let bytes: &[u8] = cast_slice(values);
        let place = self.carver.take(bytes.len())?;
        upload(self.stream, place, bytes)?;
        Ok(place)
    }

    /// Tokens and rows, as the kernels read them.
    fn sizes(&mut self, batch: Packed<'_>) -> Result<DevicePtr, CudaError> {
        self.put(&[batch.tokens as u32, batch.rows as u32])
    }

    /// The whole output: where it begins, and where its first row does.
    fn output<T>(&mut self, output: &Output<T>) -> Result<(DevicePtr, DevicePtr), CudaError>
    where
        T: bytemuck::NoUninit + PartialEq + std::fmt::LowerHex,
    {
        let all = self.put(output.all())?;
        Ok((all, all.offset(output.guard_elements() * size_of::<T>())))
    }

    fn fetch<T>(&self, place: DevicePtr, output: &mut Output<T>) -> Result<(), CudaError>
    where
        T: bytemuck::Pod + PartialEq + std::fmt::LowerHex,
    {
        download(self.stream, place, cast_slice_mut(output.all_mut()))
    }
}

impl Executor for DeviceExecutor {
    fn embed_norm(
        &mut self,
        run: &EmbedNormRun<'_>,
        out: &mut EmbedNormOut,
    ) -> Result<(), CudaError> {
        let mut desk = self.desk();
        let (x_all, x) = desk.output(&out.x)?;
        let (cu_all, cu_out) = desk.output(&out.cu)?;
        let (sizes_all, sizes_out) = desk.output(&out.sizes)?;
        let launch = EmbedNorm {
            ids: desk.put(run.ids)?,
            cu: desk.put(run.batch.cu)?,
            tokens: run.batch.tokens as u32,
            rows: run.batch.rows as u32,
            word: desk.put(run.word)?,
            position: desk.put(run.position)?,
            type0: desk.put(run.token_type)?,
            gamma: desk.put(run.norm.gamma)?,
            beta: desk.put(run.norm.beta)?,
            eps: run.norm.eps,
            position_offset: run.position_offset,
            x,
            cu_out,
            sizes_out,
        };
        self.kernels.embed_norm(&self.stream, &launch)?;
        desk.fetch(x_all, &mut out.x)?;
        desk.fetch(cu_all, &mut out.cu)?;
        desk.fetch(sizes_all, &mut out.sizes)
    }

    fn attention(
        &mut self,
        run: &AttentionRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let mut desk = self.desk();
        let (all, ctx) = desk.output(out)?;
        let launch = Attention {
            qkv: desk.put(run.qkv)?,
            cu: desk.put(run.batch.cu)?,
            sizes: desk.sizes(run.batch)?,
            ctx,
            heads: run.heads as u32,
            bucket: run.batch.bucket as u32,
        };
        self.kernels.attention(&self.stream, &launch)?;
        desk.fetch(all, out)
    }

    fn residual_norm(
        &mut self,
        run: &ResidualNormRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let mut desk = self.desk();
        let (all, place) = desk.output(out)?;
        let residual = match run.residual {
            Some(residual) => desk.put(residual)?,
            None => place,
        };
        let launch = ResidualNorm {
            y: desk.put(run.y)?,
            bias: desk.put(run.bias)?,
            residual,
            gamma: desk.put(run.norm.gamma)?,
            beta: desk.put(run.norm.beta)?,
            eps: run.norm.eps,
            sizes: desk.sizes(run.batch)?,
            out: place,
            bucket: run.batch.bucket as u32,
        };
        self.kernels.residual_norm(&self.stream, &launch)?;
        desk.fetch(all, out)
    }

    fn bias_activation(
        &mut self,
        run: &BiasActivationRun<'_>,
        x: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let mut desk = self.desk();
        let (all, place) = desk.output(x)?;
        let launch = BiasActivation {
            x: place,
            bias: desk.put(run.bias)?,
            sizes: desk.sizes(run.batch)?,
            width: run.width as u32,
            bucket: run.batch.bucket as u32,
        };
        self.kernels.bias_activation(&self.stream, &launch)?;
        desk.fetch(all, x)
    }

    fn pool(&mut self, run: &PoolRun<'_>, out: &mut Output<u32>) -> Result<(), CudaError> {
        let mut desk = self.desk();
        let (all, place) = desk.output(out)?;
        let launch = Pool {
            x: desk.put(run.x)?,
            cu: desk.put(run.batch.cu)?,
            rows: run.batch.rows as u32,
            mode: run.mode,
            out: place,
        };
        self.kernels.pool(&self.stream, &launch)?;
        desk.fetch(all, out)
    }

    /// A quick run leaves out the library where the engine would not use it.
    fn products(&self, n: usize, k: usize) -> Vec<Product> {
        let (n, k) = (n as u32, k as u32);
        let mut products = Vec::new();
        if let Some(native) = &self.native {
            if native.supports_rows(n, k) {
                products.push(Product::Rows);
            }
            if native.supports_norm(n, k) {
                products.push(Product::Norm);
            }
        }
        if self.library.is_some() && (products.is_empty() || !self.quick) {
            products.push(Product::CublasLt);
        }
        products
    }

    fn gemm(
        &mut self,
        product: Product,
        run: &GemmRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let mut desk = Desk { carver: Carver::new(&self.memory), stream: &self.stream };
        let (all, d) = desk.output(out)?;
        let (n, k, bucket) = (run.n as u32, run.k as u32, run.batch.bucket as u32);
        let (a, w) = (desk.put(run.a)?, desk.put(run.weight)?);
        match (product, run.residual, &self.native, &mut self.library) {
            (Product::CublasLt, _, _, Some(plans)) => {
                let shape = GemmShape {
                    m_bucket: bucket,
                    n,
                    k,
                    dtype: run.dtype,
                    bias: run.bias.is_some(),
                };
                let bias = match run.bias {
                    Some(bias) => {
                        let half: Vec<u16> = bias.iter().map(|&b| encode(b, run.dtype)).collect();
                        Some(desk.put(&half)?)
                    }
                    None => None,
                };
                plans.prepare(shape, &self.stream, a, w, d)?;
                // Preparing measures on the operands and leaves its results there.
                upload(&self.stream, all, cast_slice(out.all()))?;
                plans.run(shape, a, w, bias, d, &self.stream)?;
                plans.save();
            }
            (Product::Rows, _, Some(native), _) => {
                let gemm = GemmRows {
                    a,
                    a_rows: bucket,
                    w,
                    bias: desk.put(run.bias.unwrap_or_default())?,
                    d,
                    n,
                    k,
                    activation: run.activation,
                    sizes: desk.sizes(run.batch)?,
                    bucket,
                };
                native.rows(&self.stream, &gemm)?;
            }
            (Product::Norm, Some((residual, norm)), Some(native), _) => {
                let gemm = GemmNorm {
                    a,
                    a_rows: bucket,
                    w,
                    bias: desk.put(run.bias.unwrap_or_default())?,
                    residual: desk.put(residual)?,
                    gamma: desk.put(norm.gamma)?,
                    beta: desk.put(norm.beta)?,
                    eps: norm.eps,
                    d,
                    n,
                    k,
                    sizes: desk.sizes(run.batch)?,
                    bucket,
                };
                native.norm(&self.stream, &gemm)?;
            }
            _ => {
                let detail = format!("{product:?} of {n}x{k} is not there; ask for products first");
                return Err(CudaError::usage("DeviceExecutor::gemm", detail));
            }
        }
        desk.fetch(all, out)
    }
}
