//! The four matrix products of a layer, each by the best path that the device has.
//!
//! There are fused kernels for some devices and sizes, which add bias, activation or residual and
//! normalisation in the product itself, and cuBLASLt for the rest, with separate kernels behind it.
//! The choice is made once per product when the engine opens. A path never falls back while it
//! runs: what was chosen either works or fails.

use std::path::Path;
use std::sync::Arc;

use super::error::EngineError;
use super::memory::GEMM_WORKSPACE_BYTES;
use super::options::GemmChoice;
use super::workspace::Workspace;
use crate::edge::{Context, DevicePtr, Stream};
use crate::gemm::{GemmPlans, GemmShape, PlanCounts};
use crate::kernels::hopper::{GemmNorm, GemmRows, HopperGemms};
use crate::kernels::{BiasActivation, KernelSet, ResidualNorm};
use crate::weights::{Geometry, LinearAt, NormAt};
use crate::{CudaError, Dtype};

/// One of the products of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    /// Token states to query, key and value.
    Projections,
    /// Attention output to token states, with residual and normalisation.
    Joined,
    /// Token states to feed-forward rows, with activation.
    Up,
    /// Feed-forward rows to token states, with residual and normalisation.
    Down,
}

/// How one product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProductPath {
    /// One fused kernel.
    Native,
    /// A fused kernel for the product with a separate one for residual and normalisation.
    NativeRows,
    /// cuBLASLt, with a separate kernel for what follows except a plain bias.
    Library,
}

impl Product {
    pub(crate) const ALL: [Self; 4] = [Self::Projections, Self::Joined, Self::Up, Self::Down];

    /// Columns of the result and of the input.
    pub(crate) fn sizes(self, geometry: &Geometry) -> (u32, u32) {
        let Geometry { hidden, intermediate, .. } = *geometry;
        match self {
            Self::Projections => (3 * hidden, hidden),
            Self::Joined => (hidden, hidden),
            Self::Up => (intermediate, hidden),
            Self::Down => (hidden, intermediate),
        }
    }

    fn has_norm(self) -> bool {
        matches!(self, Self::Joined | Self::Down)
    }
}

/// The path of each product, in the order of [`Product::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paths([ProductPath; 4]);

impl Paths {
    /// Chooses. `rows` and `norm` tell whether there is a fused kernel for (columns, inner size).
    ///
    /// # Errors
    /// [`EngineError::Option`] if only fused kernels are wanted and one is missing.
    pub(crate) fn choose(
        geometry: &Geometry,
        choice: GemmChoice,
        rows: impl Fn(u32, u32) -> bool,
        norm: impl Fn(u32, u32) -> bool,
    ) -> Result<Self, EngineError> {
        let mut paths = [ProductPath::Library; 4];
        for (path, product) in paths.iter_mut().zip(Product::ALL) {
            let (n, k) = product.sizes(geometry);
            *path = match choice {
                GemmChoice::CublasLt => ProductPath::Library,
                _ if !product.has_norm() && rows(n, k) => ProductPath::Native,
                _ if product.has_norm() && norm(n, k) => ProductPath::Native,
                _ if product.has_norm() && rows(n, k) => ProductPath::NativeRows,
                GemmChoice::Auto => ProductPath::Library,
                GemmChoice::Native => {
                    return Err(EngineError::Option {
                        option: "gemm",
                        value: "native".to_owned(),
                        expected: format!(
                            "auto or cublaslt: this device has no fused kernel for {product:?} \
                             with {n} columns and inner size {k}"
                        ),
                    });
                }
            };
        }
        Ok(Self(paths))
    }

    pub(crate) fn of(self, product: Product) -> ProductPath {
        self.0[product as usize]
    }

    /// Whether a library computes some product.
    pub(crate) fn library(self) -> bool {
        self.0.contains(&ProductPath::Library)
    }

    /// Whether some product is followed by a separate normalisation.
    pub(crate) fn product_buffer(self) -> bool {
        Product::ALL
            .into_iter()
            .any(|product| product.has_norm() && self.of(product) != ProductPath::Native)
    }

    /// For logs and reports: `native`, `cublaslt` or both.
    pub(crate) fn name(self) -> &'static str {
        match (self.library(), self.0.iter().all(|path| *path == ProductPath::Library)) {
            (_, true) => "cublaslt",
            (true, false) => "native and cublaslt",
            (false, _) => "native",
        }
    }
}

/// One product's operands: `d = f(a * wᵀ)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands {
    /// Input rows.
    pub a: DevicePtr,
    /// Result rows.
    pub d: DevicePtr,
    /// Weight, `[n, k]`.
    pub weight: DevicePtr,
    /// Bias in f32.
    pub bias: DevicePtr,
    /// Bias in the 16-bit type.
    pub bias_half: DevicePtr,
}

/// What a product with normalisation adds and scales by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormOperands {
    /// Rows added before the normalisation.
    pub residual: DevicePtr,
    /// Scale in f32.
    pub gamma: DevicePtr,
    /// Shift in f32.
    pub beta: DevicePtr,
}

/// The products of one encoder.
pub(crate) struct Products {
    geometry: Geometry,
    dtype: Dtype,
    paths: Paths,
    native: Option<HopperGemms>,
    library: Option<GemmPlans>,
}

impl Products {
    /// Takes the fused kernels that `paths` was chosen from, and opens the library if it is needed.
    ///
    /// # Errors
    /// The library is missing or fails.
    pub(crate) fn new(
        context: &Arc<Context>,
        geometry: Geometry,
        dtype: Dtype,
        paths: Paths,
        native: Option<HopperGemms>,
        workspace: &Workspace,
        cache_dir: Option<&Path>,
    ) -> Result<Self, EngineError> {
        let library = match paths.library() {
            true => Some(GemmPlans::new(
                context,
                cache_dir,
                workspace.gemm,
                GEMM_WORKSPACE_BYTES as usize,
            )?),
            false => None,
        };
        Ok(Self { geometry, dtype, paths, native, library })
    }

    pub(crate) fn paths(&self) -> Paths {
        self.paths
    }

    /// What happened to the library's plans; `None` without the library.
    pub(crate) fn plan_counts(&self) -> Option<PlanCounts> {
        self.library.as_ref().map(GemmPlans::counts)
    }

    fn shape(&self, product: Product, bucket: u32) -> GemmShape {
        let (n, k) = product.sizes(&self.geometry);
        let bias = product == Product::Projections;
        GemmShape { m_bucket: bucket, n, k, dtype: self.dtype, bias }
    }

    /// Makes the library's plan for `product` in `bucket`, measuring on the operands if it is new:
    /// their contents are lost then. Must precede [`rows`](Self::rows) and [`norm`](Self::norm) of
    /// that bucket, and must not happen during a capture.
    ///
    /// # Errors
    /// The library's failure.
    pub(crate) fn prepare(
        &mut self,
        product: Product,
        bucket: u32,
        operands: &Operands,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        if self.paths.of(product) != ProductPath::Library {
            return Ok(());
        }
        let shape = self.shape(product, bucket);
        match &mut self.library {
            Some(plans) => plans.prepare(shape, stream, operands.a, operands.weight, operands.d),
            None => Err(no_library()),
        }
    }

    /// Keeps what was measured for the next start.
    pub(crate) fn save(&self) {
        if let Some(plans) = &self.library {
            plans.save();
        }
    }

    /// A product with bias, and with the activation for [`Product::Up`].
    ///
    /// # Errors
    /// The driver's or the library's failure.
    pub(crate) fn rows(
        &self,
        product: Product,
        bucket: u32,
        operands: &Operands,
        sizes: DevicePtr,
        kernels: &KernelSet,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let activation = (product == Product::Up).then_some(self.geometry.activation);
        match self.paths.of(product) {
            ProductPath::Native | ProductPath::NativeRows => {
                self.native_rows(product, bucket, operands, operands.bias, sizes, stream)
            }
            ProductPath::Library => {
                self.library(product, bucket, operands, stream)?;
                let Some(_) = activation else { return Ok(()) };
                let width = product.sizes(&self.geometry).0;
                let (x, bias) = (operands.d, operands.bias);
                kernels.bias_activation(stream, &BiasActivation { x, bias, sizes, width, bucket })
            }
        }
    }

    /// A product with bias whose result is added to the residual and normalised. `operands.d` is
    /// the result of all of it; `scratch` takes the product where that is a step of its own, and
    /// `zeros` is a bias of zeros in f32.
    ///
    /// # Errors
    /// The driver's or the library's failure.
    #[expect(clippy::too_many_arguments, reason = "operands of one fused operation")]
    pub(crate) fn norm(
        &self,
        product: Product,
        bucket: u32,
        operands: &Operands,
        norm: &NormOperands,
        scratch: DevicePtr,
        zeros: DevicePtr,
        sizes: DevicePtr,
        kernels: &KernelSet,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let (n, k) = product.sizes(&self.geometry);
        let NormOperands { residual, gamma, beta } = *norm;
        let (bias, eps) = (operands.bias, self.geometry.eps);
        let to_scratch = Operands { d: scratch, ..*operands };
        match (self.paths.of(product), &self.native) {
            (ProductPath::Native, Some(native)) => {
                let gemm = GemmNorm {
                    a: operands.a,
                    a_rows: bucket,
                    w: operands.weight,
                    bias,
                    residual,
                    gamma,
                    beta,
                    eps,
                    d: operands.d,
                    n,
                    k,
                    sizes,
                    bucket,
                };
                return native.norm(stream, &gemm);
            }
            (ProductPath::Native, None) => return Err(no_native()),
            (ProductPath::NativeRows, _) => {
                self.native_rows(product, bucket, &to_scratch, zeros, sizes, stream)?;
            }
            (ProductPath::Library, _) => self.library(product, bucket, &to_scratch, stream)?,
        }
        let (y, out) = (scratch, operands.d);
        kernels.residual_norm(
            stream,
            &ResidualNorm { y, bias, residual, gamma, beta, eps, sizes, out, bucket },
        )
    }

    fn native_rows(
        &self,
        product: Product,
        bucket: u32,
        operands: &Operands,
        bias: DevicePtr,
        sizes: DevicePtr,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let (n, k) = product.sizes(&self.geometry);
        let Some(native) = &self.native else { return Err(no_native()) };
        let gemm = GemmRows {
            a: operands.a,
            a_rows: bucket,
            w: operands.weight,
            bias,
            d: operands.d,
            n,
            k,
            activation: (product == Product::Up).then_some(self.geometry.activation),
            sizes,
            bucket,
        };
        native.rows(stream, &gemm)
    }

    fn library(
        &self,
        product: Product,
        bucket: u32,
        operands: &Operands,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let Some(plans) = &self.library else { return Err(no_library()) };
        let shape = self.shape(product, bucket);
        let bias = shape.bias.then_some(operands.bias_half);
        plans.run(shape, operands.a, operands.weight, bias, operands.d, stream)
    }
}

/// Operands of a dense layer whose weights stand at `at`.
pub(crate) fn operands(
    at: &LinearAt,
    address: impl Fn(usize) -> DevicePtr,
    a: DevicePtr,
    d: DevicePtr,
) -> Operands {
    Operands {
        a,
        d,
        weight: address(at.weight),
        bias: address(at.bias),
        bias_half: address(at.bias_half),
    }
}

/// Operands of a normalisation whose parameters stand at `at`.
pub(crate) fn norm_operands(
    at: &NormAt,
    address: impl Fn(usize) -> DevicePtr,
    residual: DevicePtr,
) -> NormOperands {
    NormOperands { residual, gamma: address(at.gamma), beta: address(at.beta) }
}

fn no_library() -> CudaError {
    CudaError::usage("Products", "a library product was asked for, but none was opened")
}

fn no_native() -> CudaError {
    CudaError::usage("Products", "a fused product was asked for, but none was compiled")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::mini_geometry;

    fn choose(
        choice: GemmChoice,
        rows: impl Fn(u32, u32) -> bool,
        norm: impl Fn(u32, u32) -> bool,
    ) -> Result<Paths, EngineError> {
        Paths::choose(&mini_geometry(), choice, rows, norm)
    }

    #[test]
    fn every_product_takes_the_most_fused_path_there_is() {
        let all = choose(GemmChoice::Auto, |_, _| true, |_, _| true).unwrap();
        assert_eq!((all.library(), all.product_buffer(), all.name()), (false, false, "native"));

        let rows = choose(GemmChoice::Auto, |_, _| true, |_, _| false).unwrap();
        assert_eq!(rows.of(Product::Up), ProductPath::Native);
        assert_eq!(rows.of(Product::Down), ProductPath::NativeRows);
        assert_eq!((rows.library(), rows.product_buffer()), (false, true));

        let none = choose(GemmChoice::Auto, |_, _| false, |_, _| false).unwrap();
        assert_eq!((none.library(), none.product_buffer(), none.name()), (true, true, "cublaslt"));

        let short = choose(GemmChoice::Auto, |_, k| k == 384, |_, k| k == 384).unwrap();
        assert_eq!(short.of(Product::Joined), ProductPath::Native);
        assert_eq!(short.of(Product::Down), ProductPath::Library);
        assert_eq!(short.name(), "native and cublaslt");
    }

    #[test]
    fn a_choice_is_kept_or_refused() {
        let library = choose(GemmChoice::CublasLt, |_, _| true, |_, _| true).unwrap();
        assert!(Product::ALL.iter().all(|product| library.of(*product) == ProductPath::Library));
        let error = choose(GemmChoice::Native, |n, _| n != 1536, |_, _| true).unwrap_err();
        assert!(error.to_string().contains("1536"), "{error}");
    }

    #[test]
    fn products_have_the_sizes_of_a_bert_layer() {
        let sizes = Product::ALL.map(|product| product.sizes(&mini_geometry()));
        assert_eq!(sizes, [(1152, 384), (384, 384), (1536, 384), (384, 1536)]);
    }
}
