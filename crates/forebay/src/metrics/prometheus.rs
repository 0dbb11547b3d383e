//! The metrics in Prometheus text format, for programs that have no recorder of their own.
//!
//! A recorder belongs to the whole process. An application that has one already simply does not
//! call [`install`]: [`Metrics`](super::Metrics) reports to whichever recorder is installed when it
//! is made. The module opens no port; it renders text and can keep a file up to date.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use super::names::{ALL, Kind, Metric, Unit};

/// How often recorded histogram values are folded into their buckets. Until then each value takes
/// memory, so this bounds it to what some seconds record.
const UPKEEP: Duration = Duration::from_secs(2);

/// Upper ends of the buckets of times: 50 µs to 1 min, about two per doubling where answers are.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_35, 0.000_5, 0.000_75, 0.001, 0.001_5, 0.002, 0.003, 0.005,
    0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0,
    10.0, 30.0, 60.0,
];

/// Upper ends of the buckets of rows.
const ROWS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16_384.0];

/// Upper ends of the buckets of tokens.
const TOKENS: &[f64] = &[
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16_384.0,
    32_768.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
];

/// Upper ends of the buckets of shares.
const RATIO: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// What [`install`] made: a recorder belongs to the process, and so does this.
static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();

/// Why the exporter is not running.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process has a recorder already.
    #[error(
        "a metrics recorder is installed already; call install once per process, or not at all \
         where the application brings its own recorder"
    )]
    Installed,
    /// The exporter refused its settings.
    #[error("cannot set up the prometheus exporter: {0}")]
    Exporter(String),
    /// A thread could not be started.
    #[error("cannot start the metrics thread: {0}; check the process's limit of threads")]
    Thread(#[from] io::Error),
}

/// Makes a Prometheus recorder the recorder of this process. Call it before the runtime starts.
///
/// A thread named `forebay-metrics` keeps its memory bounded; it lives as long as the process, as
/// the recorder does.
///
/// # Errors
/// [`InstallError::Installed`] if the process has a recorder already.
pub fn install() -> Result<PrometheusHandle, InstallError> {
    install_with(&[])
}

/// [`install`] for a program that has metrics of its own: their histograms get buckets too.
///
/// # Errors
/// [`InstallError::Installed`] if the process has a recorder already.
pub fn install_with(others: &[Metric]) -> Result<PrometheusHandle, InstallError> {
    let recorder = builder_with(others)?.build_recorder();
    let handle = PrometheusHandle { inner: recorder.handle() };
    metrics::set_global_recorder(recorder).map_err(|_| InstallError::Installed)?;
    // Only the one whose recorder is the process's gets here.
    INSTALLED.set(handle.clone()).ok();
    let upkeep = handle.clone();
    std::thread::Builder::new().name("forebay-metrics".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(UPKEEP);
            upkeep.inner.run_upkeep();
        }
    })?;
    Ok(handle)
}

/// The recorder of this process, if it was installed here.
#[must_use]
pub fn installed() -> Option<&'static PrometheusHandle> {
    INSTALLED.get()
}

/// The exporter with the buckets of every histogram.
#[cfg(test)]
pub(super) fn builder() -> Result<PrometheusBuilder, InstallError> {
    builder_with(&[])
}

fn builder_with(others: &[Metric]) -> Result<PrometheusBuilder, InstallError> {
    ALL.iter().chain(others).filter(|metric| metric.kind == Kind::Histogram).try_fold(
        PrometheusBuilder::new(),
        |builder, metric| {
            let buckets = match metric.unit {
                Unit::Rows | Unit::Count | Unit::Bytes | Unit::Celsius | Unit::Watts => ROWS,
                Unit::Tokens => TOKENS,
                Unit::Ratio => RATIO,
                Unit::Seconds | Unit::Microseconds => SECONDS,
            };
            builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .map_err(|error| InstallError::Exporter(error.to_string()))
        },
    )
}

/// Reads what the installed recorder has collected.
#[derive(Clone)]
pub struct PrometheusHandle {
    inner: metrics_exporter_prometheus::PrometheusHandle,
}

impl PrometheusHandle {
    #[cfg(test)]
    pub(super) fn of(recorder: &metrics_exporter_prometheus::PrometheusRecorder) -> Self {
        Self { inner: recorder.handle() }
    }

    /// Every metric in Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.inner.render()
    }

    /// Writes [`PrometheusHandle::render`] to `path`. A reader sees the old file or the new one,
    /// never a part: the text goes to `path` with `.new` appended, which then takes its place.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_file(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        std::fs::write(&beside, self.render())?;
        std::fs::rename(&beside, path)
    }

    /// Rewrites the file at `path` now, every `interval`, and once more when the result is dropped.
    /// The first write happens before this returns, so that an unwritable path is an error at once;
    /// later failures are logged.
    ///
    /// # Errors
    /// What the file system says, or that no thread could be started.
    pub fn write_every(&self, path: &Path, interval: Duration) -> io::Result<FileWriter> {
        self.write_file(path)?;
        // Nothing is ever sent: the end of the channel is the signal.
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let (handle, path) = (self.clone(), path.to_owned());
        let thread = std::thread::Builder::new().name("forebay-metrics-file".to_owned()).spawn(
            move || {
                loop {
                    let ending = stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout);
                    if let Err(error) = handle.write_file(&path) {
                        tracing::warn!(path = %path.display(), %error, "cannot write the metrics");
                    }
                    if ending {
                        return;
                    }
                }
            },
        )?;
        Ok(FileWriter { stop: Some(stop), thread: Some(thread) })
    }
}

/// Keeps a metrics file up to date until it is dropped; see [`PrometheusHandle::write_every`].
#[must_use = "the file is written only while this lives"]
pub struct FileWriter {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the metrics file has panicked");
        }
    }
}
