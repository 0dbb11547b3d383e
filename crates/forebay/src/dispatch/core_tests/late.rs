//! Late batches, standings and canaries.

use std::sync::Arc;
use std::time::Duration;

use super::fake::{Effect, Handed};
use super::tiers::{both, texts};
use super::world::{Ladder, World, ms};
use crate::config::{HedgeConfig, Tier};
use crate::dispatch::port::{Standing, WorkerId, WorkerNews};
use crate::metrics::Metrics;
use crate::priority::Priority;

/// Two GPUs of 1 ms a batch about which enough is known; the first to come and the second.
fn two_gpus() -> (World, WorkerId, WorkerId) {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.tier = Tier::Gpu;
    world.service = ms(1);
    world.start_worker(Duration::ZERO);
    world.start_worker(Duration::ZERO);
    world.step();
    texts(&mut world, 200, ms(1));
    world.run_to_the_end();
    world.books.borrow_mut().handed.clear();
    let mut ids = world.workers.keys().copied();
    let (first, second) = (ids.next().expect("one"), ids.next().expect("two"));
    drop(ids);
    (world, first, second)
}

fn until(world: &mut World, done: impl Fn(&World) -> bool) {
    for _ in 0..10_000 {
        if done(world) {
            return;
        }
        assert!(world.step(), "it never comes about");
    }
    panic!("it never comes about");
}

fn in_flight(world: &World, id: WorkerId) -> usize {
    world.workers[&id].state.borrow().in_flight.len()
}

#[test]
fn what_hangs_is_answered_by_another_long_before_its_worker_is_ended() {
    let (mut world, hung, other) = two_gpus();
    world.workers[&hung].state.borrow_mut().hangs = true;
    let from = world.now;
    let ids = texts(&mut world, 40, ms(1));
    until(&mut world, World::all_answered);
    assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
    assert!(world.now - from < ms(60), "{:?}", world.now - from);
    assert!(world.workers.contains_key(&hung), "it lives yet");
    let late = |news: &WorkerNews| matches!(news, WorkerNews::Late { id, .. } if *id == hung);
    assert_eq!(world.news.iter().filter(|news| late(news)).count(), 1);
    // It gets nothing more, and is ended when it counts as hung.
    let before = world.books.borrow().handed.iter().filter(|b| b.worker == hung).count();
    texts(&mut world, 40, ms(1));
    until(&mut world, |world| !world.books.borrow().ends.is_empty());
    let books = world.books.borrow();
    assert_eq!(books.handed.iter().filter(|b| b.worker == hung).count(), before);
    assert_eq!(books.ends[0].0, hung);
    let alone: Vec<&Handed> = books.handed.iter().filter(|b| b.exclusive).collect();
    assert!(!alone.is_empty() && alone.iter().all(|b| b.worker == other));
}

#[test]
fn what_is_only_slow_catches_up_and_is_answered_once() {
    let (mut world, slow, _) = two_gpus();
    let ids = texts(&mut world, 40, ms(1));
    until(&mut world, |world| in_flight(world, slow) > 0);
    world.stall(slow, ms(90));
    world.run_to_the_end();
    assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
    let of_slow: Vec<&WorkerNews> = world
        .news
        .iter()
        .filter(|news| matches!(news, WorkerNews::Late { id, .. } | WorkerNews::CaughtUp { id } if *id == slow))
        .collect();
    assert!(
        matches!(of_slow[..], [WorkerNews::Late { .. }, WorkerNews::CaughtUp { .. }]),
        "{of_slow:?}"
    );
    assert!(world.books.borrow().ends.is_empty());
}

#[test]
fn with_nobody_else_to_serve_only_the_hard_deadline_counts() {
    let (mut world, slow, other) = two_gpus();
    world.restart_after = None;
    world.kill_worker(other, Duration::ZERO);
    world.run_to_the_end();
    texts(&mut world, 8, ms(1));
    until(&mut world, |world| in_flight(world, slow) > 0);
    world.stall(slow, ms(150));
    world.run_to_the_end();
    assert!(!world.news.iter().any(|news| matches!(news, WorkerNews::Late { .. })));
    assert!(world.books.borrow().handed.iter().all(|batch| !batch.exclusive));
}

#[test]
fn a_worker_that_comes_while_another_is_late_takes_over() {
    let (mut world, slow, other) = two_gpus();
    world.restart_after = None;
    world.kill_worker(other, Duration::ZERO);
    world.run_to_the_end();
    let ids = texts(&mut world, 8, ms(1));
    until(&mut world, |world| in_flight(world, slow) > 0);
    world.stall(slow, ms(180));
    let from = world.now;
    world.start_worker(ms(60));
    until(&mut world, World::all_answered);
    assert!(world.now - from < ms(80), "{:?}", world.now - from);
    assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
}

#[test]
fn a_dispatcher_that_was_held_up_hears_the_workers_before_it_judges() {
    let (mut world, one, _) = two_gpus();
    texts(&mut world, 40, ms(1));
    until(&mut world, |world| in_flight(world, one) > 0);
    let planned = world.core.next_wakeup(world.now).expect("something is due");
    // All that time the answers have waited to be read.
    let awake = planned + ms(700);
    world.core.pump(awake);
    assert!(world.core.take_news().is_empty());
    assert!(world.books.borrow().ends.is_empty());
    let wakeup = world.core.next_wakeup(awake).expect("it looks again");
    // They have the time that they had left when nobody was held up: they may have stood still too.
    assert_eq!(wakeup, awake + (planned - world.now));
    // If there are none by then, nothing more is forgiven: also not if it is held up again.
    world.core.pump(wakeup + ms(300));
    assert_eq!(world.books.borrow().ends.len(), 2);
}

#[test]
fn hedging_can_be_turned_off() {
    let hedge = HedgeConfig { enabled: false, samples_min: 1, ..HedgeConfig::default() };
    let mut world = World::with(hedge, &Arc::new(Metrics::new()));
    world.start_worker(Duration::ZERO);
    world.start_worker(Duration::ZERO);
    world.step();
    texts(&mut world, 64, ms(1));
    until(&mut world, |world| world.workers.keys().all(|id| in_flight(world, *id) > 0));
    let slow = *world.workers.keys().next().expect("a worker");
    world.stall(slow, ms(120));
    world.run_to_the_end();
    assert!(world.news.is_empty(), "{:?}", world.news);
}

#[test]
fn a_worker_on_probation_gets_its_share_of_what_can_wait_and_good_news_follows() {
    let (mut world, serving, on_probation) = two_gpus();
    world.set_standing(on_probation, Standing::Probation);
    let soon = world.now + ms(100);
    let mut ids = Vec::new();
    for number in 0..4_000 {
        // One in three could not be run again in time, in a class of its own.
        let (class, deadline) = match number % 3 {
            0 => (Priority::Interactive, Some(soon)),
            _ => (Priority::Bulk, None),
        };
        ids.push(world.text(16, class, Effect::None, deadline));
    }
    world.arrive(ids, ms(1));
    world.run_to_the_end();
    let books = world.books.borrow();
    let of = |id| books.handed.iter().filter(move |batch| batch.worker == id);
    let (share, all) = (of(on_probation).count(), of(serving).count());
    assert!((all / 25..=all / 15 + 2).contains(&share), "{share} beside {all}");
    for batch in of(on_probation) {
        let again_at = batch.at + HedgeConfig::default().floor();
        let in_time = |id| world.texts[id].deadline.is_none_or(|deadline| deadline > again_at);
        assert!(batch.texts.iter().all(in_time));
    }
    let good = |news: &&WorkerNews| **news == WorkerNews::Good { id: on_probation };
    assert_eq!(world.news.iter().filter(good).count(), share);
    assert_eq!(world.news.len(), share, "{:?}", world.news);
}

#[test]
fn what_waits_for_a_slower_tier_goes_to_a_worker_on_probation_batch_by_batch() {
    let mut world = both();
    texts(&mut world, 400, ms(150));
    world.run_to_the_end();
    let gpu = *world.workers.keys().next_back().expect("the GPU");
    let handed = |world: &World| {
        let books = world.books.borrow();
        let of_gpu = books.handed.iter().filter(|batch| batch.worker == gpu).count();
        (of_gpu, books.handed.len())
    };
    // The GPU is on probation, and what it was to compute is 20 times as long for the CPU.
    world.set_standing(gpu, Standing::Probation);
    let before = handed(&world);
    let begin = world.now;
    let many = texts(&mut world, 2_000, ms(1));
    until(&mut world, |world| in_flight(world, gpu) > 0);
    while !many.iter().all(|id| world.texts[id].result.is_some()) {
        assert!(world.step());
        assert!(in_flight(&world, gpu) <= 1, "one batch at a time is at risk");
    }
    let took = world.now - begin;
    let after = handed(&world);
    let (by_gpu, all) = (after.0 - before.0, after.1 - before.1);
    assert!(by_gpu * 10 > all * 9, "{by_gpu} of {all} batches in {took:?}");
    // What the CPU gets to soon is its own, but for the usual share.
    let before = handed(&world);
    for _ in 0..20 {
        texts(&mut world, 1, ms(50));
        world.run_to_the_end();
    }
    let after = handed(&world);
    assert!(after.0 - before.0 <= 3, "{before:?} {after:?}");
}

#[test]
fn probation_is_better_than_nothing() {
    let (mut world, one, other) = two_gpus();
    world.set_standing(one, Standing::Probation);
    world.set_standing(other, Standing::Probation);
    let soon = world.now + ms(100);
    let ids: Vec<u32> =
        (0..200).map(|_| world.text(16, Priority::Control, Effect::None, Some(soon))).collect();
    world.arrive(ids.clone(), ms(1));
    world.run_to_the_end();
    assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
    let books = world.books.borrow();
    for id in [one, other] {
        assert!(books.handed.iter().any(|batch| batch.worker == id));
    }
}

#[test]
fn a_canary_comes_before_a_text_and_its_time_is_a_first_measurement() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    world.ladder = Ladder::Canary(Duration::ZERO);
    world.start_worker(Duration::ZERO);
    let ids = texts(&mut world, 8, Duration::ZERO);
    world.step();
    let id = *world.workers.keys().next().expect("a worker");
    assert_eq!(world.books.borrow().canaries, [id]);
    assert!(world.books.borrow().handed.is_empty(), "it has shown nothing yet");
    assert_eq!(world.core.vital_signs(world.now).backlog, Duration::ZERO, "nothing is known yet");
    until(&mut world, |world| world.workers[&id].state.borrow().standing > Standing::Warming);
    assert!(world.core.vital_signs(world.now).backlog > Duration::ZERO);
    world.run_to_the_end();
    assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
}

#[test]
fn who_computes_wrong_known_answers_gets_nothing_more() {
    let (mut world, wrong, other) = two_gpus();
    world.restart_after = None;
    world.workers[&wrong].state.borrow_mut().corrupt = true;
    let ids = texts(&mut world, 400, ms(1));
    until(&mut world, |world| in_flight(world, wrong) > 1);
    world.core.run_canary(wrong);
    let told = |news: &WorkerNews| matches!(news, WorkerNews::Canary { id, verdict: Err(_), .. } if *id == wrong);
    until(&mut world, |world| world.news.iter().any(told));
    let before = world.books.borrow().handed.len();
    world.run_to_the_end();
    let books = world.books.borrow();
    assert!(books.handed[before..].iter().all(|batch| batch.worker == other));
    assert!(books.handed.len() > before);
    assert!(ids.iter().all(|id| world.texts[id].result.as_ref().expect("answered").is_ok()));
}

#[test]
fn vital_signs_follow_what_happens() {
    let (mut world, one, other) = two_gpus();
    let idle = world.core.vital_signs(world.now);
    assert!(idle.capacity_tokens_per_s > 100_000.0, "{idle:?}");
    assert_eq!((idle.worst_age, idle.queued_texts), (Duration::ZERO, 0));
    world.set_standing(one, Standing::Suspect);
    let half = world.core.vital_signs(world.now).capacity_tokens_per_s;
    assert!((half * 2.0 - idle.capacity_tokens_per_s).abs() < 1.0);
    let ids: Vec<u32> =
        (0..30).map(|_| world.text(16, Priority::Bulk, Effect::None, None)).collect();
    world.accept(ids);
    let from = world.now;
    let signs = world.core.vital_signs(from + ms(7));
    assert_eq!((signs.worst_age, signs.queued_texts), (ms(7), 30));
    world.set_standing(other, Standing::Warming);
    assert_eq!(world.core.vital_signs(from).capacity_tokens_per_s, 0.0);
    world.set_standing(other, Standing::Serving);
    world.workers[&other].state.borrow_mut().hangs = true;
    world.core.pump(from);
    let signs = world.core.vital_signs(from + ms(9));
    assert_eq!(signs.worst_age, ms(9), "in a worker");
    assert!(signs.queued_texts < 30);
}

#[test]
fn what_may_be_under_way_follows_the_level_and_bulk_gives_way_first() {
    let (mut world, one, other) = two_gpus();
    // 16 tokens a text, 64 tokens a millisecond and GPU: 8,000 texts a second together.
    let [control, interactive, bulk] =
        world.core.texts_allowed([0; 3], world.now).map(|allowed| allowed.expect("measured"));
    assert!((6_500..=8_100).contains(&control), "{control}");
    assert!((32_500..=40_500).contains(&interactive), "{interactive}");
    assert!((390_000..=486_000).contains(&bulk), "{bulk}");
    world.core.worker_leaving(one, world.now);
    let half = world.core.texts_allowed([0; 3], world.now)[0].expect("measured");
    assert!(half.abs_diff(control / 2) <= 1);
    let used = world
        .core
        .texts_allowed([1_000, 20_000, 5], world.now)
        .map(|allowed| allowed.expect("known"));
    assert_eq!(used[0], half);
    assert_eq!(used[1], half * 5 - 1_000 + used[1] % 5 - (half * 5 - 1_000) % 5);
    let all = world.core.texts_allowed([1_000_000, 1_000_000, 0], world.now);
    let floor = all[2].expect("known");
    assert!((16..200).contains(&floor), "never closed: {floor}");
    assert_eq!(all[0], Some(half));
    // With nobody left the last known speed stands, and who comes next is not shut out.
    world.core.worker_leaving(other, world.now);
    assert_eq!(world.core.texts_allowed([0; 3], world.now)[0], Some(half));
}

#[test]
fn before_anything_is_measured_nothing_is_limited() {
    let mut world = World::new(&Arc::new(Metrics::new()));
    assert_eq!(world.core.texts_allowed([0; 3], world.now), [None; 3]);
    world.start_worker(Duration::ZERO);
    world.step();
    assert_eq!(world.core.texts_allowed([9; 3], world.now), [None; 3]);
}
