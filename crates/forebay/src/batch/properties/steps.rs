//! Random steps of every kind against the model: order, bounds, late joining, when to seal, the
//! alarm, and that nothing is lost or handed out twice.

use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::super::{BatchPolicy, Batcher, Entry, Offer};
use super::model::{Model, has_expired};
use super::{millis, policy};
use crate::config::Tier;
use crate::priority::Priority;

#[derive(Clone, Debug)]
enum Step {
    Push {
        priority: Priority,
        tokens: usize,
        age_us: u64,
        deadline_us: Option<u64>,
    },
    Advance {
        us: u64,
    },
    /// And so many batches are to share out what waits.
    Offer(Offer, usize),
    Expire,
    RemoveEach {
        modulus: u64,
    },
    Observe {
        tokens: usize,
        us: u64,
    },
    UnderWay {
        rows: usize,
    },
    Completed,
    SetDraining(bool),
    DrainAll,
}

fn step() -> impl Strategy<Value = Step> {
    // Lengths around each limit: far below, near the smallest target, at and above the largest.
    let tokens = prop_oneof![6 => 1..40_usize, 3 => 40..200_usize, 1 => 390..500_usize];
    let push = (
        proptest::sample::select(&Priority::ALL[..]),
        tokens,
        prop_oneof![4 => Just(0), 1 => 0..30_000_u64],
        proptest::option::weighted(0.3, 0..40_000_u64),
    )
        .prop_map(|(priority, tokens, age_us, deadline_us)| Step::Push {
            priority,
            tokens,
            age_us,
            deadline_us,
        });
    let offer = (
        any::<bool>(),
        1..4_usize,
        prop_oneof![3 => Just(1_000), 1 => 1..450_usize],
        1..12_usize,
        prop_oneof![3 => Just(1), 1 => 2..4_usize],
    )
        .prop_map(|(worker_idle, side_by_side, tokens_max, rows_max, parts)| {
            Step::Offer(Offer { worker_idle, side_by_side, tokens_max, rows_max }, parts)
        });
    prop_oneof![
        20 => push,
        8 => prop_oneof![0..500_u64, 500..8_000_u64, 20_000..70_000_u64]
            .prop_map(|us| Step::Advance { us }),
        8 => offer,
        2 => Just(Step::Expire),
        1 => (2..6_u64).prop_map(|modulus| Step::RemoveEach { modulus }),
        2 => (1..500_usize, 10..20_000_u64).prop_map(|(tokens, us)| Step::Observe { tokens, us }),
        1 => any::<bool>().prop_map(Step::SetDraining),
        2 => (0..30_usize).prop_map(|rows| Step::UnderWay { rows }),
        2 => Just(Step::Completed),
        1 => prop_oneof![9 => Just(Step::Expire), 1 => Just(Step::DrainAll)],
    ]
}

fn run(steps: Vec<Step>, policy: &BatchPolicy) {
    let mut batcher = Batcher::new(policy.clone());
    let mut model = Model::new(policy.clone());
    // Room for entries that were queued before the run began.
    let mut now = Instant::now() + Duration::from_secs(1);
    for (id, step) in (0_u64..).zip(steps) {
        match step {
            Step::Push { priority, tokens, age_us, deadline_us } => {
                let queued_at = now - Duration::from_micros(age_us);
                let deadline = deadline_us.map(|us| now + Duration::from_micros(us));
                let entry = Entry { id, priority, tokens, queued_at, deadline, payload: id };
                if model.held() < policy.entries_max {
                    assert_eq!(batcher.push(entry.clone()), Ok(()));
                    model.classes[priority.index()].push(entry);
                } else {
                    assert_eq!(batcher.push(entry.clone()), Err(entry));
                }
            }
            Step::Advance { us } => now += Duration::from_micros(us),
            Step::Offer(offer, parts) => model.seal(&mut batcher, (&offer, parts), now),
            Step::Expire => {
                let mut expected = std::mem::take(&mut model.set_apart);
                expected.extend(model.take(|entry| has_expired(entry, now)));
                assert_same(batcher.expire(now), expected);
            }
            Step::RemoveEach { modulus } => {
                let cancelled = |entry: &Entry<u64>| entry.payload.is_multiple_of(modulus);
                let mut expected = model.take(cancelled);
                expected.extend(model.set_apart.extract_if(.., |entry| cancelled(entry)));
                assert_same(batcher.remove_if(|id| id.is_multiple_of(modulus)), expected);
            }
            Step::Observe { tokens, us } => {
                batcher.observe(Tier::Cpu, tokens, Duration::from_micros(us))
            }
            Step::UnderWay { rows } => {
                batcher.under_way(rows);
                model.peak = model.peak.max(rows as f64);
            }
            Step::Completed => {
                batcher.completed();
                model.peak *= 0.9;
            }
            Step::SetDraining(draining) => {
                batcher.set_draining(draining);
                model.draining = draining;
            }
            Step::DrainAll => assert_drained(&mut batcher, &mut model),
        }
        model.check_state(&batcher, now);
    }
    assert_drained(&mut batcher, &mut model);
    model.check_state(&batcher, now);
    assert!(batcher.is_empty());
}

fn assert_drained(batcher: &mut Batcher<u64>, model: &mut Model) {
    let mut expected = model.take(|_| true);
    expected.append(&mut model.set_apart);
    assert_same(batcher.drain_all(), expected);
}

/// The same entries, each as often, in whatever order.
fn assert_same(mut got: Vec<Entry<u64>>, mut expected: Vec<Entry<u64>>) {
    got.sort_by_key(|entry| entry.id);
    expected.sort_by_key(|entry| entry.id);
    assert_eq!(got, expected);
}

fn check(seed: u64, cases: u32, policy: &BatchPolicy) {
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&vec(step(), 1..160), |steps| {
            run(steps, policy);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

#[test]
fn any_steps_agree_with_the_model() {
    // Few enough entries that the queue is often full.
    check(1, 1_500, &BatchPolicy { entries_max: 14, ..policy() });
}

#[test]
fn any_steps_agree_with_the_model_when_every_limit_is_at_its_edge() {
    let edge = BatchPolicy {
        tokens_max: 60,
        rows_max: 1,
        max_wait: Duration::ZERO,
        interactive_ageing: Duration::ZERO,
        bulk_ageing: Duration::ZERO,
        entries_max: 6,
        duration_target: Duration::ZERO,
        bulk_duration_target: Duration::ZERO,
        tokens_min: 60,
    };
    check(2, 300, &edge);
    let two_rows = BatchPolicy { rows_max: 2, ..edge };
    check(3, 300, &two_rows);
    let never = BatchPolicy { max_wait: millis(50), rows_max: 64, tokens_max: 5_000, ..policy() };
    check(4, 300, &never);
}

#[test]
fn times_too_long_for_the_clock_mean_never_and_do_not_panic() {
    let endless = BatchPolicy {
        max_wait: Duration::MAX,
        interactive_ageing: Duration::MAX,
        bulk_ageing: Duration::MAX,
        ..policy()
    };
    let now = Instant::now();
    let mut batcher = Batcher::new(endless);
    batcher.push(super::entry(0, Priority::Bulk, 9, now)).unwrap();
    assert_eq!(batcher.next_wakeup(1, now), None);
    assert_eq!(batcher.seal(&super::offer(false), now + Duration::from_secs(3_600)), None);
    // A deadline cannot be met by a worker that is far too slow: sealed at once, not divided by.
    batcher.observe(Tier::Cpu, 1, Duration::from_secs(u64::MAX / 4));
    let mut urgent = super::entry(1, Priority::Bulk, 9, now);
    urgent.deadline = Some(now + Duration::from_secs(3_600));
    batcher.push(urgent).unwrap();
    assert_eq!(batcher.next_wakeup(1, now), Some(now));
    assert_eq!(batcher.seal(&super::offer(false), now).map(|batch| batch.entries.len()), Some(2));
}

#[test]
fn a_slot_that_holds_nothing_is_no_offer() {
    let now = Instant::now();
    let mut batcher = Batcher::new(policy());
    batcher.push(super::entry(0, Priority::Control, 9, now)).unwrap();
    for (tokens_max, rows_max) in [(0, 8), (400, 0)] {
        let offer = Offer { worker_idle: true, side_by_side: 1, tokens_max, rows_max };
        assert_eq!(batcher.seal(&offer, now), None);
    }
    assert!(batcher.seal(&super::offer(true), now).is_some());
}
