//! Settings of who watches the state of the devices.

use std::path::PathBuf;

use super::declare::Allowed::{Choice, Integer, Path};
use super::declare::group;
use super::value::DeviceMonitor;

group! {
    /// The state of the GPUs, read through NVIDIA's management library by a process of its own: a
    /// call into that library may never return.
    HealthConfig as "health" {
        /// "auto" watches while there is a rung on a GPU; "off" leaves every device unknown.
        monitor: DeviceMonitor = DeviceMonitor::Auto, "", Choice(DeviceMonitor::WORDS);
        /// NVML's library, where the dynamic linker does not find it.
        #[serde(with = "super::value::optional_path_text")]
        nvml: Option<PathBuf> = None, "", Path("libnvidia-ml.so.1");
        /// Time from one look at the devices to the next; an error that the driver reports is
        /// passed on at once.
        interval_ms: u32 = 1_000, "ms", Integer(20, 60_000);
        /// Time to the first report: without a persistence daemon the driver starts each GPU anew.
        start_deadline_ms: u32 = 20_000, "ms", Integer(100, 600_000);
        /// Time between two reports after which the library counts as hanging: the process is
        /// killed, and its devices are unknown until the next one reports.
        report_deadline_ms: u32 = 3_000, "ms", Integer(20, 600_000);
        /// A GPU this close to the temperature at which it slows itself down is not promoted.
        temperature_margin_c: u32 = 5, "degrees Celsius", Integer(0, 50);
        /// How long an error that the driver has reported counts against its device, where the
        /// device itself does not say what is to be done.
        xid_recent_ms: u32 = 10_000, "ms", Integer(100, 3_600_000);
        /// Wait before the process is started again; it doubles with each further failure.
        backoff_min_ms: u32 = 500, "ms", Integer(1, 600_000);
        /// Longest wait before the process is started again.
        backoff_max_ms: u32 = 60_000, "ms", Integer(1, 3_600_000);
        /// Time for the kernel to give a killed process back before it is reported as stuck; no
        /// other is started before it has.
        reap_deadline_ms: u32 = 5_000, "ms", Integer(10, 600_000);
    }
}
