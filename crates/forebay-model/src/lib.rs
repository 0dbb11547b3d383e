//! A model folder as sentence-transformers publishes it: configuration, tokenizer, weights,
//! pooling and an optional manifest of digests.
//!
//! [`ModelFolder::open`] reads and cross-checks every configuration file once, so that engines and
//! stages work from values that are known to agree. Everything here is plain data on the CPU: the
//! crate runs no encoder, opens no network connection, never executes code from the folder and
//! never reads pickle files.

mod encoder_config;
mod encoder_weights;
mod error;
mod files;
mod folder;
mod manifest;
mod places;
pub mod pooling;
mod sentence_config;
mod tokenizer;
mod weights;

pub use encoder_config::{Activation, EncoderConfig};
pub use encoder_weights::{EncoderWeights, LayerWeights, Linear, Norm};
pub use error::{ModelError, PoolingError, TokenizeError};
pub use folder::{GraphSource, ModelFolder};
pub use manifest::{FileDigest, Manifest};
pub use places::Token;
pub use pooling::{PoolingMode, PoolingSpec};
pub use tokenizer::{CutFrom, Encoded, Scratch, TextTokenizer};
pub use weights::{WeightType, WeightView, Weights};
