//! What is seen of a fault, from its injection until everything is back.

use std::collections::BTreeSet;
use std::time::Duration;

use forebay::Level;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::targets::Look;

/// What was seen of a fault. Times are from its injection, but for the time to heal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultSeen {
    /// Its number, from 0 in the order of injection, which is that of the windows; `None` in reports of
    /// programs that did not number them.
    #[serde(default)]
    pub number: Option<usize>,
    /// Which.
    pub fault: String,
    /// Where.
    pub on: String,
    /// When it was injected, in seconds since the measured part began.
    pub at_s: f64,
    /// Why it was not injected, if it was not.
    pub refused: Option<String>,
    /// Devices that it should have struck, too, and that refused it, with why.
    #[serde(default)]
    pub refused_on: Vec<String>,
    /// Whether a metric of the target shows that it happened; `None` if none would, or if its end of a
    /// worker does.
    #[serde(default)]
    pub proved: Option<bool>,
    /// Why it could not be taken back, if it was to be and could not.
    #[serde(default)]
    pub not_undone: Option<String>,
    /// Until its worker was seen not to serve, in milliseconds.
    pub detected_ms: Option<f64>,
    /// Until the level was seen to be lower, in milliseconds.
    pub demoted_ms: Option<f64>,
    /// Until it had ended, in milliseconds: what ends a worker as it strikes, what lasts when it was taken
    /// back, and what need not show when it had been given its time. `None` if it was not taken back, and
    /// in reports of programs that counted the time to heal from the injection.
    #[serde(default)]
    pub ended_ms: Option<f64>,
    /// From then until the best level was back and every worker of it served, in milliseconds.
    pub healed_ms: Option<f64>,
}

/// Follows one fault by what is seen of the target. Reads no clock.
#[derive(Debug)]
pub(crate) struct Follow {
    start: Instant,
    best: Level,
    devices: Vec<String>,
    /// The workers of these devices before.
    before: Vec<(String, u64)>,
    shows: bool,
    /// Devices that were seen not to serve, or with another worker.
    hit: BTreeSet<String>,
    pub(crate) detected: Option<Duration>,
    pub(crate) demoted: Option<Duration>,
    /// From when it had ended.
    pub(crate) healed: Option<Duration>,
}

impl Follow {
    pub(crate) fn new(
        start: Instant,
        best: Level,
        devices: &[String],
        shows: bool,
        look: &Look,
    ) -> Self {
        let before = look.workers.iter().filter(|worker| devices.contains(&worker.device));
        let before = before.map(|worker| (worker.device.clone(), worker.incarnation)).collect();
        Self {
            start,
            best,
            devices: devices.to_vec(),
            before,
            shows,
            hit: BTreeSet::new(),
            detected: None,
            demoted: None,
            healed: None,
        }
    }

    /// Takes a look at the target into account; `ended` is when nothing of the fault was left to come,
    /// if that is so, `others` while another fault lasts elsewhere, for which the level may be lower.
    pub(crate) fn see(&mut self, look: &Look, now: Instant, ended: Option<Instant>, others: bool) {
        let since = now.saturating_duration_since(self.start);
        let struck = look.workers.iter().filter(|worker| self.devices.contains(&worker.device));
        let hit = struck.clone().filter(|worker| {
            let before = self.before.iter().find(|(device, _)| *device == worker.device);
            !worker.serves() || before.is_some_and(|(_, number)| *number != worker.incarnation)
        });
        self.hit.extend(hit.map(|worker| worker.device.clone()));
        if !self.hit.is_empty() {
            self.detected.get_or_insert(since);
        }
        if look.level() < self.best {
            self.demoted.get_or_insert(since);
        }
        let is_best =
            (others || look.level() >= self.best) && struck.clone().all(|worker| worker.serves());
        let all_hit = self.devices.iter().all(|device| self.hit.contains(device));
        match ended.filter(|_| is_best && (all_hit || !self.shows)) {
            Some(ended) => {
                self.healed.get_or_insert(now.saturating_duration_since(ended));
            }
            // It looked as if it were over, and was not.
            None => self.healed = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::WorkerLook;

    #[test]
    fn a_fault_is_followed_until_the_best_level_is_back() {
        let look = |level: &str, state: &str, incarnation| Look {
            level: level.to_owned(),
            workers: vec![WorkerLook {
                device: "cpu".to_owned(),
                state: state.to_owned(),
                pid: None,
                incarnation,
            }],
            under_way: 0,
        };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ended = Some(start);
        let devices = ["cpu".to_owned()];
        let mut follow = Follow::new(start, Level::Cpu, &devices, true, &look("cpu", "serving", 1));
        follow.see(&look("cpu", "serving", 1), at(1), ended, false);
        assert_eq!((follow.detected, follow.healed), (None, None));
        follow.see(&look("cpu", "exited", 1), at(3), ended, false);
        follow.see(&look("down", "backoff", 1), at(5), ended, false);
        follow.see(&look("cpu", "serving", 2), at(900), ended, false);
        let ms = |time: Option<Duration>| time.map(|time| time.as_millis());
        assert_eq!(ms(follow.detected), Some(3));
        assert_eq!((ms(follow.demoted), ms(follow.healed)), (Some(5), Some(900)));
        follow.see(&look("down", "exited", 2), at(950), ended, false);
        assert_eq!(follow.healed, None);
        let mut slow = Follow::new(start, Level::Cpu, &devices, false, &look("cpu", "serving", 1));
        slow.see(&look("cpu", "serving", 1), at(1), None, false);
        assert_eq!(slow.healed, None);
        // It heals from when it was taken back.
        slow.see(&look("cpu", "serving", 1), at(3000), Some(at(2900)), false);
        assert_eq!(ms(slow.healed), Some(100));
        // A device that came meanwhile makes the level better, which is healed too.
        let mut better =
            Follow::new(start, Level::Cpu, &devices, false, &look("cpu", "serving", 1));
        better.see(&look("gpu(1)", "serving", 1), at(4), ended, false);
        assert_eq!((ms(better.healed), better.demoted), (Some(4), None));
    }

    #[test]
    fn a_fault_of_several_devices_is_over_when_each_was_hit_and_is_back() {
        let worker = |device: &str, state: &str, incarnation| WorkerLook {
            device: device.to_owned(),
            state: state.to_owned(),
            pid: None,
            incarnation,
        };
        let look = |level: &str, one: (&str, u64), other: (&str, u64)| Look {
            level: level.to_owned(),
            workers: vec![worker("cuda:0", one.0, one.1), worker("cuda:1", other.0, other.1)],
            under_way: 0,
        };
        let (start, up) = (Instant::now(), ("serving", 1));
        let at = |ms| start + Duration::from_millis(ms);
        let ended = Some(start);
        let both = ["cuda:0".to_owned(), "cuda:1".to_owned()];
        let mut follow = Follow::new(start, Level::Gpu(2), &both, true, &look("gpu(2)", up, up));
        follow.see(&look("gpu(1)", ("exited", 1), up), at(1), ended, false);
        follow.see(&look("gpu(2)", ("serving", 2), up), at(2), ended, false);
        assert_eq!(follow.healed, None, "cuda:1 was not hit yet");
        follow.see(&look("gpu(2)", ("serving", 2), ("serving", 2)), at(9), ended, false);
        assert_eq!(follow.healed, Some(Duration::from_millis(9)));

        // While another fault lasts elsewhere the level says nothing of this one.
        let mut follow =
            Follow::new(start, Level::Gpu(2), &both[..1], true, &look("gpu(2)", up, up));
        let other_down = look("gpu(1)", ("serving", 2), ("exited", 1));
        follow.see(&other_down, at(4), ended, false);
        assert_eq!(follow.healed, None);
        follow.see(&other_down, at(5), ended, true);
        assert_eq!(follow.healed, Some(Duration::from_millis(5)));
    }
}
