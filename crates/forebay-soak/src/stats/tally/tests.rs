//! What is late, what is calm.

use forebay::Priority;

use super::*;
use crate::event::Outcome;
use crate::profile::Class;

/// A tally of the first hundred seconds.
fn tally() -> Tally {
    let mut tally = Tally::new(50_000, 100.0).unwrap();
    tally.measure(Span { from_us: 0, to_us: 100_000_000 });
    tally
}

/// A request with a deadline of ten seconds that was due, sent and over at these seconds.
fn done(number: u64, [due, sent, over]: [u64; 3]) -> Done {
    let class = Class { priority: Priority::Control, share: 1.0, deadline_ms: 10_000 };
    let us = |seconds: u64| seconds * 1_000_000;
    Done {
        request: Planned { number, first: 0, count: 1, class },
        scheduled_us: us(due),
        lag_us: 0,
        submit_us: 0,
        sent_us: us(sent),
        at_us: us(over),
        outcome: Outcome::Rows(Vec::new()),
    }
}

#[test]
fn a_caller_that_waited_for_a_connection_has_waited() {
    let mut tally = tally();
    tally.done(&done(0, [0, 9, 11]), &Ended::Served { right: true });
    tally.done(&done(1, [0, 0, 9]), &Ended::Served { right: true });
    let (tallied, ..) = tally.finish();
    assert_eq!((tallied.served, tallied.late, tallied.good), (2, 1, 1));
}

#[test]
fn what_comes_while_no_fault_lasts_is_counted_apart() {
    let mut tally = tally();
    let lost = Cow::Borrowed("worker_lost");
    tally.done(&done(0, [0, 0, 1]), &Ended::Served { right: true });
    tally.done(&done(1, [1, 1, 2]), &Ended::Error(&lost));
    tally.fault(5_000_000);
    tally.done(&done(2, [4, 4, 6]), &Ended::Error(&lost));
    tally.done(&done(3, [6, 6, 7]), &Ended::Lost);
    tally.fault_over(0, 8_000_000);
    tally.done(&done(4, [9, 9, 10]), &Ended::Lost);
    let (tallied, ..) = tally.finish();
    assert_eq!((tallied.calm_offered, tallied.calm_good), (3, 1));
    let counts = |map: &BTreeMap<String, u64>| (map["worker_lost"], map["lost"]);
    assert_eq!(counts(&tallied.errors_by_kind), (2, 2));
    assert_eq!(counts(&tallied.calm_errors), (1, 1));
}

#[test]
fn faults_beyond_those_that_are_kept_are_counted() {
    let mut tally = tally();
    for index in 0..FAULTS_MAX + 3 {
        tally.fault(1_000_000);
        tally.fault_over(index, 1_000_000);
    }
    let (tallied, _, windows) = tally.finish();
    assert_eq!((windows.len(), tallied.faults_not_kept), (FAULTS_MAX, 3));
}
