//! Every way loading or running the engine can fail.
//!
//! Messages name what was found, the limit it broke and the remedy. [`OnnxError::is_input`] is the
//! one decision taken here: whether the caller's batch is at fault, or the engine.

use std::path::PathBuf;

use forebay_model::ModelError;

use crate::runtime::VERSION_MINOR_MIN;

/// Why the engine cannot be loaded or a batch cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The shared library is not where it was said to be.
    #[error(
        "ONNX Runtime's library {} does not exist; give the path of libonnxruntime.so (the \
         `onnxruntime` wheel has it in onnxruntime/capi)",
        path.display()
    )]
    LibraryMissing {
        /// The path as given.
        path: PathBuf,
    },

    /// The file exists but the dynamic linker or its entry point refused it.
    #[error(
        "{} cannot be used as ONNX Runtime's library: {reason}; give a libonnxruntime.so built \
         for this machine",
        path.display()
    )]
    LibraryUnusable {
        /// The path as given.
        path: PathBuf,
        /// What the linker said, or what was missing.
        reason: String,
    },

    /// The library is older than the interface this crate is built for.
    #[error(
        "{} is ONNX Runtime {version}, which is too old; install 1.{VERSION_MINOR_MIN} or later",
        path.display()
    )]
    LibraryTooOld {
        /// The path as given.
        path: PathBuf,
        /// The version it reports.
        version: String,
    },

    /// A process holds one ONNX Runtime; another one was asked for.
    #[error(
        "this process has loaded ONNX Runtime from {} and cannot load {} as well; use one \
         library per process",
        loaded.display(), asked.display()
    )]
    LibraryDiffers {
        /// The library in use.
        loaded: PathBuf,
        /// The one asked for.
        asked: PathBuf,
    },

    /// A precision name that is not known.
    #[error("unknown precision {found:?}; use f32 or int8")]
    UnknownPrecision {
        /// The name as given.
        found: String,
    },

    /// An option outside its range.
    #[error("engine option {option} is {value}; it must be {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Its value.
        value: usize,
        /// The allowed range in words.
        expected: &'static str,
    },

    /// The model folder's weights cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// INT8 was asked for a folder that has only an exported graph.
    #[error(
        "{} is an exported graph, which runs as it is; int8 needs the model's safetensors, so \
         use f32 or add model.safetensors to the folder",
        path.display()
    )]
    ExportedPrecision {
        /// The graph.
        path: PathBuf,
    },

    /// An exported graph cannot be read.
    #[error("cannot read {}: {source}; check the file and its permissions", path.display())]
    ExportedRead {
        /// The graph.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// An exported graph is not the encoder it should be.
    #[error("{} is not a usable encoder graph: {reason}", path.display())]
    ExportedGraph {
        /// The graph.
        path: PathBuf,
        /// What is wrong and what is expected instead.
        reason: String,
    },

    /// ONNX Runtime refused something.
    #[error("ONNX Runtime failed to {action}: {message}")]
    Runtime {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// ONNX Runtime's own message.
        message: String,
    },

    /// ONNX Runtime returned a tensor of another shape than the graph promises.
    #[error("ONNX Runtime returned states of shape {found:?} where {expected:?} was expected")]
    OutputShape {
        /// The promised shape.
        expected: Vec<usize>,
        /// The shape that came.
        found: Vec<i64>,
    },

    /// Row boundaries that do not describe the ids.
    #[error(
        "row boundaries do not fit the {ids} ids: {reason}; they start with 0, never fall and end \
         with the number of ids"
    )]
    Boundaries {
        /// Number of ids given.
        ids: usize,
        /// What is wrong with the boundaries.
        reason: String,
    },

    /// A row without tokens.
    #[error("row {row} has no token; even an empty text has its special tokens")]
    EmptyRow {
        /// Index of the row.
        row: usize,
    },

    /// A row longer than the position table.
    #[error("row {row} has {tokens} tokens, the model takes at most {tokens_max}; cut the text")]
    RowTooLong {
        /// Index of the row.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// The model's limit.
        tokens_max: usize,
    },

    /// A token id that the vocabulary does not have.
    #[error(
        "token {position} of row {row} has id {id}, the vocabulary ends at {vocab}; tokenizer \
         and model do not belong together"
    )]
    TokenOutOfVocabulary {
        /// Index of the row.
        row: usize,
        /// Index of the token in its row.
        position: usize,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },

    /// More tokens in one call than the indices can address.
    #[error("the batch has {tokens} tokens, one call takes at most {tokens_max}; split it")]
    BatchTooLarge {
        /// Tokens given.
        tokens: usize,
        /// The limit.
        tokens_max: usize,
    },
}

impl OnnxError {
    /// Whether the batch was wrong, so that running it again or elsewhere cannot help.
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Boundaries { .. }
                | Self::EmptyRow { .. }
                | Self::RowTooLong { .. }
                | Self::TokenOutOfVocabulary { .. }
                | Self::BatchTooLarge { .. }
        )
    }

    /// Wraps what ONNX Runtime said while `action` was being done.
    pub(crate) fn runtime<R>(action: &'static str) -> impl FnOnce(ort::Error<R>) -> Self {
        move |error| Self::Runtime { action, message: error.message().to_owned() }
    }
}
