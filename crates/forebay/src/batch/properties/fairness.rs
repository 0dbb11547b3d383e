//! Nothing starves, and `Control` pays only the share that this costs.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::{BatchPolicy, Batcher, Entry};
use super::{entry, millis, offer, policy};
use crate::config::Tier;
use crate::priority::Priority;

/// Fills the queue with what harms the victim most: classes that go before it, of any length.
fn flood(batcher: &mut Batcher<u64>, rng: &mut SmallRng, classes: &[Priority], now: Instant) {
    while batcher.len() < 30 {
        let class = classes[rng.random_range(0..classes.len())];
        let tokens = match rng.random_range(0..3) {
            0 => rng.random_range(1..=20),
            1 => rng.random_range(40..=200),
            _ => rng.random_range(380..=500),
        };
        batcher.push(entry(u64::MAX, class, tokens, now)).unwrap();
    }
}

/// The moment from which an entry has a share of the batches.
fn aged_at(entry: &Entry<u64>, policy: &BatchPolicy) -> Instant {
    entry.queued_at
        + match entry.priority {
            Priority::Control => unreachable!("Control does not age"),
            Priority::Interactive => policy.interactive_ageing,
            Priority::Bulk => policy.bulk_ageing,
        }
}

#[test]
fn an_aged_entry_is_served_within_a_bounded_number_of_batches() {
    for seed in 0..600 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let policy = BatchPolicy { rows_max: rng.random_range(1..=16), ..policy() };
        let mut batcher = Batcher::new(policy.clone());
        let mut now = Instant::now();
        // A few lower-class entries of any length and age; each of them is a victim.
        let mut victims = Vec::new();
        for id in 0..rng.random_range(1..10) {
            let class = [Priority::Interactive, Priority::Bulk][rng.random_range(0..2)];
            let victim = entry(id, class, rng.random_range(1..=500), now);
            batcher.push(victim.clone()).unwrap();
            victims.push(victim);
            now += millis(rng.random_range(0..4));
        }
        // Interactive entries that arrive after a victim has aged age after it, too.
        now += millis(60);
        let hostile: &[Priority] = match seed % 3 {
            0 => &[Priority::Control],
            1 => &[Priority::Interactive],
            _ => &[Priority::Control, Priority::Interactive],
        };
        // All have aged, so they leave in the order of ageing (their classes' orders agree with
        // it), each within two batches: one may open with Control and have no room beside it.
        victims.sort_by_key(|victim| aged_at(victim, &policy));
        let mut seals = 0;
        while !victims.is_empty() {
            flood(&mut batcher, &mut rng, hostile, now);
            batcher.observe(Tier::Cpu, rng.random_range(1..400), millis(rng.random_range(1..10)));
            let batch = batcher.seal(&offer(rng.random_bool(0.5)), now).unwrap();
            seals += 1;
            let served = |id| batch.entries.iter().any(|entry| entry.id == id);
            if served(victims[0].id) {
                seals = 0;
            }
            assert!(seals < 2, "seed {seed}: the most overdue entry was passed over twice");
            victims.retain(|victim| !served(victim.id));
            now += Duration::from_micros(rng.random_range(1..3_000));
        }
    }
}

#[test]
fn an_eighth_of_the_rows_goes_to_aged_entries_and_no_more_while_control_waits() {
    let now = Instant::now() + Duration::from_secs(1);
    for (rows_max, aged, share) in
        [(64, 40, 8), (16, 40, 2), (8, 40, 1), (5, 40, 1), (2, 40, 1), (64, 3, 3), (64, 0, 0)]
    {
        for class in [Priority::Interactive, Priority::Bulk] {
            let policy = BatchPolicy {
                rows_max,
                tokens_max: 10_000,
                tokens_min: 10_000,
                entries_max: 1_000,
                ..policy()
            };
            let mut batcher = Batcher::new(policy);
            for id in 0..aged {
                batcher.push(entry(id, class, 7, now - millis(60))).unwrap();
            }
            for id in 0..200 {
                // Not aged, so no part of the share.
                batcher.push(entry(1_000 + id, class, 7, now)).unwrap();
                batcher.push(entry(2_000 + id, Priority::Control, 7, now)).unwrap();
            }
            let batch = batcher.seal(&offer(false), now).unwrap();
            let below = batch.entries.iter().filter(|entry| entry.priority == class).count();
            assert_eq!((batch.entries.len(), below), (rows_max, share), "{class}");
            assert_eq!(batch.entries[0].priority, Priority::Control);
        }
    }
}

#[test]
fn the_share_is_an_eighth_of_the_tokens_where_these_run_out_first() {
    let now = Instant::now() + Duration::from_secs(1);
    let policy = BatchPolicy {
        rows_max: 800,
        tokens_max: 800,
        tokens_min: 800,
        entries_max: 2_000,
        ..policy()
    };
    let mut batcher = Batcher::new(policy);
    for id in 0..800 {
        batcher.push(entry(id, Priority::Bulk, 30, now - millis(60))).unwrap();
        batcher.push(entry(1_000 + id, Priority::Control, 1, now)).unwrap();
    }
    let batch = batcher.seal(&offer(false), now).unwrap();
    let of_bulk: usize =
        batch.entries.iter().filter(|e| e.priority == Priority::Bulk).map(|e| e.tokens).sum();
    assert_eq!((batch.tokens, of_bulk), (800, 120), "an eighth, rounded up to whole entries");
}

#[test]
fn interactive_goes_before_bulk_by_no_more_than_the_difference_in_ageing() {
    let start = Instant::now();
    let policy = BatchPolicy { rows_max: 1, entries_max: 1_000, ..policy() };
    let handicap = policy.bulk_ageing - policy.interactive_ageing;
    for seed in 0..50 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut batcher = Batcher::new(policy.clone());
        let mut expected = Vec::new();
        for id in 0..200 {
            let class = [Priority::Interactive, Priority::Bulk][rng.random_range(0..2)];
            let queued_at = start + millis(id);
            batcher.push(entry(id, class, 5, queued_at)).unwrap();
            let delay = if class == Priority::Bulk { handicap } else { Duration::ZERO };
            // At a tie, the one that was queued first.
            expected.push((queued_at + delay, queued_at, id));
        }
        expected.sort();
        let now = start + millis(rng.random_range(200..1_000));
        for (_, _, id) in expected {
            assert_eq!(batcher.seal(&offer(true), now).unwrap().entries[0].id, id, "seed {seed}");
        }
    }
}

#[test]
fn the_oldest_entry_counts_wherever_it_stands_in_its_class() {
    // Put back after a worker died: behind a younger one, and with its first `queued_at`.
    let start = Instant::now();
    let now = start + millis(70);
    let mut batcher = Batcher::new(BatchPolicy { rows_max: 2, ..policy() });
    batcher.push(entry(0, Priority::Bulk, 5, now)).unwrap();
    batcher.push(entry(1, Priority::Bulk, 5, start)).unwrap();
    for id in 10..20 {
        batcher.push(entry(id, Priority::Control, 5, now)).unwrap();
    }
    for expected in [[10, 0], [11, 1], [12, 13]] {
        let batch = batcher.seal(&offer(false), now).unwrap();
        assert_eq!(batch.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), expected);
    }
}
