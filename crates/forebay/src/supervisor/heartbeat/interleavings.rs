//! Two writers and a reader of one heartbeat, in every order of their steps.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::sync::every_order;

const LEVELS: [(Level, HealthReason); 2] =
    [(Level::Down, HealthReason::Starting), (Level::Gpu(2), HealthReason::Nominal)];

fn age(beat: u32) -> Duration {
    Duration::from_millis(u64::from(beat) * 7)
}

#[test]
fn writers_undo_nothing_of_each_other_and_readers_see_whole_parts_in_their_order() {
    let orders = every_order(|| {
        let start = Instant::now();
        let heartbeat = Arc::new(Heartbeat::new(start));
        let supervisor = {
            let heartbeat = Arc::clone(&heartbeat);
            shuttle::thread::spawn(move || heartbeat.set_level(LEVELS[1].0, LEVELS[1].1))
        };
        let dispatcher = {
            let heartbeat = Arc::clone(&heartbeat);
            shuttle::thread::spawn(move || {
                heartbeat.beat(start + age(1), 1_000.0, age(1));
            })
        };
        let mut seen = (0, 0);
        for _ in 0..2 {
            let health = heartbeat.read(start + age(1));
            let level = LEVELS.iter().position(|pair| *pair == (health.level, health.reason));
            let beat = (health.capacity_ktokens_per_s, health.worst_age);
            let beat = (0..2).position(|number| beat == (number, age(number)));
            let now = (level.expect("of one write"), beat.expect("of one beat"));
            assert!(now.0 >= seen.0 && now.1 >= seen.1, "{now:?} after {seen:?}");
            // Who has seen the time of a beat sees what it said.
            assert!(health.beat_age > Duration::ZERO || now.1 == 1);
            seen = now;
        }
        supervisor.join().expect("no panic");
        dispatcher.join().expect("no panic");
        let health = heartbeat.read(start + age(1));
        assert_eq!((health.level, health.reason), LEVELS[1]);
        assert_eq!((health.capacity_ktokens_per_s, health.worst_age), (1, age(1)));
        assert_eq!(health.beat_age, Duration::ZERO);
    });
    assert!(orders > 100, "{orders} orders");
}
