//! Opening ONNX Runtime's shared library, once per process.
//!
//! The version is read before the binding sees the library, because the binding panics where this
//! module returns an error. Nothing here looks at environment variables or searches for libraries.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::Library;
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::sys::OrtApiBase;

use crate::error::OnnxError;

/// Oldest usable minor version of ONNX Runtime 1.x: the first with the model editor interface.
pub const VERSION_MINOR_MIN: u32 = 22;

struct Loaded {
    path: PathBuf,
    environment: Environment,
}

/// ONNX Runtime cannot be unloaded and allows one environment, so the first library stays.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// The version that the library at `library` reports, such as `1.31.1`.
///
/// This maps the library into the process; a process that must stay free of it asks in a child.
///
/// # Errors
/// [`OnnxError::LibraryMissing`], [`OnnxError::LibraryUnusable`] or [`OnnxError::LibraryTooOld`].
pub fn runtime_version(library: &Path) -> Result<String, OnnxError> {
    let path = existing(library)?;
    let unusable = |reason: String| OnnxError::LibraryUnusable { path: library.to_owned(), reason };
    // SAFETY: running the library's initialisers is what loading ONNX Runtime means; the caller
    // names a file that is trusted as code.
    let handle = unsafe { Library::new(&path) }.map_err(|error| unusable(error.to_string()))?;
    // SAFETY: this is the documented signature of the exported function.
    let entry =
        unsafe { handle.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0") }
            .map_err(|_| unusable("it does not export OrtGetApiBase".to_owned()))?;
    // SAFETY: the function takes nothing and returns a pointer to a static table, or null.
    let version = unsafe {
        let base = entry();
        if base.is_null() {
            return Err(unusable("OrtGetApiBase returned nothing".to_owned()));
        }
        CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned()
    };
    if is_new_enough(&version) {
        Ok(version)
    } else {
        Err(OnnxError::LibraryTooOld { path: library.to_owned(), version })
    }
}

/// The process-wide environment, created from `library` on first use.
pub(crate) fn environment(library: &Path) -> Result<Environment, OnnxError> {
    let path = existing(library)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = loaded.as_ref() {
        return if loaded.path == path {
            Ok(loaded.environment.clone())
        } else {
            Err(OnnxError::LibraryDiffers { loaded: loaded.path.clone(), asked: path })
        };
    }
    let version = runtime_version(library)?;
    let environment = ort::init_from(&path)
        .map_err(|error| OnnxError::LibraryUnusable {
            path: library.to_owned(),
            reason: error.to_string(),
        })?
        .with_name("forebay")
        .with_telemetry(false)
        .build()
        .map_err(OnnxError::runtime("create its environment"))?;
    environment.set_log_level(LogLevel::Error);
    tracing::debug!(library = %path.display(), version, "onnx runtime loaded");
    *loaded = Some(Loaded { path, environment: environment.clone() });
    Ok(environment)
}

/// The absolute path: the dynamic linker would search its own folders for a bare file name.
fn existing(library: &Path) -> Result<PathBuf, OnnxError> {
    match library.canonicalize() {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(OnnxError::LibraryMissing { path: library.to_owned() }),
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (parts.next(), parts.next()) {
        (Some(1), Some(minor)) => minor >= VERSION_MINOR_MIN,
        // Another major version is another interface.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_the_first_with_the_editor_interface_on_are_accepted() {
        for version in ["1.22.0", "1.31.1", "1.100.0-dev"] {
            assert!(is_new_enough(version), "{version}");
        }
        for version in ["1.21.9", "1.4.0", "0.30.0", "2.0.0", "", "1", "one.two"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }
}
