//! Values that no device can have are unknown: a library that answers nonsense must neither take a
//! good device away nor make a bad one look good. Pure.

use std::time::Duration;

use forebay_protocol::DeviceHealth;

/// Recovery actions are small numbers; one that is only new is kept, and counts against the device.
const RECOVERY_ACTION_MAX: u32 = 255;
/// Silicon works no more far below this, in degrees Celsius.
const TEMPERATURE_MAX_C: u32 = 200;
/// No single device draws this much, in milliwatts.
const POWER_MAX_MW: u32 = 20_000_000;

/// Forgets every value that cannot be. The names of what was forgotten.
pub(super) fn forget_nonsense(health: &mut DeviceHealth) -> Vec<&'static str> {
    let mut forgotten = Vec::new();
    let mut check = |name, value: &mut Option<u32>, high: u32| {
        if value.is_some_and(|value| value > high) {
            *value = None;
            forgotten.push(name);
        }
    };
    check("recovery action", &mut health.recovery_action, RECOVERY_ACTION_MAX);
    check("temperature", &mut health.temperature_c, TEMPERATURE_MAX_C);
    check("slowdown temperature", &mut health.slowdown_c, TEMPERATURE_MAX_C);
    check("shutdown temperature", &mut health.shutdown_c, TEMPERATURE_MAX_C);
    check("power", &mut health.power_mw, POWER_MAX_MW);
    check("power limit", &mut health.power_limit_mw, POWER_MAX_MW);
    check("utilisation", &mut health.utilisation_percent, 100);
    if health.slowdown_margin_c.is_some_and(|margin| margin.unsigned_abs() > TEMPERATURE_MAX_C) {
        health.slowdown_margin_c = None;
        forgotten.push("distance to the slowdown temperature");
    }
    if health.temperature_c.is_none() {
        health.temperature_source = None;
    }
    // A threshold of nothing is how some drivers say that they have none.
    for threshold in [&mut health.slowdown_c, &mut health.shutdown_c] {
        *threshold = threshold.filter(|value| *value > 0);
    }
    if let (Some(used), Some(total)) = (health.memory_used_bytes, health.memory_total_bytes)
        && used > total
    {
        (health.memory_used_bytes, health.memory_total_bytes) = (None, None);
        forgotten.push("memory");
    }
    forgotten
}

/// Forgets the Xids that are older than this.
pub(super) fn forget_xids_before(health: &mut DeviceHealth, age: Duration) {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    if let Some(xids) = &mut health.xids {
        xids.recent.retain(|xid| xid.age_ms < age_ms);
    }
}

#[cfg(test)]
mod tests {
    use forebay_protocol::{XidSeen, Xids};

    use super::*;

    #[test]
    fn what_can_be_stays_and_what_cannot_goes() {
        let good = DeviceHealth {
            recovery_action: Some(8),
            temperature_c: Some(TEMPERATURE_MAX_C),
            slowdown_c: Some(95),
            slowdown_margin_c: Some(-4),
            power_mw: Some(1_000_000),
            power_limit_mw: Some(0),
            utilisation_percent: Some(100),
            memory_used_bytes: Some(7),
            memory_total_bytes: Some(7),
            ..DeviceHealth::default()
        };
        let mut health = good.clone();
        assert!(forget_nonsense(&mut health).is_empty());
        assert_eq!(health, good);
        let mut health = DeviceHealth {
            recovery_action: Some(u32::MAX),
            temperature_c: Some(201),
            slowdown_c: Some(0),
            slowdown_margin_c: Some(i32::MIN),
            power_mw: Some(u32::MAX),
            utilisation_percent: Some(101),
            memory_used_bytes: Some(8),
            memory_total_bytes: Some(7),
            ..DeviceHealth::default()
        };
        let forgotten = forget_nonsense(&mut health);
        assert_eq!(forgotten.len(), 6, "{forgotten:?}");
        let left = DeviceHealth { power_limit_mw: None, ..health };
        assert_eq!(left, DeviceHealth::default());
    }

    #[test]
    fn an_xid_that_the_device_has_got_over_decides_nothing() {
        let seen = |age_ms| XidSeen { xid: 119, age_ms };
        let recent = vec![seen(90_000), seen(500)];
        let xids = Some(Xids { seen: 2, recent });
        let mut health = DeviceHealth { xids, ..DeviceHealth::default() };
        forget_xids_before(&mut health, Duration::from_secs(10));
        assert_eq!(health.xids.expect("kept").recent, [seen(500)]);
    }
}
