//! Asks a short-lived worker process what there is to compute on. This process opens no driver: a
//! hanging one would hang it, too.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use forebay_protocol::{
    HandshakeError, PROBE_BYTES_MAX, PROTOCOL_VERSION, ProbeReport, ProbeRequest, WORKER_PROBE_ENV,
};
use tokio::io::{AsyncRead, AsyncReadExt, copy, sink};
use tokio::process::{Child, Command};

use super::locate;
use super::visible::Visibility;
use crate::config::Config;
use crate::error::StartError;

/// What a probe logs is kept up to this length.
const LOG_BYTES_MAX: usize = 4 * 1024;
/// How long the kernel may take to give a killed probe back before it is left to itself.
const REAP_DEADLINE: Duration = Duration::from_secs(1);

/// Why it is not known what there is to compute on.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no worker program to ask.
    #[error(transparent)]
    Program(#[from] StartError),
    /// This process is a probe itself.
    #[error(
        "this process was started to look for devices and looks for devices itself; call \
         forebay_worker::run_if_worker first thing in main"
    )]
    Nested,
    /// What it is to be asked cannot be passed on.
    #[error("cannot ask for devices: {0}")]
    Request(#[source] HandshakeError),
    /// It could not be started or listened to.
    #[error("cannot look for devices with {}: {source}", program.display())]
    Os {
        /// The worker program.
        program: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It did not answer in time and was killed.
    #[error(
        "no answer about devices within {} ms; the driver may hang, or raise \
         cuda.probe_deadline_ms", deadline.as_millis()
    )]
    Late {
        /// The time it had.
        deadline: Duration,
    },
    /// What it said is no answer.
    #[error("no answer about devices: {} ended with {status}{log}", program.display())]
    NoAnswer {
        /// The worker program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it logged, after a separator.
        log: String,
    },
    /// It is of another release.
    #[error(
        "worker speaks protocol {found}, this host speaks {PROTOCOL_VERSION}; install both from \
         one release"
    )]
    Version {
        /// Its protocol version.
        found: u32,
    },
}

/// Looks for the devices that `devices.rungs = "auto"` would serve on. Blocks for
/// `cuda.probe_deadline_ms` at most; not to be called from an asynchronous task.
///
/// # Errors
/// [`ProbeError`]; a machine without CUDA is none, see [`ProbeReport::problem`].
pub fn probe_devices(config: &Config) -> Result<ProbeReport, ProbeError> {
    let program = locate::worker_program(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| ProbeError::Os { program, source })?.block_on(probe(config))
}

/// [`probe_devices`] inside a runtime.
pub(crate) async fn probe(config: &Config) -> Result<ProbeReport, ProbeError> {
    if std::env::var_os(WORKER_PROBE_ENV).is_some() {
        return Err(ProbeError::Nested);
    }
    let program = locate::worker_program(config)?;
    let request = ProbeRequest { libraries: locate::cuda_libraries(config)? };
    let request = request.encode().map_err(ProbeError::Request)?;
    let os = |source| ProbeError::Os { program: program.clone(), source };
    let mut child = Command::new(&program)
        .arg("worker")
        .env(WORKER_PROBE_ENV, request)
        .envs(Visibility::of_this_process().all())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(os)?;
    let deadline = config.cuda.probe_deadline();
    let Ok(heard) = tokio::time::timeout(deadline, listen(&mut child)).await else {
        child.start_kill().ok();
        // What cannot be killed is stuck in the driver; nothing here can wait for that.
        tokio::time::timeout(REAP_DEADLINE, child.wait()).await.ok();
        return Err(ProbeError::Late { deadline });
    };
    let (status, printed, log) = heard.map_err(os)?;
    let Ok(report) = ProbeReport::decode(&printed) else {
        let log = String::from_utf8_lossy(&log).trim().to_owned();
        let log = if log.is_empty() { log } else { format!(": {log}") };
        return Err(ProbeError::NoAnswer { program, status, log });
    };
    if report.protocol != PROTOCOL_VERSION {
        return Err(ProbeError::Version { found: report.protocol });
    }
    Ok(report)
}

/// Waits for the end of the process, with what it printed and logged.
async fn listen(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // One byte more than allowed, so that too much is seen as such.
    let (printed, log) =
        tokio::try_join!(head(stdout, PROBE_BYTES_MAX + 1), head(stderr, LOG_BYTES_MAX))?;
    Ok((child.wait().await?, printed, log))
}

/// Reads to the end and keeps the first bytes.
async fn head(from: Option<impl AsyncRead + Unpin>, keep: usize) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(keep as u64).read_to_end(&mut kept).await?;
        copy(&mut from, &mut sink()).await?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Asks a shell script.
    fn ask(script: &str, deadline_ms: u32) -> Result<ProbeReport, ProbeError> {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("sets");
        let mut config = Config::default();
        config.worker.program = Some(program);
        config.cuda.probe_deadline_ms = deadline_ms;
        config.cuda.libraries = vec!["/opt/cuda".into()];
        probe_devices(&config)
    }

    fn report(protocol: u32) -> String {
        let report = ProbeReport {
            protocol,
            driver: None,
            libraries: Vec::new(),
            devices: Vec::new(),
            problem: Some("none here".into()),
        };
        report.encode().expect("encodes").trim_end().to_owned()
    }

    #[test]
    fn a_report_is_read_and_the_request_is_passed_on() {
        let line = report(PROTOCOL_VERSION);
        let script = format!(
            "test $FOREBAY_WORKER_PROBE = '{{\"libraries\":[\"/opt/cuda\"]}}' && echo '{line}'"
        );
        let found = ask(&script, 60_000).expect("a report");
        assert_eq!(found.problem.as_deref(), Some("none here"));
    }

    #[test]
    fn a_program_that_is_no_probe_is_said_to_be_none() {
        let error = ask("echo usage; echo what >&2; exit 3", 60_000).expect_err("no report");
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.ends_with(": what"), "{text}");
        let error = ask(&format!("echo '{}'", report(99)), 60_000).expect_err("another version");
        assert!(matches!(error, ProbeError::Version { found: 99 }), "{error}");
    }

    #[test]
    fn one_that_hangs_or_never_stops_talking_is_killed() {
        for script in ["exec sleep 1000", "exec yes"] {
            let error = ask(script, 100).expect_err("no report");
            assert!(matches!(error, ProbeError::Late { .. }), "{error}");
        }
    }
}
