//! Where suspects run, and whose turn it is.

use std::sync::Arc;
use std::time::Duration;

use super::fake::{Effect, Handed};
use super::tiers::{both, texts};
use super::world::{World, ms};
use crate::config::{HedgeConfig, Tier};
use crate::dispatch::port::WorkerId;
use crate::error::EmbedError;
use crate::metrics::Metrics;
use crate::priority::Priority;

/// The batches between the first and the last suspect.
fn contended(world: &World) -> Vec<Handed> {
    let handed = world.books.borrow().handed.clone();
    let first = handed.iter().position(|batch| batch.exclusive).expect("there are suspects");
    let last = handed.iter().rposition(|batch| batch.exclusive).expect("there are suspects");
    handed[first..=last].to_vec()
}

#[test]
fn a_text_is_not_to_blame_for_what_the_host_ends_for_another_reason() {
    for (blameless, runs_max, expected) in [(false, 2, "poison_input"), (true, 3, "worker_lost")] {
        let mut world = World::new(&Arc::new(Metrics::new()));
        world.books.borrow_mut().ends_blameless = blameless;
        world.service = ms(50);
        world.start_worker(Duration::ZERO);
        let text = world.text(4, Priority::Control, Effect::None, None);
        world.arrive(vec![text], ms(1));
        // Its first worker goes, and those in which it is alone.
        for runs in 1..=runs_max {
            while world.runs(text) < runs {
                assert!(world.step(), "it runs");
            }
            let id = *world.workers.keys().next_back().expect("a worker");
            world.kill_worker(id, ms(1));
        }
        world.run_to_the_end();
        let result = world.texts[&text].result.as_ref().expect("answered");
        assert_eq!(result.as_ref().map_err(EmbedError::code), Err(expected));
        assert_eq!(world.runs(text), runs_max);
    }
}

#[test]
fn suspects_and_ordinary_batches_share_the_time_of_one_worker() {
    for service_us in [500, 2_000, 7_000, 15_000] {
        let mut world = World::new(&Arc::new(Metrics::new()));
        world.service = Duration::from_micros(service_us);
        world.slots = 16;
        world.start_worker(Duration::ZERO);
        // So that it holds as much as it may when the culprit runs.
        texts(&mut world, 100, ms(1));
        world.run_to_the_end();
        let mut ids = vec![world.text(16, Priority::Bulk, Effect::Kills, None)];
        ids.extend((0..1_200).map(|_| world.text(16, Priority::Bulk, Effect::None, None)));
        // Its batches die and leave suspects; far more than they need to finish follows.
        world.arrive(ids, ms(1));
        world.run_to_the_end();
        let batches = contended(&world);
        // All batches take the same time here. The account may be off by one turn of 10 ms or four
        // batches, and by what is in the worker.
        let slack = (10_000 / service_us as i64).max(4) + 2;
        let mut lead = 0_i64;
        for batch in &batches {
            lead += if batch.exclusive { 1 } else { -1 };
            assert!(lead.abs() <= slack, "{service_us} us: suspects lead by {lead} batches");
        }
        let alone = batches.iter().filter(|batch| batch.exclusive).count();
        assert!(alone as u64 >= (30_000 / service_us).min(8), "{alone} suspects");
        let after = world.books.borrow().handed.len() - batches.len();
        assert!(after > 100, "suspects do not wait for all of the ordinary");
    }
}

#[test]
fn few_suspects_of_a_gpu_leave_the_other_gpu_alone_if_the_cpu_is_soon_done_with_them() {
    let mut world = both();
    world.restart_after = None;
    world.start_worker(ms(100));
    // The CPU is fast enough for a handful.
    world.step();
    let cpu = *world.workers.keys().next().expect("the CPU");
    world.workers[&cpu].state.borrow_mut().service = Duration::from_micros(800);
    texts(&mut world, 8, ms(1));
    let culprit = world.text(16, Priority::Bulk, Effect::Kills, None);
    world.arrive(vec![culprit], ms(150));
    texts(&mut world, 100, ms(150));
    world.run_to_the_end();
    let books = world.books.borrow();
    let ran = |batch: &Handed| batch.exclusive && batch.texts == [culprit];
    let until = books.handed.iter().position(ran).expect("it ran alone");
    // The CPU dies of the culprit; until then it is where suspects run, and the other GPU goes on.
    assert!(books.handed[..=until].iter().all(|b| !b.exclusive || b.tier == Tier::Cpu));
    assert!(books.handed[until..].iter().any(|b| !b.exclusive && b.tier == Tier::Gpu));
}

#[test]
fn three_hundred_suspects_are_through_soon() {
    let metrics = Arc::new(Metrics::new());
    for loaded in [false, true] {
        let mut world = World::new(&metrics);
        world.restart_after = None;
        world.slots = 16;
        world.service = ms(20);
        world.start_worker(Duration::ZERO);
        world.tier = Tier::Gpu;
        world.service = Duration::from_micros(130);
        for _ in 0..6 {
            world.start_worker(Duration::ZERO);
        }
        world.step();
        // Both speeds are known.
        texts(&mut world, 64, ms(1));
        while !world.all_answered() {
            world.step();
        }
        let gpus: Vec<WorkerId> = world.workers.keys().copied().skip(1).collect();
        let (_, doomed) = gpus.split_first().expect("GPUs");
        for id in doomed {
            world.workers[id].state.borrow_mut().hangs = true;
        }
        let ids = texts(&mut world, 2_000, ms(1));
        let full = |world: &World| {
            let held = |id: &WorkerId| world.workers[id].state.borrow().in_flight.len();
            doomed.iter().all(|id| held(id) == world.slots)
        };
        while !full(&world) {
            assert!(world.step());
        }
        if loaded {
            texts(&mut world, 3_000, Duration::ZERO);
        }
        for id in doomed {
            world.kill_worker(*id, Duration::ZERO);
        }
        let from = world.now;
        world.run_to_the_end();
        let books = world.books.borrow();
        let last = books.handed.iter().rfind(|batch| batch.exclusive).expect("suspects");
        let took = last.at - from;
        let alone = books.alone().len();
        assert!(alone >= 300 && took < ms(100), "{alone} suspects in {took:?}, loaded: {loaded}");
        assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
    }
}

#[test]
fn second_runs_are_bounded_and_the_rest_is_told() {
    let hedge = HedgeConfig { rerun_min: 3, rerun_share_max: 0.0, ..HedgeConfig::default() };
    let mut world = World::with(hedge, &Arc::new(Metrics::new()));
    world.start_worker(Duration::ZERO);
    world.step();
    let culprit = world.text(4, Priority::Bulk, Effect::Kills, None);
    let mut ids = vec![culprit];
    ids.extend((0..7).map(|_| world.text(4, Priority::Bulk, Effect::None, None)));
    world.arrive(ids.clone(), ms(1));
    world.run_to_the_end();
    let codes: Vec<&str> = ids
        .iter()
        .map(|id| world.texts[id].result.as_ref().expect("answered"))
        .map(|result| result.as_ref().map_or_else(EmbedError::code, |_| "ok"))
        .collect();
    let of = |code| codes.iter().filter(|found| **found == code).count();
    // Six of them were in the worker, and three of those may run again.
    assert_eq!([of("poison_input"), of("ok"), of("worker_lost")], [1, 2 + 2, 3], "{codes:?}");
}

#[test]
fn texts_that_run_alone_take_half_a_worker_from_what_may_be_under_way() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.start_worker(Duration::ZERO);
    texts(&mut world, 100, ms(1));
    world.run_to_the_end();
    let mut ids = vec![world.text(16, Priority::Bulk, Effect::Kills, None)];
    ids.extend((0..200).map(|_| world.text(16, Priority::Bulk, Effect::None, None)));
    world.arrive(ids, ms(1));
    // What is measured moves slowly; the share that suspects take comes and goes at once.
    let (mut before, mut halved, mut least) = (0.0_f64, false, f64::INFINITY);
    while !world.all_answered() && world.step() {
        let capacity = world.core.vital_signs(world.now).capacity_texts_per_s;
        if capacity == 0.0 {
            continue;
        }
        // Within the second that control waits at most.
        let allowed = world.core.texts_allowed([0; 3], world.now)[0].expect("measured") as f64;
        assert!((allowed / capacity - 1.0).abs() < 0.01, "{allowed} of {capacity}");
        halved |= (0.45..0.55).contains(&(capacity / before));
        before = capacity;
        least = least.min(capacity);
    }
    assert!(halved);
    world.run_to_the_end();
    let after = world.core.vital_signs(world.now).capacity_texts_per_s;
    assert!(after > 1.5 * least, "{after} after {least}");
}
