//! Every way the engine can refuse a model or a batch, with the class that callers decide by.

use forebay_model::ModelError;

use crate::error::{CudaError, ErrorKind};
use crate::weights::GeometryError;

/// What is wrong with the token ids or boundaries of a batch. The same batch gives it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// There is no sequence.
    #[error("the batch has no row; send at least one text")]
    NoRows,
    /// The boundaries do not rise strictly from 0.
    #[error("row boundary {index} is {value}, but boundaries rise strictly from 0")]
    Boundary {
        /// Position in the boundaries.
        index: usize,
        /// The value there.
        value: u32,
    },
    /// The last boundary is not the number of ids.
    #[error("the row boundaries end at {end}, but there are {ids} token ids")]
    Length {
        /// The last boundary.
        end: u32,
        /// Number of token ids given.
        ids: usize,
    },
    /// A sequence is longer than the model or the engine takes.
    #[error("row {row} has {tokens} tokens, at most {tokens_max} are possible; shorten the text")]
    RowTooLong {
        /// The row within the batch.
        row: usize,
        /// Its tokens.
        tokens: u32,
        /// The limit.
        tokens_max: u32,
    },
    /// A token id that the word table has no row for.
    #[error("row {row} holds token id {id}, but the model has {vocab} embeddings")]
    IdOutOfRange {
        /// The row within the batch.
        row: usize,
        /// The id.
        id: u32,
        /// Rows of the word table.
        vocab: u32,
    },
    /// The batch does not fit the slot that it is said to be in.
    #[error(
        "a batch of {rows} rows and {tokens} tokens in slot {slot} does not fit: there are {slots} \
         slots of {rows_max} rows and {tokens_max} tokens"
    )]
    Slot {
        /// The slot named.
        slot: u32,
        /// Rows of the batch.
        rows: usize,
        /// Tokens of the batch.
        tokens: usize,
        /// Slots there are.
        slots: u32,
        /// Rows that fit one slot.
        rows_max: u32,
        /// Tokens that fit one slot.
        tokens_max: u32,
    },
}

/// Why the engine could not be opened or a batch could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A CUDA call failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The model folder cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model's sizes are not supported.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The batch itself is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// An option has a value that cannot be used.
    #[error("{option} is {value}, expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// Not even the smallest engine fits the memory.
    #[error(
        "the model needs {needed} bytes of device memory with batches of {tokens_max} tokens, \
         which is as small as they get, and {available} bytes are available; free memory on the \
         device, raise the memory limit, or use fewer slots or a smaller model"
    )]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes that may be used.
        available: u64,
        /// The batch size that the need was computed for.
        tokens_max: u32,
        /// The limit of the options refuses it, whatever is free.
        by_limit: bool,
    },
    /// The precision that was asked for cannot represent this model.
    #[error("precision {precision} cannot run this model: {reason}; use {other}")]
    Precision {
        /// The precision asked for.
        precision: &'static str,
        /// What went out of range, and where.
        reason: String,
        /// A precision that may do.
        other: &'static str,
    },
    /// A probe batch gave rows that cannot be right.
    #[error("self-check: {0}; the kernels or the device do not compute what they must")]
    SelfCheck(String),
    /// A row came out with a value that is not finite.
    #[error(
        "row {row} has length {norm} before scaling, which is not a finite number; the encoder \
         overflowed on this text: use precision bf16"
    )]
    NonFinite {
        /// The row within the batch.
        row: usize,
        /// The length that was computed.
        norm: f32,
    },
    /// The device did not finish within the time that any batch could need.
    #[error("{what} did not finish within {seconds} s; the device or its driver is stuck")]
    Stuck {
        /// What was waited for.
        what: &'static str,
        /// How long, in seconds.
        seconds: u64,
    },
    /// A neighbouring stage is gone or was called out of turn.
    #[error("pipeline: {0}")]
    Pipeline(&'static str),
}

/// What a caller can do about an [`EngineError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineErrorClass {
    /// The same batch fails again; do not run it again.
    Input,
    /// Another try may succeed.
    Retry,
    /// A smaller batch may fit.
    OutOfMemory,
    /// Numbers went out of range.
    NonFinite,
    /// A fault in this program.
    Internal,
    /// The process cannot use CUDA any more and has to end.
    Sticky,
    /// The device is gone.
    DeviceLost,
    /// Configuration, model or machine; a restart gives the same.
    Config,
}

impl EngineError {
    /// The class that decides what happens next.
    #[must_use]
    pub fn class(&self) -> EngineErrorClass {
        match self {
            Self::Cuda(error) => match error.kind {
                ErrorKind::Retry => EngineErrorClass::Retry,
                ErrorKind::OutOfMemory => EngineErrorClass::OutOfMemory,
                ErrorKind::Sticky => EngineErrorClass::Sticky,
                ErrorKind::DeviceLost => EngineErrorClass::DeviceLost,
                ErrorKind::Missing => EngineErrorClass::Config,
                ErrorKind::Usage => EngineErrorClass::Internal,
            },
            Self::Input(_) => EngineErrorClass::Input,
            Self::NonFinite { .. } => EngineErrorClass::NonFinite,
            Self::Stuck { .. } => EngineErrorClass::Sticky,
            Self::Pipeline(_) => EngineErrorClass::Internal,
            // Others may give memory back.
            Self::Memory { by_limit: false, .. } => EngineErrorClass::OutOfMemory,
            Self::Model(_)
            | Self::Geometry(_)
            | Self::Option { .. }
            | Self::Memory { .. }
            | Self::SelfCheck(_)
            | Self::Precision { .. } => EngineErrorClass::Config,
        }
    }
}
