//! Why a worker came to its end, as far as the next start or anybody who reads of it is concerned.

use forebay_protocol::WorkerExit;

use super::ladder::QuarantineReason;

/// How a worker came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndCause {
    /// It exited with a code of the protocol.
    Exit(WorkerExit),
    /// It exited with a code that no worker chooses.
    UnknownExit(i32),
    /// A signal ended it, and not ours.
    Signal(i32),
    /// It could not be started, or said during its start that it cannot serve.
    StartFailed(String),
    /// It said during its start that it cannot serve now, for a reason that may pass.
    StartLost(String),
    /// It said during its start that there is no such device.
    StartMissing(String),
    /// It was not ready in time.
    StartLate,
    /// A batch took longer than any of its size may.
    BatchLate,
    /// It failed several batches in a row, the last one for this reason.
    BatchesFailed(String),
    /// It said something that the protocol does not allow.
    Protocol(String),
    /// It gave wrong numbers: a known answer came out otherwise.
    Canary(String),
    /// Its device needs help from outside before it can be used again.
    Device(String),
    /// It was told to end.
    Requested,
}

impl EndCause {
    /// Whether this side ended it for something that the texts it had then cannot have brought
    /// about: they were under way by accident.
    pub(crate) fn is_blameless(&self) -> bool {
        matches!(self, Self::Canary(_) | Self::Device(_) | Self::BatchesFailed(_) | Self::Requested)
    }

    /// The quarantine that follows from an end after which the same start would end the same way.
    /// A device that `was_there` may come back.
    pub(super) fn lasting(&self, was_there: bool) -> Option<QuarantineReason> {
        match self {
            Self::Exit(WorkerExit::CanaryMismatch) | Self::Canary(_) => {
                Some(QuarantineReason::Canary)
            }
            Self::Exit(WorkerExit::Config | WorkerExit::Protocol)
            | Self::StartFailed(_)
            | Self::StartLate => Some(QuarantineReason::Start),
            Self::Device(_) => Some(QuarantineReason::Lost),
            Self::Exit(WorkerExit::DeviceMissing) | Self::StartMissing(_) if !was_there => {
                Some(QuarantineReason::Start)
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for EndCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(exit) => {
                write!(f, "worker exited with code {} ({})", exit.code(), exit.name())
            }
            Self::UnknownExit(code) => write!(f, "worker exited with code {code}"),
            Self::Signal(signal) => write!(f, "worker was ended by signal {signal}"),
            Self::StartFailed(message) | Self::StartLost(message) | Self::StartMissing(message) => {
                f.write_str(message)
            }
            Self::StartLate => f.write_str("worker was not ready within worker.start_deadline_ms"),
            Self::BatchLate => f.write_str(
                "worker kept a batch longer than worker.batch_deadline_ms allows, or on a GPU \
                 cuda.batch_deadline_ms",
            ),
            Self::BatchesFailed(message) => {
                write!(f, "worker failed several batches in a row, the last one: {message}")
            }
            Self::Protocol(message) => write!(f, "worker broke the protocol: {message}"),
            Self::Canary(message) => write!(f, "worker computes wrongly: {message}"),
            Self::Device(message) => write!(f, "device cannot be used: {message}"),
            Self::Requested => f.write_str("worker was told to end"),
        }
    }
}
