//! The dispatcher's promises, tested over seeded random histories and a few exact ones.

mod beside;
mod fake;
mod late;
mod suspects;
mod tiers;
mod world;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::fake::Effect;
use self::world::{GRACE, Ladder, SLACK, World, ms};
use crate::config::Tier;
use crate::dispatch::port::WorkerNews;
use crate::error::EmbedError;
use crate::metrics::Metrics;
use crate::priority::Priority;

/// What may go wrong in a history.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// Workers die only of what they are given.
    Poison,
    /// They are also killed from outside, hang, and stay away for a while.
    Everything,
}

fn priority(random: &mut SmallRng) -> Priority {
    Priority::ALL[random.random_range(0..Priority::ALL.len())]
}

/// One random history, run to its end.
fn history(seed: u64, faults: Faults, metrics: &Arc<Metrics>) -> World {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut world = World::new(metrics);
    world.slots = random.random_range(1..4);
    world.side_by_side = random.random_range(1..=2);
    world.service = Duration::from_micros(random.random_range(200..15_000));
    world.restart_after = Some(ms(random.random_range(1..120)));
    if random.random_bool(0.5) {
        world.ladder = Ladder::Canary(ms(random.random_range(0..60)));
    }
    for _ in 0..random.random_range(1..4) {
        world.tier = [Tier::Cpu, Tier::Gpu][random.random_range(0..2)];
        world.start_worker(ms(random.random_range(0..60)));
    }
    let odds = random.random_range(0.0..0.15);
    for _ in 0..random.random_range(1..12) {
        let after = Duration::from_micros(random.random_range(0..120_000));
        let mut ids = Vec::new();
        for _ in 0..random.random_range(1..20) {
            let effect = match random.random_bool(odds) {
                true => {
                    [Effect::Kills, Effect::FailsBatch, Effect::FailsRow][random.random_range(0..3)]
                }
                false => Effect::None,
            };
            let (tokens, class) = (random.random_range(1..40), priority(&mut random));
            let everything = faults == Faults::Everything;
            let deadline = (everything && random.random_bool(0.2))
                .then(|| world.now + ms(random.random_range(1..400)));
            let id = world.text(tokens, class, effect, deadline);
            if everything && random.random_bool(0.05) {
                world.cancel(id, after + ms(random.random_range(0..100)));
            }
            ids.push(id);
        }
        world.arrive(ids, after);
    }
    if faults == Faults::Everything {
        for _ in 0..random.random_range(0..6) {
            for _ in 0..random.random_range(0..30) {
                world.step();
            }
            world.hang_next = random.random_bool(0.3);
            world.corrupt_next = random.random_bool(0.1);
            if let Some(&id) = world.workers.keys().next_back() {
                world.stall(id, ms(random.random_range(0..190)));
            }
            world.no_hope_next = random.random_bool(0.1);
            if let Some(&id) = world.workers.keys().next() {
                world.kill_worker(id, ms(random.random_range(0..50)));
            }
            if random.random_bool(0.2) {
                world.restart_after = Some(GRACE + ms(50));
            }
        }
        // From here on the workers are healthy, so everything must come to its end.
        world.hang_next = false;
        world.corrupt_next = false;
        world.no_hope_next = false;
        world.restart_after = Some(ms(20));
    }
    world.run_to_the_end();
    world
}

#[test]
fn what_is_innocent_gets_its_result_and_what_kills_is_named() {
    let metrics = Arc::new(Metrics::new());
    for seed in 0..2_000 {
        let world = history(seed, Faults::Poison, &metrics);
        for (id, text) in &world.texts {
            let result = text.result.as_ref().expect("answered");
            match (text.effect, result) {
                (Effect::None, Ok(_)) => assert!((1..=2).contains(&world.runs(*id))),
                (Effect::Kills, Err(EmbedError::PoisonInput { executions: 2 }))
                | (Effect::FailsBatch, Err(EmbedError::Inference { .. }))
                | (Effect::FailsRow, Err(EmbedError::InvalidResult { .. })) => {
                    let runs = world.runs(*id);
                    assert!(runs == 2 || runs == 1 && text.effect == Effect::FailsBatch);
                }
                (effect, result) => panic!("seed {seed}: {effect:?} text {id} has {result:?}"),
            }
        }
    }
}

#[test]
fn every_text_gets_one_typed_answer_whatever_happens_to_the_workers() {
    let metrics = Arc::new(Metrics::new());
    let mut codes = std::collections::BTreeSet::new();
    let mut news = [0; 5];
    for seed in 0..2_000 {
        let world = history(seed, Faults::Everything, &metrics);
        for told in &world.news {
            news[match told {
                WorkerNews::Canary { verdict: Ok(()), .. } => 0,
                WorkerNews::Canary { verdict: Err(_), .. } => 1,
                WorkerNews::Good { .. } => 2,
                WorkerNews::Late { .. } => 3,
                WorkerNews::CaughtUp { .. } => 4,
                // The budget of these histories is ample.
                WorkerNews::RerunsRefused { .. } => continue,
            }] += 1;
        }
        for (id, text) in &world.texts {
            let result = text.result.as_ref().expect("answered");
            let code = result.as_ref().map_or_else(EmbedError::code, |_| "ok");
            codes.insert(code);
            let fits = match code {
                "ok" => text.effect == Effect::None,
                // A worker that is killed from outside twice takes innocent texts with it.
                "poison_input" => world.runs(*id) == 2,
                "inference" => world.runs(*id) >= 1,
                "invalid_result" => text.effect == Effect::FailsRow,
                "deadline_exceeded" => text.deadline.is_some(),
                "cancelled" => text.cancelled,
                "unavailable" => true,
                _ => false,
            };
            assert!(fits, "seed {seed}: {:?} text {id} has {result:?}", text.effect);
        }
    }
    // The histories are wild enough to bring every answer and all kinds of news about.
    assert_eq!(codes.len(), 7, "{codes:?}");
    assert!(news.iter().all(|count| *count > 50), "{news:?}");
}

#[test]
fn with_nobody_to_serve_texts_wait_for_the_grace_and_no_longer() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    let first = world.text(3, Priority::Bulk, Effect::None, None);
    world.arrive(vec![first], ms(10));
    world.step();
    let down_at = world.now + GRACE - ms(10);
    assert_eq!(world.core.next_wakeup(world.now), Some(down_at));
    world.core.pump(down_at - Duration::from_nanos(1));
    assert!(!world.texts[&first].group.is_complete());
    world.core.pump(down_at);
    assert!(world.texts[&first].group.is_complete());
    // And the next one is refused at once.
    world.now = down_at;
    let second = world.text(3, Priority::Control, Effect::None, None);
    world.arrive(vec![second], Duration::ZERO);
    world.step();
    for id in [first, second] {
        let result = world.texts[&id].result.as_ref().expect("answered");
        assert_eq!(result.as_ref().map_err(EmbedError::code), Err("unavailable"));
    }
}

#[test]
fn without_hope_nothing_waits_until_there_is_hope_again() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    let waiting = world.text(3, Priority::Bulk, Effect::None, None);
    world.arrive(vec![waiting], Duration::ZERO);
    world.step();
    world.no_hope();
    assert!(world.texts[&waiting].group.is_complete());
    let refused = world.text(3, Priority::Bulk, Effect::None, None);
    world.arrive(vec![refused], GRACE * 2);
    world.step();
    for id in [waiting, refused] {
        let result = world.texts[&id].result.as_ref().expect("answered");
        assert_eq!(result.as_ref().map_err(EmbedError::code), Err("unavailable"));
    }
    world.start_worker(Duration::ZERO);
    world.step();
    let served = world.text(3, Priority::Bulk, Effect::None, None);
    world.arrive(vec![served], Duration::ZERO);
    world.run_to_the_end();
    assert!(world.texts[&served].result.as_ref().expect("answered").is_ok());
}

#[test]
fn the_most_urgent_suspect_runs_first() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.start_worker(Duration::ZERO);
    let bulk = world.text(4, Priority::Bulk, Effect::Kills, None);
    let more = world.text(4, Priority::Bulk, Effect::None, None);
    let control = world.text(4, Priority::Control, Effect::None, None);
    // The bulk texts are in the first batch, the control text in the second of the same worker.
    world.arrive(vec![bulk, more], ms(1));
    world.arrive(vec![control], ms(2));
    world.run_to_the_end();
    assert_eq!(world.books.borrow().alone(), [control, bulk, more]);
}

#[test]
fn a_worker_on_its_way_out_still_counts() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.start_worker(Duration::ZERO);
    world.step();
    let deadline = world.now + ms(4);
    let text = world.text(4, Priority::Bulk, Effect::None, Some(deadline));
    world.arrive(vec![text], ms(1));
    world.step();
    let id = *world.workers.keys().next().expect("a worker");
    // It drains, or is being killed: what it holds is neither forgotten nor finished.
    world.core.worker_leaving(id, world.now);
    assert!(!world.core.is_quiet());
    assert_eq!(world.core.next_wakeup(world.now), Some(deadline + SLACK));
    world.core.pump(deadline + SLACK);
    assert!(world.texts[&text].group.is_complete());
}

#[test]
fn a_suspect_keeps_its_deadline_while_nobody_serves() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.restart_after = None;
    world.start_worker(Duration::ZERO);
    world.step();
    let deadline = world.now + ms(100);
    let text = world.text(4, Priority::Bulk, Effect::Kills, Some(deadline));
    world.arrive(vec![text], ms(1));
    while !world.workers.is_empty() {
        world.step();
    }
    assert!(!world.texts[&text].group.is_complete());
    assert!(!world.core.is_quiet());
    assert_eq!(world.core.next_wakeup(world.now), Some(deadline));
    world.run_to_the_end();
    let result = world.texts[&text].result.as_ref().expect("answered");
    assert_eq!(result.as_ref().map_err(EmbedError::code), Err("deadline_exceeded"));
}

#[test]
fn the_only_row_left_of_a_failed_batch_was_not_alone_in_it() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.start_worker(Duration::ZERO);
    world.step();
    // The culprit's deadline passes while it runs, so that only its neighbour is handed back.
    let culprit = world.text(
        4,
        Priority::Bulk,
        Effect::FailsBatch,
        Some(world.now + Duration::from_millis(2)),
    );
    let neighbour = world.text(4, Priority::Bulk, Effect::None, None);
    world.service = ms(50);
    world.arrive(vec![culprit, neighbour], ms(1));
    world.run_to_the_end();
    assert!(world.texts[&neighbour].result.as_ref().expect("answered").is_ok());
}
