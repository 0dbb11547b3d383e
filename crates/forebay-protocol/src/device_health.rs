//! What a device says of itself, told by a process of its own that asks NVIDIA's management library
//! (NVML): a call into it may never return, so nobody else makes one. The host starts that process
//! with a [`MonitorRequest`]; it prints one [`MonitorReport`] per line, and hears
//! [`MonitorCommand`]s, one per line too, until its standard input ends.
//!
//! A signal that a platform does not have, or that could not be read, is `None`: unknown, which is
//! neither good nor bad. Nothing is decided here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::HandshakeError;

/// Environment variable that turns a process into a device monitor. Its value is a
/// [`MonitorRequest`].
pub const DEVICE_MONITOR_ENV: &str = "FOREBAY_DEVICE_MONITOR";

/// Longest line that a monitor prints or hears, in bytes, its end included.
pub const MONITOR_LINE_BYTES_MAX: usize = 256 * 1024;

/// Xids of one device that a report names; older ones are counted only.
pub const XIDS_MAX: usize = 16;

/// Processes of one device that a report names; all are counted.
pub const PROCESSES_MAX: usize = 64;

/// What a monitor is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorRequest {
    /// Time from one report to the next, in milliseconds. After an Xid there is one sooner.
    pub interval_ms: u32,
    /// NVML's library; `None` leaves it to the dynamic linker to find `libnvidia-ml.so.1`.
    pub library: Option<PathBuf>,
    /// Whether [`MonitorCommand::Inject`] is obeyed.
    pub faults: bool,
}

/// What a running monitor may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorCommand {
    /// Misbehave, to see that the host copes.
    Inject(MonitorFault),
}

/// How a monitor may misbehave on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorFault {
    /// Report nothing more, as if a call into NVML never returned.
    Hang,
    /// Report values that no device can have, for the next [`LYING_REPORTS`] reports.
    Lies,
}

/// Reports that [`MonitorFault::Lies`] spoils.
pub const LYING_REPORTS: u32 = 10;

/// Where a temperature was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemperatureSource {
    /// NVML.
    Nvml,
    /// A thermal zone of the kernel whose type names a GPU, as on Jetson.
    ThermalZone,
}

/// One Xid, the driver's number for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XidSeen {
    /// The number.
    pub xid: u64,
    /// How long ago it was heard of, in milliseconds.
    pub age_ms: u64,
}

/// Xids of a device since its monitor has listened. NVML keeps only the last one between two looks,
/// so several at once may count as one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xids {
    /// How many there were.
    pub seen: u64,
    /// The last [`XIDS_MAX`] of them, oldest first.
    pub recent: Vec<XidSeen>,
}

/// Rows of device memory that the hardware has replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemappedRows {
    /// Rows replaced for corrected errors.
    pub corrected: u64,
    /// Rows replaced for uncorrected errors.
    pub uncorrected: u64,
    /// A row is replaced at the next reset.
    pub pending: bool,
    /// A row could not be replaced.
    pub failure: bool,
}

/// State of one device. `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceHealth {
    /// NVML's number of it, which need not be CUDA's.
    pub index: u32,
    /// Identity that stays the same across restarts, such as `GPU-1b2c…`.
    pub uuid: Option<String>,
    /// Place on the PCI bus, such as `00000000:19:00.0`.
    pub pci: Option<String>,
    /// What the driver calls it.
    pub name: Option<String>,
    /// A call said that the device is lost: it has fallen off the bus, or cannot be reached.
    pub lost: bool,
    /// A call said that the device must be reset before it can be used.
    pub reset_required: bool,
    /// What NVIDIA's driver wants done (NVML field 230): 0 nothing, 1 reset, 2 reboot of the node,
    /// 3 drain peer-to-peer, 4 drain and reset, 5 recovery of the IMEX domain, 6 reset of the bus,
    /// 7 reboot of the system.
    pub recovery_action: Option<u32>,
    /// Xids since the monitor has listened.
    pub xids: Option<Xids>,
    /// Memory errors since the driver was loaded that could not be corrected.
    pub ecc_uncorrected: Option<u64>,
    /// Rows of memory that have been replaced.
    pub remapped_rows: Option<RemappedRows>,
    /// Why clocks are lower than they could be, as NVML's bits.
    pub clocks_event_reasons: Option<u64>,
    /// Temperature of the GPU in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Where the temperature was read.
    pub temperature_source: Option<TemperatureSource>,
    /// Temperature at which the hardware slows itself down, in degrees Celsius.
    pub slowdown_c: Option<u32>,
    /// Temperature at which the device shuts itself down, in degrees Celsius.
    pub shutdown_c: Option<u32>,
    /// Degrees Celsius that are left until the hardware slows down; negative beyond it.
    pub slowdown_margin_c: Option<i32>,
    /// Power drawn, in milliwatts.
    pub power_mw: Option<u32>,
    /// Power limit in force, in milliwatts.
    pub power_limit_mw: Option<u32>,
    /// Device memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Device memory in all, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Share of the last sampling period in which a kernel ran, in percent.
    pub utilisation_percent: Option<u32>,
    /// Packets that had to be sent again over PCI Express.
    pub pcie_replays: Option<u64>,
    /// How many processes compute on the device.
    pub processes: Option<u32>,
    /// Ids of at most [`PROCESSES_MAX`] of them, as the driver's process space counts.
    pub pids: Option<Vec<u32>>,
}

/// One line of a monitor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorReport {
    /// [`PROTOCOL_VERSION`](crate::PROTOCOL_VERSION) of the monitor.
    pub protocol: u32,
    /// Number of this report, from 1.
    pub sequence: u64,
    /// Release of the driver, such as `580.65.06`.
    pub driver: Option<String>,
    /// The devices, in NVML's order.
    pub devices: Vec<DeviceHealth>,
    /// Why nothing is known of any device, if so.
    pub problem: Option<String>,
}

impl DeviceHealth {
    /// Every signal by name, and whether it is known.
    #[must_use]
    pub fn signals(&self) -> [(&'static str, bool); 13] {
        [
            ("recovery action", self.recovery_action.is_some()),
            ("Xid events", self.xids.is_some()),
            ("ECC errors", self.ecc_uncorrected.is_some()),
            ("remapped rows", self.remapped_rows.is_some()),
            ("clocks-event reasons", self.clocks_event_reasons.is_some()),
            ("temperature", self.temperature_c.is_some()),
            ("slowdown limit", self.slowdown_c.or(self.slowdown_margin_c.map(|_| 0)).is_some()),
            ("power", self.power_mw.is_some()),
            ("power limit", self.power_limit_mw.is_some()),
            ("memory", self.memory_used_bytes.is_some()),
            ("utilisation", self.utilisation_percent.is_some()),
            ("PCIe replays", self.pcie_replays.is_some()),
            ("processes", self.processes.is_some()),
        ]
    }
}

impl MonitorRequest {
    /// The value of [`DEVICE_MONITOR_ENV`].
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] if the path is not UTF-8.
    pub fn encode(&self) -> Result<String, HandshakeError> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads the value of [`DEVICE_MONITOR_ENV`].
    ///
    /// # Errors
    /// [`HandshakeError::Invalid`] if it is no request.
    pub fn decode(value: &str) -> Result<Self, HandshakeError> {
        Ok(serde_json::from_str(value)?)
    }
}

impl MonitorCommand {
    /// The line to write, with its end.
    ///
    /// # Errors
    /// [`HandshakeError`] in theory only: a command has no content that could not be written.
    pub fn encode(&self) -> Result<String, HandshakeError> {
        encode(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is too long or no command.
    pub fn decode(line: &[u8]) -> Result<Self, HandshakeError> {
        decode(line)
    }
}

impl MonitorReport {
    /// The line to print, with its end.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is longer than [`MONITOR_LINE_BYTES_MAX`].
    pub fn encode(&self) -> Result<String, HandshakeError> {
        encode(self)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`HandshakeError`] if it is too long or no report.
    pub fn decode(line: &[u8]) -> Result<Self, HandshakeError> {
        decode(line)
    }
}

fn encode<T: Serialize>(message: &T) -> Result<String, HandshakeError> {
    let line = serde_json::to_string(message)? + "\n";
    within(line.len()).map(|()| line)
}

fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, HandshakeError> {
    within(line.len())?;
    Ok(serde_json::from_slice(line)?)
}

fn within(found: usize) -> Result<(), HandshakeError> {
    match found <= MONITOR_LINE_BYTES_MAX {
        true => Ok(()),
        false => Err(HandshakeError::TooLarge { found, allowed: MONITOR_LINE_BYTES_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of which everything is known.
    fn healthy() -> DeviceHealth {
        DeviceHealth {
            index: 1,
            uuid: Some("GPU-1".into()),
            pci: Some("00000000:19:00.0".into()),
            name: Some("a device".into()),
            lost: false,
            reset_required: false,
            recovery_action: Some(0),
            xids: Some(Xids { seen: 40, recent: vec![XidSeen { xid: 13, age_ms: 5 }; XIDS_MAX] }),
            ecc_uncorrected: Some(u64::MAX),
            remapped_rows: Some(RemappedRows {
                corrected: 1,
                uncorrected: 2,
                pending: true,
                failure: false,
            }),
            clocks_event_reasons: Some(0x44),
            temperature_c: Some(60),
            temperature_source: Some(TemperatureSource::ThermalZone),
            slowdown_c: Some(90),
            shutdown_c: Some(95),
            slowdown_margin_c: Some(-1),
            power_mw: Some(700_000),
            power_limit_mw: Some(700_000),
            memory_used_bytes: Some(1 << 37),
            memory_total_bytes: Some(1 << 38),
            utilisation_percent: Some(100),
            pcie_replays: Some(3),
            processes: Some(PROCESSES_MAX as u32),
            pids: Some(vec![u32::MAX; PROCESSES_MAX]),
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let request = MonitorRequest {
            interval_ms: 1_000,
            library: Some("/opt/a b/libnvidia-ml.so.1".into()),
            faults: true,
        };
        let value = request.encode().expect("encodes");
        assert_eq!(MonitorRequest::decode(&value).expect("decodes"), request);
        for fault in [MonitorFault::Hang, MonitorFault::Lies] {
            let command = MonitorCommand::Inject(fault);
            let line = command.encode().expect("encodes");
            assert_eq!(line.lines().count(), 1);
            assert_eq!(MonitorCommand::decode(line.as_bytes()).expect("decodes"), command);
        }
        let report = MonitorReport {
            protocol: crate::PROTOCOL_VERSION,
            sequence: 7,
            driver: Some("580.65.06".into()),
            devices: vec![healthy(), DeviceHealth::default()],
            problem: None,
        };
        let line = report.encode().expect("encodes");
        assert!(line.ends_with('\n') && line.lines().count() == 1);
        assert_eq!(MonitorReport::decode(line.as_bytes()).expect("decodes"), report);
    }

    #[test]
    fn sixty_four_full_devices_fit_and_more_is_refused() {
        let mut report = MonitorReport { devices: vec![healthy(); 64], ..Default::default() };
        assert!(report.encode().expect("fits").len() <= MONITOR_LINE_BYTES_MAX);
        report.problem = Some("x".repeat(MONITOR_LINE_BYTES_MAX));
        assert!(matches!(report.encode(), Err(HandshakeError::TooLarge { .. })));
        let flood = vec![b' '; MONITOR_LINE_BYTES_MAX + 1];
        assert!(matches!(MonitorReport::decode(&flood), Err(HandshakeError::TooLarge { .. })));
        assert!(MonitorReport::decode(b"usage: program").is_err());
    }

    #[test]
    fn nothing_is_known_of_a_device_that_says_nothing() {
        assert!(DeviceHealth::default().signals().iter().all(|(_, known)| !known));
        assert!(healthy().signals().iter().all(|(_, known)| *known));
    }
}
