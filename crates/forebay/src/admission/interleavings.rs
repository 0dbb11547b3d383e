//! The gate while its limits move, room is taken and comes back, and it closes.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::sync::random_orders;

const CLASS: Priority = Priority::Interactive;
const MAX: usize = 4;

fn gate() -> Arc<Admission> {
    let config =
        AdmissionConfig { interactive_requests_max: MAX as u32, ..AdmissionConfig::default() };
    Admission::new(&config)
}

fn limit(requests: usize) -> [Option<usize>; 3] {
    let mut limits = [None; 3];
    limits[CLASS.index()] = Some(requests);
    limits
}

/// Nothing is under way: all room is there, and not more.
fn check_at_rest(gate: &Arc<Admission>) {
    assert_eq!(gate.under_way(CLASS), 0);
    assert_eq!(gate.class(CLASS).debt.load(Ordering::SeqCst), 0);
    let room = gate.limit(CLASS);
    let all = gate.try_acquire(CLASS, &vec![1; room]).expect("room for the limit");
    assert!(gate.try_acquire(CLASS, &[1]).is_err(), "no more than the limit");
    drop(all);
}

#[test]
fn room_is_neither_lost_nor_made_while_the_limit_moves() {
    random_orders(30_000, || {
        let gate = gate();
        let mut held = gate.try_acquire(CLASS, &[1, 1, 1]).expect("room");
        let last = held.pop();
        let others = [
            thread::spawn(move || drop(held)),
            {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    if let Ok(permits) = gate.try_acquire(CLASS, &[1, 1]) {
                        drop(permits);
                    }
                })
            },
            {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    let permits = block_on(gate.acquire(CLASS, &[1, 1], None)).expect("is open");
                    assert_eq!(permits.len(), 2);
                })
            },
        ];
        for requests in [1, 3, 2] {
            gate.set_limits(limit(requests));
            assert_eq!(gate.limit(CLASS), requests);
            assert!(gate.under_way(CLASS) >= 1, "one has not been given back");
        }
        drop(last);
        for other in others {
            other.join().expect("no panic");
        }
        // Room that was taken and not used comes back without a look at the debt, which is paid the
        // next time.
        gate.set_limits(limit(2));
        check_at_rest(&gate);
        gate.set_limits([None; 3]);
        assert_eq!(gate.limit(CLASS), MAX);
        check_at_rest(&gate);
    });
}

#[test]
fn no_more_are_let_in_than_the_limit_at_rest() {
    random_orders(20_000, || {
        let gate = gate();
        gate.set_limits(limit(2));
        let takers = [(); 3].map(|()| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || {
                let permits = block_on(gate.acquire(CLASS, &[1], None)).expect("is open");
                assert!((1..=2).contains(&gate.under_way(CLASS)));
                drop(permits);
            })
        });
        for taker in takers {
            taker.join().expect("no panic");
        }
        check_at_rest(&gate);
    });
}

#[test]
fn whoever_waits_when_it_closes_is_told() {
    random_orders(20_000, || {
        let gate = gate();
        let held = gate.try_acquire(CLASS, &[1; MAX]).expect("room");
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || block_on(gate.acquire(CLASS, &[1], None)).map(|_| ()))
        };
        let closing = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.close(EmbedError::ShuttingDown))
        };
        // All room is taken until after that.
        let told = waiting.join().expect("no panic");
        assert_eq!(told, Err(EmbedError::ShuttingDown));
        closing.join().expect("no panic");
        assert_eq!(gate.try_acquire(CLASS, &[1]).err(), Some(EmbedError::ShuttingDown));
        drop(held);
        assert_eq!(gate.under_way(CLASS), 0);
    });
}
