//! Deadlines, cancellation and urgency, over a real worker process that is kept from computing.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::time::{Duration, Instant};

use forebay::blocking::Runtime;
use forebay::{EmbedOptions, Priority};
use support::script::Script;
use support::tiny::{TinyModel, text};
use support::{GENEROUS, assert_right, eventually, fake_config, start};

fn under_way(runtime: &Runtime, priority: Priority) -> usize {
    let queues = runtime.status().queues;
    queues.iter().find(|queue| queue.priority == priority).map_or(0, |queue| queue.under_way)
}

#[test]
fn a_deadline_that_has_passed_costs_nothing() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let options = EmbedOptions { deadline: Some(Instant::now()), ..EmbedOptions::default() };
    let error = runtime.embed("w1", &options).expect_err("too late");
    assert_eq!(error.code(), "deadline_exceeded");
    assert_eq!(under_way(&runtime, Priority::Interactive), 0);
    runtime.shutdown();
}

#[test]
fn a_deadline_is_told_wherever_the_text_is() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let hold = model.hold();
    // More than the worker takes at once: some wait in it, some in the batcher.
    let within = EmbedOptions::bulk().within(Duration::from_millis(300));
    let tickets: Vec<_> =
        (0..200).map(|number| runtime.submit(text(number), &within).expect("accepted")).collect();
    let mut places = std::collections::BTreeSet::new();
    for ticket in tickets {
        let result = ticket.wait(Some(GENEROUS)).expect("answered although nothing is computed");
        places.insert(result.expect_err("too late").to_string());
    }
    assert!(places.contains("deadline passed while in a worker"), "{places:?}");
    assert!(places.contains("deadline passed while waiting for a batch"), "{places:?}");
    // The room is free again, and the worker, once it goes on, serves as before.
    assert_eq!(under_way(&runtime, Priority::Bulk), 0);
    drop(hold);
    assert_right("w3", &runtime.embed("w3", &EmbedOptions::default()));
    assert!(runtime.shutdown().drained);
}

#[test]
fn waiting_for_room_ends_at_the_deadline() {
    let model = TinyModel::new();
    let mut config = fake_config(model.path());
    config.admission.interactive_requests_max = 2;
    let runtime = start(config);
    let hold = model.hold();
    let options = EmbedOptions::default();
    let tickets = ["w1", "w2"].map(|text| runtime.submit(text, &options).expect("room"));
    let error = runtime
        .submit("w3", &options.within(Duration::from_millis(50)))
        .expect_err("there is no room");
    assert_eq!(error.to_string(), "deadline passed while waiting for room");
    drop(hold);
    for (ticket, text) in tickets.into_iter().zip(["w1", "w2"]) {
        assert_right(text, &ticket.wait(Some(GENEROUS)).expect("answered"));
    }
    assert!(runtime.shutdown().drained);
}

#[test]
fn a_dropped_ticket_gives_its_room_back() {
    let model = TinyModel::new();
    let runtime = start(fake_config(model.path()));
    let hold = model.hold();
    let options = EmbedOptions::bulk();
    let kept: Vec<_> =
        (0..100).map(|number| runtime.submit(text(number), &options).expect("accepted")).collect();
    let dropped: Vec<_> = (100..300)
        .map(|number| runtime.submit(text(number), &options).expect("accepted"))
        .collect();
    assert_eq!(under_way(&runtime, Priority::Bulk), 300);
    drop(dropped);
    // What waits goes at once; what is in the worker has its room until it is back. The worker
    // holds three batches of 16 rows at most, and the texts that were kept came first.
    eventually("room", || (under_way(&runtime, Priority::Bulk) == 100).then_some(()));
    drop(hold);
    for (number, ticket) in kept.into_iter().enumerate() {
        assert_right(&text(number), &ticket.wait(Some(GENEROUS)).expect("answered"));
    }
    assert_eq!(under_way(&runtime, Priority::Bulk), 0);
    assert!(runtime.shutdown().drained);
}

#[test]
fn control_overtakes_bulk() {
    let model = TinyModel::scripted(&Script { delay_us: 20_000, ..Script::default() });
    let runtime = start(fake_config(model.path()));
    let hold = model.hold();
    let bulk: Vec<_> = (0..800)
        .map(|number| runtime.submit(text(number), &EmbedOptions::bulk()).expect("accepted"))
        .collect();
    let control = runtime
        .submit("w5", &EmbedOptions { priority: Priority::Control, ..EmbedOptions::default() })
        .expect("accepted");
    drop(hold);
    assert_right("w5", &control.wait(Some(GENEROUS)).expect("answered"));
    // Fifty batches of 20 ms were before it in the order of arrival; at most those that the worker
    // held went first.
    let done = bulk.iter().filter(|ticket| ticket.is_ready()).count();
    assert!(done < bulk.len() / 2, "{done} bulk texts were answered before it");
    for (number, ticket) in bulk.into_iter().enumerate() {
        assert_right(&text(number), &ticket.wait(Some(GENEROUS)).expect("answered"));
    }
    assert!(runtime.shutdown().drained);
}
