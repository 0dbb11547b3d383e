//! How a worker's CUDA engine is to use its device: the part of a [`WorkerSpec`](crate::WorkerSpec)
//! that the CPU rung does not read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Arithmetic of weights and activations on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CudaPrecision {
    /// What fits the model's weights.
    Auto,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

/// Who multiplies matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CudaGemm {
    /// Whatever is there and fits the device.
    Auto,
    /// The cuBLASLt library.
    CublasLt,
    /// Forebay's own kernels.
    Native,
}

/// Where the kernels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CudaKernels {
    /// Compiled for the device if NVRTC is there, else the PTX that is built in.
    Auto,
    /// Compiled for the device with NVRTC.
    Nvrtc,
    /// The PTX that is built in, translated by the driver.
    Ptx,
}

/// How token ids and rows get between host memory and the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CudaCopies {
    /// What suits the device and the size of the batch.
    Auto,
    /// Copied by the copy engines.
    Copy,
    /// Read and written by the kernels in mapped host memory.
    Mapped,
}

/// How the CUDA engine uses its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaSpec {
    /// The device among those that the worker's process sees; the host lets it see one only.
    pub ordinal: u32,
    /// Arithmetic of weights and activations.
    pub precision: CudaPrecision,
    /// Device memory that the engine may take, in bytes; 0 means no limit of its own.
    pub memory_bytes_max: u64,
    /// Captured graphs that are kept at most.
    pub graphs_max: u32,
    /// Batches of up to this many tokens are read from mapped host memory and not copied.
    pub zero_copy_tokens_max: u32,
    /// Most time that the end of one batch is polled for, around when it is expected, in
    /// microseconds.
    pub completion_spin_us: u32,
    /// Who multiplies matrices.
    pub gemm: CudaGemm,
    /// Where the kernels come from.
    pub kernels: CudaKernels,
    /// How ids and rows are moved.
    pub copies: CudaCopies,
    /// Folders that are searched for CUDA's libraries before the usual places.
    pub libraries: Vec<PathBuf>,
    /// Folder in which compiled kernels and tuned plans are kept; `None` keeps nothing.
    pub cache_dir: Option<PathBuf>,
    /// File into which the worker writes a timeline of its stages.
    pub trace: Option<PathBuf>,
}
