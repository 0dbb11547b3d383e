//! Batches side by side on one worker. That nothing is sent ahead, and nothing beside a batch that has
//! all the cores, is checked by every fake worker in every history.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::fake::{Effect, Handed};
use super::world::{World, ms};
use crate::dispatch::port::Standing;
use crate::metrics::Metrics;
use crate::priority::Priority;

/// A CPU that computes so many batches side by side and takes 7 ms for one with all its cores.
fn cpu(side_by_side: usize) -> World {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.side_by_side = side_by_side;
    world.slots = 4;
    world.start_worker(Duration::ZERO);
    world.step();
    world
}

fn texts(world: &mut World, tokens: &[usize], after: Duration) -> Vec<u32> {
    let text = |tokens: &usize| world.text(*tokens, Priority::Bulk, Effect::None, None);
    let ids: Vec<u32> = tokens.iter().map(text).collect();
    world.arrive(ids.clone(), after);
    ids
}

fn handed(world: &World) -> Vec<Handed> {
    world.books.borrow().handed.clone()
}

fn shapes(world: &World) -> Vec<(usize, bool)> {
    handed(world).iter().map(|batch| (batch.texts.len(), batch.beside)).collect()
}

/// Goes on until so many batches have been handed over.
fn until_handed(world: &mut World, batches: usize) {
    while handed(world).len() < batches {
        assert!(world.step(), "nothing is handed over any more");
    }
}

#[test]
fn little_is_computed_with_all_cores_and_more_in_equal_parts_side_by_side() {
    for (tokens, expected) in [
        (vec![64], vec![(1, false)]),
        (vec![31, 32], vec![(2, false)]),
        (vec![32, 32], vec![(1, true), (1, true)]),
        (vec![20, 20, 20, 20, 20], vec![(2, true), (3, true)]),
        (vec![30, 30, 30], vec![(1, true), (2, true)]),
        // Far from equal: one after the other, each with all the cores.
        (vec![60, 4], vec![(1, false), (1, false)]),
        (vec![4, 60], vec![(1, false), (1, false)]),
        (vec![10, 10, 10, 10, 10, 10, 10], vec![(3, true), (4, true)]),
    ] {
        let mut world = cpu(2);
        // Measured fast enough for all of it at once.
        texts(&mut world, &[64], Duration::ZERO);
        world.run_to_the_end();
        let before = shapes(&world).len();
        texts(&mut world, &tokens, ms(1));
        world.run_to_the_end();
        assert_eq!(shapes(&world)[before..], expected, "{tokens:?}");
    }
}

#[test]
fn one_that_computes_one_after_the_other_gets_no_parts() {
    let mut world = cpu(1);
    texts(&mut world, &[8; 40], Duration::ZERO);
    world.run_to_the_end();
    assert!(shapes(&world).iter().all(|(_, beside)| !beside));
}

#[test]
fn what_comes_beside_a_running_batch_waits_for_its_part_of_what_was_under_way() {
    let mut world = cpu(2);
    world.service = ms(7);
    texts(&mut world, &[64], Duration::ZERO);
    world.run_to_the_end();
    // Nine at once: what comes later waits until three, a third of that, are together.
    texts(&mut world, &[7, 7, 7, 7, 7, 7, 7, 7, 8], ms(1));
    until_handed(&mut world, 3);
    assert_eq!(shapes(&world)[1..], [(4, true), (5, true)]);
    let id = *world.workers.keys().next().expect("the CPU");
    world.stall(id, ms(50));
    // One of the two is done long before the other.
    world.workers[&id].state.borrow_mut().in_flight[0].due = world.now + ms(3);
    while world.workers[&id].state.borrow().in_flight.len() > 1 {
        assert!(world.step());
    }
    let begin = world.now;
    texts(&mut world, &[3, 3], Duration::ZERO);
    texts(&mut world, &[3], Duration::from_micros(1_200));
    until_handed(&mut world, 4);
    assert_eq!(shapes(&world)[3..], [(3, true)]);
    assert_eq!(world.now - begin, Duration::from_micros(1_200));
    world.run_to_the_end();
    // Alone for the wait it goes all the same, beside another while there is one.
    let before = shapes(&world).len();
    texts(&mut world, &[32, 32], ms(1));
    until_handed(&mut world, before + 2);
    world.stall(id, ms(50));
    world.workers[&id].state.borrow_mut().in_flight[0].due = world.now + ms(3);
    texts(&mut world, &[3], ms(4));
    until_handed(&mut world, before + 3);
    assert_eq!(shapes(&world)[before + 2..], [(1, true)]);
    world.run_to_the_end();
}

#[test]
fn batches_do_not_get_small_because_there_are_two_takers() {
    for seed in 0..20 {
        let mut random = SmallRng::seed_from_u64(seed);
        let clients = random.random_range(12..=24);
        let mut world = cpu(2);
        let id = *world.workers.keys().next().expect("the CPU");
        // Each asks again within a millisecond of its answer.
        let mut open = texts(&mut world, &vec![6; clients], Duration::ZERO);
        let mut begin = 0;
        while handed(&world).len() < 300 {
            // No two batches take quite as long.
            let service = Duration::from_micros(random.random_range(6_500..7_500));
            world.workers[&id].state.borrow_mut().service = service;
            assert!(world.step());
            for text in &mut open {
                if world.texts[text].result.is_some() {
                    let again = Duration::from_micros(random.random_range(0..1_000));
                    *text = texts(&mut world, &[6], again)[0];
                }
            }
            if handed(&world).len() <= 20 {
                begin = handed(&world).len();
            }
        }
        let settled = handed(&world).split_off(begin);
        let rows: usize = settled.iter().map(|batch| batch.texts.len()).sum();
        let mean = rows as f64 / settled.len() as f64;
        // A third each, and no slot holds more than eight.
        let part = (clients as f64 / 3.0).min(8.0);
        assert!(mean > 0.8 * part, "seed {seed}: {mean} rows for {clients} clients");
        let beside = settled.iter().filter(|batch| batch.beside).count();
        assert!(beside * 10 > settled.len() * 9, "seed {seed}: {beside} of {}", settled.len());
    }
}

#[test]
fn the_measured_speed_is_what_the_worker_computes() {
    for side_by_side in [1, 2, 3] {
        let mut world = cpu(side_by_side);
        texts(&mut world, &[8; 80], Duration::ZERO);
        world.run_to_the_end();
        let begin = world.now;
        texts(&mut world, &[8; 800], ms(1));
        world.run_to_the_end();
        let computed = 6_400.0 / (world.now - begin - ms(1)).as_secs_f64();
        let measured = world.core.vital_signs(world.now).capacity_tokens_per_s;
        let ratio = measured / computed;
        assert!((0.9..1.1).contains(&ratio), "{side_by_side}: {measured} for {computed}");
    }
}

#[test]
fn known_answers_join_what_runs_and_nothing_joins_them() {
    let mut world = cpu(2);
    texts(&mut world, &[8; 200], Duration::ZERO);
    until_handed(&mut world, 10);
    let id = *world.workers.keys().next().expect("the CPU");
    world.core.run_canary(id);
    let under_way = world.workers[&id].state.borrow().in_flight.iter().any(|batch| batch.beside);
    assert!(under_way, "else it joins nothing");
    world.run_to_the_end();
    assert_eq!(world.books.borrow().canaries, [id]);
    assert!(world.all_answered());
}

#[test]
fn on_probation_it_gets_one_batch_at_a_time_for_all_its_cores() {
    let mut world = cpu(2);
    world.start_worker(Duration::ZERO);
    world.step();
    let second = *world.workers.keys().next_back().expect("two");
    world.set_standing(second, Standing::Probation);
    texts(&mut world, &[8; 2_000], ms(1));
    world.run_to_the_end();
    let of_second: Vec<Handed> =
        handed(&world).into_iter().filter(|batch| batch.worker == second).collect();
    assert!(!of_second.is_empty() && of_second.iter().all(|batch| !batch.beside));
}

#[test]
fn what_dies_takes_both_batches_with_it_and_each_text_runs_once_more_alone() {
    let mut world = cpu(2);
    let culprit = world.text(32, Priority::Bulk, Effect::Kills, None);
    let neighbour = world.text(32, Priority::Bulk, Effect::None, None);
    world.arrive(vec![culprit, neighbour], Duration::ZERO);
    world.run_to_the_end();
    assert_eq!(shapes(&world), [(1, true), (1, true), (1, false), (1, false)]);
    assert!(world.texts[&culprit].result.as_ref().expect("answered").is_err());
    assert!(world.texts[&neighbour].result.as_ref().expect("answered").is_ok());
}
