//! The monitor's process from the host's side: started, listened to with a deadline, ended. It is
//! the worker program in another role, and this process opens no driver.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use forebay_protocol::{
    DEVICE_MONITOR_ENV, MONITOR_LINE_BYTES_MAX, MonitorReport, MonitorRequest, PROTOCOL_VERSION,
    WORKER_FDS_ENV, WORKER_PROBE_ENV,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::config::{Config, HealthConfig};
use crate::worker_process::locate;

/// A longer line of a monitor's log is cut.
const LOG_LINE_BYTES_MAX: u64 = 4 * 1024;
/// How long a monitor that is not needed any more has to end by itself.
pub(super) const END_GRACE: Duration = Duration::from_millis(500);

/// Why nothing is known of the devices.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// There is no worker program to start.
    #[error(transparent)]
    Program(#[from] crate::error::StartError),
    /// This process is a monitor itself.
    #[error(
        "this process was started to watch devices and watches devices itself; call \
         forebay_worker::run_if_worker first thing in main"
    )]
    Nested,
    /// It could not be started or listened to.
    #[error("cannot watch devices with {program}: {source}")]
    Os {
        /// The worker program.
        program: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// No report came in time.
    #[error(
        "no report about devices within {} ms; the driver may hang, or raise \
         health.{key}", deadline.as_millis()
    )]
    Late {
        /// The time it had.
        deadline: Duration,
        /// The key with that time.
        key: &'static str,
    },
    /// It ended.
    #[error("the process that watches devices ended without a report")]
    Ended,
    /// What it said is no report.
    #[error("the process that watches devices said something else: {0}")]
    Nonsense(String),
    /// It is of another release.
    #[error(
        "the process that watches devices speaks protocol {found}, this host speaks \
         {PROTOCOL_VERSION}; install both from one release"
    )]
    Version {
        /// Its protocol version.
        found: u32,
    },
}

/// Starts a monitor.
pub(super) fn spawn(
    program: &Path,
    config: &HealthConfig,
    faults: bool,
) -> Result<Child, MonitorError> {
    if std::env::var_os(DEVICE_MONITOR_ENV).is_some() {
        return Err(MonitorError::Nested);
    }
    let os = |source| MonitorError::Os { program: program.display().to_string(), source };
    let library = config.nvml.as_deref().map(locate::absolute).transpose()?;
    let request = MonitorRequest { interval_ms: config.interval_ms, library, faults };
    let request = request.encode().map_err(|error| os(std::io::Error::other(error)))?;
    Command::new(program)
        .arg("worker")
        .env(DEVICE_MONITOR_ENV, request)
        .env_remove(WORKER_FDS_ENV)
        .env_remove(WORKER_PROBE_ENV)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(os)
}

/// What a monitor prints.
pub(super) struct Reports {
    out: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Reports {
    pub(super) fn new(out: ChildStdout) -> Self {
        Self { out: BufReader::new(out), line: Vec::new() }
    }

    /// The next report. After an error there are no more.
    pub(super) async fn next(
        &mut self,
        deadline: Duration,
        key: &'static str,
    ) -> Result<MonitorReport, MonitorError> {
        self.line.clear();
        let mut limited = (&mut self.out).take(MONITOR_LINE_BYTES_MAX as u64);
        let read = limited.read_until(b'\n', &mut self.line);
        match tokio::time::timeout(deadline, read).await {
            Err(_) => return Err(MonitorError::Late { deadline, key }),
            Ok(Ok(0) | Err(_)) => return Err(MonitorError::Ended),
            Ok(Ok(_)) => {}
        }
        let report = MonitorReport::decode(&self.line)
            .map_err(|error| MonitorError::Nonsense(error.to_string()))?;
        match report.protocol == PROTOCOL_VERSION {
            true => Ok(report),
            false => Err(MonitorError::Version { found: report.protocol }),
        }
    }
}

/// Passes a monitor's log on, line by line.
pub(super) async fn forward_log(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(LOG_LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(length) if length > 0) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        tracing::warn!(target: "forebay::monitor", "{}", text.trim_end());
    }
}

/// What the devices say of themselves now, whether or not there is a rung on them. Blocks for
/// `health.start_deadline_ms` at most; not to be called from an asynchronous task.
///
/// # Errors
/// [`MonitorError`]; a machine without NVML is none, see [`MonitorReport::problem`].
pub fn look(config: &Config) -> Result<MonitorReport, MonitorError> {
    let program = locate::worker_program(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let os = |source| MonitorError::Os { program: program.display().to_string(), source };
    runtime.map_err(os)?.block_on(async {
        let mut child = spawn(&program, &config.health, false)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(MonitorError::Ended);
        };
        let log = tokio::spawn(forward_log(stderr));
        let deadline = config.health.start_deadline();
        let report = Reports::new(stdout).next(deadline, "start_deadline_ms").await;
        // The end of its input ends it, unless it hangs.
        drop(child.stdin.take());
        if tokio::time::timeout(END_GRACE, child.wait()).await.is_err() {
            child.start_kill().ok();
            tokio::time::timeout(END_GRACE, child.wait()).await.ok();
        }
        log.abort();
        report
    })
}
