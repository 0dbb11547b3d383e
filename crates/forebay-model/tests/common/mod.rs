//! Finds the real model for tests that need it.

use std::path::PathBuf;

/// The folder of all-MiniLM-L6-v2: `FOREBAY_MODEL`, or where the setup command puts it.
pub(crate) fn model_path() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.forebay/models/all-MiniLM-L6-v2");
    let path = std::env::var_os("FOREBAY_MODEL").map_or_else(|| default.into(), PathBuf::from);
    assert!(
        path.join("tokenizer.json").is_file(),
        "{} is not the model folder: run `cargo xtask setup`, or set FOREBAY_MODEL",
        path.display()
    );
    path
}
