//! What puts a slot into quarantine, and what gets it out again.

use super::*;

#[test]
fn wrong_numbers_cost_a_probation_and_are_forgiven_like_any_fall() {
    let mut watched = Watched::new(1);
    let wrong = |watched: &mut Watched| {
        watched.now += ms(10_000);
        watched.to(watched.now);
        watched.handle(Event::Canary(watched.of(0), Err("bit 3 of row 1".to_owned())));
        watched.changes.clear();
        watched.go_well(ms(1_000));
    };
    watched.go_well(ms(1));
    wrong(&mut watched);
    assert_eq!(watched.states[0], WorkerState::Probation, "it has a relapse on record");
    watched.go_well(ms(5_000));
    assert_eq!(watched.states[0], WorkerState::Serving);
    // Ten minutes of good service, and the next time is the first again.
    watched.go_well(ms(600_001));
    wrong(&mut watched);
    watched.go_well(ms(5_000));
    assert_eq!(watched.states[0], WorkerState::Serving);
    // The time of service before a fall counts once, for that fall.
    wrong(&mut watched);
    watched.go_well(ms(600_001));
    assert_eq!(watched.states[0], WorkerState::Quarantined);
}

#[test]
fn a_device_that_became_well_before_its_worker_was_gone_is_tried_again() {
    for stuck in [false, true] {
        let mut watched = Watched::new(1);
        watched.go_well(ms(1));
        let id = watched.of(1);
        let reset = DeviceNews::Unfit(QuarantineReason::Reset, "recovery action 1".to_owned());
        watched.handle(Event::Device(1, reset));
        if stuck {
            watched.handle(Event::Unkillable(id));
        }
        watched.handle(Event::Device(1, DeviceNews::Well));
        let cause = watched.to_end.remove(&id).expect("it is to end");
        watched.handle(Event::Ended(id, cause));
        watched.go_well(ms(10_000));
        assert_eq!(watched.level, Level::Gpu(2), "stuck: {stuck}");
    }
}

#[test]
fn what_is_unknown_changes_nothing_and_is_tried_only_where_nothing_is_ever_known() {
    let mut watched = Watched::new(1);
    watched.go_well(ms(1));
    watched.handle(Event::Device(0, DeviceNews::Hold("too hot".to_owned())));
    watched.crash(0);
    watched.handle(Event::Device(0, DeviceNews::Unknown));
    watched.go_well(ms(100_000));
    assert_eq!(watched.states[0], WorkerState::Probation, "still too hot, for all that is known");
    let reset = || DeviceNews::Unfit(QuarantineReason::Reset, "xid 119".to_owned());
    watched.handle(Event::Device(1, reset()));
    watched.go_well(ms(100_000));
    assert_eq!(watched.states[1], WorkerState::Quarantined);
    watched.handle(Event::Device(1, DeviceNews::Unknown));
    watched.go_well(ms(100_000));
    assert_eq!(watched.states[1], WorkerState::Serving, "no report ever says that it is well");
}

#[test]
fn what_an_earlier_run_left_in_quarantine_stays_there() {
    let mut ladder = Ladder::new(&DEVICES, &limits(), StdRng::seed_from_u64(1));
    let now = Instant::now();
    let left =
        |slot, reason| Restored { slot, reason, detail: "then".to_owned(), probe_after: ms(1_000) };
    let restored = vec![left(0, QuarantineReason::Operator), left(1, QuarantineReason::Canary)];
    ladder.start(restored, false, now);
    let launched = |ladder: &mut Ladder| -> Vec<usize> {
        let actions = ladder.take_actions().into_iter();
        actions
            .filter_map(|a| if let Action::Launch(id) = a { Some(id.slot) } else { None })
            .collect()
    };
    assert_eq!(launched(&mut ladder), [2]);
    let probe = ladder.next_wakeup().expect("a probe of the second");
    assert_eq!(probe, now + ms(1_000));
    ladder.handle(Event::Tick, probe);
    assert_eq!(launched(&mut ladder), [1]);
    assert_eq!(ladder.next_wakeup(), None, "the first waits for somebody");
    // Its wrong numbers are not forgotten either.
    let id = WorkerId { slot: 1, incarnation: 1 };
    let why = || "wrong again".to_owned();
    ladder.handle(Event::Greeted(id), probe);
    ladder.handle(Event::Canary(id, Err(why())), probe);
    ladder.handle(Event::Ended(id, EndCause::Canary(why())), probe);
    let for_good = |action: &Action| {
        matches!(action, Action::Quarantined(1, QuarantineReason::Operator, _, None))
    };
    let actions = ladder.take_actions();
    assert!(actions.iter().any(for_good), "{actions:?}");
}

#[test]
fn a_device_that_needs_a_reset_waits_for_it_and_one_on_hold_is_not_promoted() {
    let mut watched = Watched::new(1);
    watched.go_well(ms(1));
    watched.handle(Event::Device(1, DeviceNews::Well));
    let reset = DeviceNews::Unfit(QuarantineReason::Reset, "recovery action 1".to_owned());
    watched.handle(Event::Device(1, reset));
    assert_eq!(watched.level, Level::Gpu(1));
    watched.go_well(ms(100_000_000));
    assert_eq!(watched.states[1], WorkerState::Quarantined);
    watched.handle(Event::Device(1, DeviceNews::Unknown));
    watched.go_well(ms(1_000_000));
    assert_eq!(watched.states[1], WorkerState::Quarantined, "unknown is not well");
    watched.handle(Event::Device(1, DeviceNews::Well));
    watched.handle(Event::Device(1, DeviceNews::Hold("too hot".to_owned())));
    watched.go_well(ms(1_000_000));
    assert_eq!(watched.states[1], WorkerState::Probation);
    watched.handle(Event::Device(1, DeviceNews::Well));
    assert_eq!(watched.level, Level::Gpu(2));
}
