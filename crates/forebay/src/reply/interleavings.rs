//! The answers of a submission while its caller polls, waits and withdraws it.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use shuttle::thread;

use super::*;
use crate::sync::random_orders;

fn group(texts: usize) -> (Arc<ReplyGroup>, Vec<Replier>) {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    let metrics = Arc::clone(METRICS.get_or_init(|| Arc::new(Metrics::new())));
    ReplyGroup::new(texts, Priority::Interactive, Instant::now(), metrics)
}

fn embedding(tokens: usize) -> EmbedResult {
    let times = crate::options::TextTimes::default();
    Ok(Embedding { vector: vec![1.0], tokens, tokens_before_cut: tokens, times })
}

/// Answers the first text, and drops the second or, if it is withdrawn, says so.
fn answer(mut repliers: Vec<Replier>) -> [thread::JoinHandle<()>; 2] {
    let (second, first) = (repliers.remove(1), repliers.remove(0));
    [
        thread::spawn(move || first.reply(embedding(1))),
        thread::spawn(move || match second.is_cancelled() {
            true => second.reply(Err(EmbedError::Cancelled)),
            false => drop(second),
        }),
    ]
}

fn check(results: &[EmbedResult], may_be_cancelled: bool) {
    assert_eq!(results.len(), 2);
    assert_eq!(results[0], embedding(1));
    match results[1].as_ref().expect_err("it was not computed") {
        EmbedError::Cancelled => assert!(may_be_cancelled),
        error => assert_eq!(error.code(), "internal"),
    }
}

// A caller that is not woken is a deadlock, which ends a test.

#[test]
fn a_future_is_woken_by_the_last_answer() {
    random_orders(20_000, || {
        let (group, repliers) = group(2);
        let answers = answer(repliers);
        // An earlier poll from elsewhere, whose waker is of no use any more.
        let done = group.poll(&Context::from_waker(Waker::noop()));
        let results = match done {
            Poll::Ready(results) => results,
            Poll::Pending => shuttle::future::block_on(poll_fn(|context| group.poll(context))),
        };
        check(&results, false);
        assert!(group.is_complete());
        for answer in answers {
            answer.join().expect("no panic");
        }
    });
}

#[test]
fn a_thread_is_woken_by_the_last_answer_also_if_it_has_withdrawn() {
    random_orders(20_000, || {
        let (group, repliers) = group(2);
        let answers = answer(repliers);
        let withdrawing = {
            let group = Arc::clone(&group);
            thread::spawn(move || group.cancel())
        };
        check(&group.wait(None).expect("waits without limit"), true);
        for answer in answers {
            answer.join().expect("no panic");
        }
        withdrawing.join().expect("no panic");
    });
}
