//! How a command ends other than well: an exit code, one line of cause and, where there is one, the
//! remedy. Nothing here prints; `main` does, once.

use std::fmt;
use std::io;
use std::path::Path;

use forebay::config::ConfigError;
use forebay::{EmbedError, ProbeError, StartError};
use forebay_cuda::{CudaError, EngineError, ErrorKind};
use forebay_model::ModelError;
use forebay_server::ServeError;

/// The exit codes of the program, as in sysexits.h; `forebay --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The work failed, or something that was checked is broken.
    Failed = 1,
    /// A soak test: a promise of the runtime was broken.
    PromiseBroken = 2,
    /// A soak test: something leaks.
    Leak = 3,
    /// A soak test: the best level did not come back.
    NotHealed = 4,
    /// A soak test: the harness could not keep up.
    Overloaded = 5,
    /// The command line is wrong.
    Usage = 64,
    /// Input data is not what it should be.
    BadInput = 65,
    /// An input file or folder is missing or unreadable.
    NoInput = 66,
    /// Something that the work needs is not there or does not start.
    Unavailable = 69,
    /// The output file cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed on the way.
    Io = 74,
    /// The configuration is wrong.
    Config = 78,
    /// Ended by an interrupt (SIGINT).
    Interrupted = 130,
    /// Ended by a request to terminate (SIGTERM).
    Terminated = 143,
}

impl Exit {
    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What was wrong, one line per problem; empty if nothing is to be said.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

impl Failure {
    /// A failure without a remedy.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    /// A failure about which everything has been said, or whose reader has gone.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// This failure with its remedy.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A message of the library, whose remedy stands after its last semicolon.
    pub(crate) fn with_remedy(exit: Exit, message: &str) -> Self {
        match message.rsplit_once("; ") {
            Some((cause, remedy)) => Self::new(exit, cause).help(remedy),
            None => Self::new(exit, message),
        }
    }

    /// A file or standard stream could not be read.
    pub(crate) fn reading(what: impl fmt::Display, error: &io::Error) -> Self {
        let message = format!("cannot read {what}: {}", reason(error));
        match error.kind() {
            io::ErrorKind::NotFound => Self::new(Exit::NoInput, message)
                .help("check the path, or give - for standard input"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
                Self::new(Exit::NoInput, message).help("give a file that this user may read")
            }
            _ => Self::new(Exit::Io, message),
        }
    }

    /// A file or standard stream could not be written; a reader that has gone is no news.
    pub(crate) fn writing(what: impl fmt::Display, error: &io::Error) -> Self {
        let message = format!("cannot write {what}: {}", reason(error));
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Io),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new(Exit::Io, message).help(
                    "free some space or write elsewhere; one row takes 4 bytes per dimension in a \
                     .npy file and about 10 as JSON",
                )
            }
            _ => Self::new(Exit::Io, message),
        }
    }

    /// An output file could not be created.
    pub(crate) fn creating(path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot create {}: {}", path.display(), reason(error));
        Self::new(Exit::CannotCreate, message)
            .help("give an output in a folder that exists and that this user may write to")
    }
}

/// What the operating system says, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => text,
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
            .help("`forebay config show` prints every key with its allowed values")
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let exit = match &error {
            ModelError::NotAFolder { .. }
            | ModelError::FileMissing { .. }
            | ModelError::NoWeights { .. } => Exit::NoInput,
            _ => Exit::BadInput,
        };
        Self::with_remedy(exit, &error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => error.into(),
            StartError::Model(error) => error.into(),
            StartError::Path { .. } => Self::with_remedy(Exit::Usage, &error.to_string()),
            StartError::Worker { .. } => {
                let mut failure = Self::with_remedy(Exit::Unavailable, &error.to_string());
                failure
                    .help
                    .get_or_insert("`forebay doctor` looks at everything that is needed".into());
                failure
            }
            _ => Self::with_remedy(Exit::Unavailable, &error.to_string()),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let exit = match error {
            ServeError::Bind { .. } | ServeError::InUse { .. } | ServeError::NotASocket { .. } => {
                Exit::Unavailable
            }
            _ => Exit::Config,
        };
        Self::with_remedy(exit, &error.to_string())
    }
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        match error {
            ProbeError::Program(error) => error.into(),
            _ => Self::with_remedy(Exit::Unavailable, &error.to_string()),
        }
    }
}

impl From<CudaError> for Failure {
    fn from(error: CudaError) -> Self {
        let exit = match error.kind {
            ErrorKind::Missing | ErrorKind::DeviceLost => Exit::Unavailable,
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, error.to_string());
        match exit {
            Exit::Unavailable => {
                failure.help("`forebay doctor` lists the GPUs and what is missing to use them")
            }
            _ => failure,
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let exit = match error {
            EngineError::Cuda(error) => return error.into(),
            EngineError::Model(error) => return error.into(),
            EngineError::Option { .. } => Exit::Usage,
            EngineError::Geometry(_) | EngineError::Input(_) => Exit::BadInput,
            EngineError::Memory { .. } => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Self::with_remedy(exit, &error.to_string())
    }
}

impl From<EmbedError> for Failure {
    fn from(error: EmbedError) -> Self {
        let exit = match &error {
            EmbedError::TextTooLong { .. }
            | EmbedError::TooManyTokens { .. }
            | EmbedError::TokenId { .. }
            | EmbedError::NoTokens
            | EmbedError::Tokenize { .. } => Exit::BadInput,
            EmbedError::InvalidOption { .. } => Exit::Usage,
            EmbedError::Overloaded { .. }
            | EmbedError::Unavailable { .. }
            | EmbedError::WorkerLost
            | EmbedError::ShuttingDown => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Self::with_remedy(exit, &error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_of_a_library_error_becomes_the_help_line() {
        let failure = Failure::from(StartError::DeviceHidden {
            device: "cuda:1".to_owned(),
            reason: "CUDA_VISIBLE_DEVICES is \"0\"".to_owned(),
        });
        assert_eq!(failure.exit, Exit::Unavailable);
        let message = "device cuda:1 is not visible: CUDA_VISIBLE_DEVICES is \"0\"";
        assert_eq!(failure.message, message);
        let help = "list another device, or change that variable";
        assert_eq!(failure.help.as_deref(), Some(help));
    }

    #[test]
    fn a_worker_that_does_not_start_always_has_a_help_line() {
        let failure = Failure::from(StartError::Worker { reason: "cpu: exit 2".to_owned() });
        assert!(failure.help.is_some());
    }

    #[test]
    fn a_reader_that_has_gone_is_not_reported() {
        let failure = Failure::writing("standard output", &io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Io, ""));
    }

    #[test]
    fn a_full_disk_is_named_and_has_a_remedy() {
        let failure = Failure::writing("x.npy", &io::Error::from_raw_os_error(28));
        assert_eq!(failure.message, "cannot write x.npy: no space left on device");
        assert!(failure.help.is_some());
    }
}
