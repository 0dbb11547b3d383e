//! From a model folder to an encoder that has proved itself on a probe batch.
//!
//! The order matters: the kernels of the products come first, because the memory plan depends on
//! them; then the plan, the weights, the other kernels, and the probe last. If F16 was not asked for by name and turns out too narrow, everything is
//! dropped and done again in BF16.

use std::sync::Arc;

use forebay_model::{EncoderWeights, ModelFolder};

use super::encoder::Encoder;
use super::error::EngineError;
use super::layers::Layers;
use super::memory::{MemoryPlan, MemoryRequest, SlotShape};
use super::options::{EngineOptions, GemmChoice, PrecisionChoice};
use super::probe;
use super::products::{Paths, Product, Products};
use super::workspace::Workspace;
use crate::Dtype;
use crate::edge::{Context, Stream};
use crate::kernels::hopper::{HopperGemms, norm_fits, rows_fit};
use crate::kernels::{KernelOptions, KernelSet, compile_ahead};
use crate::weights::{DeviceWeights, F16_LIMIT, Geometry, WeightsMap};

/// A model on a device: everything that several threads read and none changes.
pub(crate) struct Loaded {
    pub context: Arc<Context>,
    pub geometry: Geometry,
    pub dtype: Dtype,
    /// Why this type and not another, for people.
    pub reason: String,
    pub weights: DeviceWeights,
    pub workspace: Workspace,
    pub kernels: KernelSet,
}

/// How many slots there are, and of which shape if not of one device batch each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotRequest {
    pub slots: u32,
    pub shape: Option<SlotShape>,
}

/// What became of an attempt in one type.
enum Attempt {
    Loaded(Box<Encoder>),
    TooNarrow(String),
}

/// Loads the model in `folder` onto the device of `context`.
///
/// # Errors
/// Any [`EngineError`] of class configuration, or the driver's failure.
pub(crate) fn load(
    context: &Arc<Context>,
    folder: &ModelFolder,
    options: &EngineOptions,
    slots: SlotRequest,
) -> Result<Encoder, EngineError> {
    options.check()?;
    let geometry = Geometry::of_folder(folder)?;
    let stored = folder.weights()?;
    let tensors = EncoderWeights::from(&stored, folder.encoder())?;
    let stream = Stream::new(context)?;
    let attempt = |dtype, reason| {
        attempt(context, &geometry, &tensors, options, slots, dtype, reason, &stream)
    };
    let refused = |dtype: Dtype, reason, other| {
        Err(EngineError::Precision { precision: dtype.name(), reason, other })
    };
    let asked = || "asked for".to_owned();
    match options.precision {
        PrecisionChoice::F16 => match attempt(Dtype::F16, asked())? {
            Attempt::Loaded(encoder) => Ok(*encoder),
            Attempt::TooNarrow(reason) => refused(Dtype::F16, reason, "bf16"),
        },
        PrecisionChoice::Bf16 => match attempt(Dtype::BF16, asked())? {
            Attempt::Loaded(encoder) => Ok(*encoder),
            Attempt::TooNarrow(reason) => refused(Dtype::BF16, reason, "the cpu device"),
        },
        PrecisionChoice::Auto => {
            match attempt(Dtype::F16, format!("weights and probe stay below {F16_LIMIT}"))? {
                Attempt::Loaded(encoder) => Ok(*encoder),
                Attempt::TooNarrow(reason) => {
                    tracing::warn!(%reason, "f16 is too narrow for this model, bf16 is used");
                    match attempt(Dtype::BF16, reason)? {
                        Attempt::Loaded(encoder) => Ok(*encoder),
                        Attempt::TooNarrow(reason) => {
                            refused(Dtype::BF16, reason, "the cpu device")
                        }
                    }
                }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one step of loading, split off to be repeated")]
fn attempt(
    context: &Arc<Context>,
    geometry: &Geometry,
    tensors: &EncoderWeights<'_>,
    options: &EngineOptions,
    slots: SlotRequest,
    dtype: Dtype,
    reason: String,
    stream: &Stream,
) -> Result<Attempt, EngineError> {
    let kernel_options = KernelOptions {
        cache_dir: options.cache_dir.clone(),
        source: options.kernels,
        ..KernelOptions::default()
    };
    // Of no use to a model whose sizes they are not made for, and slow to compile.
    let fused = options.gemm != GemmChoice::CublasLt
        && Product::ALL.iter().any(|product| {
            let (n, k) = product.sizes(geometry);
            rows_fit(n, k) || norm_fits(n, k)
        });
    compile_ahead(context, &kernel_options, fused)?;
    let native = match fused {
        true => HopperGemms::new(context, &kernel_options, dtype)?,
        false => None,
    };
    let paths = Paths::choose(
        geometry,
        options.gemm,
        |n, k| native.as_ref().is_some_and(|native| native.supports_rows(n, k)),
        |n, k| native.as_ref().is_some_and(|native| native.supports_norm(n, k)),
    )?;
    let (free, _) = context.memory_free()?;
    let request = MemoryRequest {
        tokens_max: options.tokens_max,
        rows_max: options.rows_max,
        slots: slots.slots,
        slot: slots.shape,
        product_buffer: paths.product_buffer(),
        gemm_workspace: paths.library(),
        graphs_max: options.graphs_max,
        weights_bytes: WeightsMap::of(geometry).bytes as u64,
        limit: options.memory_bytes_max,
        free,
    };
    let plan = MemoryPlan::fitting(geometry, &request)?;
    let weights = DeviceWeights::allocate(context, geometry)?;
    let range = weights.write(tensors, geometry, dtype, stream)?;
    // A type asked for by name is refused only when it really overflows.
    let limit = match (dtype, options.precision) {
        (Dtype::F16, PrecisionChoice::Auto) => F16_LIMIT,
        (Dtype::F16, _) => half::f16::MAX.to_f32(),
        (Dtype::BF16, _) => f32::MAX,
    };
    if range.largest > limit {
        let (tensor, largest) = (range.tensor, range.largest);
        return Ok(Attempt::TooNarrow(format!("tensor {tensor} holds {largest}")));
    }
    let workspace = Workspace::allocate(context, geometry, plan, stream)?;
    let kernels = KernelSet::load(
        context,
        &kernel_options,
        dtype,
        geometry.hidden,
        geometry.head_dim,
        geometry.activation,
    )?;
    let cache_dir = options.cache_dir.as_deref();
    let products = Products::new(context, *geometry, dtype, paths, native, &workspace, cache_dir)?;
    let loaded = Arc::new(Loaded {
        context: Arc::clone(context),
        geometry: *geometry,
        dtype,
        reason,
        weights,
        workspace,
        kernels,
    });
    let mut encoder = Encoder::new(Layers::new(loaded, products), options.graphs_max);
    let probed = probe::run(&mut encoder, stream)?;
    tracing::info!(
        precision = dtype.name(),
        largest_weight = range.largest,
        largest_activation = probed.largest,
        at = %probed.place,
        products = encoder.products_name(),
        kernels = encoder.loaded().kernels.origin(),
        "model loaded"
    );
    // NaN is not below the limit either.
    if probed.largest <= limit {
        Ok(Attempt::Loaded(Box::new(encoder)))
    } else {
        let (place, largest) = (probed.place, probed.largest);
        Ok(Attempt::TooNarrow(format!("a probe batch gives {largest} in {place}")))
    }
}
