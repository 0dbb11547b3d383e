//! When a batch is late: much later than batches of its size are on this kind of device. It keeps
//! a histogram of service times for each tier and each power of two of tokens, reads no clock and
//! decides nothing about workers.
//!
//! Histograms have buckets of an eighth of an octave and are halved when they are full, so what a
//! device did long ago is forgotten and memory stays bounded. A time far above the known ones counts
//! as twice the 99.9th percentile only: one hang must not hide the next, while a device that has
//! become slower for good is believed after a few batches.

use std::time::Duration;

use crate::config::{HedgeConfig, Tier};

/// Powers of two of tokens that are kept apart; the last one also takes what is larger.
const SIZES: usize = 21;
/// Buckets of an octave.
const STEPS: u64 = 8;
/// Buckets up to 2^36 us, more than any batch may take.
const BUCKETS: usize = 34 * STEPS as usize;
/// A histogram that holds so many times is halved.
const SAMPLES_MAX: u32 = 2_048;

/// What is known about how long batches take.
pub(crate) struct Lateness {
    floor: Duration,
    factor: f64,
    samples_min: u32,
    enabled: bool,
    /// By tier and size; made when the first batch of that size comes back.
    times: [[Option<Box<Times>>; SIZES]; 2],
}

struct Times {
    buckets: [u16; BUCKETS],
    samples: u32,
    /// No bucket above this one holds anything.
    top: usize,
}

impl Lateness {
    pub(crate) fn new(config: &HedgeConfig) -> Self {
        Self {
            floor: config.floor(),
            factor: config.factor,
            samples_min: config.samples_min,
            enabled: config.enabled,
            times: Default::default(),
        }
    }

    /// A worker of this tier took this long for a batch of so many tokens.
    pub(crate) fn observe(&mut self, tier: Tier, tokens: usize, service: Duration) {
        let samples_min = self.samples_min;
        let times = self.times[place(tier)][size(tokens)].get_or_insert_with(Default::default);
        let believed = match times.samples >= samples_min {
            true => service.min(times.high().saturating_mul(2)),
            false => service,
        };
        times.add(believed);
    }

    /// The time after which a batch of so many tokens is late; `None` while too little is known of
    /// any size, or hedging is off.
    ///
    /// Where too little is known of this size and of larger ones, the next smaller one counts with as
    /// many times its time as this one can have more tokens: a batch takes no more time for each.
    /// Without that, the first batch of a size that hangs would keep what is behind it, too, until
    /// its worker counts as hung.
    pub(crate) fn late_after(&self, tier: Tier, tokens: usize) -> Option<Duration> {
        if !self.enabled {
            return None;
        }
        let (smaller, larger) = self.times[place(tier)].split_at(size(tokens));
        let high = |times: &Option<Box<Times>>| {
            let known = times.as_ref().filter(|times| times.samples >= self.samples_min);
            known.map(|times| times.high())
        };
        // A batch takes no longer than a larger one.
        let usual = larger.iter().find_map(high).or_else(|| {
            let mut below = smaller.iter().rev().zip(1_u32..);
            below.find_map(|(times, steps)| Some(high(times)?.saturating_mul(2 << steps)))
        });
        Some(usual?.mul_f64(self.factor).max(self.floor))
    }

    /// No batch is late sooner than this.
    pub(crate) fn floor(&self) -> Duration {
        self.floor
    }
}

impl Default for Times {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], samples: 0, top: 0 }
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        if self.samples >= SAMPLES_MAX {
            self.buckets.iter_mut().for_each(|count| *count /= 2);
            self.samples = self.buckets.iter().map(|count| u32::from(*count)).sum();
            self.top = self.buckets.iter().rposition(|count| *count > 0).unwrap_or_default();
        }
        let bucket = bucket(time);
        self.top = self.top.max(bucket);
        self.buckets[bucket] += 1;
        self.samples += 1;
    }

    /// The 99.9th percentile, rounded up to the end of its bucket.
    fn high(&self) -> Duration {
        let mut above = self.samples / 1_000;
        for (index, count) in self.buckets.iter().enumerate().take(self.top + 1).rev() {
            match u32::from(*count) {
                count if count > above => return end_of(index),
                count => above -= count,
            }
        }
        Duration::ZERO
    }
}

/// The power of two that these tokens belong to.
fn size(tokens: usize) -> usize {
    (tokens.max(1).ilog2() as usize).min(SIZES - 1)
}

/// Where a time is counted: exact below 8 us, then in eighths of octaves.
fn bucket(time: Duration) -> usize {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let index = match us.checked_ilog2() {
        None | Some(0..3) => us,
        Some(octave) => {
            let octave = u64::from(octave);
            (octave - 2) * STEPS + ((us >> (octave - 3)) & (STEPS - 1))
        }
    };
    (index as usize).min(BUCKETS - 1)
}

/// The first time that is counted behind this bucket.
fn end_of(bucket: usize) -> Duration {
    let next = bucket as u64 + 1;
    let us = match next / STEPS {
        0 => next,
        octave => (STEPS + next % STEPS) << (octave - 1),
    };
    Duration::from_micros(us)
}

fn place(tier: Tier) -> usize {
    match tier {
        Tier::Cpu => 0,
        Tier::Gpu => 1,
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn lateness() -> Lateness {
        let config = HedgeConfig { floor_ms: 1, samples_min: 10, ..HedgeConfig::default() };
        Lateness::new(&config)
    }

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn every_time_is_below_the_end_of_its_bucket_and_not_far() {
        let mut random = SmallRng::seed_from_u64(1);
        for _ in 0..100_000 {
            let time = 1_u64 << random.random_range(0..34);
            let time = random.random_range(0..=time);
            let end = end_of(bucket(us(time))).as_micros() as u64;
            assert!(time < end && end <= time + time / 8 + 1, "{time} ends at {end}");
        }
        let ends: Vec<Duration> = (0..BUCKETS).map(end_of).collect();
        assert!(ends.is_sorted() && ends[0] == us(1));
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_estimate_bounds_the_999th_of_a_thousand() {
        for seed in 0..50 {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut times: Vec<u64> = (0..1_500).map(|_| random.random_range(1..100_000)).collect();
            let mut kept = Times::default();
            times.iter().for_each(|time| kept.add(us(*time)));
            times.sort_unstable();
            let exact = us(times[times.len() - 1 - times.len() / 1_000]);
            assert!(kept.high() > exact && kept.high() <= exact.mul_f64(1.2) + us(1));
        }
    }

    #[test]
    fn sizes_and_tiers_are_apart_and_unknown_sizes_go_by_the_next_known_one() {
        let mut lateness = lateness();
        assert_eq!(lateness.late_after(Tier::Gpu, 100), None);
        for _ in 0..9 {
            lateness.observe(Tier::Gpu, 100, us(2_000));
        }
        assert_eq!(lateness.late_after(Tier::Gpu, 100), None, "too few");
        lateness.observe(Tier::Gpu, 127, us(2_000));
        let late = lateness.late_after(Tier::Gpu, 100).expect("known");
        assert!((us(8_000)..us(9_100)).contains(&late), "{late:?}");
        assert_eq!(lateness.late_after(Tier::Gpu, 3), Some(late));
        // A larger one may take longer, for each token as long as the smaller ones.
        assert_eq!(lateness.late_after(Tier::Gpu, 128), Some(late * 4));
        assert_eq!(lateness.late_after(Tier::Gpu, 255), Some(late * 4));
        assert_eq!(lateness.late_after(Tier::Gpu, 256), Some(late * 8));
        assert_eq!(lateness.late_after(Tier::Cpu, 100), None);
        for _ in 0..10 {
            lateness.observe(Tier::Gpu, 3, us(10));
        }
        assert_eq!(lateness.late_after(Tier::Gpu, 3), Some(us(1_000)), "the floor");
        lateness.enabled = false;
        assert_eq!(lateness.late_after(Tier::Gpu, 3), None);
    }

    #[test]
    fn one_hang_does_not_hide_the_next_and_a_slower_device_is_believed() {
        let mut lateness = lateness();
        for _ in 0..1_000 {
            lateness.observe(Tier::Gpu, 100, us(1_000));
        }
        let before = lateness.late_after(Tier::Gpu, 100).expect("known");
        lateness.observe(Tier::Gpu, 100, Duration::from_secs(700));
        assert!(lateness.late_after(Tier::Gpu, 100).expect("known") <= before.mul_f64(2.3));
        for _ in 0..20 {
            lateness.observe(Tier::Gpu, 100, us(10_000));
        }
        assert!(lateness.late_after(Tier::Gpu, 100).expect("known") > us(10_000));
        // And forgotten again.
        for _ in 0..20_000 {
            lateness.observe(Tier::Gpu, 100, us(1_000));
        }
        assert_eq!(lateness.late_after(Tier::Gpu, 100), Some(before));
    }
}
