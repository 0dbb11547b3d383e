//! What can go wrong with one request, and with the start of a runtime.

use std::path::PathBuf;
use std::time::Duration;

use forebay_model::ModelError;
use forebay_protocol::Fault;

use crate::config::ConfigError;
use crate::events::EventLogError;
use crate::metrics::Outcome;
use crate::priority::Priority;
use crate::supervisor::Level;

/// Why a request was refused or has no embedding. Each kind has a stable [`EmbedError::code`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EmbedError {
    /// The class of the request has no room; nothing was queued.
    #[error("no room for {priority} requests; try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// Class that has no room.
        priority: Priority,
        /// When trying again is likely to succeed.
        retry_after: Duration,
    },
    /// The text is longer than `tokenize.text_bytes_max`; no work was spent on it.
    #[error(
        "text of {bytes} bytes, allowed are {bytes_max}; split it or raise tokenize.text_bytes_max"
    )]
    TextTooLong {
        /// Length of the text in bytes.
        bytes: usize,
        /// Allowed length in bytes.
        bytes_max: usize,
    },
    /// The text has more tokens than the model takes and truncation was not allowed.
    #[error("text of {tokens} tokens, the model takes {tokens_max}; split it or allow truncation")]
    TooManyTokens {
        /// Tokens of the text, special tokens included.
        tokens: usize,
        /// Tokens that the model takes.
        tokens_max: usize,
    },
    /// A token id is not in the model's vocabulary.
    #[error(
        "token id {id} is not in the vocabulary, whose ids are below {vocab}; tokenize with this \
         model's tokenizer, or send the text"
    )]
    TokenId {
        /// The id.
        id: u32,
        /// Ids that the model has.
        vocab: usize,
    },
    /// There is not one token id to embed.
    #[error("there are no token ids; give at least one")]
    NoTokens,
    /// The tokenizer could not encode the text.
    #[error("text cannot be tokenized: {message}")]
    Tokenize {
        /// What the tokenizer said.
        message: String,
    },
    /// An option asks for something that the model cannot give.
    #[error("{option} is {value}, allowed are {min} to {max}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// The value given.
        value: usize,
        /// Smallest allowed value.
        min: usize,
        /// Largest allowed value.
        max: usize,
    },
    /// The deadline passed before there was a result.
    #[error("deadline passed while {waiting}")]
    DeadlineExceeded {
        /// Where the request was when it passed.
        waiting: &'static str,
    },
    /// The caller gave the request up.
    #[error("request was cancelled")]
    Cancelled,
    /// A worker died while this text was the only one in it.
    #[error(
        "text ran {executions} times and its worker died with nothing else in it; it will not be run \
         again"
    )]
    PoisonInput {
        /// How often it ran.
        executions: u32,
    },
    /// Nothing serves, and nothing will within the time that requests may wait.
    #[error("no worker serves: {reason}")]
    Unavailable {
        /// Why nothing serves.
        reason: String,
    },
    /// The worker that had this text was lost for no fault of the text, which has run as often as
    /// it may or comes when too many texts are being computed a second time already.
    #[error(
        "worker was lost, and this text has run as often as it may or too much else is being run \
         again; it is not to blame, so try again"
    )]
    WorkerLost,
    /// The engine refused or failed this text, also when it ran alone.
    #[error("engine failed ({class}): {message}")]
    Inference {
        /// Class of the failure.
        class: &'static str,
        /// What the engine said.
        message: String,
    },
    /// The result failed the check that every answer passes before it leaves.
    #[error("result failed its check: {message}")]
    InvalidResult {
        /// What was wrong with it.
        message: String,
    },
    /// The runtime is shutting down.
    #[error("runtime is shutting down")]
    ShuttingDown,
    /// A fault in the runtime itself.
    #[error("internal fault: {message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

impl EmbedError {
    /// A stable name for this kind of error, for programs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::TextTooLong { .. } => "text_too_long",
            Self::TooManyTokens { .. } => "too_many_tokens",
            Self::TokenId { .. } => "token_id",
            Self::NoTokens => "no_tokens",
            Self::Tokenize { .. } => "tokenize",
            Self::InvalidOption { .. } => "invalid_option",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::PoisonInput { .. } => "poison_input",
            Self::Unavailable { .. } => "unavailable",
            Self::WorkerLost => "worker_lost",
            Self::Inference { .. } => "inference",
            Self::InvalidResult { .. } => "invalid_result",
            Self::ShuttingDown => "shutting_down",
            Self::Internal { .. } => "internal",
        }
    }

    /// The outcome that the metrics count it under.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Overloaded { .. } => Outcome::Overloaded,
            Self::TextTooLong { .. }
            | Self::TooManyTokens { .. }
            | Self::TokenId { .. }
            | Self::NoTokens
            | Self::Tokenize { .. }
            | Self::InvalidOption { .. } => Outcome::Invalid,
            Self::DeadlineExceeded { .. } => Outcome::Deadline,
            Self::Cancelled => Outcome::Cancelled,
            Self::PoisonInput { .. } => Outcome::Poison,
            Self::Unavailable { .. } | Self::ShuttingDown => Outcome::Unavailable,
            Self::WorkerLost | Self::Inference { .. } | Self::InvalidResult { .. } => {
                Outcome::WorkerLost
            }
            Self::Internal { .. } => Outcome::Internal,
        }
    }

    /// Whether the same request may succeed if it is sent again later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Overloaded { .. }
                | Self::Unavailable { .. }
                | Self::WorkerLost
                | Self::ShuttingDown
        )
    }
}

/// Why a fault was not brought about. Nothing has happened then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The configuration does not allow it.
    #[error("{fault} is refused: faults are not enabled; set faults.enabled for a test or a drill")]
    NotEnabled {
        /// What was asked for.
        fault: Fault,
    },
    /// A fault of a device, and none was named.
    #[error("{fault} is a fault of a device, and none is named; name one of the runtime's")]
    NoDevice {
        /// What was asked for.
        fault: Fault,
    },
    /// The runtime has no such rung.
    #[error("there is no rung on {device}; name one of those in the status")]
    UnknownDevice {
        /// The device named.
        device: String,
    },
    /// The rung has no worker now that could bring it about.
    #[error("no worker serves on {device} now; wait until one does")]
    NoWorker {
        /// The device named.
        device: String,
    },
    /// The part of the runtime that the fault concerns is not there.
    #[error("{fault} concerns a part that this runtime does not have; leave it out")]
    NoSuchPart {
        /// What was asked for.
        fault: Fault,
    },
    /// The runtime is shutting down.
    #[error("runtime is shutting down")]
    Ending,
}

/// Why the level was not capped. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The ladder has no rung that could serve under this cap.
    #[error(
        "no rung could serve with the level capped at {level}; cap it at a higher level, or end the runtime"
    )]
    NothingLeft {
        /// The cap that was asked for.
        level: Level,
    },
    /// The runtime is shutting down.
    #[error("runtime is shutting down")]
    Ending,
}

/// Why a runtime could not start. Nothing is left running then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has wrong values.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model folder cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The event log cannot be written to.
    #[error(transparent)]
    Events(#[from] EventLogError),
    /// The worker executable was not found.
    #[error(
        "no worker executable: {tried}; set worker.program or FOREBAY_WORKER, or put `forebay` next to this program"
    )]
    NoWorkerProgram {
        /// Where it was looked for.
        tried: String,
    },
    /// ONNX Runtime's shared library was not found.
    #[error(
        "no ONNX Runtime library: {tried}; set cpu.onnxruntime or FOREBAY_ONNXRUNTIME, or fetch it with `cargo xtask setup`"
    )]
    NoOnnxRuntime {
        /// Where it was looked for.
        tried: String,
    },
    /// A setting that a runtime beside another cannot change.
    #[error(
        "section [{section}] cannot change while the program runs; restart it, or put the section back"
    )]
    Fixed {
        /// The section of the configuration.
        section: &'static str,
    },
    /// A configured GPU that this process, and so its workers, must not use.
    #[error(
        "device {device} is not visible: {reason}; list another device, or change that variable"
    )]
    DeviceHidden {
        /// The device named in the configuration.
        device: String,
        /// What hides it.
        reason: String,
    },
    /// The model's tokenizer cannot encode the fixed texts that workers are checked with.
    #[error(
        "tokenizer of the model cannot encode the canary texts: {reason}; check tokenizer.json"
    )]
    Canary {
        /// What the tokenizer said.
        reason: String,
    },
    /// No worker became ready.
    #[error("no worker became ready: {reason}")]
    Worker {
        /// What the worker said, or how it ended.
        reason: String,
    },
    /// The operating system refused something that the runtime needs.
    #[error("cannot {what}: {source}")]
    Os {
        /// What was attempted.
        what: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A path that is needed is not one that can be passed on.
    #[error("path {path:?} is not valid UTF-8; rename it")]
    Path {
        /// The path.
        path: PathBuf,
    },
}
