//! Which rungs get work while a GPU and the CPU serve side by side. That no ordinary batch goes to
//! the CPU then is checked by every fake worker in every history.

use std::sync::Arc;
use std::time::Duration;

use super::fake::Effect;
use super::world::{World, ms};
use crate::config::Tier;
use crate::metrics::Metrics;
use crate::priority::Priority;
use crate::supervisor::EndCause;

/// A CPU worker, served 20 ms a batch, and a GPU worker with 1 ms a batch, which comes later.
pub(super) fn both() -> World {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.service = ms(20);
    world.start_worker(Duration::ZERO);
    world.step();
    world.tier = Tier::Gpu;
    world.service = ms(1);
    world.start_worker(ms(100));
    world
}

pub(super) fn texts(world: &mut World, count: usize, after: Duration) -> Vec<u32> {
    let texts = (0..count).map(|_| world.text(16, Priority::Bulk, Effect::None, None));
    let ids: Vec<u32> = texts.collect();
    world.arrive(ids.clone(), after);
    ids
}

fn tiers(world: &World) -> Vec<Tier> {
    world.books.borrow().handed.iter().map(|batch| batch.tier).collect()
}

#[test]
fn the_cpu_works_until_a_gpu_serves_and_again_when_none_does() {
    let mut world = both();
    world.restart_after = None;
    texts(&mut world, 40, ms(1));
    texts(&mut world, 40, ms(200));
    world.run_to_the_end();
    let before = tiers(&world);
    let first_gpu = before.iter().position(|tier| *tier == Tier::Gpu).expect("the GPU works");
    assert!(first_gpu > 0, "the CPU works first");
    assert!(before[first_gpu..].iter().all(|tier| *tier == Tier::Gpu), "{before:?}");
    let gpu = *world.workers.keys().next_back().expect("the GPU");
    world.kill_worker(gpu, Duration::ZERO);
    texts(&mut world, 8, ms(50));
    world.run_to_the_end();
    let after = tiers(&world);
    assert!(after[before.len()..].iter().all(|tier| *tier == Tier::Cpu), "{after:?}");
    assert!(after.len() > before.len());
}

#[test]
fn a_gpu_that_fails_everything_does_not_keep_the_work() {
    let mut world = both();
    world.restart_after = None;
    world.break_next = true;
    let ids = texts(&mut world, 100, ms(150));
    world.run_to_the_end();
    let books = world.books.borrow();
    let causes: Vec<&EndCause> = books.ends.iter().map(|(_, cause)| cause).collect();
    assert_eq!(causes, [&EndCause::BatchesFailed("scripted".to_owned())]);
    let by_gpu = books.handed.iter().filter(|batch| batch.tier == Tier::Gpu).count();
    // Three failures, and what it had been given by then.
    assert!((3..3 + world.slots).contains(&by_gpu), "{by_gpu}");
    let well = |id: &u32| world.texts[id].result.as_ref().expect("answered").is_ok();
    assert!(ids.iter().filter(|id| well(id)).count() >= 100 - 3, "{causes:?}");
}

#[test]
fn estimates_follow_the_level() {
    let mut world = both();
    texts(&mut world, 64, ms(1));
    texts(&mut world, 64, ms(200));
    world.run_to_the_end();
    // Measured by now: 64 tokens in 20 ms on the CPU, in 1 ms on the GPU. Nothing is pumped, so
    // all of it waits.
    let cpu = *world.workers.keys().next().expect("the CPU");
    let gpu = *world.workers.keys().next_back().expect("the GPU");
    let texts: Vec<_> =
        (0..64).map(|_| world.text(16, Priority::Bulk, Effect::None, None)).collect();
    world.accept(texts);
    let with_gpu = world.core.vital_signs(world.now).backlog;
    world.core.worker_leaving(gpu, world.now);
    let with_cpu = world.core.vital_signs(world.now).backlog;
    assert!(with_cpu > with_gpu * 10, "{with_cpu:?}, {with_gpu:?}");
    // With nobody left the last known speed stands.
    world.core.worker_leaving(cpu, world.now);
    assert_eq!(world.core.vital_signs(world.now).backlog, with_cpu);
}

#[test]
fn two_gpus_halve_the_estimate() {
    let mut world = both();
    texts(&mut world, 64, ms(1));
    texts(&mut world, 64, ms(200));
    world.run_to_the_end();
    let texts: Vec<_> =
        (0..64).map(|_| world.text(16, Priority::Bulk, Effect::None, None)).collect();
    world.accept(texts);
    let one = world.core.vital_signs(world.now).backlog;
    world.start(Tier::Gpu);
    let two = world.core.vital_signs(world.now).backlog;
    assert!(two.abs_diff(one / 2) < Duration::from_micros(1), "{one:?}, {two:?}");
}
