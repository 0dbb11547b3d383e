//! Makes a worker process with a sealed arena and one end of a socket pair, both inherited. The
//! worker closes whatever else it inherits.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};
use forebay_arena::{HostArena, SlotTable};
use forebay_protocol::{ArenaSpec, WORKER_FDS_ENV, WorkerSpec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::process::{Child, Command};

use super::visible::Environment;
use crate::canary::Canary;
use crate::config::{Device, LogLevel, WorkerConfig};
use crate::dispatch::lane::InFlight;
use crate::supervisor::EndCause;

/// Numbers of the inherited file descriptors in the worker.
const SOCKET_FD: i32 = 3;
const ARENA_FD: i32 = 4;

/// Everything that stays the same from one incarnation of a rung to the next.
#[derive(Debug, Clone)]
pub(crate) struct LaunchSpec {
    pub(crate) program: PathBuf,
    pub(crate) device: Device,
    pub(crate) worker: WorkerSpec,
    /// What it sees in its environment beyond that of this process.
    pub(crate) environment: Environment,
    pub(crate) arena: ArenaSpec,
    pub(crate) config: WorkerConfig,
    /// What its workers are checked with.
    pub(crate) canary: Arc<Canary>,
}

/// A process that has been started and not greeted yet.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) socket: OwnedFd,
    pub(crate) arena: (HostArena, SlotTable<InFlight>),
}

/// Starts the process.
///
/// # Errors
/// What keeps it from being started: a program that cannot be run will not run the next time either;
/// what the system lacks now it may have then.
pub(crate) fn spawn(spec: &LaunchSpec) -> Result<Spawned, EndCause> {
    let passing = |message: String| EndCause::StartLost(message);
    let arena = HostArena::create(spec.arena).map_err(|error| passing(error.to_string()))?;
    let pair = |errno: Errno| passing(format!("cannot make a socket pair: {errno}"));
    let (socket, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(pair)?;
    let memory = arena.0.fd().try_clone_to_owned();
    let memory = memory.map_err(|error| passing(format!("cannot share memory: {error}")))?;
    let mut command = Command::new(&spec.program);
    command
        .arg("worker")
        .env(WORKER_FDS_ENV, format!("{SOCKET_FD},{ARENA_FD}"))
        .env("FOREBAY_WORKER_LOG", filter(spec.config.log_level))
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // The terminal's interrupt is for the host, which drains its workers itself.
        .process_group(0)
        .kill_on_drop(true)
        .fd_mappings(vec![
            FdMapping { parent_fd: theirs, child_fd: SOCKET_FD },
            FdMapping { parent_fd: memory, child_fd: ARENA_FD },
        ])
        .map_err(|_| passing("file descriptors for the worker collide".to_owned()))?;
    let child = command.spawn().map_err(|error| {
        let program = spec.program.display();
        let message = format!("cannot start {program}: {error}; check worker.program");
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => EndCause::StartFailed(message),
            // A file that is no program says so with a code of its own.
            _ if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                EndCause::StartFailed(message)
            }
            _ => EndCause::StartLost(message),
        }
    })?;
    if let Some(pid) = child.id() {
        // Where the kernel refuses, the worker merely is no preferred victim.
        let path = format!("/proc/{pid}/oom_score_adj");
        std::fs::write(path, spec.config.oom_score_adj.to_string()).ok();
    }
    Ok(Spawned { child, socket, arena })
}

fn filter(level: LogLevel) -> String {
    level.as_str().to_owned()
}
