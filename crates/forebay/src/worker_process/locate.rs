//! Where the worker executable and the engines' libraries are looked for.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::StartError;

/// Environment variable with the path of the worker executable.
pub(crate) const WORKER_ENV: &str = "FOREBAY_WORKER";
/// Environment variable with the path of ONNX Runtime's library.
pub(crate) const ONNXRUNTIME_ENV: &str = "FOREBAY_ONNXRUNTIME";

const PROGRAM_NAME: &str = "forebay";
const LIBRARY_PREFIX: &str = "libonnxruntime.so";

/// The worker executable: configuration, environment, or next to the running executable.
///
/// # Errors
/// [`StartError::NoWorkerProgram`] with the places tried.
pub fn worker_program(config: &Config) -> Result<PathBuf, StartError> {
    let explicit = config
        .worker
        .program
        .clone()
        .map(|path| ("worker.program", path))
        .or_else(|| std::env::var_os(WORKER_ENV).map(|path| (WORKER_ENV, path.into())));
    if let Some((source, path)) = explicit {
        return if path.is_file() {
            Ok(path)
        } else {
            let tried = format!("{source} is {}, which is no file", path.display());
            Err(StartError::NoWorkerProgram { tried })
        };
    }
    let running = std::env::current_exe().ok();
    let directory = running.as_deref().and_then(Path::parent);
    // Examples and tests are built into a folder below the program's own.
    let places = [directory, directory.and_then(Path::parent)];
    let candidates: Vec<PathBuf> =
        places.into_iter().flatten().map(|place| place.join(PROGRAM_NAME)).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let tried: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
        StartError::NoWorkerProgram { tried: format!("looked at {}", tried.join(" and ")) }
    })
}

/// ONNX Runtime's library: configuration, environment, next to the worker, `lib` beside it, or
/// `.forebay/onnxruntime` of the current directory or of one above it.
///
/// # Errors
/// [`StartError::NoOnnxRuntime`] with the places tried.
pub fn onnxruntime_library(config: &Config, worker: &Path) -> Result<PathBuf, StartError> {
    let explicit =
        config.cpu.onnxruntime.clone().map(|path| ("cpu.onnxruntime", path)).or_else(|| {
            std::env::var_os(ONNXRUNTIME_ENV).map(|path| (ONNXRUNTIME_ENV, path.into()))
        });
    if let Some((source, path)) = explicit {
        let found = if path.is_dir() { library_in(&path) } else { Some(path.clone()) };
        return found.filter(|file| file.is_file()).ok_or_else(|| {
            let tried = format!("{source} is {}, which has no such library", path.display());
            StartError::NoOnnxRuntime { tried }
        });
    }
    let mut places: Vec<PathBuf> = Vec::new();
    if let Some(directory) = worker.parent() {
        places.push(directory.to_path_buf());
        places.push(directory.join("lib"));
    }
    if let Ok(current) = std::env::current_dir() {
        places.extend(current.ancestors().map(|place| place.join(".forebay/onnxruntime")));
    }
    places.iter().find_map(|place| library_in(place)).ok_or_else(|| {
        let tried: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        StartError::NoOnnxRuntime { tried: format!("looked in {}", tried.join(", ")) }
    })
}

/// The configured folders with CUDA's libraries, for a worker that may run elsewhere.
///
/// # Errors
/// [`StartError`] for a path that cannot be passed on.
pub(crate) fn cuda_libraries(config: &Config) -> Result<Vec<PathBuf>, StartError> {
    config.cuda.libraries.iter().map(|path| absolute(path)).collect()
}

/// The path as another process can use it, which gets it as text.
///
/// # Errors
/// [`StartError`] if it is not UTF-8, or relative to a folder that cannot be found.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, StartError> {
    let path = std::path::absolute(path)
        .map_err(|source| StartError::Os { what: "find the current directory", source })?;
    if path.to_str().is_none() {
        return Err(StartError::Path { path });
    }
    Ok(path)
}

/// The library in a folder: `libonnxruntime.so` or the highest version of it.
fn library_in(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let version = |name: &String| -> Vec<u32> {
        name[LIBRARY_PREFIX.len()..].split('.').filter_map(|part| part.parse().ok()).collect()
    };
    let best = names.filter(|name| name.starts_with(LIBRARY_PREFIX)).max_by_key(version)?;
    Some(directory.join(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_in_a_folder_is_taken() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert_eq!(library_in(folder.path()), None);
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.31.1", "libother.so.2"] {
            std::fs::write(folder.path().join(name), b"").expect("writes");
        }
        let found = library_in(folder.path()).expect("found");
        assert!(found.ends_with("libonnxruntime.so.1.31.1"), "{found:?}");
    }

    #[test]
    fn a_configured_program_that_is_missing_is_named() {
        let mut config = Config::default();
        config.worker.program = Some("/nowhere/forebay".into());
        let error = worker_program(&config).expect_err("missing").to_string();
        assert!(error.contains("worker.program is /nowhere/forebay"), "{error}");
    }
}
