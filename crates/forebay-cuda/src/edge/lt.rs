//! cublasLt: descriptors, the algorithms it proposes for a product, and the call itself.
//!
//! A row-major D\[m,n\] = A\[m,k\] · W\[n,k\]ᵀ is the column-major product Dᵀ = W · Aᵀ, where the library
//! reads W as its transposed first operand and A as its second. Sums are taken in f32. Choosing
//! among the algorithms is not done here.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::cublaslt::sys as lt;

use super::context::Context;
use super::fault::first_fault;
use super::memory::DevicePtr;
use super::operands::{OPERAND_ALIGNMENT, Operands};
use super::stream::Stream;
use crate::dtype::Dtype;
use crate::error::{CudaError, ErrorKind};
use crate::gemm::GemmShape;

/// `CUBLAS_OP_N` and `CUBLAS_OP_T`; the binding has them only with all of cublas.
const OPERATION_NONE: u32 = 0;
const OPERATION_TRANSPOSED: u32 = 1;

/// The library's description of one algorithm, opaque but for what [`Algorithm::is_split`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Algorithm(pub(crate) [u64; 8]);

impl Algorithm {
    fn raw(self) -> lt::cublasLtMatmulAlgo_t {
        lt::cublasLtMatmulAlgo_t { data: self.0 }
    }

    /// True if the sum over k is divided among blocks and put together afterwards.
    pub(crate) fn is_split(self) -> Result<bool, CudaError> {
        use lt::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
        let split = self.config(Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM)?;
        let scheme = self.config(Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME)?;
        Ok(split > 1 || scheme != 0)
    }

    fn config(self, attribute: lt::cublasLtMatmulAlgoConfigAttributes_t) -> Result<u32, CudaError> {
        let raw = self.raw();
        let mut value = 0_u32;
        let mut written = 0_usize;
        // SAFETY: the attributes asked for are 4 bytes long, and both are places for results.
        let status = unsafe {
            lt::cublasLtMatmulAlgoConfigGetAttribute(
                &raw const raw,
                attribute,
                (&raw mut value).cast(),
                4,
                &raw mut written,
            )
        };
        check_lt("cublasLtMatmulAlgoConfigGetAttribute", status)
            .map_err(|error| error.with(format!("{attribute:?}")))?;
        Ok(value)
    }
}

/// An algorithm that the library proposes, or confirms, for a product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) algorithm: Algorithm,
    pub(crate) workspace_bytes: usize,
}

/// The library's handle for one context.
#[derive(Debug)]
pub(crate) struct Handle {
    context: Arc<Context>,
    raw: lt::cublasLtHandle_t,
}

// SAFETY: the handle may be used from every thread; each binds the context first.
unsafe impl Send for Handle {}

impl Handle {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        context.enter()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the library is loaded, a context is bound, and `raw` is a place for the handle.
        check_lt("cublasLtCreate", unsafe { lt::cublasLtCreate(&raw mut raw) })?;
        Ok(Self { context: Arc::clone(context), raw })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if first_fault().is_none() && self.context.enter().is_ok() {
            // SAFETY: the handle is alive and used for the last time.
            let status = unsafe { lt::cublasLtDestroy(self.raw) };
            if let Err(error) = check_lt("cublasLtDestroy", status) {
                tracing::warn!(%error, "cublaslt handle not released");
            }
        }
    }
}

/// The description of one product. It lives on the host alone.
#[derive(Debug)]
pub(crate) struct Product {
    shape: GemmShape,
    description: lt::cublasLtMatmulDesc_t,
    w: Layout,
    a: Layout,
    d: Layout,
}

// SAFETY: the descriptors are plain memory of the host and belong to this object.
unsafe impl Send for Product {}

impl Product {
    /// Describes a product; `bias` stands for the pointers to come where the shape has a bias.
    pub(crate) fn new(shape: GemmShape, bias: DevicePtr) -> Result<Self, CudaError> {
        use lt::cublasLtMatmulDescAttributes_t as Attribute;
        let (m, n, k) = (u64::from(shape.m_bucket), u64::from(shape.n), u64::from(shape.k));
        let element = element(shape.dtype);
        // Transposed operands are stored as k by n, and k by m.
        let w = Layout::new(element, k, n)?;
        let a = Layout::new(element, k, m)?;
        let d = Layout::new(element, n, m)?;
        let mut description = ptr::null_mut();
        // SAFETY: `description` is a place for the handle.
        check_lt("cublasLtMatmulDescCreate", unsafe {
            lt::cublasLtMatmulDescCreate(
                &raw mut description,
                lt::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                lt::cudaDataType_t::CUDA_R_32F,
            )
        })?;
        // From here on a return destroys it.
        let product = Self { shape, description, w, a, d };
        product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, OPERATION_TRANSPOSED)?;
        product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, OPERATION_NONE)?;
        if shape.bias {
            let epilogue = lt::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            product.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            product.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.addr())?;
        }
        Ok(product)
    }

    /// Sets an attribute to a plain value of the size that the attribute has.
    fn set<T: Copy>(
        &self,
        attribute: lt::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), CudaError> {
        // SAFETY: the description is alive and the value is readable for its size, which the library
        // compares with the attribute's.
        let status = unsafe {
            lt::cublasLtMatmulDescSetAttribute(
                self.description,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        };
        check_lt("cublasLtMatmulDescSetAttribute", status)
            .map_err(|error| error.with(format!("{attribute:?} for {}", self.shape)))
    }

    /// Up to `count` algorithms, the one that the library expects to be fastest first.
    pub(crate) fn candidates(
        &self,
        handle: &Handle,
        count: usize,
        workspace_bytes: usize,
    ) -> Result<Vec<Candidate>, CudaError> {
        handle.context.enter()?;
        let preference = Preference::new(workspace_bytes)?;
        let mut results = vec![no_result(); count];
        let mut found = 0;
        // SAFETY: all descriptors are alive, and there is room for `count` results.
        let status = unsafe {
            lt::cublasLtMatmulAlgoGetHeuristic(
                handle.raw,
                self.description,
                self.w.0,
                self.a.0,
                self.d.0,
                self.d.0,
                preference.0,
                i32::try_from(count).unwrap_or(i32::MAX),
                results.as_mut_ptr(),
                &raw mut found,
            )
        };
        check_lt("cublasLtMatmulAlgoGetHeuristic", status)
            .map_err(|error| error.with(self.shape.to_string()))?;
        let found = usize::try_from(found).unwrap_or(0);
        Ok(results
            .into_iter()
            .take(found)
            .filter(|result| result.state == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS)
            .map(|result| Candidate {
                algorithm: Algorithm(result.algo.data),
                workspace_bytes: result.workspaceSize,
            })
            .collect())
    }

    /// The candidate with `algorithm`, if the library can run this product with it.
    pub(crate) fn confirm(&self, handle: &Handle, algorithm: Algorithm) -> Option<Candidate> {
        handle.context.enter().ok()?;
        let raw = algorithm.raw();
        let mut result = no_result();
        // SAFETY: all descriptors are alive, and `result` is a place for the result.
        let status = unsafe {
            lt::cublasLtMatmulAlgoCheck(
                handle.raw,
                self.description,
                self.w.0,
                self.a.0,
                self.d.0,
                self.d.0,
                &raw const raw,
                &raw mut result,
            )
        };
        (status == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS)
            .then_some(Candidate { algorithm, workspace_bytes: result.workspaceSize })
    }

    /// Enqueues the product on `stream`.
    pub(crate) fn run(
        &self,
        handle: &Handle,
        algorithm: Algorithm,
        operands: &Operands,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        use lt::cublasLtMatmulDescAttributes_t as Attribute;
        operands.validate(self.shape)?;
        handle.context.enter()?;
        if let Some(bias) = operands.bias {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.addr())?;
        }
        let raw = algorithm.raw();
        let (one, zero) = (1_f32, 0_f32);
        let address = |pointer: DevicePtr| pointer.addr() as *mut c_void;
        // SAFETY: all descriptors are alive; the factors are f32 on the host, as the description
        // says, and read before the call returns; only device memory is touched, and a wrong address
        // is reported by the device. The library's stream is the driver's.
        let status = unsafe {
            lt::cublasLtMatmul(
                handle.raw,
                self.description,
                (&raw const one).cast(),
                address(operands.w),
                self.w.0,
                address(operands.a),
                self.a.0,
                (&raw const zero).cast(),
                address(operands.d),
                self.d.0,
                address(operands.d),
                self.d.0,
                &raw const raw,
                address(operands.workspace),
                operands.workspace_bytes,
                stream.raw().cast(),
            )
        };
        if status == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Ok(());
        }
        // A fault of earlier work shows as a vague status here; the driver tells it exactly.
        if let Err(fault) = stream.is_idle()
            && fault.kind.poisons()
        {
            return Err(fault);
        }
        check_lt("cublasLtMatmul", status)
            .map_err(|error| error.with(format!("{} with {operands:?}", self.shape)))
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: the description is alive and used for the last time; it is memory of the host.
        let status = unsafe { lt::cublasLtMatmulDescDestroy(self.description) };
        debug_assert_eq!(status, lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    }
}

/// A column-major matrix without gaps.
#[derive(Debug)]
struct Layout(lt::cublasLtMatrixLayout_t);

impl Layout {
    fn new(element: lt::cudaDataType_t, rows: u64, columns: u64) -> Result<Self, CudaError> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for the handle.
        check_lt("cublasLtMatrixLayoutCreate", unsafe {
            lt::cublasLtMatrixLayoutCreate(&raw mut raw, element, rows, columns, rows as i64)
        })?;
        Ok(Self(raw))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: the layout is alive and used for the last time; it is memory of the host.
        let status = unsafe { lt::cublasLtMatrixLayoutDestroy(self.0) };
        debug_assert_eq!(status, lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    }
}

/// What algorithms may be proposed.
struct Preference(lt::cublasLtMatmulPreference_t);

impl Preference {
    fn new(workspace_bytes: usize) -> Result<Self, CudaError> {
        use lt::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for the handle.
        check_lt("cublasLtMatmulPreferenceCreate", unsafe {
            lt::cublasLtMatmulPreferenceCreate(&raw mut raw)
        })?;
        let preference = Self(raw);
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (workspace_bytes as u64).to_ne_bytes(),
        )?;
        // No sum over k is divided.
        preference
            .set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, 0_u32.to_ne_bytes())?;
        // The library otherwise assumes 256 bytes.
        for attribute in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(attribute, (OPERAND_ALIGNMENT as u32).to_ne_bytes())?;
        }
        Ok(preference)
    }

    fn set<const N: usize>(
        &self,
        attribute: lt::cublasLtMatmulPreferenceAttributes_t,
        value: [u8; N],
    ) -> Result<(), CudaError> {
        // SAFETY: the preference is alive and the value is readable for its size, which the library
        // compares with the attribute's.
        let status = unsafe {
            lt::cublasLtMatmulPreferenceSetAttribute(self.0, attribute, value.as_ptr().cast(), N)
        };
        check_lt("cublasLtMatmulPreferenceSetAttribute", status)
            .map_err(|error| error.with(format!("{attribute:?}")))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: the preference is alive and used for the last time; it is memory of the host.
        let status = unsafe { lt::cublasLtMatmulPreferenceDestroy(self.0) };
        debug_assert_eq!(status, lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS);
    }
}

fn no_result() -> lt::cublasLtMatmulHeuristicResult_t {
    lt::cublasLtMatmulHeuristicResult_t {
        algo: lt::cublasLtMatmulAlgo_t { data: [0; 8] },
        workspaceSize: 0,
        state: lt::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED,
        wavesCount: 0.0,
        reserved: [0; 4],
    }
}

fn element(dtype: Dtype) -> lt::cudaDataType_t {
    match dtype {
        Dtype::F16 => lt::cudaDataType_t::CUDA_R_16F,
        Dtype::BF16 => lt::cudaDataType_t::CUDA_R_16BF,
    }
}

fn check_lt(call: &'static str, status: lt::cublasStatus_t) -> Result<(), CudaError> {
    if status == lt::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        Ok(())
    } else {
        Err(refused(call, status))
    }
}

#[cold]
fn refused(call: &'static str, status: lt::cublasStatus_t) -> CudaError {
    let kind = match status {
        lt::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => ErrorKind::OutOfMemory,
        lt::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE
        | lt::cublasStatus_t::CUBLAS_STATUS_ARCH_MISMATCH
        | lt::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED => ErrorKind::Usage,
        _ => ErrorKind::Retry,
    };
    CudaError::library(call, status as u32, format!("{status:?}"), kind, "")
}
