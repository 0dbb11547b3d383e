//! When requests are due: moments that are fixed before the run and do not move when the target is
//! slow. Pure: a seed gives the same moments again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::error::SoakError;

/// How requests arrive in an open loop. Rates are requests per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// At equal distances.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// At random moments that know nothing of each other.
    Poisson {
        /// Requests per second in the mean.
        rate: f64,
    },
    /// At random moments, and many at once every now and then.
    Bursts {
        /// Requests per second in the mean, without the bursts.
        rate: f64,
        /// Requests of one burst.
        burst: u32,
        /// Time from one burst to the next, in seconds.
        every_s: f64,
    },
    /// At random moments, ever faster (or slower), and at the last rate from then on.
    Ramp {
        /// Rate at the start.
        from: f64,
        /// Rate at the end.
        to: f64,
        /// Length of the ramp in seconds.
        over_s: f64,
    },
    /// At the moments that a file names: seconds since the start, one a line, rising. It is repeated
    /// until the run is over.
    Replay {
        /// The file.
        file: PathBuf,
    },
}

/// Highest rate that can be asked for, in requests per second.
const RATE_MAX: f64 = 1e6;

impl Arrivals {
    /// The mean rate at the start, in requests per second; `None` for a recorded schedule.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Constant { rate } | Self::Poisson { rate } => Some(*rate),
            Self::Bursts { rate, burst, every_s } => Some(rate + f64::from(*burst) / every_s),
            Self::Ramp { from, .. } => Some(*from),
            Self::Replay { .. } => None,
        }
    }

    /// The same at another mean rate.
    ///
    /// # Errors
    /// A recorded schedule or a ramp has no rate that could be set.
    pub fn at_rate(&self, rate: f64) -> Result<Self, SoakError> {
        Ok(match self {
            Self::Constant { .. } => Self::Constant { rate },
            Self::Poisson { .. } => Self::Poisson { rate },
            Self::Bursts { rate: before, burst, every_s } => {
                let share = f64::from(*burst) / every_s / (before + f64::from(*burst) / every_s);
                let burst = (share * rate * every_s).round().max(1.0) as u32;
                Self::Bursts { rate: (1.0 - share) * rate, burst, every_s: *every_s }
            }
            Self::Ramp { .. } | Self::Replay { .. } => {
                let message = "a ramp or a recorded schedule has no rate that could be set; use \
                               constant, poisson or bursts";
                return Err(SoakError::Usage(message.to_owned()));
            }
        })
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), SoakError> {
        let rate = |name: &str, rate: f64| match rate > 0.0 && rate <= RATE_MAX {
            true => Ok(()),
            false => Err(SoakError::Usage(format!(
                "load.arrivals.{name} is {rate}; allowed is more than 0 and at most {RATE_MAX}"
            ))),
        };
        match self {
            Self::Constant { rate: r } | Self::Poisson { rate: r } => rate("rate", *r),
            Self::Bursts { rate: r, every_s, .. } => {
                rate("rate", *r)?;
                rate("every_s", *every_s)
            }
            Self::Ramp { from, to, over_s } => {
                rate("from", *from)?;
                rate("to", *to)?;
                rate("over_s", *over_s)
            }
            Self::Replay { .. } => Ok(()),
        }
    }

    /// The moments within `length`, as time since the start, by rising time.
    ///
    /// # Errors
    /// A recorded schedule cannot be read.
    pub fn moments(
        &self,
        seed: u64,
        length: Duration,
    ) -> Result<Box<dyn Iterator<Item = Duration> + Send>, SoakError> {
        self.check()?;
        let end = length.as_secs_f64();
        let seconds: Box<dyn Iterator<Item = f64> + Send> = match self {
            Self::Constant { rate } => {
                let rate = *rate;
                Box::new((0_u64..).map(move |number| number as f64 / rate))
            }
            Self::Poisson { rate } => poisson(*rate, seed),
            Self::Bursts { rate, burst, every_s } => {
                let (burst, every_s) = (*burst as usize, *every_s);
                let bursts = (1_u64..)
                    .flat_map(move |number| std::iter::repeat_n(number as f64 * every_s, burst));
                Box::new(Merged { left: poisson(*rate, seed).peekable(), right: bursts.peekable() })
            }
            Self::Ramp { from, to, over_s } => {
                let (from, to, over_s) = (*from, *to, *over_s);
                // A Poisson process of rate 1, with time bent so that the rate is what it should be.
                Box::new(poisson(1.0, seed).map(move |sum| bent(sum, from, to, over_s)))
            }
            Self::Replay { file } => repeated(recorded(file)?),
        };
        Ok(Box::new(seconds.take_while(move |at| *at < end).map(Duration::from_secs_f64)))
    }
}

/// Moments of a Poisson process: the gaps are independent and exponentially distributed.
fn poisson(rate: f64, seed: u64) -> Box<dyn Iterator<Item = f64> + Send> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = 0.0;
    Box::new(std::iter::repeat_with(move || {
        // 1 - u is in (0, 1], so its logarithm is finite.
        at -= (1.0 - random.random::<f64>()).ln() / rate;
        at
    }))
}

/// When the sum of the rates since the start is `sum`: the inverse of
/// `from t + (to - from) t^2 / (2 over_s)`, and a straight line after the ramp.
fn bent(sum: f64, from: f64, to: f64, over_s: f64) -> f64 {
    let ramp = (from + to) / 2.0 * over_s;
    if sum >= ramp {
        return over_s + (sum - ramp) / to;
    }
    let slope = (to - from) / over_s;
    // The form that does not lose digits when the slope is next to nothing.
    2.0 * sum / (from + (from * from + 2.0 * slope * sum).max(0.0).sqrt())
}

/// Two rising sequences as one.
struct Merged<L: Iterator<Item = f64>, R: Iterator<Item = f64>> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<L: Iterator<Item = f64>, R: Iterator<Item = f64>> Iterator for Merged<L, R> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        match (self.left.peek(), self.right.peek()) {
            (Some(left), Some(right)) if left <= right => self.left.next(),
            (_, Some(_)) => self.right.next(),
            _ => self.left.next(),
        }
    }
}

fn recorded(file: &Path) -> Result<Vec<f64>, SoakError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| SoakError::file("cannot read the schedule", file, error))?;
    let mut moments = Vec::new();
    let lines = text.lines().zip(1_u64..).filter(|(line, _)| !line.trim().is_empty());
    for (line, number) in lines {
        let last = moments.last().copied().unwrap_or(0.0);
        match line.trim().parse::<f64>() {
            Ok(at) if at.is_finite() && at >= last => moments.push(at),
            _ => {
                return Err(SoakError::Usage(format!(
                    "{}:{number}: {line:?} is no time in seconds, or earlier than the one before",
                    file.display()
                )));
            }
        }
    }
    if moments.last().is_none_or(|last| *last <= 0.0) {
        let message = format!("{}: there is no time in it", file.display());
        return Err(SoakError::Usage(message));
    }
    Ok(moments)
}

/// The moments over and over; each round begins one mean gap after the last moment.
fn repeated(moments: Vec<f64>) -> Box<dyn Iterator<Item = f64> + Send> {
    let last = moments.last().copied().unwrap_or(1.0);
    let round = last * (moments.len() as f64 + 1.0) / moments.len() as f64;
    Box::new((0_u64..).flat_map(move |number| {
        moments.clone().into_iter().map(move |at| at + number as f64 * round)
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moments(arrivals: &Arrivals, seed: u64, seconds: f64) -> Vec<f64> {
        let moments = arrivals.moments(seed, Duration::from_secs_f64(seconds)).unwrap();
        moments.map(|at| at.as_secs_f64()).collect()
    }

    fn any() -> impl Strategy<Value = Arrivals> {
        let rate = || 1.0..500.0_f64;
        prop_oneof![
            rate().prop_map(|rate| Arrivals::Constant { rate }),
            rate().prop_map(|rate| Arrivals::Poisson { rate }),
            (rate(), 1..50_u32, 0.5..5.0).prop_map(|(rate, burst, every_s)| Arrivals::Bursts {
                rate,
                burst,
                every_s
            }),
            (rate(), rate(), 1.0..20.0).prop_map(|(from, to, over_s)| Arrivals::Ramp {
                from,
                to,
                over_s
            }),
        ]
    }

    proptest! {
        #[test]
        fn moments_rise_stay_within_the_run_and_follow_the_seed(arrivals in any(), seed: u64) {
            let one = moments(&arrivals, seed, 10.0);
            prop_assert!(one.is_sorted() && one.iter().all(|at| (0.0..10.0).contains(at)));
            prop_assert_eq!(&one, &moments(&arrivals, seed, 10.0));
        }

        #[test]
        fn rates_are_those_asked_for(arrivals in any(), seed: u64) {
            let (count, expected) = (moments(&arrivals, seed, 60.0).len() as f64, match arrivals {
                Arrivals::Ramp { from, to, over_s } => {
                    (from + to) / 2.0 * over_s + to * (60.0 - over_s)
                }
                _ => arrivals.rate().unwrap() * 60.0,
            });
            // Six standard deviations, and a burst at the edge.
            prop_assert!((count - expected).abs() <= 6.0 * expected.sqrt() + 51.0, "{count} {expected}");
        }
    }

    #[test]
    fn gaps_are_exponential() {
        let at = moments(&Arrivals::Poisson { rate: 1000.0 }, 7, 20.0);
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let longer = gaps.iter().filter(|gap| **gap > 1e-3).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.02, "{longer}");
    }

    #[test]
    fn a_recorded_schedule_is_repeated_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("schedule");
        let replay = Arrivals::Replay { file: file.clone() };
        std::fs::write(&file, "0.5\n1.0\n\n2.0\n").unwrap();
        let at = moments(&replay, 0, 6.0);
        assert_eq!(at.len(), 7);
        assert_eq!(at[..3], [0.5, 1.0, 2.0]);
        assert!((at[3] - at[0] - (at[4] - at[1])).abs() < 1e-9);
        for wrong in ["", "0\n", "1\n0.5\n", "x\n", "-1\n"] {
            std::fs::write(&file, wrong).unwrap();
            assert!(replay.moments(0, Duration::from_secs(1)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn another_rate_keeps_the_kind_and_the_share_of_bursts() {
        let bursts = Arrivals::Bursts { rate: 50.0, burst: 100, every_s: 2.0 };
        assert_eq!(bursts.rate(), Some(100.0));
        let twice = bursts.at_rate(200.0).unwrap();
        assert_eq!(twice, Arrivals::Bursts { rate: 100.0, burst: 200, every_s: 2.0 });
        assert!(Arrivals::Ramp { from: 1.0, to: 2.0, over_s: 1.0 }.at_rate(3.0).is_err());
        for rate in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(Arrivals::Poisson { rate }.check().is_err(), "{rate}");
        }
    }
}
