//! The start of a worker: what the host wants of it, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{ArenaSpec, CudaSpec, WorkerExit};

/// Version of everything in this crate. Host and worker must agree exactly: they come from one
/// build, and a mixture is a deployment mistake worth refusing.
pub const PROTOCOL_VERSION: u32 = 4;

/// Largest handshake packet in bytes.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// How a lane's receiver waits for its next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitSpec {
    /// Sleep at once; costs a wake-up per item, burns nothing.
    Park,
    /// Look for this many microseconds before sleeping; burns a core to save wake-ups.
    SpinThenPark {
        /// Time spent looking, in microseconds.
        spin_us: u64,
    },
}

/// How the CPU engine uses the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSpec {
    /// Path of ONNX Runtime's shared library; empty on a rung that does not need it.
    pub onnxruntime: PathBuf,
    /// Sessions, each with its own encoder thread; 0 means one with all threads for a batch that
    /// has the machine to itself, and beside it two with half of them for batches side by side.
    pub sessions: u32,
    /// Threads of one session, or of all together where `sessions` is 0; 0 means every core.
    pub threads_per_session: u32,
    /// Whether a session's threads spin while they wait for work.
    pub spinning: bool,
    /// Rows that one run of a session takes at most.
    pub sub_batch_rows_max: u32,
    /// Tokens, padding included, that one run of a session takes at most.
    pub sub_batch_tokens_max: u32,
}

/// What a worker has to load and how it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSpec {
    /// Device of this rung, such as `cpu`.
    pub device: String,
    /// The model folder.
    pub model: PathBuf,
    /// Arithmetic of the encoder on the CPU, such as `f32` or `int8`.
    pub precision: String,
    /// How the CPU engine uses the machine.
    pub cpu: CpuSpec,
    /// How the CUDA engine uses its device.
    pub cuda: CudaSpec,
    /// How the stages of the worker wait for work.
    pub wait: WaitSpec,
    /// Whether it does what [`DescriptorKind::Fault`](crate::DescriptorKind::Fault) asks for.
    pub faults_enabled: bool,
    /// Whether this start is to fail, as [`Fault::FailStarts`](crate::Fault::FailStarts) asks for;
    /// obeyed only if faults are enabled.
    pub fail_start: bool,
}

/// First packet, host to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the host.
    pub protocol: u32,
    /// Release of the host, for messages.
    pub release: String,
    /// Which start of this worker it is, counted by the host.
    pub incarnation: u64,
    /// Dimensions of the arena that the worker inherited.
    pub arena: ArenaSpec,
    /// What to load.
    pub worker: WorkerSpec,
}

/// A worker that is ready to serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// [`PROTOCOL_VERSION`] of the worker.
    pub protocol: u32,
    /// The engine and its version, such as `onnxruntime 1.31.1`.
    pub engine: String,
    /// Device it runs on, as the engine names it.
    pub device: String,
    /// Arithmetic of the encoder.
    pub precision: String,
    /// Length of one embedding.
    pub width: u32,
    /// Batches that it computes side by side, each with its share of the cores, from 1 to
    /// [`ArenaSpec::slots`]; see
    /// [`DescriptorKind::RunBeside`](crate::DescriptorKind::RunBeside).
    pub side_by_side: u32,
    /// Time from receipt of [`Hello`] until now, in milliseconds.
    pub start_ms: u64,
    /// What else the engine has to say of itself, by name, such as where its kernels come from;
    /// for people, nothing is decided by it.
    pub details: BTreeMap<String, String>,
}

/// A worker that cannot serve, said before it exits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartFailure {
    /// The exit code that the process is about to end with.
    pub exit_code: u8,
    /// What was wrong and what helps.
    pub message: String,
}

impl StartFailure {
    /// The failure that ends with this exit.
    #[must_use]
    pub fn new(exit: WorkerExit, message: String) -> Self {
        Self { exit_code: exit.code(), message }
    }
}

/// Second packet, worker to host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReply {
    /// The worker serves from now on.
    Ready(Ready),
    /// The worker cannot serve and exits.
    Failed(StartFailure),
}

/// Why a packet of the handshake, or what a probe says, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The message is larger than allowed.
    #[error("message of {found} bytes, allowed are {allowed}")]
    TooLarge {
        /// Size of the message in bytes.
        found: usize,
        /// Allowed size in bytes.
        allowed: usize,
    },
    /// The message is not the expected JSON.
    #[error("message is not valid: {0}")]
    Invalid(#[from] serde_json::Error),
}

impl Hello {
    /// The packet to send.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is larger than [`HANDSHAKE_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        encode(self)
    }

    /// The protocol version and release of whoever sent a hello, which every version says alike.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is too large or says neither.
    pub fn version_of(packet: &[u8]) -> Result<(u32, String), HandshakeError> {
        #[derive(Deserialize)]
        struct Version {
            protocol: u32,
            release: String,
        }
        let Version { protocol, release } = decode(packet)?;
        Ok((protocol, release))
    }

    /// Reads a received packet.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is too large or not a hello.
    pub fn decode(packet: &[u8]) -> Result<Self, HandshakeError> {
        decode(packet)
    }
}

impl StartReply {
    /// The packet to send.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is larger than [`HANDSHAKE_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, HandshakeError> {
        encode(self)
    }

    /// Reads a received packet.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is too large or not a reply.
    pub fn decode(packet: &[u8]) -> Result<Self, HandshakeError> {
        decode(packet)
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, HandshakeError> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > HANDSHAKE_BYTES_MAX {
        return Err(HandshakeError::TooLarge { found: packet.len(), allowed: HANDSHAKE_BYTES_MAX });
    }
    Ok(packet)
}

fn decode<T: DeserializeOwned>(packet: &[u8]) -> Result<T, HandshakeError> {
    if packet.len() > HANDSHAKE_BYTES_MAX {
        return Err(HandshakeError::TooLarge { found: packet.len(), allowed: HANDSHAKE_BYTES_MAX });
    }
    Ok(serde_json::from_slice(packet)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CudaCopies, CudaGemm, CudaKernels, CudaPrecision};

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            release: "0.1.0".into(),
            incarnation: 3,
            arena: ArenaSpec { slots: 3, tokens_max: 4096, rows_max: 64, row_values: 385 },
            worker: WorkerSpec {
                device: "cpu".into(),
                model: "/models/m".into(),
                precision: "f32".into(),
                cpu: CpuSpec {
                    onnxruntime: "/lib/libonnxruntime.so".into(),
                    sessions: 1,
                    threads_per_session: 0,
                    spinning: true,
                    sub_batch_rows_max: 64,
                    sub_batch_tokens_max: 2048,
                },
                cuda: CudaSpec {
                    ordinal: 0,
                    precision: CudaPrecision::Auto,
                    memory_bytes_max: 0,
                    graphs_max: 64,
                    zero_copy_tokens_max: 512,
                    completion_spin_us: 100,
                    gemm: CudaGemm::CublasLt,
                    kernels: CudaKernels::Ptx,
                    copies: CudaCopies::Mapped,
                    libraries: vec!["/opt/cuda".into()],
                    cache_dir: Some("/cache".into()),
                    trace: None,
                },
                wait: WaitSpec::SpinThenPark { spin_us: 50 },
                faults_enabled: true,
                fail_start: false,
            },
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let packet = hello().encode().expect("encodes");
        assert_eq!(Hello::decode(&packet).expect("decodes"), hello());
        let failed = StartReply::Failed(StartFailure::new(WorkerExit::Config, "no model".into()));
        assert_eq!(
            StartReply::decode(&failed.encode().expect("encodes")).expect("decodes"),
            failed
        );
    }

    #[test]
    fn the_version_is_read_from_a_hello_that_has_changed_since() {
        let packet = br#"{"protocol":9,"release":"2.0.0","anything":{"else":true}}"#;
        assert!(Hello::decode(packet).is_err());
        assert_eq!(Hello::version_of(packet).expect("reads"), (9, "2.0.0".to_owned()));
    }

    #[test]
    fn a_reply_is_not_a_hello_and_size_is_bounded() {
        let reply = StartReply::Failed(StartFailure { exit_code: 1, message: String::new() });
        assert!(Hello::decode(&reply.encode().expect("encodes")).is_err());
        let mut large = hello();
        large.release = "x".repeat(HANDSHAKE_BYTES_MAX);
        assert!(matches!(large.encode(), Err(HandshakeError::TooLarge { .. })));
    }
}
