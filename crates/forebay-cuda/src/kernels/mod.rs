//! The engine's own kernels: from their sources to typed launches.
//!
//! [`source`] holds the texts, [`compile()`] and a cache on disk make images of them, and
//! [`KernelSet`] has one loaded kernel for each step of an encoder, chosen once for its sizes. Matrix
//! products are elsewhere.

mod ahead;
mod cache;
mod compile;
mod faults;
pub mod hopper;
mod launch;
pub mod source;

use std::path::PathBuf;
use std::sync::Arc;

use forebay_model::Activation;

pub use ahead::Ahead;
pub use compile::{Origin, compile};
pub use faults::FaultKernels;
pub use launch::{Attention, BiasActivation, EmbedNorm, Pool, ResidualNorm};

use crate::dtype::Dtype;
use crate::edge::{Context, Kernel, Module, load};
use crate::error::CudaError;
use ahead::WithAhead;
use compile::{Compiler, Nvrtc, first_that_loads};
use source::SourceFile;

/// Widths of token states that the normalising kernels exist for.
pub const HIDDEN: [u32; 3] = [384, 768, 1024];
/// Sizes of an attention head that the attention kernel exists for.
pub const HEAD_DIM: [u32; 2] = [32, 64];

/// Where kernels may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum KernelSource {
    /// The cache, then NVRTC, then the embedded PTX.
    #[default]
    Auto,
    /// The cache and NVRTC only.
    Nvrtc,
    /// The embedded PTX only.
    Ptx,
}

/// How kernels are loaded.
#[derive(Clone, Debug, Default)]
pub struct KernelOptions {
    /// Folder for compiled kernels, which lie in `kernels` below it; `None` keeps nothing.
    pub cache_dir: Option<PathBuf>,
    /// Where kernels may come from.
    pub source: KernelSource,
    /// What [`compile_ahead`] has compiled.
    pub ahead: Ahead,
}

/// Compiles side by side what loading would compile one file after the other: the kernels of an
/// encoder, with `products` also those of its matrix products. A refusal of the compiler shows when
/// the file is loaded.
///
/// # Errors
/// The driver cannot be opened.
pub fn compile_ahead(
    context: &Context,
    options: &KernelOptions,
    products: bool,
) -> Result<(), CudaError> {
    if let Some(nvrtc) = nvrtc()? {
        let own = [&source::GEMM_ROWS, &source::GEMM_NORM];
        let mut files = [&own[..], &source::ENCODER_FILES].concat();
        files.retain(|file| products || !own.contains(file));
        ahead::fill(&files, context.info().capability, options, &nvrtc);
    }
    Ok(())
}

fn nvrtc() -> Result<Option<Nvrtc>, CudaError> {
    Ok(load(&[])?.nvrtc.as_ref().map(|found| Nvrtc(found.version.clone())))
}

/// Loads a file's image onto the device of `context`.
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage) with what was tried; the driver's failure.
pub fn load_file(
    context: &Arc<Context>,
    options: &KernelOptions,
    file: &SourceFile,
) -> Result<(Arc<Module>, Origin), CudaError> {
    let nvrtc = nvrtc()?;
    let compiler = nvrtc.as_ref().map(|compiler| WithAhead { ahead: &options.ahead, compiler });
    let compiler = compiler.as_ref().map(|compiler| compiler as &dyn Compiler);
    let capability = context.info().capability;
    first_that_loads(file, capability, options, compiler, |image, origin| {
        Module::from_image(context, image, &format!("{} ({origin:?})", file.name))
    })
}

/// The kernels of one encoder, besides its matrix products.
#[derive(Debug)]
pub struct KernelSet {
    embed_norm: Kernel,
    attention: Kernel,
    residual_norm: Kernel,
    bias_activation: Kernel,
    pool: Kernel,
    hidden: u32,
    head_dim: u32,
    origin: String,
    overlap: bool,
    /// CTAs of the attention kernel that run on the device at once.
    attention_ctas: u32,
    multiprocessors: u32,
}

impl KernelSet {
    /// Loads the kernels for token states of width `hidden` with heads of `head_dim`.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for sizes without a kernel or if no image can be loaded;
    /// the driver's failure.
    pub fn load(
        context: &Arc<Context>,
        options: &KernelOptions,
        dtype: Dtype,
        hidden: u32,
        head_dim: u32,
        activation: Activation,
    ) -> Result<Self, CudaError> {
        check_sizes(hidden, head_dim)?;
        let version = load(&[])?.nvrtc.as_ref().map(|found| found.version.clone());
        let mut origins = Vec::new();
        let mut kernel = |file: &SourceFile, name: String| {
            let (module, origin) = load_file(context, options, file)?;
            origins.push(origin);
            module.kernel(&name)
        };
        let activation = match activation {
            Activation::GeluErf => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Relu => "relu",
        };
        let embed_norm = kernel(&source::EMBED_NORM, format!("embed_norm_{dtype}_h{hidden}"))?;
        let attention = kernel(&source::ATTENTION, format!("attention_{dtype}_d{head_dim}"))?;
        let residual_norm =
            kernel(&source::RESIDUAL_NORM, format!("residual_norm_{dtype}_h{hidden}"))?;
        let bias_activation =
            kernel(&source::BIAS_ACTIVATION, format!("bias_activation_{dtype}_{activation}"))?;
        let pool = kernel(&source::POOL, format!("pool_{dtype}"))?;
        let multiprocessors = context.info().multiprocessors;
        let attention_ctas = attention.occupancy(launch::ATTENTION_THREADS, 0)? * multiprocessors;

        // The PTX is of an architecture that cannot wait for the kernel in front of it.
        let overlap = context.info().capability.0 >= 9 && !origins.contains(&Origin::Ptx);
        let origin = describe(&origins, version.as_deref());
        Ok(Self {
            embed_norm,
            attention,
            residual_norm,
            bias_activation,
            pool,
            hidden,
            head_dim,
            origin,
            overlap,
            attention_ctas,
            multiprocessors,
        })
    }

    /// Where the kernels came from, for people: `cubin cache`, `nvrtc 13.0`, `embedded ptx`, or
    /// several of these.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

fn check_sizes(hidden: u32, head_dim: u32) -> Result<(), CudaError> {
    let fits =
        HIDDEN.contains(&hidden) && HEAD_DIM.contains(&head_dim) && hidden.is_multiple_of(head_dim);
    if fits {
        return Ok(());
    }
    Err(CudaError::usage(
        "load kernels",
        format!(
            "no kernels for hidden size {hidden} with heads of {head_dim}; there are hidden sizes \
             {HIDDEN:?} with heads of {HEAD_DIM:?}: use the cpu device for this model"
        ),
    ))
}

fn describe(origins: &[Origin], nvrtc: Option<&str>) -> String {
    let names = [
        (Origin::Cache, "cubin cache".to_owned()),
        (Origin::Nvrtc, format!("nvrtc {}", nvrtc.unwrap_or("of unknown version"))),
        (Origin::Ptx, "embedded ptx".to_owned()),
    ];
    let present: Vec<String> = names
        .into_iter()
        .filter(|(origin, _)| origins.contains(origin))
        .map(|(_, name)| name)
        .collect();
    present.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn sizes_without_a_kernel_are_refused_with_those_that_have_one() {
        for (hidden, head_dim) in [(384, 32), (384, 64), (768, 64), (1024, 64)] {
            assert!(check_sizes(hidden, head_dim).is_ok());
        }
        for (hidden, head_dim) in [(512, 64), (384, 48), (384, 0), (0, 32)] {
            let error = check_sizes(hidden, head_dim).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Usage);
            assert!(error.detail.contains("1024") && error.detail.contains("cpu"), "{error}");
        }
    }

    #[test]
    fn every_kernel_that_a_set_may_ask_for_is_in_the_embedded_ptx() {
        let has = |file: &SourceFile, name: String| {
            let ptx = file.ptx.unwrap_or_default();
            assert!(ptx.contains(&format!(".entry {name}(")), "{} lacks {name}", file.name);
        };
        for dtype in [Dtype::F16, Dtype::BF16] {
            for hidden in HIDDEN {
                has(&source::EMBED_NORM, format!("embed_norm_{dtype}_h{hidden}"));
                has(&source::RESIDUAL_NORM, format!("residual_norm_{dtype}_h{hidden}"));
            }
            for head_dim in HEAD_DIM {
                has(&source::ATTENTION, format!("attention_{dtype}_d{head_dim}"));
            }
            for activation in ["gelu", "gelu_tanh", "relu"] {
                has(&source::BIAS_ACTIVATION, format!("bias_activation_{dtype}_{activation}"));
            }
            has(&source::POOL, format!("pool_{dtype}"));
        }
    }

    #[test]
    fn origins_are_named_once_each() {
        assert_eq!(describe(&[Origin::Cache; 5], Some("13.0")), "cubin cache");
        assert_eq!(describe(&[Origin::Nvrtc; 5], Some("13.0")), "nvrtc 13.0");
        assert_eq!(
            describe(&[Origin::Cache, Origin::Nvrtc, Origin::Cache], Some("13.1")),
            "cubin cache and nvrtc 13.1"
        );
        assert_eq!(describe(&[Origin::Ptx], None), "embedded ptx");
    }
}
