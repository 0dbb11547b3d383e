//! Every way a model folder, a text or a pooled row can be refused.
//!
//! Each message names the file (and the key, tensor or element where there is one), what was found,
//! what was expected, and what to do about it. Nothing here decides whether an error is fatal.

use std::path::PathBuf;

/// Why a model folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The path given as model folder is not a directory.
    #[error(
        "model folder {} does not exist or is not a directory; give the folder that holds \
         config.json",
        path.display()
    )]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },

    /// A file the folder must have is not there.
    #[error("{} is missing; {remedy}", path.display())]
    FileMissing {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },

    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}; check the file and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The verb that failed: `read`, `write`, `list`.
        action: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A file is larger than its kind ever is.
    #[error(
        "{} has {bytes} bytes, more than the {bytes_max} allowed for this file; it is damaged or \
         not what its name says, download it again",
        path.display()
    )]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        bytes_max: u64,
    },

    /// A file name inside the folder's own metadata points out of the folder.
    #[error(
        "{} names the file {name:?}, which is not inside the model folder; use a plain relative \
         name and put the file itself (not a link to elsewhere) into the folder",
        path.display()
    )]
    OutsideFolder {
        /// The file that holds the name.
        path: PathBuf,
        /// The name.
        name: String,
    },

    /// A configuration file is not the JSON it should be.
    #[error("{} is not valid: {source}; download it again or correct it", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        source: serde_json::Error,
    },

    /// A key of a configuration file has a value that cannot be used.
    #[error("{}: {key} is {found}, expected {expected}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, as it is spelled in the file.
        key: &'static str,
        /// The value in the file.
        found: String,
        /// What would be accepted, or the remedy.
        expected: String,
    },

    /// The architecture is not one the engines compute.
    #[error(
        "{}: model_type {found:?} is not supported; supported are {supported}, all encoders with \
         absolute positions",
        path.display()
    )]
    UnsupportedArchitecture {
        /// `config.json`.
        path: PathBuf,
        /// The `model_type` found.
        found: String,
        /// The types that are supported.
        supported: String,
    },

    /// `modules.json` asks for a pipeline that is not Transformer, Pooling and perhaps Normalize.
    #[error(
        "{}: the modules are {found}; supported is Transformer, Pooling and optionally Normalize, \
         in this order, as sentence-transformers defines them",
        path.display()
    )]
    UnsupportedModules {
        /// `modules.json`.
        path: PathBuf,
        /// The module types in order.
        found: String,
    },

    /// The folder has only weights in a format that can execute code.
    #[error(
        "{} is the only weights file, and pickle files can run code, so they are never read; save \
         the model as safetensors: `model.save_pretrained(folder, safe_serialization=True)`",
        path.display()
    )]
    PickleOnly {
        /// The pickle file.
        path: PathBuf,
    },

    /// The folder has no weights at all.
    #[error(
        "{} has no model.safetensors, model.safetensors.index.json, model.onnx or \
         onnx/model.onnx; download the model again",
        path.display()
    )]
    NoWeights {
        /// The folder that was searched.
        path: PathBuf,
    },

    /// Tensors were asked of a folder that has only an ONNX graph.
    #[error(
        "{} is the only form of this model, so its tensors cannot be read; use the ONNX engine, \
         or add model.safetensors to the folder",
        path.display()
    )]
    OnnxOnly {
        /// The ONNX file.
        path: PathBuf,
    },

    /// A safetensors file is damaged.
    #[error(
        "{} ({bytes} bytes) is not a complete safetensors file: {source}; it is truncated or \
         damaged, download it again",
        path.display()
    )]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: usize,
        /// What the format's reader said.
        source: safetensors::SafeTensorError,
    },

    /// A tensor the encoder needs is in none of the files.
    #[error(
        "tensor {tensor} is not in {}; the file does not hold this architecture, or it is \
         incomplete: download it again",
        path.display()
    )]
    TensorMissing {
        /// The weights file, or the index that should lead to it.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },

    /// Two shards hold a tensor of the same name.
    #[error(
        "tensor {tensor} is in {} and in {} as well; the shards are not of one model, download \
         them again",
        first.display(),
        second.display()
    )]
    TensorTwice {
        /// The tensor's name.
        tensor: String,
        /// The shard read first.
        first: PathBuf,
        /// The other shard.
        second: PathBuf,
    },

    /// A tensor's shape contradicts the configuration.
    #[error(
        "{}: tensor {tensor} has shape {found:?}, expected {expected:?} from config.json; the two \
         files are not of the same model, download both again",
        path.display()
    )]
    TensorShape {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },

    /// A tensor has an element type that is not computed with.
    #[error(
        "{}: tensor {tensor} has element type {found}, supported are F32, F16 and BF16; save the \
         model in one of these",
        path.display()
    )]
    TensorType {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The element type as the format spells it.
        found: String,
    },

    /// A tensor holds a value that is not a finite number.
    #[error(
        "{}: tensor {tensor} holds {value} at element {element}; the weights are damaged (or were \
         cast to too narrow a type), download or export them again",
        path.display()
    )]
    TensorNotFinite {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Index of the first such element, counted in row-major order.
        element: usize,
        /// The value: NaN or an infinity.
        value: f32,
    },

    /// The weights do not fit into the memory that is left.
    #[error(
        "{}: no memory for {bytes} bytes of weights; free memory or use a smaller model",
        path.display()
    )]
    OutOfMemory {
        /// The weights file.
        path: PathBuf,
        /// Bytes that were asked for.
        bytes: u64,
    },

    /// `tokenizer.json` cannot be used.
    #[error(
        "{}: {reason}; use the tokenizer.json that was published with the model",
        path.display()
    )]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A file differs from what the manifest says.
    #[error(
        "{} does not match its manifest: expected sha256 {expected} ({expected_bytes} bytes), \
         found {found} ({found_bytes} bytes); the file was changed or damaged: restore it, or, if \
         the change was meant, write the manifest again",
        path.display()
    )]
    DigestMismatch {
        /// The file that differs.
        path: PathBuf,
        /// The digest in the manifest, in hex.
        expected: String,
        /// The digest of the file, in hex.
        found: String,
        /// The size in the manifest.
        expected_bytes: u64,
        /// The size of the file.
        found_bytes: u64,
    },

    /// The folder has a manifest, and a file the model is read from is not in it.
    #[error(
        "{} does not list {file:?}, which this model is read from; a file was added after the \
         manifest was written: remove the file, or write the manifest again",
        path.display()
    )]
    NotInManifest {
        /// The manifest.
        path: PathBuf,
        /// The file, relative to the folder.
        file: String,
    },
}

/// Why one text cannot be turned into token ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The limit leaves no room for the special tokens alone.
    #[error(
        "a limit of {tokens_max} tokens cannot hold the {special} special tokens; raise the limit"
    )]
    LimitTooSmall {
        /// The limit that was asked for.
        tokens_max: usize,
        /// Special tokens the model puts around every text.
        special: usize,
    },

    /// The text came out as no token at all.
    #[error("the text has no tokens, and this model adds none; send a text that is not empty")]
    NoTokens,

    /// The tokenizer knows a token that the model has no embedding for.
    #[error(
        "the text holds token id {id}, but the model has {vocab} embeddings; tokenizer.json is \
         not this model's, or it has added tokens that were never trained: remove that token from \
         the text"
    )]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the model's word embedding table.
        vocab: usize,
    },

    /// The tokenizer itself gave up.
    #[error("the tokenizer refused a text of {bytes} bytes: {reason}")]
    Refused {
        /// Length of the text in bytes.
        bytes: usize,
        /// What the tokenizer said.
        reason: String,
    },

    /// The ids are no text.
    #[error("these token ids cannot be turned into text: {reason}; leave out those it names")]
    Undecodable {
        /// What the tokenizer said.
        reason: String,
    },

    /// The file that says where tokens stand cannot be read again.
    #[error("places of tokens need {}, which cannot be read again: {reason}", path.display())]
    Places {
        /// The model's `tokenizer.json`.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why the hidden rows of one text cannot be pooled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolingError {
    /// There is no token to pool.
    #[error("no token rows to pool; a text has at least its special tokens, so the encoder failed")]
    Empty,

    /// The number of values is not a whole number of rows.
    #[error("{values} hidden values are not a whole number of rows of width {width}")]
    Ragged {
        /// Values given.
        values: usize,
        /// Values in one row.
        width: usize,
    },

    /// The output row has the wrong length.
    #[error("the output row has room for {found} values, expected {width}")]
    OutputLength {
        /// Length of the output given.
        found: usize,
        /// Values in one row.
        width: usize,
    },

    /// The pooled row holds NaN or an infinity.
    #[error(
        "the pooled row holds {value} at element {element}; the encoder overflowed or its weights \
         are damaged"
    )]
    NotFinite {
        /// Index of the first such element.
        element: usize,
        /// The value.
        value: f32,
    },
}
