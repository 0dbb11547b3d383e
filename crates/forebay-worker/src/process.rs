//! From the inherited file descriptors to a worker that serves: handshake, engine, stages.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::Instant;

use forebay_arena::WorkerArena;
use forebay_protocol::{
    Hello, PROTOCOL_VERSION, Ready, StartFailure, StartReply, WORKER_FDS_ENV, WorkerExit,
    WorkerSpec,
};
use kameo::actor::Spawn;
use kameo::mailbox;

use crate::engine::{Engine, StepError, open_cpu_engine};
use crate::link::Link;
use crate::root::{Root, RootArgs};

/// Control messages that may wait for the root actor: one per stage that ends.
const ROOT_MAILBOX: usize = 32;

/// How a worker opens its engine.
pub type OpenEngine<Staged, States, Rows> =
    fn(&WorkerSpec) -> Result<Engine<Staged, States, Rows>, StepError>;

/// Serves as a worker process if this process was started as one; to be called first thing in
/// `main`, before any thread is started. `None` means that it was not, and `main` goes on.
#[must_use]
pub fn run_if_worker() -> Option<ExitCode> {
    run_if_worker_with(open_cpu_engine)
}

/// [`run_if_worker`] with an engine of the caller's; how test workers are made.
#[must_use]
pub fn run_if_worker_with<Staged, States, Rows>(
    open: OpenEngine<Staged, States, Rows>,
) -> Option<ExitCode>
where
    Staged: Send + 'static,
    States: Send + 'static,
    Rows: Send + 'static,
{
    let fds = std::env::var(WORKER_FDS_ENV).ok()?;
    let filter = std::env::var("FOREBAY_WORKER_LOG").unwrap_or_else(|_| "warn".to_owned());
    // The host stamps and stores what it reads here; a second subscriber cannot exist yet.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .without_time()
        .with_ansi(false)
        .compact()
        .init();
    let exit = match serve(&fds, open) {
        Ok(()) => WorkerExit::Clean,
        Err(StepError::Fatal { exit, message }) => {
            tracing::error!(exit = exit.name(), "{message}");
            exit
        }
        Err(error @ StepError::Batch { .. }) => {
            tracing::error!("{error}");
            WorkerExit::Panic
        }
    };
    // Engines may not survive their own teardown; the process has nothing left to do.
    crate::exit::now(exit)
}

fn serve<Staged, States, Rows>(
    fds: &str,
    open: OpenEngine<Staged, States, Rows>,
) -> Result<(), StepError>
where
    Staged: Send + 'static,
    States: Send + 'static,
    Rows: Send + 'static,
{
    let fatal = |exit: WorkerExit| move |message: String| StepError::Fatal { exit, message };
    let protocol = fatal(WorkerExit::Protocol);
    let start = Instant::now();
    let (socket, memory) = inherited(fds).map_err(protocol)?;
    let link = Link::new(socket);
    let packet = match link.receive() {
        Ok(Some(packet)) => packet,
        Ok(None) => return Ok(()),
        Err(error) => return Err(protocol(format!("socket: {error}"))),
    };
    let hello = Hello::decode(&packet).map_err(|error| protocol(error.to_string()))?;
    let started = prepare(&hello, memory, open);
    let reply = match &started {
        Ok((engine, _)) => StartReply::Ready(Ready {
            protocol: PROTOCOL_VERSION,
            engine: engine.info.engine.clone(),
            device: engine.info.device.clone(),
            precision: engine.info.precision.clone(),
            width: engine.info.width,
            start_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        }),
        Err(error) => StartReply::Failed(match error {
            StepError::Fatal { exit, message } => StartFailure::new(*exit, message.clone()),
            StepError::Batch { .. } => StartFailure::new(WorkerExit::Panic, error.to_string()),
        }),
    };
    let packet = reply.encode().map_err(|error| protocol(error.to_string()))?;
    link.send(&packet).map_err(|error| protocol(format!("socket: {error}")))?;
    let (engine, arena) = started?;
    run_stages(RootArgs { engine, link, arena, wait: hello.worker.wait })
        .map_err(fatal(WorkerExit::Panic))
}

fn prepare<Staged, States, Rows>(
    hello: &Hello,
    memory: OwnedFd,
    open: OpenEngine<Staged, States, Rows>,
) -> Result<(Engine<Staged, States, Rows>, WorkerArena), StepError> {
    if hello.protocol != PROTOCOL_VERSION {
        let message = format!(
            "host {} speaks protocol {}, this worker speaks {PROTOCOL_VERSION}; install both from \
             one release",
            hello.release, hello.protocol
        );
        return Err(StepError::Fatal { exit: WorkerExit::Protocol, message });
    }
    let arena = WorkerArena::open(memory, hello.arena).map_err(|error| StepError::Fatal {
        exit: WorkerExit::Protocol,
        message: error.to_string(),
    })?;
    let engine = open(&hello.worker)?;
    if engine.info.width != hello.arena.width() {
        let message = format!(
            "engine gives rows of {} values, the host expects {}",
            engine.info.width,
            hello.arena.width()
        );
        return Err(StepError::Fatal { exit: WorkerExit::Config, message });
    }
    Ok((engine, arena))
}

fn run_stages<Staged, States, Rows>(args: RootArgs<Staged, States, Rows>) -> Result<(), String>
where
    Staged: Send + 'static,
    States: Send + 'static,
    Rows: Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| format!("cannot start the control runtime: {error}"))?;
    runtime.block_on(async {
        let root = Root::spawn_with_mailbox(args, mailbox::bounded(ROOT_MAILBOX));
        root.wait_for_shutdown().await;
    });
    Ok(())
}

/// The two file descriptors named by the environment variable.
fn inherited(fds: &str) -> Result<(OwnedFd, OwnedFd), String> {
    let wrong = || format!("{WORKER_FDS_ENV} is {fds:?}, expected two different numbers above 2");
    let (socket, memory) = fds.split_once(',').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<RawFd>().ok().filter(|fd| *fd > 2).ok_or_else(wrong);
    let (socket, memory) = (number(socket)?, number(memory)?);
    if socket == memory {
        return Err(wrong());
    }
    for fd in [socket, memory] {
        // SAFETY: the borrow ends with this statement; a number that is no open file descriptor
        // makes the call fail with EBADF, which is what is tested.
        let borrowed = unsafe { rustix::fd::BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_getfd(borrowed)
            .map_err(|_| format!("{WORKER_FDS_ENV} is {fds:?}, but {fd} is not open"))?;
    }
    // SAFETY: both are open (checked above), differ, and were inherited for this purpose from the
    // host, which passes their numbers in the variable; nothing else in this process knows them,
    // because this runs first thing in `main`.
    unsafe { Ok((OwnedFd::from_raw_fd(socket), OwnedFd::from_raw_fd(memory))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_in_the_variable_is_refused() {
        for fds in ["", "3", "3,3", "1,4", "a,b", "3,4,5", "100000,100001"] {
            let error = inherited(fds).expect_err(fds);
            assert!(error.contains(WORKER_FDS_ENV), "{error}");
        }
    }
}
