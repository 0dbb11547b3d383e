//! How the devices are, and what may therefore be done with them.
//!
//! A process of its own asks NVIDIA's management library and prints a report per interval
//! (`forebay_worker`'s monitor); [`DeviceWatch`] starts it, listens with a deadline, and kills and
//! replaces it when a report is late, for a call into that library may never return. [`verdict`] turns
//! a report into what may be done with a device: a pure function. What a platform does not say, and
//! everything while no report comes, is unknown, and never fine.
//!
//! Nothing here acts on a verdict; that is for the ladder.

mod backoff;
mod places;
mod plausible;
mod process;
mod verdict;
mod watcher;
mod xid;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use forebay_protocol::DeviceHealth;

pub use process::{MonitorError, look};
pub use verdict::{DeviceVerdict, VerdictLimits, verdict};
pub use watcher::{DeviceWatch, InjectMonitorError, WatcherArgs, watch};
pub use xid::{XidClass, class_of};

use crate::config::{Device, DeviceMonitor, HealthConfig};

/// What is known of the watched devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// When it was heard.
    pub at: Instant,
    /// Every watched GPU with what it says of itself, as far as that can be, and the verdict.
    pub devices: Vec<(Device, DeviceHealth, DeviceVerdict)>,
    /// Why nothing is known, if so.
    pub problem: Option<String>,
}

/// Who hears of reports. Called from the watcher's task; must not block.
#[derive(Clone)]
pub struct OnReport(Arc<dyn Fn(HealthReport) + Send + Sync>);

impl OnReport {
    /// A function that hears of every report.
    pub fn new(hear: impl Fn(HealthReport) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    fn call(&self, report: HealthReport) {
        (self.0)(report);
    }
}

impl fmt::Debug for OnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnReport")
    }
}

/// Whether there is anything to watch: the configuration wants it, and there is a GPU.
#[must_use]
pub fn is_wanted(config: &HealthConfig, devices: &[Device]) -> bool {
    config.monitor == DeviceMonitor::Auto
        && devices.iter().any(|device| matches!(device, Device::Cuda(_)))
}
