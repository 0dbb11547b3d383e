//! Device health from end to end: the real watcher and the real monitor process over a fake
//! management library, which flips its answers, loses devices, supports nothing, or hangs.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../serve/client.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod client;
#[path = "../serve/daemon.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod daemon;
mod exposed;
mod library;
mod process;
mod states;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use forebay::config::{Device, HealthConfig};
use forebay::health::{self, DeviceVerdict, DeviceWatch, HealthReport, OnReport, WatcherArgs};
use forebay::metrics::Metrics;
use forebay::{DeviceHealth, MonitorFault};
use tokio::runtime::Runtime;

use support::{FOREBAY, children_of, eventually, exists};

/// A watcher with what it has reported.
struct Watched {
    runtime: Runtime,
    watch: DeviceWatch,
    library: PathBuf,
    reports: Arc<Mutex<Vec<HealthReport>>>,
}

/// Quick, and patient enough for a busy machine.
fn config(library: &Path) -> HealthConfig {
    HealthConfig {
        nvml: Some(library.to_owned()),
        interval_ms: 20,
        start_deadline_ms: 30_000,
        report_deadline_ms: 30_000,
        backoff_min_ms: 1,
        backoff_max_ms: 20,
        ..HealthConfig::default()
    }
}

fn watch(config: HealthConfig) -> Watched {
    watch_with(FOREBAY.as_ref(), config, true)
}

/// Watches `cuda:0` and `cuda:1` with this program as the monitor.
fn watch_with(program: &Path, config: HealthConfig, faults: bool) -> Watched {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reports);
    let runtime = Runtime::new().expect("a runtime");
    let library = config.nvml.clone().expect("a library");
    let args = WatcherArgs {
        program: program.to_owned(),
        devices: vec![Device::Cpu, Device::Cuda(0), Device::Cuda(1)],
        probed: Vec::new(),
        config,
        faults,
        on_report: OnReport::new(move |report| heard.lock().expect("sound").push(report)),
        metrics: Arc::new(Metrics::new()),
    };
    let watch = runtime.block_on(async { health::watch(args) });
    Watched { runtime, watch, library, reports }
}

impl Watched {
    fn count(&self) -> usize {
        self.reports.lock().expect("sound").len()
    }

    /// Waits for a report that fits, after the first `after`.
    fn report_after(
        &self,
        after: usize,
        what: &str,
        fits: impl Fn(&HealthReport) -> bool,
    ) -> HealthReport {
        eventually(what, || {
            let reports = self.reports.lock().expect("sound");
            reports.iter().skip(after).find(|report| fits(report)).cloned()
        })
    }

    /// Waits for a report that fits, from now on.
    fn report(&self, what: &str, fits: impl Fn(&HealthReport) -> bool) -> HealthReport {
        self.report_after(self.count(), what, fits)
    }

    /// Waits for a verdict on `cuda:index`.
    fn verdict(&self, index: u32, name: &str) -> (DeviceHealth, DeviceVerdict) {
        let report = self.report(name, |report| of(report, index).1.name() == name);
        of(&report, index)
    }

    /// Process ids of its monitors, dead ones that nobody has waited for included.
    fn monitors(&self) -> Vec<u32> {
        let mut pids = children_of(std::process::id());
        // Other tests of this process have monitors too.
        pids.retain(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let library = self.library.to_str().expect("text").as_bytes();
            environment.windows(library.len()).any(|window| window == library)
        });
        pids
    }

    /// The only one.
    fn monitor(&self) -> u32 {
        eventually("a monitor", || match self.monitors().as_slice() {
            [pid] => Some(*pid),
            _ => None,
        })
    }

    fn inject(&self, fault: MonitorFault) -> Result<(), health::InjectMonitorError> {
        self.runtime.block_on(self.watch.inject(fault))
    }

    /// Ends it, and nothing is left.
    fn stop(self) {
        let pids = self.monitors();
        let Self { runtime, watch, .. } = self;
        runtime.block_on(watch.stop());
        for pid in pids {
            assert!(!exists(pid), "monitor {pid} is left behind");
        }
    }
}

/// What a report says of `cuda:index`.
fn of(report: &HealthReport, index: u32) -> (DeviceHealth, DeviceVerdict) {
    let mut devices = report.devices.iter();
    let found = devices.find(|(device, _, _)| *device == Device::Cuda(index)).expect("watched");
    (found.1.clone(), found.2.clone())
}
