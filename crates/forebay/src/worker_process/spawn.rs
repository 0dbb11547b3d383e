//! Makes a worker process with a sealed arena and one end of a socket pair, both inherited. The
//! worker closes whatever else it inherits.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};
use forebay_arena::{HostArena, SlotTable};
use forebay_protocol::{ArenaSpec, WORKER_FDS_ENV, WorkerSpec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::process::{Child, Command};

use super::visible::Environment;
use crate::canary::Canary;
use crate::config::{Device, LogLevel, WorkerConfig};
use crate::dispatch::lane::InFlight;

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

/// Starts the process. The text of an error says what could not be done.
pub(crate) fn spawn(spec: &LaunchSpec) -> Result<Spawned, String> {
    let arena = HostArena::create(spec.arena).map_err(|error| error.to_string())?;
    let pair = |errno: rustix::io::Errno| format!("cannot make a socket pair: {errno}");
    let (socket, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(pair)?;
    let memory = arena.0.fd().try_clone_to_owned().map_err(|e| format!("cannot share: {e}"))?;
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
        .map_err(|_| "file descriptors for the worker collide".to_owned())?;
    let child = command.spawn().map_err(|error| {
        format!("cannot start {}: {error}; check worker.program", spec.program.display())
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
