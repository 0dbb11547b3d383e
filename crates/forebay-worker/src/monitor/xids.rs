//! Listens to the driver's errors (Xids) of all devices that have such events, and keeps the last
//! ones of each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use forebay_protocol::{XIDS_MAX, XidSeen, Xids};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::raw;

/// Longest single wait for an event: NVML cannot be interrupted in it.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Number of an Xid that NVML does not know.
const XID_UNKNOWN: u64 = 999;

/// The Xids of one device.
#[derive(Debug, Default)]
struct History {
    seen: u64,
    recent: VecDeque<(u64, Instant)>,
}

impl History {
    fn note(&mut self, xid: u64, now: Instant) {
        self.seen += 1;
        if self.recent.len() == XIDS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((xid, now));
    }

    fn shown(&self, now: Instant) -> Xids {
        let age = |at: Instant| now.saturating_duration_since(at).as_millis();
        let seen = |(xid, at): &(u64, Instant)| XidSeen {
            xid: *xid,
            age_ms: u64::try_from(age(*at)).unwrap_or(u64::MAX),
        };
        Xids { seen: self.seen, recent: self.recent.iter().map(seen).collect() }
    }
}

/// Listens on behalf of some devices.
pub(super) struct Listener<'n> {
    /// How many devices there are, with events or without.
    devices: u32,
    set: Option<EventSet<'n>>,
    /// Those that have events, with their numbers.
    heard: Vec<(u32, Device<'n>, History)>,
}

impl<'n> Listener<'n> {
    /// Asks for the events of the first `devices` devices.
    pub(super) fn new(nvml: &'n Nvml, devices: u32) -> Self {
        let has_events = |index| {
            let device = nvml.device_by_index(index).ok()?;
            let types = device.supported_event_types().ok()?;
            types.contains(EventTypes::CRITICAL_XID_ERROR).then_some((index, device))
        };
        let mut able: Vec<_> = (0..devices).filter_map(has_events).collect();
        // A refusal takes the whole set along: begin again without the device that it came from.
        let set = loop {
            if able.is_empty() {
                break None;
            }
            match register(nvml, &able) {
                Ok(set) => break Some(set),
                Err(Some(refusing)) => drop(able.remove(refusing)),
                Err(None) => break None,
            }
        };
        if set.is_none() {
            able.clear();
        }
        let heard = able.into_iter().map(|(index, device)| (index, device, History::default()));
        Self { devices, set, heard: heard.collect() }
    }

    /// How many devices it was made for.
    pub(super) fn devices(&self) -> u32 {
        self.devices
    }

    /// Waits for an event for about `left`, or less. Whether there was an Xid.
    pub(super) fn wait(&mut self, left: Duration) -> bool {
        let wait = left.min(WAIT_MAX);
        let Some(set) = &self.set else {
            std::thread::sleep(left);
            return false;
        };
        let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(1);
        let event = match set.wait(millis) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => return false,
            Err(error) => {
                // A lost device may make it fail at once, each time.
                tracing::debug!("no events: {error}");
                std::thread::sleep(wait);
                return false;
            }
        };
        let xid = match event.event_data {
            Some(XidError::Value(xid)) => xid,
            Some(XidError::Unknown) => XID_UNKNOWN,
            None => return false,
        };
        let now = Instant::now();
        let device = event.device;
        match self.heard.iter_mut().find(|(_, known, _)| raw::same(known, &device)) {
            Some((index, _, history)) => {
                tracing::debug!(index, xid, "the driver reports an error of a device");
                history.note(xid, now);
            }
            // Of an instance of a divided device, or of a handle that has changed: any may be meant.
            None => {
                tracing::debug!(xid, "the driver reports an error of some device");
                self.heard.iter_mut().for_each(|(_, _, history)| history.note(xid, now));
            }
        }
        true
    }

    /// The Xids of device number `index`; `None` if it has no such events.
    pub(super) fn seen(&self, index: u32) -> Option<Xids> {
        let (_, _, history) = self.heard.iter().find(|(heard, _, _)| *heard == index)?;
        Some(history.shown(Instant::now()))
    }
}

/// A set with the events of all `devices`. The error is the place of the one that refused, if it was
/// a device.
fn register<'n>(
    nvml: &'n Nvml,
    devices: &[(u32, Device<'n>)],
) -> Result<EventSet<'n>, Option<usize>> {
    let mut set = nvml.create_event_set().map_err(|_| None)?;
    for (place, (_, device)) in devices.iter().enumerate() {
        let added = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
        set = added.map_err(|_| Some(place))?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_named_and_all_are_counted() {
        let start = Instant::now();
        let mut history = History::default();
        for xid in 0..40 {
            history.note(xid, start + Duration::from_millis(xid));
        }
        let shown = history.shown(start + Duration::from_millis(100));
        assert_eq!(shown.seen, 40);
        let expected: Vec<XidSeen> =
            (24..40).map(|xid| XidSeen { xid, age_ms: 100 - xid }).collect();
        assert_eq!(shown.recent, expected);
    }
}
