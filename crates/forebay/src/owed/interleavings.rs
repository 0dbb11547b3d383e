//! Twins that answer, give up, are dropped and are withdrawn at the same time.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use shuttle::thread;

use super::*;
use crate::admission::Admission;
use crate::config::AdmissionConfig;
use crate::error::EmbedError;
use crate::metrics::Metrics;
use crate::options::Embedding;
use crate::priority::Priority;
use crate::reply::ReplyGroup;
use crate::sync::random_orders;

fn text() -> (Arc<ReplyGroup>, Arc<Admission>, Owed) {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    let metrics = Arc::clone(METRICS.get_or_init(|| Arc::new(Metrics::new())));
    let admission = Admission::new(&AdmissionConfig::default());
    let (group, mut repliers) = ReplyGroup::new(1, Priority::Bulk, Instant::now(), metrics);
    let mut permits = admission.try_acquire(Priority::Bulk, &[1]).expect("room");
    let owed = Owed::new(repliers.remove(0), permits.remove(0));
    (group, admission, owed)
}

fn embedding(value: f32) -> EmbedResult {
    let times = crate::options::TextTimes::default();
    Ok(Embedding { vector: vec![value], tokens: 1, tokens_before_cut: 1, times })
}

/// The caller has the only answer, and its room is back by the time that it has it.
fn caller_has(group: &ReplyGroup, admission: &Admission, answers: &[(bool, EmbedResult)]) {
    let given: Vec<&EmbedResult> =
        answers.iter().filter(|(given, _)| *given).map(|(_, result)| result).collect();
    let results = group.wait(None).expect("waits without limit");
    assert_eq!(given, results.iter().collect::<Vec<_>>());
    assert_eq!(admission.under_way(Priority::Bulk), 0);
}

/// Gives up as the dispatcher does: the last one answers.
fn gives_up(owed: Owed) -> (bool, EmbedResult) {
    let result = Err(EmbedError::WorkerLost);
    let given = owed.give_up().is_some_and(|last| {
        assert!(!last.is_shared());
        last.reply(result.clone())
    });
    (given, result)
}

#[test]
fn one_of_twins_answers_and_the_room_comes_back_first() {
    random_orders(20_000, || {
        let (group, admission, mut first) = text();
        let (second, third) = (first.twin(), first.twin());
        let caller = {
            let (group, admission) = (Arc::clone(&group), Arc::clone(&admission));
            thread::spawn(move || {
                group.cancel();
                let result = group.wait(None).expect("waits without limit").remove(0);
                assert_eq!(admission.under_way(Priority::Bulk), 0, "the room comes first");
                result
            })
        };
        let answers = [
            thread::spawn(move || {
                let seen = first.is_answered();
                let given = first.reply(embedding(1.0));
                assert!(!(seen && given), "answered twice");
                (given, embedding(1.0))
            }),
            thread::spawn(move || gives_up(second)),
            thread::spawn(move || {
                // Whether it is withdrawn or not, looking at it decides nothing.
                third.is_cancelled();
                gives_up(third)
            }),
        ];
        let answers = answers.map(|answer| answer.join().expect("no panic"));
        let given: Vec<_> = answers.into_iter().filter(|(given, _)| *given).collect();
        assert_eq!(given.len(), 1, "{given:?}");
        assert_eq!(caller.join().expect("no panic"), given[0].1);
    });
}

#[test]
fn the_last_of_twins_that_give_up_decides_and_knows_every_run() {
    random_orders(20_000, || {
        let (group, admission, mut first) = text();
        first.begin_run();
        let twins = [first.twin(), first];
        let answers = twins.map(|mut twin| {
            thread::spawn(move || {
                twin.begin_run();
                if let Some(last) = twin.give_up() {
                    // What one that has gone has run counts too.
                    assert_eq!(last.executions(), 3);
                    return (last.reply(embedding(2.0)), embedding(2.0));
                }
                (false, embedding(2.0))
            })
        });
        let answers = answers.map(|answer| answer.join().expect("no panic"));
        caller_has(&group, &admission, &answers);
    });
}

#[test]
fn twins_that_are_dropped_answer_once_when_the_last_one_goes() {
    random_orders(10_000, || {
        let (group, admission, mut first) = text();
        let second = first.twin();
        let ends = [thread::spawn(move || drop(first)), thread::spawn(move || drop(second))];
        let result = group.wait(None).expect("waits without limit").remove(0);
        assert_eq!(result.expect_err("nobody has computed it").code(), "internal");
        for end in ends {
            end.join().expect("no panic");
        }
        assert_eq!(admission.under_way(Priority::Bulk), 0);
    });
}
