//! The question what there is to compute on, asked of a short-lived worker process: opening the
//! driver is no business of the host. The answer is one line of JSON on standard output.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::HandshakeError;

/// Environment variable that turns a process into a probe, which answers and ends. Its value is a
/// [`ProbeRequest`], or `1` for one that asks for nothing in particular.
pub const WORKER_PROBE_ENV: &str = "FOREBAY_WORKER_PROBE";

/// Largest answer of a probe in bytes.
pub const PROBE_BYTES_MAX: usize = 256 * 1024;

/// What a probe is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// Folders that are searched for CUDA's libraries before the usual places.
    pub libraries: Vec<PathBuf>,
}

/// One shared library of CUDA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaLibrary {
    /// What it is called: `nvrtc` or `cublaslt`.
    pub name: String,
    /// Its version; `None` if it cannot be used.
    pub version: Option<String>,
    /// Where it was found; `None` if the dynamic linker knew it, or if it cannot be used.
    pub path: Option<PathBuf>,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// One CUDA device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaDevice {
    /// Its number among the devices that a process sees.
    pub ordinal: u32,
    /// What the driver calls it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Memory in bytes; shared with the processor if `integrated`.
    pub memory_bytes: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Whether it shares the processor's memory.
    pub integrated: bool,
    /// Place on the PCI bus; empty if the driver does not say.
    pub pci: String,
    /// Identity that stays the same across restarts; empty if the driver does not say.
    pub uuid: String,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION) of the worker.
    pub protocol: u32,
    /// Newest CUDA version that the driver serves, such as `13.0`; `None` without a driver.
    pub driver: Option<String>,
    /// CUDA's libraries, found or not.
    pub libraries: Vec<CudaLibrary>,
    /// The devices, in their order.
    pub devices: Vec<CudaDevice>,
    /// Why there are no devices, if there are none.
    pub problem: Option<String>,
}

impl ProbeRequest {
    /// The value of [`WORKER_PROBE_ENV`].
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] if a path is not UTF-8.
    pub fn encode(&self) -> Result<String, HandshakeError> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads the value of [`WORKER_PROBE_ENV`].
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] if it is neither `1` nor a request.
    pub fn decode(value: &str) -> Result<Self, HandshakeError> {
        if value == "1" { Ok(Self::default()) } else { Ok(serde_json::from_str(value)?) }
    }
}

impl ProbeReport {
    /// The line to print, with its end.
    ///
    /// # Errors
    /// [`HandshakeError`] if a path is not UTF-8.
    pub fn encode(&self) -> Result<String, HandshakeError> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Reads what a probe printed.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is too large or not one report.
    pub fn decode(printed: &[u8]) -> Result<Self, HandshakeError> {
        if printed.len() > PROBE_BYTES_MAX {
            return Err(HandshakeError::TooLarge {
                found: printed.len(),
                allowed: PROBE_BYTES_MAX,
            });
        }
        Ok(serde_json::from_slice(printed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let request = ProbeRequest { libraries: vec!["/opt/cuda lib".into()] };
        let value = request.encode().expect("encodes");
        assert_eq!(ProbeRequest::decode(&value).expect("decodes"), request);
        assert_eq!(ProbeRequest::decode("1").expect("decodes"), ProbeRequest::default());
        assert!(ProbeRequest::decode("yes").is_err());
        let report = ProbeReport {
            protocol: crate::PROTOCOL_VERSION,
            driver: Some("13.0".into()),
            libraries: vec![CudaLibrary {
                name: "nvrtc".into(),
                version: None,
                path: None,
                problem: Some("not found".into()),
            }],
            devices: vec![CudaDevice {
                ordinal: 0,
                name: "a device".into(),
                capability: (9, 0),
                memory_bytes: 1 << 40,
                multiprocessors: 132,
                integrated: false,
                pci: String::new(),
                uuid: String::new(),
            }],
            problem: None,
        };
        let line = report.encode().expect("encodes");
        assert_eq!(line.lines().count(), 1);
        assert_eq!(ProbeReport::decode(line.as_bytes()).expect("decodes"), report);
    }

    #[test]
    fn other_words_and_floods_are_no_report() {
        assert!(ProbeReport::decode(b"usage: program").is_err());
        assert!(ProbeReport::decode(b"").is_err());
        let flood = vec![b' '; PROBE_BYTES_MAX + 1];
        assert!(matches!(ProbeReport::decode(&flood), Err(HandshakeError::TooLarge { .. })));
    }
}
