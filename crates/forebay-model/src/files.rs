//! Reading the files of a model folder within limits.
//!
//! Every read goes through here, so that size caps, "is it a regular file" and the rule that names
//! found *inside* a file cannot lead out of the folder are applied once. Nothing is ever written.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::ModelError;

/// Largest configuration file: published ones have a few KiB; `id2label` tables reach some MiB.
pub(crate) const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Largest `tokenizer.json`: 250,000 entries take 17 MiB.
pub(crate) const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Largest manifest or safetensors index: one line per file or tensor.
pub(crate) const INDEX_BYTES_MAX: u64 = 32 << 20;

/// Opens a regular file and returns it with its size.
///
/// Links are followed: the file names the folder layout prescribes are the operator's own choice,
/// and download caches link them.
pub(crate) fn open_regular(path: &Path, remedy: &'static str) -> Result<(File, u64), ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), action: "read", source };
    // The type is asked before the file is opened: opening a named pipe would wait for a writer.
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(ModelError::FileMissing { path: path.to_owned(), remedy });
        }
        Err(source) => return Err(io(source)),
    };
    if !metadata.is_file() {
        return Err(io(std::io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    Ok((file, bytes))
}

/// Reads a whole file of at most `bytes_max` bytes.
pub(crate) fn read_capped(
    path: &Path,
    bytes_max: u64,
    remedy: &'static str,
) -> Result<Vec<u8>, ModelError> {
    let too_large = |bytes| ModelError::FileTooLarge { path: path.to_owned(), bytes, bytes_max };
    let (file, bytes) = open_regular(path, remedy)?;
    if bytes > bytes_max {
        return Err(too_large(bytes));
    }
    let mut content = Vec::new();
    let out_of_memory = |_| ModelError::OutOfMemory { path: path.to_owned(), bytes };
    content
        .try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX))
        .map_err(out_of_memory)?;
    // One byte past the limit tells a file that grew while it was read from one that fits.
    let read = file
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|source| ModelError::Io { path: path.to_owned(), action: "read", source })?;
    if read as u64 > bytes_max {
        return Err(too_large(read as u64));
    }
    Ok(content)
}

/// Reads a JSON file of at most `bytes_max` bytes.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
    remedy: &'static str,
) -> Result<T, ModelError> {
    let content = read_capped(path, bytes_max, remedy)?;
    serde_json::from_slice(&content)
        .map_err(|source| ModelError::Json { path: path.to_owned(), source })
}

/// [`read_json`] of a file that may be absent.
pub(crate) fn read_json_if_present<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
) -> Result<Option<T>, ModelError> {
    match read_json(path, bytes_max, "") {
        Ok(value) => Ok(Some(value)),
        Err(ModelError::FileMissing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Joins a name that was read from `named_in` to `folder`, refusing every name that is absolute,
/// has `..` in it or (once the file exists) leads out of the folder through a link.
pub(crate) fn join_inside(
    folder: &Path,
    name: &str,
    named_in: &Path,
) -> Result<PathBuf, ModelError> {
    let outside = || ModelError::OutsideFolder { path: named_in.to_owned(), name: name.to_owned() };
    let relative = Path::new(name);
    if name.contains(['\\', '\0'])
        || !relative.components().all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(outside());
    }
    let joined = folder.join(relative);
    // A file that is missing is reported by whoever reads it, with its own remedy.
    if let (Ok(target), Ok(root)) = (joined.canonicalize(), folder.canonicalize())
        && !target.starts_with(root)
    {
        return Err(outside());
    }
    Ok(joined)
}
