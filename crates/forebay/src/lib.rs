//! Text in, embeddings out, for programs that must not fall over when an accelerator does.
//!
//! A [`Runtime`] tokenizes texts, gathers them into batches and has them computed by worker
//! processes that it starts, watches and replaces. The program that embeds it never maps a GPU or
//! inference library, never waits without a bound, and gets exactly one reply per accepted text:
//! an [`Embedding`] or an [`EmbedError`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use forebay::{Config, EmbedOptions, Runtime};
//!
//! let mut config = Config::default();
//! config.model.path = "models/all-MiniLM-L6-v2".into();
//! let runtime = Runtime::start(config).await?;
//! let embedding = runtime.embed("brake pressure below limit", &EmbedOptions::default()).await?;
//! assert_eq!(embedding.vector.len(), runtime.model().width);
//! runtime.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! The futures run on any executor; the runtime brings its own threads. A program without one uses
//! [`blocking::Runtime`], which is the same with plain calls.

/// Whether a bug of [`simulation::Mutation`] is switched on; never in a build that serves.
macro_rules! mutated {
    ($name:ident) => {{
        #[cfg(any(test, feature = "simulation"))]
        {
            crate::simulation::mutated(crate::simulation::Mutation::$name)
        }
        #[cfg(not(any(test, feature = "simulation")))]
        {
            false
        }
    }};
}

mod admission;
pub mod batch;
pub mod blocking;
mod canary;
pub mod config;
mod dispatch;
mod error;
pub mod events;
pub mod health;
pub mod metrics;
mod options;
mod owed;
mod priority;
mod reply;
mod request;
mod runtime;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod status;
mod supervisor;
mod sync;
mod ticket;
mod tokenize;
mod worker_process;

pub use config::Config;
pub use error::{EmbedError, InjectError, PinError, StartError};
pub use forebay_model::Token;
pub use forebay_protocol::{
    CudaDevice, CudaLibrary, CudaSpec, DeviceHealth, Fault, FaultError, MonitorFault,
    MonitorReport, ProbeReport,
};
pub use options::{EmbedInput, EmbedOptions, Embedding, TextTimes};
pub use priority::Priority;
pub use reply::EmbedResult;
pub use runtime::{
    ModelInfo, Rates, Ready, ReadyReason, Runtime, ShutdownReport, Tokenizer, cuda_spec,
};
pub use status::{QueueStatus, StageStatus, Status};
pub use supervisor::{
    Health, HealthReason, HealthWatch, Level, LevelWatch, QuarantineReason, WorkerState,
    WorkerStatus,
};
pub use ticket::{BatchTicket, Ticket};
pub use worker_process::locate::{onnxruntime_library, worker_program};
pub use worker_process::probe::{ProbeError, probe_devices};
