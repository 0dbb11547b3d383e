//! The encoder on the device, from the memory plan to the parts that a worker runs in its threads.

mod buckets;
mod completion;
mod encoder;
mod error;
mod faults;
mod graphs;
mod input;
mod layers;
mod loading;
mod memory;
mod options;
mod pipeline;
mod probe;
mod products;
mod rows;
mod run;
mod split;
mod steps;
mod workspace;

pub use buckets::{BUCKET_STEP, Buckets};
pub use error::{EngineError, EngineErrorClass, InputError};
pub use faults::DeviceFault;
pub use input::check_input;
pub use memory::{MemoryReport, TOKENS_MAX_MIN};
pub use options::{CopyChoice, EngineOptions, GemmChoice, PrecisionChoice};
pub use pipeline::{Pipeline, PipelineInfo, SlotLayout, open_pipeline};
pub use run::CudaEngine;
pub use split::{Chunk, split};
pub use steps::{
    CopyIn, CopyOut, Infer, Pool, RingToken, Rows, StageSpan, StageTimes, Staged, States,
};
