//! From what a device says of itself to what may be done with it. Pure: no clock, no device.
//!
//! NVIDIA's own variable decides, the recovery action (NVML field 230), whose "none" means that a
//! new process may use the device at once. Xids stand in for it where it is unknown, and are
//! evidence for a while where it is known. Unknown is an answer of its own.

use std::fmt;

use forebay_protocol::{DeviceHealth, XidSeen};

use super::xid::{XidClass, class_of};
use crate::config::HealthConfig;

/// Bits of the clocks-event reasons that stand for a device in trouble, with their names in NVML:
/// hardware thermal slowdown and external power brake.
const BRAKES: [(u64, &str); 2] =
    [(0x40, "hardware thermal slowdown is active"), (0x80, "the power brake is active")];

/// Numbers that verdicts depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictLimits {
    /// Distance to the slowdown temperature within which a device is not promoted, in degrees
    /// Celsius.
    pub temperature_margin_c: u32,
    /// Time for which an Xid counts where it does not decide, in milliseconds.
    pub xid_recent_ms: u64,
}

impl VerdictLimits {
    /// The limits in a configuration.
    #[must_use]
    pub const fn of(config: &HealthConfig) -> Self {
        Self {
            temperature_margin_c: config.temperature_margin_c,
            xid_recent_ms: config.xid_recent_ms as u64,
        }
    }
}

/// What may be done with a device, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceVerdict {
    /// Nothing speaks against it.
    Fine,
    /// Nothing is known to speak against it, but what decides is not known.
    Unknown(String),
    /// What serves may go on; nothing new should begin on it.
    NoPromotion(String),
    /// Something went wrong on it that the process may not have survived sound: that is to show by
    /// known answers. The device is usable.
    Restart(String),
    /// Unusable until it is reset.
    NeedsReset(String),
    /// Unusable until the machine is rebooted.
    NeedsReboot(String),
    /// It has gone.
    Lost(String),
}

impl DeviceVerdict {
    /// One word, as in metrics and events.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Unknown(_) => "unknown",
            Self::NoPromotion(_) => "no_promotion",
            Self::Restart(_) => "restart",
            Self::NeedsReset(_) => "needs_reset",
            Self::NeedsReboot(_) => "needs_reboot",
            Self::Lost(_) => "lost",
        }
    }

    /// The reason; empty for a device that is fine.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Fine => "",
            Self::Unknown(reason)
            | Self::NoPromotion(reason)
            | Self::Restart(reason)
            | Self::NeedsReset(reason)
            | Self::NeedsReboot(reason)
            | Self::Lost(reason) => reason,
        }
    }

    /// Whether a process may use the device at all.
    #[must_use]
    pub const fn allows_use(&self) -> bool {
        !matches!(self, Self::NeedsReset(_) | Self::NeedsReboot(_) | Self::Lost(_))
    }

    /// Later is worse.
    const fn rank(&self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Unknown(_) => 1,
            Self::Restart(_) => 2,
            Self::NoPromotion(_) => 3,
            Self::NeedsReset(_) => 4,
            Self::NeedsReboot(_) => 5,
            Self::Lost(_) => 6,
        }
    }

    fn reason_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Fine => None,
            Self::Unknown(reason)
            | Self::NoPromotion(reason)
            | Self::Restart(reason)
            | Self::NeedsReset(reason)
            | Self::NeedsReboot(reason)
            | Self::Lost(reason) => Some(reason),
        }
    }

    /// The worse of both; the reasons of both if they are equally bad.
    fn and(mut self, other: Self) -> Self {
        if self.rank() != other.rank() {
            return if self.rank() > other.rank() { self } else { other };
        }
        if let Some(reason) = self.reason_mut() {
            *reason = format!("{reason}; {}", other.reason());
        }
        self
    }
}

impl fmt::Display for DeviceVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => f.write_str(self.name()),
            reason => write!(f, "{}: {reason}", self.name()),
        }
    }
}

/// The verdict on a device.
#[must_use]
pub fn verdict(health: &DeviceHealth, limits: &VerdictLimits) -> DeviceVerdict {
    let mut found = vec![missing(health), recovery(health.recovery_action)];
    if health.lost {
        found.push(DeviceVerdict::Lost("NVML says that the device is lost".to_owned()));
    }
    if health.reset_required {
        found.push(DeviceVerdict::NeedsReset("NVML says that a reset is required".to_owned()));
    }
    if let Some(xids) = &health.xids {
        let of = |xid: &XidSeen| from_xid(xid, health.recovery_action, xids.seen, limits);
        found.extend(xids.recent.iter().rev().map(of).max_by_key(DeviceVerdict::rank));
    }
    found.extend(vetoes(health, limits).into_iter().map(DeviceVerdict::NoPromotion));
    found.into_iter().fold(DeviceVerdict::Fine, DeviceVerdict::and)
}

/// What the recovery action says.
fn recovery(action: Option<u32>) -> DeviceVerdict {
    let of = |text: &str| format!("the driver's recovery action is \"{text}\"");
    match action {
        None | Some(0) => DeviceVerdict::Fine,
        Some(1) => DeviceVerdict::NeedsReset(of("reset")),
        Some(2) => DeviceVerdict::NeedsReboot(of("reboot the node")),
        Some(3) => DeviceVerdict::NoPromotion(of("drain peer-to-peer")),
        Some(4) => DeviceVerdict::NoPromotion(of("drain and reset")),
        Some(5) => DeviceVerdict::NoPromotion(of("recover the IMEX domain")),
        Some(6) => DeviceVerdict::NeedsReset(of("reset the bus")),
        Some(7) => DeviceVerdict::NeedsReboot(of("reboot the system")),
        Some(other) => DeviceVerdict::NoPromotion(format!(
            "the driver's recovery action is {other}, which this release does not know"
        )),
    }
}

/// What one Xid says, given what the device itself wants.
fn from_xid(
    xid: &XidSeen,
    action: Option<u32>,
    seen: u64,
    limits: &VerdictLimits,
) -> DeviceVerdict {
    let XidSeen { xid, age_ms } = *xid;
    let recent = age_ms <= limits.xid_recent_ms;
    let class = class_of(xid);
    let text = format!("Xid {xid} ({seen} so far)");
    match (class, action) {
        (XidClass::Restart, _) if recent => DeviceVerdict::Restart(text),
        // Nothing but a reset or a reboot undoes these, so they do not become old.
        (XidClass::Reset, None) => DeviceVerdict::NeedsReset(text),
        (XidClass::Reboot, None) => DeviceVerdict::NeedsReboot(text),
        (XidClass::Reset | XidClass::Reboot | XidClass::Link, _) if recent => {
            DeviceVerdict::NoPromotion(text)
        }
        _ => DeviceVerdict::Fine,
    }
}

/// What speaks against promotion though the device can be used.
fn vetoes(health: &DeviceHealth, limits: &VerdictLimits) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(rows) = health.remapped_rows {
        if rows.failure {
            found.push("a row of memory could not be replaced".to_owned());
        }
        // NVIDIA lets new work begin while a row waits for a reset; its own variable would object.
        if rows.pending && health.recovery_action != Some(0) {
            found.push("a row of memory waits to be replaced".to_owned());
        }
    }
    if health.recovery_action.is_none()
        && let Some(errors @ 1..) = health.ecc_uncorrected
    {
        found.push(format!("{errors} memory errors could not be corrected"));
    }
    let reasons = health.clocks_event_reasons.unwrap_or(0);
    found.extend(
        BRAKES.iter().filter(|(bit, _)| reasons & bit != 0).map(|(_, text)| (*text).into()),
    );
    if let Some(left) = slowdown_left_c(health)
        && left <= i64::from(limits.temperature_margin_c)
    {
        found.push(format!("{left} degrees Celsius are left until it slows down"));
    }
    found
}

/// Degrees Celsius until the hardware slows down; what the device says itself comes first.
fn slowdown_left_c(health: &DeviceHealth) -> Option<i64> {
    let said = health.slowdown_margin_c.map(i64::from);
    said.or_else(|| Some(i64::from(health.slowdown_c?) - i64::from(health.temperature_c?)))
}

/// Unknown, if something is that the verdict rests on. Devices without row remapping or ECC have no
/// such errors to report, so these may be missing.
fn missing(health: &DeviceHealth) -> DeviceVerdict {
    let missing: Vec<&str> = [
        ("recovery action", health.recovery_action.is_some()),
        ("clocks-event reasons", health.clocks_event_reasons.is_some()),
        ("distance to the slowdown temperature", slowdown_left_c(health).is_some()),
    ]
    .into_iter()
    .filter_map(|(name, known)| (!known).then_some(name))
    .collect();
    match missing.as_slice() {
        [] => DeviceVerdict::Fine,
        missing => DeviceVerdict::Unknown(format!("not known: {}", missing.join(", "))),
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
