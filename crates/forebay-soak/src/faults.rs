//! Faults: when which strikes what (by seed or from a file), and what was seen of each.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay::{Fault, Level};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::SoakError;
use crate::profile::Faults;

/// Which devices a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One of those of the best tier: this number modulo how many there are.
    Nth(u32),
    /// All of the best tier at once.
    All,
    /// This one.
    Device(String),
}

/// A fault that is to come.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedFault {
    /// When, since the measured part began; later if an earlier one has not healed.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// Where.
    pub place: Place,
}

/// Faults by seed, from the start to `until`.
///
/// # Errors
/// A name that no fault has.
pub fn by_seed(
    faults: &Faults,
    seed: u64,
    until: Duration,
) -> Result<Vec<PlannedFault>, SoakError> {
    let kinds = faults.parsed()?;
    let mut random = StdRng::seed_from_u64(!seed);
    let (mut planned, mut at) = (Vec::new(), 0.0);
    while !kinds.is_empty() {
        at += random.random_range(faults.gap_min_s..=faults.gap_max_s);
        let fault = kinds[random.random_range(0..kinds.len())];
        let is_all = random.random::<f64>() < faults.all_share;
        let nth = random.random();
        let place = if is_all { Place::All } else { Place::Nth(nth) };
        if at >= until.as_secs_f64() {
            break;
        }
        planned.push(PlannedFault { at: Duration::from_secs_f64(at), fault, place });
    }
    Ok(planned)
}

/// Faults from a file: lines `SECONDS PLACE FAULT`, by rising time before `until`, from when on it is
/// quiet; the place is a device or `all`.
///
/// # Errors
/// The file cannot be read, has no faults, or a line says something else.
pub fn of_file(path: &Path, until: Duration) -> Result<Vec<PlannedFault>, SoakError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SoakError::file("cannot read the faults", path, error))?;
    let mut planned: Vec<PlannedFault> = Vec::new();
    for (line, number) in text.lines().zip(1_u64..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: String| {
            SoakError::Usage(format!(
                "{}:{number}: {why}; a line is SECONDS, a device or `all`, and a fault",
                path.display()
            ))
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [at, place, fault] = fields.as_slice() else {
            return Err(wrong(format!("{} words", fields.len())));
        };
        let at = at.parse().ok().filter(|at: &f64| at.is_finite() && *at >= 0.0);
        let at = Duration::from_secs_f64(at.ok_or_else(|| wrong("no time".to_owned()))?);
        if planned.last().is_some_and(|last| last.at > at) {
            return Err(wrong("earlier than the line before".to_owned()));
        }
        if at >= until {
            let until = until.as_secs_f64();
            return Err(wrong(format!(
                "from {until} s on it is quiet, so that it would not be injected"
            )));
        }
        let fault = fault.parse().map_err(|error| wrong(format!("{error}")))?;
        let place = match *place {
            "all" => Place::All,
            device => Place::Device(device.to_owned()),
        };
        planned.push(PlannedFault { at, fault, place });
    }
    if planned.is_empty() {
        let message = format!("{}: there are no faults in it; use --no-faults", path.display());
        return Err(SoakError::Usage(message));
    }
    Ok(planned)
}

/// What was seen of a fault. Times are from its injection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultSeen {
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
    /// Until the best level was back and every worker of it served, in milliseconds.
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
    pub(crate) healed: Option<Duration>,
}

impl Follow {
    pub(crate) fn new(
        start: Instant,
        best: Level,
        devices: &[String],
        shows: bool,
        look: &crate::targets::Look,
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

    /// Takes a look at the target into account; `is_undone` once nothing of the fault is left to
    /// come, `others` while another fault lasts elsewhere, for which the level may be lower.
    pub(crate) fn see(
        &mut self,
        look: &crate::targets::Look,
        now: Instant,
        is_undone: bool,
        others: bool,
    ) {
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
        let may_be_over = is_undone && (all_hit || !self.shows);
        if is_best && may_be_over {
            self.healed.get_or_insert(since);
        } else {
            // It looked as if it were over, and was not.
            self.healed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{Look, WorkerLook};

    fn faults() -> Faults {
        toml::from_str(
            "kinds = [\"kill\", \"slow=3\"]\ngap_min_s = 1\ngap_max_s = 3\nall_share = 0.3\n\
             heal_within_s = 9",
        )
        .unwrap()
    }

    #[test]
    fn faults_follow_from_the_seed_and_leave_the_end_quiet() {
        let of = |seed| by_seed(&faults(), seed, Duration::from_secs(100)).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let planned = of(3);
        assert!((33..=100).contains(&planned.len()));
        assert!(planned.iter().all(|fault| fault.at < Duration::from_secs(100)));
        for gap in planned.windows(2).map(|pair| pair[1].at - pair[0].at) {
            assert!((0.999..3.001).contains(&gap.as_secs_f64()), "{gap:?}");
        }
        let all = planned.iter().filter(|fault| fault.place == Place::All).count();
        assert!(all > 0 && all < planned.len());
    }

    #[test]
    fn a_file_names_faults_and_what_is_wrong_in_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults");
        std::fs::write(&path, "# none yet\n1.5 cpu kill\n\n2 all slow=4\n").unwrap();
        let until = Duration::from_secs(20);
        let planned = of_file(&path, until).unwrap();
        assert_eq!(planned[0].place, Place::Device("cpu".to_owned()));
        assert_eq!((planned[1].fault, planned[1].place.clone()), (Fault::Slow(4), Place::All));
        for wrong in [
            "1 cpu",
            "x cpu kill",
            "1 cpu kil",
            "2 cpu kill\n1 cpu kill",
            "-1 cpu kill",
            "20 cpu kill",
            "# none",
        ] {
            std::fs::write(&path, wrong).unwrap();
            assert!(of_file(&path, until).is_err(), "{wrong}");
        }
    }

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
        let devices = ["cpu".to_owned()];
        let mut follow = Follow::new(start, Level::Cpu, &devices, true, &look("cpu", "serving", 1));
        follow.see(&look("cpu", "serving", 1), at(1), true, false);
        assert_eq!((follow.detected, follow.healed), (None, None));
        follow.see(&look("cpu", "exited", 1), at(3), true, false);
        follow.see(&look("down", "backoff", 1), at(5), true, false);
        follow.see(&look("cpu", "serving", 2), at(900), true, false);
        let ms = |time: Option<Duration>| time.map(|time| time.as_millis());
        assert_eq!(ms(follow.detected), Some(3));
        assert_eq!((ms(follow.demoted), ms(follow.healed)), (Some(5), Some(900)));
        follow.see(&look("down", "exited", 2), at(950), true, false);
        assert_eq!(follow.healed, None);
        let mut slow = Follow::new(start, Level::Cpu, &devices, false, &look("cpu", "serving", 1));
        slow.see(&look("cpu", "serving", 1), at(1), false, false);
        assert_eq!(slow.healed, None);
        slow.see(&look("cpu", "serving", 1), at(2), true, false);
        assert_eq!(ms(slow.healed), Some(2));
        // A device that came meanwhile makes the level better, which is healed too.
        let mut better =
            Follow::new(start, Level::Cpu, &devices, false, &look("cpu", "serving", 1));
        better.see(&look("gpu(1)", "serving", 1), at(4), true, false);
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
        let both = ["cuda:0".to_owned(), "cuda:1".to_owned()];
        let mut follow = Follow::new(start, Level::Gpu(2), &both, true, &look("gpu(2)", up, up));
        follow.see(&look("gpu(1)", ("exited", 1), up), at(1), true, false);
        follow.see(&look("gpu(2)", ("serving", 2), up), at(2), true, false);
        assert_eq!(follow.healed, None, "cuda:1 was not hit yet");
        follow.see(&look("gpu(2)", ("serving", 2), ("serving", 2)), at(9), true, false);
        assert_eq!(follow.healed, Some(Duration::from_millis(9)));

        // While another fault lasts elsewhere the level says nothing of this one.
        let mut follow =
            Follow::new(start, Level::Gpu(2), &both[..1], true, &look("gpu(2)", up, up));
        let other_down = look("gpu(1)", ("serving", 2), ("exited", 1));
        follow.see(&other_down, at(4), true, false);
        assert_eq!(follow.healed, None);
        follow.see(&other_down, at(5), true, true);
        assert_eq!(follow.healed, Some(Duration::from_millis(5)));
    }
}
