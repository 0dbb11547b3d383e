//! The texts of a run: from a seeded generator whose lengths are mixed as those of real messages
//! are, or from a file.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::SoakError;

/// Words of vehicles and robots, as they stand in events and commands.
const WORDS: [&str; 96] = [
    "brake",
    "pressure",
    "axle",
    "low",
    "high",
    "sensor",
    "lidar",
    "camera",
    "left",
    "right",
    "front",
    "rear",
    "wheel",
    "speed",
    "limit",
    "lane",
    "obstacle",
    "pedestrian",
    "distance",
    "metres",
    "battery",
    "voltage",
    "temperature",
    "motor",
    "controller",
    "torque",
    "steering",
    "angle",
    "request",
    "override",
    "operator",
    "stop",
    "start",
    "emergency",
    "route",
    "waypoint",
    "map",
    "position",
    "lost",
    "recovered",
    "signal",
    "timeout",
    "retry",
    "message",
    "planner",
    "path",
    "blocked",
    "clear",
    "door",
    "open",
    "closed",
    "arm",
    "gripper",
    "joint",
    "payload",
    "weight",
    "tilt",
    "warning",
    "fault",
    "restart",
    "charge",
    "station",
    "docked",
    "mission",
    "completed",
    "aborted",
    "weather",
    "rain",
    "fog",
    "visibility",
    "reduced",
    "traffic",
    "light",
    "red",
    "green",
    "turn",
    "merge",
    "yield",
    "parked",
    "trailer",
    "coupling",
    "hydraulic",
    "pump",
    "leak",
    "filter",
    "replace",
    "service",
    "due",
    "calibration",
    "drift",
    "yaw",
    "roll",
    "pitch",
    "the",
    "is",
    "of",
];

/// How long generated texts are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// Half of the texts have fewer words.
    pub words_median: f64,
    /// No text has more words.
    pub words_max: u32,
}

/// Standard deviation of the logarithm of a length: of a hundred texts some are ten times as long
/// as most, as in logs and messages.
const LENGTH_SIGMA: f64 = 0.9;

/// `count` different texts; the lengths are log-normal.
#[must_use]
pub fn generated(count: usize, lengths: Lengths, seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|number| {
            // Box and Muller's way from two even random numbers to a normal one.
            let (u, v): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
            let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            let words = lengths.words_median * (LENGTH_SIGMA * normal).exp();
            let words = words.round().clamp(2.0, f64::from(lengths.words_max)) as usize;
            let mut text: Vec<String> =
                (0..words).map(|_| WORDS[random.random_range(0..WORDS.len())].to_owned()).collect();
            // A number makes each text different from all others.
            let place = random.random_range(0..=text.len());
            text.insert(place, number.to_string());
            text.join(" ")
        })
        .collect()
}

/// The first different lines of a file, at most `count`.
///
/// # Errors
/// The file cannot be read; there is no text in it.
pub fn of_file(path: &Path, count: usize) -> Result<Vec<String>, SoakError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SoakError::file("cannot read the texts", path, error))?;
    let mut seen = std::collections::HashSet::new();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && seen.insert(*line));
    let texts: Vec<String> = lines.take(count).map(str::to_owned).collect();
    match texts.is_empty() {
        true => Err(SoakError::Usage(format!("{}: there is no text in it", path.display()))),
        false => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: Lengths = Lengths { words_median: 12.0, words_max: 100 };

    #[test]
    fn texts_are_different_and_follow_the_seed() {
        let texts = generated(2000, LENGTHS, 3);
        let different: std::collections::HashSet<&String> = texts.iter().collect();
        assert_eq!(different.len(), texts.len());
        assert_eq!(texts, generated(2000, LENGTHS, 3));
        assert_ne!(texts, generated(2000, LENGTHS, 4));
    }

    #[test]
    fn lengths_are_mixed_around_their_median() {
        let words = |text: &String| text.split(' ').count() - 1;
        let mut lengths: Vec<usize> = generated(4000, LENGTHS, 1).iter().map(words).collect();
        lengths.sort_unstable();
        assert!((11..=13).contains(&lengths[2000]), "{}", lengths[2000]);
        assert!(lengths[200] <= 4 && lengths[3800] >= 40, "{} {}", lengths[200], lengths[3800]);
        assert!(lengths[0] >= 2 && *lengths.last().unwrap() <= 100);
    }

    #[test]
    fn a_file_gives_its_different_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        std::fs::write(&path, "a\n\nb\na\nc\n").unwrap();
        assert_eq!(of_file(&path, 10).unwrap(), ["a", "b", "c"]);
        assert_eq!(of_file(&path, 2).unwrap().len(), 2);
        std::fs::write(&path, "\n \n").unwrap();
        assert!(of_file(&path, 10).is_err() && of_file(&folder.path().join("no"), 1).is_err());
    }
}
