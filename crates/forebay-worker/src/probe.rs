//! What there is to compute on, for a host that must not open the driver itself. No context is
//! opened: a probe leaves no mark on a device that somebody else uses.

use std::io::Write;
use std::path::PathBuf;

use forebay_cuda::{CudaError, DeviceInfo, LibraryFound};
use forebay_protocol::{
    CudaDevice, CudaLibrary, PROTOCOL_VERSION, ProbeReport, ProbeRequest, WorkerExit,
};

/// Answers the request in `value` on standard output and ends the process.
pub(crate) fn answer(value: &str) -> ! {
    let said = ProbeRequest::decode(value)
        .and_then(|request| look(&request.libraries).encode())
        .map_err(|error| error.to_string())
        .and_then(|line| {
            let mut out = std::io::stdout().lock();
            let written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            written.map_err(|error| format!("cannot answer: {error}"))
        });
    // The driver's own teardown is as good as skipped, and might hang.
    match said {
        Ok(()) => crate::os::exit_now(WorkerExit::Clean),
        Err(message) => {
            tracing::error!("{message}");
            crate::os::exit_now(WorkerExit::Protocol)
        }
    }
}

/// Looks for CUDA's libraries and devices.
fn look(search: &[PathBuf]) -> ProbeReport {
    let driver = forebay_cuda::load(search);
    let (devices, problem) = match driver.clone().and_then(|_| forebay_cuda::devices()) {
        Ok(devices) if devices.is_empty() => {
            let problem = "the driver sees no device; check nvidia-smi, and in a container that it \
                           is given one";
            (devices, Some(problem.to_owned()))
        }
        Ok(devices) => (devices, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    ProbeReport {
        protocol: PROTOCOL_VERSION,
        driver: driver.ok().map(|libraries| version(libraries.driver)),
        libraries: vec![
            library("nvrtc", forebay_cuda::load_nvrtc(search)),
            library("cublaslt", forebay_cuda::load_cublaslt(search)),
        ],
        devices: devices.into_iter().map(device).collect(),
        problem,
    }
}

/// 13000 as `13.0`.
pub(crate) fn version(driver: u32) -> String {
    format!("{}.{}", driver / 1000, driver % 1000 / 10)
}

fn library(name: &str, found: Result<&LibraryFound, CudaError>) -> CudaLibrary {
    let name = name.to_owned();
    match found {
        // A path that is not text cannot be told.
        Ok(LibraryFound { path, version, .. }) => CudaLibrary {
            name,
            version: Some(version.clone()),
            path: path.as_ref().map(|path| path.to_string_lossy().into_owned().into()),
            problem: None,
        },
        Err(error) => {
            CudaLibrary { name, version: None, path: None, problem: Some(error.to_string()) }
        }
    }
}

fn device(info: DeviceInfo) -> CudaDevice {
    CudaDevice {
        ordinal: info.ordinal,
        name: info.name,
        capability: info.capability,
        memory_bytes: info.memory_bytes,
        multiprocessors: info.multiprocessors,
        integrated: info.integrated,
        pci: info.pci,
        uuid: info.uuid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_an_answer() {
        let report = look(&[]);
        assert_eq!(report.devices.is_empty(), report.problem.is_some(), "{report:?}");
        for library in &report.libraries {
            assert_ne!(library.version.is_some(), library.problem.is_some(), "{library:?}");
        }
        let line = report.encode().expect("encodes");
        assert_eq!(ProbeReport::decode(line.as_bytes()).expect("decodes"), report);
        assert_eq!(version(13_020), "13.2");
    }
}
