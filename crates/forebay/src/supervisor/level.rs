//! The service level: a pure function of which rungs serve.

use serde::Serialize;

use crate::config::Device;

/// How well the runtime can serve now. Higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing serves.
    Down,
    /// Only the CPU serves.
    Cpu,
    /// This many GPUs serve.
    Gpu(u32),
}

impl Level {
    /// The level that these serving devices make.
    #[must_use]
    pub fn of(serving: impl IntoIterator<Item = Device>) -> Self {
        serving.into_iter().fold(Self::Down, |level, device| match (level, device) {
            (Self::Gpu(gpus), Device::Cuda(_)) => Self::Gpu(gpus + 1),
            (_, Device::Cuda(_)) => Self::Gpu(1),
            (Self::Down, Device::Cpu) => Self::Cpu,
            (level, Device::Cpu) => level,
        })
    }

    /// The number that the level metric shows: 0 down, 1 CPU, 1 + n for n GPUs.
    #[must_use]
    pub fn gauge(self) -> u32 {
        match self {
            Self::Down => 0,
            Self::Cpu => 1,
            Self::Gpu(gpus) => 1 + gpus,
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(gpus) => write!(f, "gpu({gpus})"),
        }
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    /// What [`Level`] is displayed as: `down`, `cpu`, `gpu(N)`.
    fn from_str(text: &str) -> Result<Self, String> {
        let gpus = text.strip_prefix("gpu(").and_then(|rest| rest.strip_suffix(')'));
        match (text, gpus.map(str::parse)) {
            ("down", _) => Ok(Self::Down),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(Ok(gpus))) if gpus > 0 => Ok(Self::Gpu(gpus)),
            _ => Err(format!("`{text}` is not a level; write down, cpu or gpu(N) with N from 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_does_not_depend_on_order() {
        use Device::{Cpu, Cuda};
        assert_eq!(Level::of([]), Level::Down);
        assert_eq!(Level::of([Cpu]), Level::Cpu);
        for devices in [[Cpu, Cuda(0), Cuda(1)], [Cuda(0), Cpu, Cuda(1)], [Cuda(1), Cuda(0), Cpu]] {
            assert_eq!(Level::of(devices), Level::Gpu(2));
        }
        assert!(Level::Down < Level::Cpu && Level::Cpu < Level::Gpu(1));
        assert!(Level::Gpu(1) < Level::Gpu(2));
    }

    #[test]
    fn what_is_shown_reads_back() {
        for level in [Level::Down, Level::Cpu, Level::Gpu(1), Level::Gpu(16)] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for other in ["", "gpu", "gpu(0)", "gpu(1", "GPU(1)", "gpu(-1)"] {
            assert!(other.parse::<Level>().is_err(), "{other}");
        }
    }
}
