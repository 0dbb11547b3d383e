//! What the examples share: a configuration for a program that ships as one file.
//!
//! The examples themselves are in `examples/`; run one with
//! `cargo run --release -p forebay-examples --example quick_start`, after `cargo xtask setup` has
//! fetched the model and ONNX Runtime.

use std::error::Error;
use std::path::PathBuf;

use forebay::Config;

/// Where `cargo xtask setup` puts the model.
const MODEL: &str = ".forebay/models/all-MiniLM-L6-v2";

/// A configuration with the model folder that the command line names, or the one that was set up,
/// and with this executable as its own worker.
///
/// # Errors
/// The environment holds wrong settings (`FOREBAY_<GROUP>__<KEY>`), or the path of this executable
/// is not known.
pub fn config() -> Result<Config, Box<dyn Error>> {
    let mut config = Config::from_env()?;
    config.model.path = std::env::args_os().nth(1).map_or_else(|| MODEL.into(), PathBuf::from);
    // The runtime starts this file again as its worker process, where `run_if_worker` at the top of
    // `main` takes over. A deployment with the `forebay` program beside it does not need this.
    config.worker.program = Some(std::env::current_exe()?);
    Ok(config)
}

/// The cosine of two embeddings of length 1, as this model gives them.
#[must_use]
pub fn cosine(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}
