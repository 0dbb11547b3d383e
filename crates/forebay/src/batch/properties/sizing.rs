//! Batches are as large as the traffic allows: short while somebody waits, full-size when nobody
//! does, and never held back from an idle worker.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::{BatchPolicy, Batcher, Entry, Offer, SealReason};
use super::{entry, millis, offer, policy};
use crate::config::Tier;
use crate::priority::Priority;

/// Roomy enough that only the token target limits a batch.
fn roomy() -> BatchPolicy {
    BatchPolicy { tokens_max: 20_000, rows_max: 20_000, entries_max: 100_000, ..policy() }
}

#[test]
fn urgent_batches_take_no_longer_than_the_target_duration() {
    for seed in 0..200 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let policy = roomy();
        let mut batcher = Batcher::new(policy.clone());
        let mut now = Instant::now();
        let tokens_per_s = rng.random_range(15_000.0..10_000_000.0);
        let duration = |tokens: usize| Duration::from_secs_f64(tokens as f64 / tokens_per_s);
        batcher.observe(Tier::Cpu, 1_000, duration(1_000));
        let urgent = [Priority::Control, Priority::Interactive][(seed % 2) as usize];
        for id in 0..3_000 {
            let class = if id % 3 == 0 { urgent } else { Priority::Bulk };
            batcher.push(entry(id, class, rng.random_range(1..30), now)).unwrap();
        }
        while batcher.depth().rows[urgent.index()] > 0 {
            let batch = batcher.seal(&offer(false), now).unwrap();
            let took = duration(batch.tokens);
            // A microsecond for the float that divides and multiplies again.
            let limit = policy.duration_target + Duration::from_micros(1);
            assert!(took <= limit, "seed {seed}: {} tokens take {took:?}", batch.tokens);
            // Nor is it needlessly small: one more entry would be too many.
            let target = policy.duration_target.as_secs_f64() * tokens_per_s;
            let target = (target as usize).clamp(policy.tokens_min, policy.tokens_max);
            let all_went = batcher.depth().rows_total() == 0;
            assert!(
                all_went || batch.tokens + 30 >= target,
                "seed {seed}: {} tokens",
                batch.tokens
            );
            batcher.observe(Tier::Cpu, batch.tokens, took);
            now += took;
        }
    }
}

#[test]
fn batches_of_bulk_alone_are_larger_and_bounded_too() {
    let now = Instant::now();
    let mut batcher = Batcher::new(roomy());
    for id in 0..10_000 {
        batcher.push(entry(id, Priority::Bulk, 20, now)).unwrap();
    }
    let first = batcher.seal(&offer(false), now).unwrap().tokens;
    assert_eq!(first, 40, "unmeasured: what fits into the smallest size, 50");
    batcher.observe(Tier::Cpu, 20_000, Duration::from_millis(80));
    batcher.push(entry(99_999, Priority::Control, 20, now)).unwrap();
    let mut size = || batcher.seal(&offer(false), now).unwrap().tokens;
    assert_eq!([size(), size(), size()], [1_000, 4_000, 4_000]);
}

#[test]
fn size_never_falls_below_the_minimum_and_a_longer_entry_goes_alone() {
    let now = Instant::now();
    let mut batcher = Batcher::new(policy());
    batcher.observe(Tier::Cpu, 1_000, Duration::from_secs(1_000));
    for (id, tokens) in [(0, 10), (1, 40), (2, 10), (3, 900), (4, 10)] {
        batcher.push(entry(id, Priority::Interactive, tokens, now)).unwrap();
    }
    let mut batches = Vec::new();
    while let Some(batch) = batcher.seal(&offer(true), now) {
        batches.push(batch.entries.iter().map(|entry| entry.id).collect::<Vec<_>>());
    }
    assert_eq!(batches, [vec![0, 1], vec![2], vec![3], vec![4]]);
}

#[test]
fn an_idle_worker_gets_whatever_waits_and_a_busy_one_only_what_cannot_gain() {
    let start = Instant::now();
    for class in Priority::ALL {
        let mut batcher = Batcher::new(policy());
        assert_eq!(batcher.seal(&offer(true), start), None);
        batcher.push(entry(0, class, 10, start)).unwrap();
        let busy = batcher.clone().seal(&offer(false), start).map(|batch| batch.reason);
        assert_eq!(busy, (class == Priority::Control).then_some(SealReason::Control));
        // Joins although it came after the worker had asked once.
        batcher.push(entry(1, class, 10, start)).unwrap();
        let idle = batcher.seal(&offer(true), start).unwrap();
        assert_eq!((idle.reason, idle.entries.len()), (SealReason::Idle, 2));
    }
}

#[test]
fn a_busy_workers_slot_is_filled_for_each_reason_in_its_time() {
    let start = Instant::now();
    let one = |deadline_ms: Option<u64>| {
        let mut batcher = Batcher::new(policy());
        let mut waiting = entry(0, Priority::Bulk, 10, start);
        waiting.deadline = deadline_ms.map(|ms| start + millis(ms));
        batcher.push(waiting).unwrap();
        batcher
    };
    let reason = |batcher: &Batcher<u64>, at_ms| {
        batcher.clone().seal(&offer(false), start + millis(at_ms)).map(|batch| batch.reason)
    };

    let batcher = one(None);
    assert_eq!(batcher.next_wakeup(1, start), Some(start + millis(5)));
    assert_eq!((reason(&batcher, 4), reason(&batcher, 5)), (None, Some(SealReason::Waited)));

    // Unmeasured: two target durations of 4 ms before the deadline.
    let batcher = one(Some(10));
    assert_eq!(batcher.next_wakeup(1, start), Some(start + millis(2)));
    assert_eq!((reason(&batcher, 1), reason(&batcher, 2)), (None, Some(SealReason::Deadline)));
    // Measured: 10 tokens take 1 ms, so 5 ms are enough, and `max_wait` comes no later.
    let mut batcher = one(Some(9));
    batcher.observe(Tier::Cpu, 10, millis(1));
    assert_eq!(batcher.next_wakeup(1, start), Some(start + millis(4)));
    assert_eq!((reason(&batcher, 3), reason(&batcher, 4)), (None, Some(SealReason::Deadline)));

    let mut batcher = one(None);
    batcher.set_draining(true);
    assert_eq!(reason(&batcher, 0), Some(SealReason::Draining));

    let mut batcher = one(None);
    // Fast enough that rows run out before tokens do.
    batcher.observe(Tier::Cpu, 1_000, millis(1));
    for id in 1..8 {
        assert_eq!(reason(&batcher, 0), None);
        batcher.push(entry(id, Priority::Bulk, 10, start)).unwrap();
    }
    assert_eq!(reason(&batcher, 0), Some(SealReason::Full), "eight rows");
    let small = Offer { tokens_max: 10, rows_max: 9, ..offer(false) };
    let mut batcher = one(None);
    assert_eq!(batcher.seal(&small, start).map(|b| b.reason), Some(SealReason::Full), "the slot's");
}

#[test]
fn what_cannot_wait_is_left_for_another_worker_and_nothing_else_is() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let now = Instant::now();
        let mut batcher = Batcher::new(roomy());
        batcher.observe(Tier::Cpu, 20_000, Duration::from_millis(1));
        let deadline_min = now + millis(50);
        // How many of each class may be taken, and whether one of it stops the others.
        let mut expected = [(0, false); 3];
        for id in 0..rng.random_range(1..40) {
            let class = Priority::ALL[rng.random_range(0..3)];
            let deadline = rng.random_bool(0.5).then(|| now + millis(rng.random_range(1..500)));
            batcher.push(Entry { deadline, ..entry(id, class, 5, now) }).unwrap();
            let (taken, stopped) = &mut expected[class.index()];
            *stopped |= deadline.is_some_and(|deadline| deadline < deadline_min);
            *taken += usize::from(!*stopped);
        }
        let sealed = batcher.seal_unhurried(&offer(true), deadline_min, now);
        let mut found = [0; 3];
        for entry in sealed.iter().flat_map(|sealed| &sealed.entries) {
            assert!(entry.deadline.is_none_or(|deadline| deadline >= deadline_min), "seed {seed}");
            found[entry.priority.index()] += 1;
        }
        assert_eq!(found, expected.map(|(taken, _)| taken), "seed {seed}");
    }
}
