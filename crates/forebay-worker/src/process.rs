//! From the inherited file descriptors to a worker that serves: handshake, engine, stages.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay_arena::WorkerArena;
use forebay_protocol::{
    DEVICE_MONITOR_ENV, Hello, PROTOCOL_VERSION, Ready, StartFailure, StartReply, WORKER_FDS_ENV,
    WORKER_PROBE_ENV, WorkerExit, WorkerSpec,
};
use kameo::actor::Spawn;
use kameo::mailbox;

use crate::engine::{Engine, EngineInfo, StepError, open_cpu_engine, open_cuda_engine};
use crate::faults::Faults;
use crate::link::Link;
use crate::root::{Root, RootArgs};

/// Control messages that may wait for the root actor: one per stage that ends.
const ROOT_MAILBOX: usize = 32;

/// The first file descriptor that is not one of the three standard ones.
const FIRST_OTHER_FD: RawFd = 3;

/// How long the watch on the host sleeps at a time, if nothing wakes it.
const WATCH_INTERVAL: Duration = Duration::from_secs(3600);

/// Copy-in hears of the host's end too, and ends the process in order. It has this long, then the
/// process ends all the same: a call into a driver may never return.
const END_GRACE: Duration = Duration::from_secs(1);

/// How a worker opens its engine over the arena that it shares with its host.
pub type OpenEngine<Staged, States, Rows> =
    fn(&WorkerSpec, &WorkerArena) -> Result<Engine<Staged, States, Rows>, StepError>;

/// Serves as a worker process if this process was started as one, or looks for devices or watches
/// them if it was started for that; to be called first thing in `main`, before any thread is
/// started. `None` means that it was started for none of these, and `main` goes on.
#[must_use]
pub fn run_if_worker() -> Option<ExitCode> {
    run(|greeting| match greeting.hello.worker.device.starts_with("cuda:") {
        true => greeting.serve(open_cuda_engine),
        false => greeting.serve(open_cpu_engine),
    })
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
    run(|greeting| greeting.serve(open))
}

fn run(serve: impl FnOnce(Greeting<'_>) -> Result<(), Failure>) -> Option<ExitCode> {
    let Ok(fds) = std::env::var(WORKER_FDS_ENV) else {
        if let Ok(request) = std::env::var(DEVICE_MONITOR_ENV) {
            crate::os::close_from(FIRST_OTHER_FD);
            crate::os::ignore_polite_signals();
            start_log();
            crate::monitor::serve(&request);
        }
        let probe = std::env::var(WORKER_PROBE_ENV).ok()?;
        start_log();
        crate::probe::answer(&probe);
    };
    let (socket, memory) = match inherited(&fds) {
        Ok(inherited) => inherited,
        Err(message) => {
            start_log();
            tracing::error!("{message}");
            crate::os::exit_now(WorkerExit::Protocol);
        }
    };
    crate::os::ignore_polite_signals();
    start_log();
    crate::os::die_with_host();
    // The link stays open until the process ends: its end tells the host that there is no more to
    // come, and the exit code must be certain by then.
    let link = Link::new(socket);
    let exit = match greeted(&link, memory, serve) {
        Ok(()) => WorkerExit::Clean,
        Err(failure) => {
            tracing::error!(exit = failure.0.name(), "{}", failure.1);
            failure.0
        }
    };
    // Engines may not survive their own teardown; the process has nothing left to do.
    crate::os::exit_now(exit)
}

/// The host stamps and stores what it reads here.
fn start_log() {
    let filter = std::env::var("FOREBAY_WORKER_LOG").unwrap_or_else(|_| "warn".to_owned());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .without_time()
        .with_ansi(false)
        .compact()
        .init();
}

/// How a worker ends that cannot serve, and why.
type Failure = (WorkerExit, String);

/// What the host has said, and with whom the conversation goes on.
struct Greeting<'l> {
    link: &'l Link,
    memory: OwnedFd,
    hello: Hello,
    received_at: Instant,
}

fn greeted(
    link: &Link,
    memory: OwnedFd,
    serve: impl FnOnce(Greeting<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(packet) = link.receive_handshake().map_err(broken)? else { return Ok(()) };
    let received_at = Instant::now();
    match read_hello(&packet) {
        Ok(hello) => serve(Greeting { link, memory, hello, received_at }),
        Err(failure) => refuse(link, failure),
    }
}

impl Greeting<'_> {
    /// Opens the engine, says that it is ready, and serves until the host has enough.
    fn serve<Staged, States, Rows>(
        self,
        open: OpenEngine<Staged, States, Rows>,
    ) -> Result<(), Failure>
    where
        Staged: Send + 'static,
        States: Send + 'static,
        Rows: Send + 'static,
    {
        let Self { link, memory, hello, received_at } = self;
        let (engine, arena) = match watched(link, || prepare(&hello, memory, open)) {
            Ok(prepared) => prepared,
            Err(failure) => return refuse(link, failure),
        };
        let EngineInfo { engine: name, device, precision, width, side_by_side, details } =
            engine.info.clone();
        let start_ms = u64::try_from(received_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let protocol = PROTOCOL_VERSION;
        let ready = Ready {
            protocol,
            engine: name,
            device,
            precision,
            width,
            side_by_side,
            start_ms,
            details,
        };
        say(link, &StartReply::Ready(ready))?;
        let faults = Arc::new(Faults::new(hello.worker.faults_enabled));
        let (link, wait) = (link.clone(), hello.worker.wait);
        run_stages(RootArgs { engine, link, arena, wait, faults })
            .map_err(|message| (WorkerExit::Panic, message))
    }
}

/// Tells the host why this worker cannot serve.
fn refuse(link: &Link, failure: Failure) -> Result<(), Failure> {
    let (exit, message) = &failure;
    say(link, &StartReply::Failed(StartFailure::new(*exit, message.clone())))?;
    Err(failure)
}

fn say(link: &Link, reply: &StartReply) -> Result<(), Failure> {
    let packet = reply.encode().map_err(|error| (WorkerExit::Protocol, error.to_string()))?;
    link.send(&packet).map(|_| ()).map_err(broken)
}

fn broken(error: std::io::Error) -> Failure {
    (WorkerExit::Protocol, format!("socket: {error}"))
}

/// Reads the greeting. Another version is said to be one before the rest of it, which that version
/// may have changed, is looked at.
fn read_hello(packet: &[u8]) -> Result<Hello, Failure> {
    let protocol = |message| (WorkerExit::Protocol, message);
    let (version, release) =
        Hello::version_of(packet).map_err(|error| protocol(error.to_string()))?;
    if version != PROTOCOL_VERSION {
        return Err(protocol(format!(
            "host {release} speaks protocol {version}, this worker speaks {PROTOCOL_VERSION}; \
             install both from one release"
        )));
    }
    Hello::decode(packet).map_err(|error| protocol(error.to_string()))
}

/// Runs `work`, and ends the process if the host goes away meanwhile: loading a model can take
/// minutes, and nobody else looks at the socket yet. The watch stays for the life of the process.
fn watched<R>(link: &Link, work: impl FnOnce() -> R) -> R {
    let serving = Arc::new(AtomicBool::new(false));
    let (watched, copy_in_looks) = (link.clone(), Arc::clone(&serving));
    // Never joined: the end of the process is its end.
    std::thread::spawn(move || {
        while !watched.ends_within(WATCH_INTERVAL) {}
        if copy_in_looks.load(Ordering::Acquire) {
            std::thread::sleep(END_GRACE);
        }
        crate::os::exit_now(WorkerExit::Clean);
    });
    let result = work();
    serving.store(true, Ordering::Release);
    result
}

fn prepare<Staged, States, Rows>(
    hello: &Hello,
    memory: OwnedFd,
    open: OpenEngine<Staged, States, Rows>,
) -> Result<(Engine<Staged, States, Rows>, WorkerArena), Failure> {
    let arena = WorkerArena::open(memory, hello.arena)
        .map_err(|error| (WorkerExit::Protocol, error.to_string()))?;
    #[expect(
        clippy::mem_forget,
        reason = "the arena stays mapped for the life of the process, however it ends: a device may \
                  have the memory registered, and after a fault that cannot be undone"
    )]
    std::mem::forget(arena.clone());
    if hello.worker.faults_enabled && hello.worker.fail_start {
        let message = "a fault was asked for: this start fails".to_owned();
        return Err((WorkerExit::DeviceBusy, message));
    }
    let engine = open(&hello.worker, &arena).map_err(|error| match error {
        StepError::Fatal { exit, message } => (exit, message),
        StepError::Batch { message, .. } => (WorkerExit::Config, message),
    })?;
    if engine.info.width != hello.arena.width() {
        let message = format!(
            "engine gives rows of {} values, the host expects {}",
            engine.info.width,
            hello.arena.width()
        );
        return Err((WorkerExit::Config, message));
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
        if !crate::os::is_open(fd) {
            return Err(format!("{WORKER_FDS_ENV} is {fds:?}, but {fd} is not open"));
        }
    }
    crate::os::close_from(socket.max(memory) + 1);
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
