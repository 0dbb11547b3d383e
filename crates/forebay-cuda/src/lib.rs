//! The CUDA engine: packed token ids in, pooled rows out, on one NVIDIA device.
//!
//! [`load`] opens the driver, NVRTC and cublasLt at run time, so that the crate builds and its
//! tests run where no CUDA exists; [`devices`] lists what is there. The engine keeps one allocation
//! for weights and one for working memory, replays one captured graph per token bucket, and orders
//! its four streams by events alone.
//!
//! The crate never runs in the host process, never retries on its own and never frees memory after
//! a fault: the first [`ErrorKind::Sticky`] or [`ErrorKind::DeviceLost`] failure ends CUDA for the
//! process, and every later call returns that same failure. Design: `docs/gpu.md`.

mod dtype;
#[doc(hidden)]
pub mod edge;
mod engine;
mod error;
#[doc(hidden)]
pub mod gemm;
#[doc(hidden)]
pub mod kernels;
pub mod selftest;
mod weights;

pub use dtype::Dtype;
pub use edge::{
    DeviceInfo, Libraries, LibraryFound, devices, first_fault, load, load_cublaslt, load_nvrtc,
};
pub use engine::{
    BUCKET_STEP, Buckets, Chunk, CopyChoice, CopyIn, CopyOut, CudaEngine, DeviceFault, EngineError,
    EngineErrorClass, EngineOptions, GemmChoice, Infer, InputError, MemoryReport, Pipeline,
    PipelineInfo, Pool, PrecisionChoice, RingToken, Rows, SlotLayout, StageSpan, StageTimes,
    Staged, States, TOKENS_MAX_MIN, check_input, open_pipeline, split,
};
pub use error::{CudaError, ErrorKind, classify};
pub use gemm::PlanCounts;
pub use kernels::KernelSource;
pub use weights::{Geometry, GeometryError, INTERMEDIATE_STEP, ROW_TOKENS_MAX};
