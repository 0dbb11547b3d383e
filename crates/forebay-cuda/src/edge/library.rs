//! Opening the driver, NVRTC and cublasLt, once per process.
//!
//! The binding looks for libraries by many names and panics where this module returns an error. So
//! each library is first opened here by its path, which makes its name known to the dynamic linker,
//! then asked for every symbol in use and for its version. None is ever closed.

use std::any::Any;
use std::error::Error as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::{cublaslt, driver, nvrtc};
use libloading::Library;
use serde::Serialize;

use super::folders;
use super::symbols;
use crate::error::CudaError;

/// Oldest driver whose interface the binding describes, as `cuDriverGetVersion` counts.
const DRIVER_MIN: u32 = 13_000;
/// Major version of the toolkit's libraries, part of their file names.
const TOOLKIT_MAJOR: u32 = 13;

/// What was found on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Libraries {
    /// The newest CUDA that the driver supports: 13000 is 13.0.
    pub driver: u32,
    /// The run-time compiler; without it kernels come from the embedded PTX or a cache.
    pub nvrtc: Option<LibraryFound>,
    /// The matrix library; without it only the native matrix kernels can run.
    pub cublaslt: Option<LibraryFound>,
}

/// One library of the toolkit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LibraryFound {
    /// Its file name, such as `libnvrtc.so.13`.
    pub name: &'static str,
    /// Where it was found; `None` if the dynamic linker knew it.
    pub path: Option<PathBuf>,
    /// The version it reports, such as `13.0`.
    pub version: String,
}

/// Opens the driver, and NVRTC and cublasLt if they are there. The first success holds for the life
/// of the process, whatever `search` says later.
///
/// `search` names folders, environments of Python or toolkits to look into first; then come
/// `$CUDA_PATH`, `$CUDA_HOME`, the dynamic linker's own folders and the usual places.
///
/// # Errors
/// [`Missing`](crate::ErrorKind::Missing) if there is no driver, or one older than CUDA 13.0.
pub fn load(search: &[PathBuf]) -> Result<&'static Libraries, CudaError> {
    static LOADED: OnceLock<Libraries> = OnceLock::new();
    once(&LOADED, || {
        let driver = open_driver(search)?;
        let optional = |found: Result<&'static LibraryFound, CudaError>| match found {
            Ok(found) => Some(found.clone()),
            Err(error) => {
                tracing::info!(%error, "optional library not used");
                None
            }
        };
        Ok(Libraries {
            driver,
            nvrtc: optional(load_nvrtc(search)),
            cublaslt: optional(load_cublaslt(search)),
        })
    })
}

/// Opens NVRTC, which needs no driver. `search` as for [`load`].
///
/// # Errors
/// [`Missing`](crate::ErrorKind::Missing) with where it was looked for, or what is wrong with it.
pub fn load_nvrtc(search: &[PathBuf]) -> Result<&'static LibraryFound, CudaError> {
    static LOADED: OnceLock<LibraryFound> = OnceLock::new();
    once(&LOADED, || {
        let call = "load nvrtc";
        let name = "libnvrtc.so.13";
        let path = open(call, name, Some("libnvrtc-builtins.so.13"), search)?;
        guarded(call, || {
            // SAFETY: opening the library was asked for; it is present, so `culib` does not panic.
            let library = unsafe { nvrtc::sys::is_culib_present().then(|| nvrtc::sys::culib()) };
            symbols::check(call, library, symbols::NVRTC)?;
            let (mut major, mut minor) = (0, 0);
            // SAFETY: the symbol was found, and both are places for the results.
            let status = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
            if status != nvrtc::sys::nvrtcResult::NVRTC_SUCCESS {
                return Err(CudaError::missing(call, format!("nvrtcVersion says {status:?}")));
            }
            let major = u32::try_from(major).unwrap_or(0);
            toolkit_version(call, major, format!("{major}.{minor}"))
        })
        .map(|version| LibraryFound { name, path, version })
    })
}

/// Opens cublasLt. `search` as for [`load`].
///
/// # Errors
/// [`Missing`](crate::ErrorKind::Missing) with where it was looked for, or what is wrong with it.
pub fn load_cublaslt(search: &[PathBuf]) -> Result<&'static LibraryFound, CudaError> {
    static LOADED: OnceLock<LibraryFound> = OnceLock::new();
    once(&LOADED, || {
        let call = "load cublaslt";
        let name = "libcublasLt.so.13";
        let path = open(call, name, None, search)?;
        guarded(call, || {
            // SAFETY: opening the library was asked for; it is present, so `culib` does not panic.
            let library =
                unsafe { cublaslt::sys::is_culib_present().then(|| cublaslt::sys::culib()) };
            symbols::check(call, library, symbols::CUBLASLT)?;
            // SAFETY: the symbol was found; the call has no precondition.
            let version = unsafe { cublaslt::sys::cublasLtGetVersion() };
            let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
            let major = u32::try_from(major).unwrap_or(0);
            toolkit_version(call, major, format!("{major}.{minor}.{patch}"))
        })
        .map(|version| LibraryFound { name, path, version })
    })
}

/// Opens the driver and gives its version.
fn open_driver(search: &[PathBuf]) -> Result<u32, CudaError> {
    let call = "load the driver";
    open(call, "libcuda.so.1", None, search).map_err(|error| {
        error.with("install the NVIDIA driver, release 580 (CUDA 13.0) or newer")
    })?;
    guarded(call, || {
        // SAFETY: opening the library was asked for; it is present, so `culib` does not panic.
        let library = unsafe { driver::sys::is_culib_present().then(|| driver::sys::culib()) };
        // The version first: an old driver lacks symbols, and that it is old says more.
        symbols::check(call, library, &["cuDriverGetVersion"])?;
        let mut version = 0;
        // SAFETY: the symbol was found, and `version` is a place for the result.
        let status = unsafe { driver::sys::cuDriverGetVersion(&raw mut version) };
        if status != driver::sys::CUresult::CUDA_SUCCESS {
            return Err(CudaError::driver("cuDriverGetVersion", status, "").at_start());
        }
        let version = driver_version(call, u32::try_from(version).unwrap_or(0))?;
        symbols::check(call, library, symbols::DRIVER)?;
        Ok(version)
    })
}

fn driver_version(call: &'static str, version: u32) -> Result<u32, CudaError> {
    if version >= DRIVER_MIN {
        return Ok(version);
    }
    Err(CudaError::missing(
        call,
        format!(
            "the driver supports CUDA {}.{}, and 13.0 is needed; install release 580 or newer",
            version / 1000,
            version % 1000 / 10
        ),
    ))
}

fn toolkit_version(call: &'static str, major: u32, version: String) -> Result<String, CudaError> {
    if major == TOOLKIT_MAJOR {
        return Ok(version);
    }
    Err(CudaError::missing(
        call,
        format!(
            "the dynamic linker gave version {version} where {TOOLKIT_MAJOR} is needed; take the \
             other one out of LD_LIBRARY_PATH"
        ),
    ))
}

/// Opens `name` from the first folder that has it; where that was, or `None` for the dynamic
/// linker's choice. Files beside it that begin with `before` are opened first.
fn open(
    call: &'static str,
    name: &'static str,
    before: Option<&str>,
    search: &[PathBuf],
) -> Result<Option<PathBuf>, CudaError> {
    let mut problems = Vec::new();
    let asked = folders::asked_for(search);
    let usual = folders::usual();
    for folder in &asked {
        if let Some(path) = open_in(folder, name, before, &mut problems) {
            return Ok(Some(path));
        }
    }
    match keep(Path::new(name)) {
        Ok(()) => return Ok(None),
        Err(problem) => problems.push(problem),
    }
    for folder in &usual {
        if let Some(path) = open_in(folder, name, before, &mut problems) {
            return Ok(Some(path));
        }
    }
    let looked: Vec<String> =
        asked.iter().chain(&usual).map(|folder| folder.display().to_string()).collect();
    Err(CudaError::missing(
        call,
        format!("{name} not usable ({}); looked in {}", problems.join("; "), looked.join(", ")),
    ))
}

fn open_in(
    folder: &Path,
    name: &str,
    before: Option<&str>,
    problems: &mut Vec<String>,
) -> Option<PathBuf> {
    let path = folder.join(name).canonicalize().ok()?;
    for helper in before.map(|prefix| folders::files(folder, prefix)).unwrap_or_default() {
        if let Err(problem) = keep(&helper) {
            problems.push(problem);
        }
    }
    match keep(&path) {
        Ok(()) => Some(path),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

/// Opens a library for the life of the process.
fn keep(path: &Path) -> Result<(), String> {
    static OPENED: Mutex<Vec<Library>> = Mutex::new(Vec::new());
    // SAFETY: running the initialisers of NVIDIA's libraries is what loading CUDA means; the caller
    // and the system's administrator choose the folders and trust what is in them.
    let library = unsafe { Library::new(path) }.map_err(|error| {
        error.source().map_or_else(|| error.to_string(), |source| source.to_string())
    })?;
    OPENED.lock().unwrap_or_else(PoisonError::into_inner).push(library);
    Ok(())
}

/// The value of `cell`, made by `make` if it is empty. A failure is not kept.
fn once<T>(
    cell: &'static OnceLock<T>,
    make: impl FnOnce() -> Result<T, CudaError>,
) -> Result<&'static T, CudaError> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}

/// Runs `work`, in which the binding may panic, and turns a panic into an error.
fn guarded<T>(
    call: &'static str,
    work: impl FnOnce() -> Result<T, CudaError>,
) -> Result<T, CudaError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(CudaError::missing(call, panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the binding refused: {}", text.unwrap_or("without a reason"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn without_a_driver_loading_fails_with_what_to_install() {
        // On a machine with a driver there is a version instead.
        match load(&[]) {
            Ok(libraries) => assert!(libraries.driver >= DRIVER_MIN),
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Missing, "{error}");
                assert!(error.to_string().contains("580"), "{error}");
                assert!(error.to_string().contains("libcuda.so.1"), "{error}");
            }
        }
    }

    #[test]
    fn a_file_that_is_no_library_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libforebay-no.so.13"), "not a library").unwrap();
        let search = [folder.path().to_owned()];
        let error = open("load it", "libforebay-no.so.13", None, &search).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Missing);
        assert!(error.detail.contains(&folder.path().display().to_string()), "{error}");
    }

    #[test]
    fn old_drivers_are_refused_with_both_versions() {
        assert_eq!(driver_version("load", 13_000), Ok(13_000));
        assert_eq!(driver_version("load", 13_020), Ok(13_020));
        let error = driver_version("load", 12_080).unwrap_err();
        assert!(error.detail.contains("12.8") && error.detail.contains("13.0"), "{error}");
        assert!(toolkit_version("load", 12, "12.8".to_owned()).is_err());
        assert_eq!(toolkit_version("load", 13, "13.0".to_owned()).as_deref(), Ok("13.0"));
    }

    #[test]
    fn a_panic_of_the_binding_becomes_an_error() {
        let error = guarded::<()>("load", || panic!("Missing symbol cuX")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Missing);
        assert!(error.detail.contains("Missing symbol cuX"), "{error}");
    }
}
