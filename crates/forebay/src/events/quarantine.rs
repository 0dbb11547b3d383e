//! Which devices an earlier run had put away. Pure: events in, a list out.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::kind::EventKind;
use super::record::{Event, EventId};

/// A quarantine that nothing has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingQuarantine {
    /// The device.
    pub device: String,
    /// Why, in a word or two.
    pub reason: String,
    /// Why, in full.
    pub detail: String,
    /// When it was tried again, in milliseconds from then; `None` if only a person can release it.
    pub probe_after_ms: Option<u64>,
    /// Since when, by the time of day.
    pub quarantined_at: SystemTime,
    /// The system has not been booted since: what only a reboot cures is not cured.
    pub same_boot: bool,
    /// The event, for what follows from it.
    pub event: EventId,
}

/// The quarantines of `events` that stand: those of devices that have neither been released nor
/// served since, by the name of the device. Of several in a row the last one counts. `boot` is the
/// boot of the system now, as [`boot_id`](super::boot_id) gives it.
#[must_use]
pub fn standing_quarantines(events: &[Event], boot: &str) -> Vec<StandingQuarantine> {
    let mut standing = BTreeMap::new();
    for event in events {
        match &event.kind {
            EventKind::Quarantined { device, reason, detail, probe_after_ms } => {
                let quarantine = StandingQuarantine {
                    device: device.clone(),
                    reason: reason.clone(),
                    detail: detail.clone(),
                    probe_after_ms: *probe_after_ms,
                    quarantined_at: event.wall,
                    // A boot that is not known may be this one.
                    same_boot: boot.is_empty() || event.boot.is_empty() || event.boot == boot,
                    event: event.id,
                };
                standing.insert(device.as_str(), quarantine);
            }
            EventKind::Released { device, .. } => {
                standing.remove(device.as_str());
            }
            kind => {
                if let Some(device) = kind.serves() {
                    standing.remove(device);
                }
            }
        }
    }
    standing.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::{event, slot};

    fn quarantined(id: u64, device: &str, reason: &str) -> Event {
        let (device, reason) = (device.to_owned(), reason.to_owned());
        let kind = EventKind::Quarantined {
            device,
            reason,
            detail: "5 restarts in 60 s".to_owned(),
            probe_after_ms: Some(60_000),
        };
        event(id, 0, kind)
    }

    fn devices(events: &[Event]) -> Vec<(String, u64)> {
        let standing = standing_quarantines(events, "boot");
        standing.into_iter().map(|standing| (standing.device, standing.event.0)).collect()
    }

    #[test]
    fn it_stands_until_the_device_is_released_or_serves() {
        let put_away = quarantined(1, "cuda:0", "crashes");
        let by = "an operator".to_owned();
        let released = EventKind::Released { device: "cuda:0".to_owned(), by };
        let stands = [("cuda:0".to_owned(), 1)];
        assert_eq!(devices(&[]), []);
        assert_eq!(devices(std::slice::from_ref(&put_away)), stands);
        for (ends, later) in [
            (true, released.clone()),
            (true, slot("cuda:0", "probation", "serving")),
            (false, slot("cuda:0", "quarantined", "starting")),
            (false, slot("cuda:1", "probation", "serving")),
        ] {
            let left = devices(&[put_away.clone(), event(2, 0, later)]);
            assert_eq!(left, if ends { &[][..] } else { &stands[..] });
        }
        // Before it, none of this counts.
        assert_eq!(devices(&[event(0, 0, released), put_away]), stands);
    }

    #[test]
    fn of_several_the_last_counts_and_devices_are_apart() {
        let events = [
            quarantined(1, "cuda:1", "crashes"),
            quarantined(2, "cuda:0", "crashes"),
            quarantined(3, "cuda:1", "wrong answers"),
        ];
        let standing = standing_quarantines(&events, "boot");
        assert_eq!(devices(&events), [("cuda:0".to_owned(), 2), ("cuda:1".to_owned(), 3)]);
        assert_eq!(standing[1].reason, "wrong answers");
        assert_eq!(standing[1].quarantined_at, events[2].wall);
        assert_eq!(standing[1].probe_after_ms, Some(60_000));
    }

    #[test]
    fn a_boot_that_is_not_known_may_be_this_one() {
        let mut put_away = quarantined(1, "cuda:0", "crashes");
        let mut same = |event_boot: &str, boot: &str| {
            put_away.boot = event_boot.to_owned();
            standing_quarantines(std::slice::from_ref(&put_away), boot)[0].same_boot
        };
        assert!(same("boot", "boot"));
        assert!(!same("boot", "other"));
        assert!(same("", ""));
        assert!(same("", "boot"));
        assert!(same("boot", ""));
    }
}
