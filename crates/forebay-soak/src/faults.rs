//! Faults: when which strikes what, by seed or from a file.

use std::path::Path;
use std::time::Duration;

use forebay::Fault;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
