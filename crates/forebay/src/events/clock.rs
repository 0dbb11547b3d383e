//! The clocks of an event: since boot, which never jumps, and the time of day; and which boot it is.

use std::time::SystemTime;

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Longest boot id that is taken over, in bytes; the kernel's has 36.
pub(super) const BOOT_BYTES_MAX: usize = 64;

/// The id of the current boot of the system; empty if the system does not say.
#[must_use]
pub fn boot_id() -> String {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let id = text.trim();
    if id.len() <= BOOT_BYTES_MAX { id.to_owned() } else { String::new() }
}

/// Nanoseconds since boot with times of sleep, and the time of day.
pub(super) fn now() -> (u64, SystemTime) {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(since.tv_nsec).unwrap_or_default();
    (seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds), SystemTime::now())
}
