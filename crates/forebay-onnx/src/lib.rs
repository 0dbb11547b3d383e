//! The ONNX Runtime engine for the CPU: packed token ids in, token states out.
//!
//! [`Session::load`] builds the encoder of a model folder in memory from its safetensors, in F32 or
//! INT8, or loads the exported graph of a folder that has only that. [`Session::encode`] cuts a
//! batch into sub-batches of similar length, runs them and returns the states of every token in the
//! caller's order. The library is opened at run time by path; the build needs none.
//!
//! The crate never pools, normalises or tokenizes, keeps no thread of its own between two batches
//! (ONNX Runtime's pool aside), and never changes a caller's row because of what stands next to it: see
//! [`Session::encode`] for what holds exactly. Design and figures: `docs/cpu-engine.md`.

mod empty_model;
mod encoder;
mod error;
mod exported;
mod graph;
mod operators;
mod options;
mod plan;
mod quantize;
mod runtime;
mod session;
mod states;
mod tables;

pub use error::OnnxError;
pub use options::{EngineOptions, Precision, SubBatchLimits};
pub use runtime::{VERSION_MINOR_MIN, runtime_version};
pub use session::Session;
pub use states::TokenStates;
