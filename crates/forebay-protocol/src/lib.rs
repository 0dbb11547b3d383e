//! What the host process and a worker process say to each other.
//!
//! Two things travel over the socket pair that a worker inherits: during start-up one JSON
//! [`Hello`] and one JSON [`StartReply`], and from then on nothing but 64-byte [`Descriptor`]s.
//! Token ids and embeddings never travel over the socket; they stand in the shared arena that a
//! descriptor's slot number points into. This crate defines the words only: it opens nothing,
//! reads nothing and holds no pointer. Before any of that, a host may ask a short-lived worker what
//! devices there are ([`ProbeRequest`], [`ProbeReport`]); beside the workers, a process of its own
//! reports how the devices are ([`MonitorReport`]).
//!
//! Each packet of the `SOCK_SEQPACKET` socket is one message, so a message is never split; a
//! packet of any other size is a protocol violation and ends the worker.

mod arena_spec;
mod cuda_spec;
mod descriptor;
mod device_health;
mod error_class;
mod exit_code;
mod fault;
mod handshake;
mod probe;

pub use arena_spec::ArenaSpec;
pub use cuda_spec::{CudaCopies, CudaGemm, CudaKernels, CudaPrecision, CudaSpec};
pub use descriptor::{
    BatchTimes, DESCRIPTOR_BYTES, Descriptor, DescriptorError, DescriptorKind, OutputChecksum,
    output_checksum,
};
pub use device_health::{
    DEVICE_MONITOR_ENV, DeviceHealth, LYING_REPORTS, MONITOR_LINE_BYTES_MAX, MonitorCommand,
    MonitorFault, MonitorReport, MonitorRequest, PROCESSES_MAX, RemappedRows, TemperatureSource,
    XIDS_MAX, XidSeen, Xids,
};
pub use error_class::ErrorClass;
pub use exit_code::WorkerExit;
pub use fault::{Fault, FaultError};
pub use handshake::{
    CpuSpec, HANDSHAKE_BYTES_MAX, HandshakeError, Hello, PROTOCOL_VERSION, Ready, StartFailure,
    StartReply, WaitSpec, WorkerSpec,
};
pub use probe::{
    CudaDevice, CudaLibrary, PROBE_BYTES_MAX, ProbeReport, ProbeRequest, WORKER_PROBE_ENV,
};

/// Environment variable that carries the two inherited file descriptors to a worker process, as
/// `SOCKET,ARENA` in decimal. Its presence is what turns a process into a worker.
pub const WORKER_FDS_ENV: &str = "FOREBAY_WORKER_FDS";
