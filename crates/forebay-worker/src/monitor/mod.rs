//! A process that does nothing but report how the devices are, once per interval, through NVIDIA's
//! management library (NVML). A call into it may never return; then the host, which misses the
//! report, kills this process and starts another. It opens no CUDA context, changes nothing on a
//! device and decides nothing.
//!
//! [`device`] reads one device, [`xids`] listens to the driver's errors, [`thermal`] stands in for a
//! temperature that NVML does not give, [`host`] hears commands and the host's end, and [`raw`] is
//! what the wrapper of NVML lacks.

mod device;
mod host;
mod raw;
mod thermal;
mod xids;

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use forebay_protocol::{
    DeviceHealth, MonitorFault, MonitorReport, MonitorRequest, PROTOCOL_VERSION, WorkerExit,
};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use device::Identity;
use host::Host;
use xids::Listener;

/// Longest wait before NVML is tried again where it could not be opened.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(60);

/// Shortest time between two reports, however many Xids there are.
const EARLY_REPORT: Duration = Duration::from_millis(50);

/// Reports as the request in `value` says until the host has gone.
pub(crate) fn serve(value: &str) -> ! {
    let request = match MonitorRequest::decode(value) {
        Ok(request) => request,
        Err(error) => {
            tracing::error!("cannot read what to monitor: {error}");
            crate::os::exit_now(WorkerExit::Protocol);
        }
    };
    let interval = Duration::from_millis(u64::from(request.interval_ms.max(1)));
    let host = Host::listen(request.faults);
    let mut monitor = Monitor { host, interval, sequence: 0, lies: 0, identities: Vec::new() };
    let mut reopen_wait = interval;
    loop {
        let problem = match open(&request) {
            Ok(nvml) => {
                reopen_wait = interval;
                monitor.watch(&nvml)
            }
            Err(error) => format!(
                "NVML cannot be opened: {error}; install the driver's libnvidia-ml.so.1, or name \
                 it in health.nvml"
            ),
        };
        // The host hears from here in time all the same: no answer would mean a hanging driver.
        let until = Instant::now() + reopen_wait;
        loop {
            monitor.report(None, Vec::new(), Some(problem.clone()));
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(interval);
        }
        reopen_wait = (reopen_wait * 2).min(REOPEN_WAIT_MAX.max(interval));
    }
}

fn open(request: &MonitorRequest) -> Result<Nvml, NvmlError> {
    let mut builder = Nvml::builder();
    let path = request.library.as_ref().map(|path| path.as_os_str());
    builder.lib_path(path.unwrap_or(OsStr::new("libnvidia-ml.so.1")));
    builder.init()
}

struct Monitor {
    host: Host,
    interval: Duration,
    sequence: u64,
    /// Reports that are still to be spoiled.
    lies: u32,
    /// Who the devices are, by NVML's number: a lost one cannot say it any more.
    identities: Vec<Identity>,
}

impl Monitor {
    /// Reports until NVML does not say any more how many devices there are; returns why.
    fn watch(&mut self, nvml: &Nvml) -> String {
        let driver = nvml.sys_driver_version().ok();
        let mut listener: Option<Listener<'_>> = None;
        loop {
            let begun = Instant::now();
            let count = match nvml.device_count() {
                Ok(count) => count,
                Err(error) => return format!("NVML does not count devices: {error}"),
            };
            if listener.as_ref().is_none_or(|listener| listener.devices() != count) {
                listener = Some(Listener::new(nvml, count));
            }
            let devices = self.read(nvml, count, listener.as_ref());
            self.report(driver.clone(), devices, None);
            let mut until = begun + self.interval;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                if listener.as_mut().is_some_and(|listener| listener.wait(left)) {
                    until = until.min(begun + EARLY_REPORT);
                }
            }
        }
    }

    fn read(
        &mut self,
        nvml: &Nvml,
        count: u32,
        listener: Option<&Listener<'_>>,
    ) -> Vec<DeviceHealth> {
        self.identities.resize_with(count as usize, Identity::default);
        let read = |(index, identity): (u32, &mut Identity)| {
            let mut health = device::read(nvml, index, identity);
            health.xids = listener.and_then(|listener| listener.seen(index));
            // A thermal zone does not say whose it is.
            if count == 1 && health.temperature_c.is_none() {
                (health.temperature_c, health.temperature_source) = thermal::of_gpu();
            }
            health
        };
        (0..).zip(&mut self.identities).map(read).collect()
    }

    fn report(
        &mut self,
        driver: Option<String>,
        mut devices: Vec<DeviceHealth>,
        problem: Option<String>,
    ) {
        match self.host.fault() {
            Some(MonitorFault::Hang) => loop {
                std::thread::park();
            },
            Some(MonitorFault::Lies) => self.lies = forebay_protocol::LYING_REPORTS,
            None => {}
        }
        if self.lies > 0 {
            self.lies -= 1;
            devices.iter_mut().for_each(spoil);
        }
        self.sequence += 1;
        let report = MonitorReport {
            protocol: PROTOCOL_VERSION,
            sequence: self.sequence,
            driver,
            devices,
            problem,
        };
        self.host.tell(&report);
    }
}

/// Values that no device can have.
fn spoil(health: &mut DeviceHealth) {
    health.recovery_action = Some(u32::MAX);
    health.temperature_c = Some(u32::MAX);
    health.slowdown_margin_c = Some(i32::MIN);
    health.power_mw = Some(u32::MAX);
    health.memory_used_bytes = Some(u64::MAX);
    health.memory_total_bytes = Some(0);
    health.utilisation_percent = Some(u32::MAX);
}
