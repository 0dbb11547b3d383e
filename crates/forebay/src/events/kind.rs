//! What can happen, as it is kept and as it is said in words. Names of devices, states and levels
//! are text, so that any later release can read an older log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest text of an event, in bytes as JSON.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;

/// Most devices that are listed.
const DEVICES_MAX: usize = 72;

/// Longest name of a device in such a list, in bytes as JSON.
const DEVICE_BYTES_MAX: usize = 16;

/// What happened. As JSON, `kind` holds the name in lower case with underscores.
///
/// Texts of more than 1,024 bytes are cut, and say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A runtime started.
    RuntimeStarted {
        /// Its release.
        release: String,
        /// The model that it serves.
        model: String,
        /// What tells that model's embeddings from those of others.
        fingerprint: String,
        /// The devices of its rungs, best first.
        devices: Vec<String>,
    },
    /// A runtime ended in order.
    RuntimeStopped {
        /// Everything that had been accepted was answered in time.
        drained: bool,
    },
    /// The slot of a device went from one state to another.
    SlotChanged {
        /// The device.
        device: String,
        /// The worker's number on this device, from 1.
        incarnation: u64,
        /// Name of the state before.
        from: String,
        /// Name of the state now.
        to: String,
        /// Why, in words.
        reason: String,
    },
    /// The service level changed.
    LevelChanged {
        /// The level before.
        from: String,
        /// The level now.
        to: String,
        /// Why, in words.
        reason: String,
    },
    /// The operator capped the service level, or lifted the cap.
    LevelPinned {
        /// No level above this one is used; `None` if any may be.
        level: Option<String>,
    },
    /// A worker process ended.
    WorkerEnded {
        /// Its device.
        device: String,
        /// Its number on this device.
        incarnation: u64,
        /// Its process, if one had been started.
        pid: Option<u32>,
        /// How it ended, in words.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// A worker gave wrong answers to texts whose answers are known.
    CanaryFailed {
        /// Its device.
        device: String,
        /// Its number on this device.
        incarnation: u64,
        /// What was wrong.
        reason: String,
        /// Embeddings that it has handed out since it last gave right ones: they are suspect.
        replies: u64,
    },
    /// A device was put away because it failed too often or too badly.
    Quarantined {
        /// The device.
        device: String,
        /// Why, in a word or two.
        reason: String,
        /// Why, in full.
        detail: String,
        /// When it is tried again, in milliseconds; `None` if only a person can release it.
        probe_after_ms: Option<u64>,
    },
    /// A device that had been put away may be used again.
    Released {
        /// The device.
        device: String,
        /// Who or what released it.
        by: String,
    },
    /// What is known about the health of a device changed.
    DeviceHealth {
        /// The device.
        device: String,
        /// The verdict now.
        verdict: String,
        /// What it rests on.
        detail: String,
    },
    /// Texts that were late in a worker were given to another one as well.
    Hedged {
        /// The device that was late.
        device: String,
        /// Texts.
        rows: u64,
    },
    /// Texts were not computed again because too many had been already.
    RerunBudgetExhausted {
        /// Texts.
        rows: u64,
    },
    /// A fault was brought about on purpose.
    FaultInjected {
        /// The device; `None` if it concerns no single one.
        device: Option<String>,
        /// The name of the fault.
        fault: String,
    },
    /// This event and those with the numbers after it, so many in all, could not be written.
    Lost {
        /// How many.
        events: u64,
    },
    /// An event that only another release knows.
    Unknown {
        /// Its record.
        payload: String,
    },
}

impl EventKind {
    /// The device that it is about, if it is about one.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::SlotChanged { device, .. }
            | Self::WorkerEnded { device, .. }
            | Self::CanaryFailed { device, .. }
            | Self::Quarantined { device, .. }
            | Self::Released { device, .. }
            | Self::DeviceHealth { device, .. }
            | Self::Hedged { device, .. } => Some(device),
            Self::FaultInjected { device, .. } => device.as_deref(),
            Self::RuntimeStarted { .. }
            | Self::RuntimeStopped { .. }
            | Self::LevelChanged { .. }
            | Self::LevelPinned { .. }
            | Self::RerunBudgetExhausted { .. }
            | Self::Lost { .. }
            | Self::Unknown { .. } => None,
        }
    }

    /// The device that serves from now on, if that is what happened.
    #[must_use]
    pub fn serves(&self) -> Option<&str> {
        match self {
            Self::SlotChanged { device, to, .. } if to == "serving" => Some(device),
            _ => None,
        }
    }

    /// The same with every text cut to what a record may hold.
    pub(super) fn bounded(mut self) -> Self {
        match &mut self {
            Self::RuntimeStarted { release, model, fingerprint, devices } => {
                cut_all([release, model, fingerprint]);
                devices.truncate(DEVICES_MAX);
                devices.iter_mut().for_each(|device| cut_to(device, DEVICE_BYTES_MAX));
            }
            Self::SlotChanged { device, from, to, reason, .. } => {
                cut_all([device, from, to, reason])
            }
            Self::LevelChanged { from, to, reason } => cut_all([from, to, reason]),
            Self::LevelPinned { level } => level.iter_mut().for_each(cut),
            Self::WorkerEnded { device, reason, log, .. } => {
                cut_all([device, reason]);
                cut_start(log);
            }
            Self::CanaryFailed { device, reason, .. } => cut_all([device, reason]),
            Self::Quarantined { device, reason, detail, .. } => cut_all([device, reason, detail]),
            Self::DeviceHealth { device, verdict, detail } => cut_all([device, verdict, detail]),
            Self::Released { device, by } => cut_all([device, by]),
            Self::FaultInjected { device, fault } => {
                device.iter_mut().for_each(cut);
                cut(fault);
            }
            Self::Hedged { device, .. } => cut(device),
            Self::Unknown { payload } => cut(payload),
            Self::RuntimeStopped { .. } | Self::RerunBudgetExhausted { .. } | Self::Lost { .. } => {
            }
        }
        self
    }
}

/// Bytes that a character takes in JSON.
fn json_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => character.len_utf8(),
    }
}

fn cut_all<const N: usize>(texts: [&mut String; N]) {
    texts.into_iter().for_each(cut);
}

fn cut(text: &mut String) {
    cut_to(text, TEXT_BYTES_MAX);
}

/// Cuts the end off a text that is too long, and says so.
fn cut_to(text: &mut String, bytes_max: usize) {
    let mut bytes = 0;
    let end = text.char_indices().find_map(|(at, character)| {
        bytes += json_bytes(character);
        (bytes > bytes_max).then_some(at)
    });
    if let Some(end) = end {
        let all = text.len();
        text.truncate(end);
        text.push_str(&format!("… [cut, {all} bytes]"));
    }
}

/// Cuts the start off a text that is too long, and says so: the end of a log tells most.
fn cut_start(text: &mut String) {
    let mut bytes = 0;
    let start = text.char_indices().rev().find_map(|(at, character)| {
        bytes += json_bytes(character);
        (bytes > TEXT_BYTES_MAX).then_some(at + character.len_utf8())
    });
    if let Some(start) = start {
        let kept = text.split_off(start);
        *text = format!("[cut, {} bytes] …{kept}", start + kept.len());
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuntimeStarted { release, model, devices, .. } => {
                write!(f, "forebay {release} started: {model} on {}", devices.join(", "))
            }
            Self::RuntimeStopped { drained: true } => {
                f.write_str("stopped: everything that was accepted has been answered")
            }
            Self::RuntimeStopped { drained: false } => {
                f.write_str("stopped before everything that was accepted could be computed")
            }
            Self::SlotChanged { device, incarnation, from, to, reason } => {
                if self.serves().is_some() {
                    write!(f, "{device} serves (worker {incarnation}, was {from})")?;
                } else {
                    write!(f, "{device} {from} to {to} (worker {incarnation})")?;
                }
                because(f, reason)
            }
            Self::LevelChanged { from, to, reason } => {
                write!(f, "level {from} to {to}")?;
                because(f, reason)
            }
            Self::LevelPinned { level: Some(level) } => {
                write!(f, "the operator capped the level at {level}")
            }
            Self::LevelPinned { level: None } => f.write_str("the operator lifted the cap"),
            Self::WorkerEnded { device, incarnation, pid, reason, .. } => {
                write!(f, "worker {incarnation} of {device} ended")?;
                if let Some(pid) = pid {
                    write!(f, " (process {pid})")?;
                }
                because(f, reason)
            }
            Self::CanaryFailed { device, incarnation, reason, replies } => {
                write!(
                    f,
                    "worker {incarnation} of {device} gave wrong answers; {replies} embeddings \
                     since the last right ones are suspect"
                )?;
                because(f, reason)
            }
            Self::Quarantined { device, reason, detail, probe_after_ms } => {
                write!(f, "{device} is in quarantine")?;
                match probe_after_ms {
                    Some(ms) => write!(f, ", tried again after {} s", *ms as f64 / 1_000.0)?,
                    None => f.write_str(" until it is released")?,
                }
                because(f, reason)?;
                because(f, detail)
            }
            Self::Released { device, by } => write!(f, "{device} was released by {by}"),
            Self::DeviceHealth { device, verdict, detail } => {
                write!(f, "health of {device} is {verdict}")?;
                because(f, detail)
            }
            Self::Hedged { device, rows } => {
                write!(f, "{rows} texts that are late on {device} were given to another worker")
            }
            Self::RerunBudgetExhausted { rows } => {
                write!(f, "{rows} texts were not computed again: too many had been already")
            }
            Self::FaultInjected { device: Some(device), fault } => {
                write!(f, "fault {fault} was injected on {device}")
            }
            Self::FaultInjected { device: None, fault } => {
                write!(f, "fault {fault} was injected")
            }
            Self::Lost { events } => write!(f, "{events} events from here could not be written"),
            Self::Unknown { payload } => {
                write!(f, "an event of another release of forebay: {payload}")
            }
        }
    }
}

fn because(f: &mut fmt::Formatter<'_>, reason: &str) -> fmt::Result {
    if reason.is_empty() { Ok(()) } else { write!(f, ": {reason}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::format::PAYLOAD_BYTES_MAX;
    use super::*;

    /// Every kind with `text` in every place that takes one.
    fn kinds(text: &str) -> Vec<EventKind> {
        let text = || text.to_owned();
        let (device, reason, detail) = (text(), text(), text());
        vec![
            EventKind::RuntimeStarted {
                release: text(),
                model: text(),
                fingerprint: text(),
                devices: vec![text(); 100],
            },
            EventKind::SlotChanged {
                device: text(),
                incarnation: u64::MAX,
                from: text(),
                to: text(),
                reason: text(),
            },
            EventKind::LevelChanged { from: text(), to: text(), reason: text() },
            EventKind::LevelPinned { level: Some(text()) },
            EventKind::WorkerEnded {
                device: text(),
                incarnation: u64::MAX,
                pid: Some(u32::MAX),
                reason: text(),
                log: text(),
            },
            EventKind::CanaryFailed {
                device: text(),
                incarnation: 1,
                reason: text(),
                replies: u64::MAX,
            },
            EventKind::Quarantined { device, reason, detail, probe_after_ms: Some(u64::MAX) },
            EventKind::Released { device: text(), by: text() },
            EventKind::DeviceHealth { device: text(), verdict: text(), detail: text() },
            EventKind::Hedged { device: text(), rows: 1 },
            EventKind::FaultInjected { device: Some(text()), fault: text() },
            EventKind::Unknown { payload: text() },
        ]
    }

    proptest! {
        #[test]
        fn every_event_fits_a_record_whatever_its_text(
            text in prop_oneof![".{0,3000}", "[\\x00-\\x1f\"]{0,3000}", "[ü€😀]{0,1500}"],
        ) {
            for kind in kinds(&text) {
                let bounded = kind.bounded();
                let json = serde_json::to_vec(&bounded).unwrap();
                prop_assert!(json.len() <= PAYLOAD_BYTES_MAX, "{} bytes", json.len());
                prop_assert_eq!(&serde_json::from_slice::<EventKind>(&json).unwrap(), &bounded);
            }
        }

        #[test]
        fn text_that_fits_is_left_alone(text in ".{0,250}") {
            for kind in kinds(&text).into_iter().skip(1) {
                prop_assert_eq!(kind.clone().bounded(), kind);
            }
        }
    }

    #[test]
    fn what_is_cut_says_so_and_a_log_keeps_its_end() {
        let text = "é".repeat(600) + "end";
        let kind = EventKind::WorkerEnded {
            device: "cpu".to_owned(),
            incarnation: 1,
            pid: None,
            reason: text.clone(),
            log: text,
        };
        let EventKind::WorkerEnded { device, reason, log, .. } = kind.bounded() else {
            unreachable!("it stays what it is")
        };
        assert_eq!(device, "cpu");
        assert!(reason.starts_with("éé") && reason.ends_with("é… [cut, 1203 bytes]"), "{reason}");
        assert!(log.starts_with("[cut, 1203 bytes] …é") && log.ends_with("éend"), "{log}");
    }

    #[test]
    fn every_kind_is_said_on_one_line_and_knows_its_device() {
        for kind in kinds("cuda:0") {
            let said = kind.to_string();
            assert!(!said.is_empty() && !said.contains('\n'), "{said}");
            if let Some(device) = kind.device() {
                assert!(said.contains(device), "{said}");
            }
        }
    }
}
