//! One event with what led to it and what came of it. Pure: events in, steps out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::kind::EventKind;
use super::record::{Event, EventId};

/// Most steps of a story.
const STEPS_MAX: usize = 256;

/// An event with its causes and consequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story<'a> {
    /// The root cause first, then everything in the order in which it happened; at most 256.
    pub steps: Vec<Step<'a>>,
    /// Consequences beyond that.
    pub steps_left_out: usize,
    /// The cause of the first step, if it is not in the log (any more).
    pub missing_cause: Option<EventId>,
    /// The devices in the story that do not serve at the end of the log.
    pub not_serving: Vec<&'a str>,
}

/// One event of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// What happened.
    pub event: &'a Event,
    /// Time since the step before; zero for the first.
    pub after: Duration,
    /// The event that was asked about.
    pub is_asked: bool,
}

/// The story of event `id`: its causes back to the first, everything that followed from it, and
/// what happened to its devices until they served again. `events` are those of a log, by rising
/// number. `None` if the event is not among them.
#[must_use]
pub fn explain(events: &[Event], id: EventId) -> Option<Story<'_>> {
    let at = |id: EventId| events.binary_search_by_key(&id, |event| event.id).ok();
    // The number of a lost event is within the range of the event that says so.
    let asked = at(id).or_else(|| {
        let before = events.partition_point(|event| event.id < id).checked_sub(1)?;
        events.get(before).is_some_and(|event| event.end() > id.0).then_some(before)
    })?;
    let mut chosen = BTreeSet::from([asked]);
    let mut first = asked;
    let mut missing_cause = None;
    // A cause has a lower number, so this ends, whatever a log says.
    while let Some(cause) = events.get(first).and_then(cause_of) {
        match at(cause).filter(|cause| *cause < first) {
            Some(cause) => first = cause,
            None => {
                missing_cause = Some(cause);
                break;
            }
        }
        chosen.insert(first);
    }
    let steps_left_out = follow(events, asked, &mut chosen);
    let mut steps: Vec<Step<'_>> = Vec::with_capacity(chosen.len());
    for place in chosen {
        let Some(event) = events.get(place) else { continue };
        let after = steps.last().map(|step| event.since(step.event)).unwrap_or_default();
        steps.push(Step { event, after, is_asked: place == asked });
    }
    let mut serves = BTreeMap::new();
    for event in steps.iter().map(|step| step.event) {
        if let EventKind::SlotChanged { device, .. } = &event.kind {
            serves.insert(device.as_str(), event.kind.serves().is_some());
        }
    }
    let not_serving = serves.into_iter().filter_map(|(device, serves)| (!serves).then_some(device));
    Some(Story { not_serving: not_serving.collect(), steps, steps_left_out, missing_cause })
}

fn cause_of(event: &Event) -> Option<EventId> {
    event.cause.filter(|cause| *cause < event.id)
}

/// Adds what followed from the event at `asked`; returns how much of it had no room.
fn follow(events: &[Event], asked: usize, chosen: &mut BTreeSet<usize>) -> usize {
    let Some(start) = events.get(asked) else { return 0 };
    let mut consequences = BTreeSet::from([start.id]);
    // Devices that do not serve because of it: whatever happens to them belongs to it.
    let mut down: BTreeSet<&str> = failing(&start.kind).into_iter().collect();
    let mut left_out = 0;
    for (place, event) in events.iter().enumerate().skip(asked + 1) {
        let kind = &event.kind;
        let follows = cause_of(event).is_some_and(|cause| consequences.contains(&cause));
        let concerns = match kind {
            EventKind::RuntimeStarted { .. } | EventKind::RuntimeStopped { .. } => !down.is_empty(),
            _ => kind.device().is_some_and(|device| down.contains(device)),
        };
        if !follows && !concerns {
            continue;
        }
        if follows {
            consequences.insert(event.id);
        }
        if let Some(device) = kind.serves() {
            down.remove(device);
        }
        down.extend(failing(kind));
        if chosen.len() < STEPS_MAX {
            chosen.insert(place);
        } else {
            left_out += 1;
        }
    }
    left_out
}

/// The device that does not serve, as far as this event says.
fn failing(kind: &EventKind) -> Option<&str> {
    match kind {
        EventKind::SlotChanged { device, .. } if kind.serves().is_none() => Some(device),
        EventKind::WorkerEnded { device, .. } | EventKind::Quarantined { device, .. } => {
            Some(device)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::{event, slot};

    fn ended(device: &str) -> EventKind {
        EventKind::WorkerEnded {
            device: device.to_owned(),
            incarnation: 1,
            pid: Some(4242),
            reason: "signal 9".to_owned(),
            log: String::new(),
        }
    }

    fn level(from: &str, to: &str) -> EventKind {
        let (from, to) = (from.to_owned(), to.to_owned());
        EventKind::LevelChanged { from, to, reason: String::new() }
    }

    /// Two crashes at a time, each device healing by itself.
    fn crashes() -> Vec<Event> {
        vec![
            event(1, 0, ended("cuda:0")),
            event(2, 1, slot("cuda:0", "serving", "exited")),
            event(3, 2, level("gpu(2)", "gpu(1)")),
            event(4, 0, ended("cuda:1")),
            event(5, 4, slot("cuda:1", "serving", "exited")),
            event(6, 0, slot("cuda:0", "exited", "starting")),
            event(7, 6, slot("cuda:0", "starting", "serving")),
            event(8, 7, level("cpu", "gpu(1)")),
            event(9, 0, slot("cuda:0", "serving", "suspect")),
            event(10, 5, slot("cuda:1", "exited", "backoff")),
        ]
    }

    fn told(events: &[Event], id: u64) -> Vec<u64> {
        let story = explain(events, EventId(id)).expect("it is there");
        story.steps.iter().map(|step| step.event.id.0).collect()
    }

    #[test]
    fn a_story_goes_back_to_the_first_cause_and_on_until_the_device_serves() {
        let events = crashes();
        assert_eq!(told(&events, 1), [1, 2, 3, 6, 7]);
        assert_eq!(told(&events, 2), [1, 2, 3, 6, 7]);
        assert_eq!(told(&events, 3), [1, 2, 3]);
        assert_eq!(told(&events, 5), [4, 5, 10]);
        assert_eq!(told(&events, 6), [6, 7, 8]);
        assert_eq!(told(&events, 8), [6, 7, 8]);
        assert_eq!(explain(&events, EventId(11)), None);
        let story = explain(&events, EventId(5)).expect("it is there");
        assert_eq!(story.not_serving, ["cuda:1"]);
        assert_eq!(story.steps[1].after, Duration::from_millis(1));
        assert!(story.steps[1].is_asked && !story.steps[0].is_asked);
    }

    #[test]
    fn a_cause_that_the_ring_has_dropped_is_named() {
        let events = &crashes()[4..];
        let story = explain(events, EventId(5)).expect("it is there");
        assert_eq!(story.missing_cause, Some(EventId(4)));
        assert_eq!(told(events, 5), [5, 10]);
    }

    #[test]
    fn a_number_that_was_lost_is_explained_by_the_event_that_says_so() {
        let events = [event(3, 0, EventKind::Lost { events: 4 }), event(7, 0, ended("cpu"))];
        assert_eq!(told(&events, 5), [3]);
        assert_eq!(told(&events, 6), [3]);
        assert_eq!(told(&events, 7), [7]);
        assert_eq!(explain(&events, EventId(2)), None);
    }

    #[test]
    fn causes_that_cannot_be_end_the_story() {
        let events = [event(1, 2, ended("cpu")), event(2, 2, ended("cuda:0"))];
        assert_eq!(told(&events, 2), [2]);
        assert_eq!(told(&events, 1), [1]);
    }

    #[test]
    fn a_long_story_says_what_it_leaves_out() {
        let mut events = vec![event(1, 0, ended("cpu"))];
        events.extend((2..1_000).map(|id| event(id, 1, level("cpu", "down"))));
        let story = explain(&events, EventId(1)).expect("it is there");
        assert_eq!(story.steps.len(), STEPS_MAX);
        assert_eq!(story.steps_left_out, 999 - STEPS_MAX);
    }
}
