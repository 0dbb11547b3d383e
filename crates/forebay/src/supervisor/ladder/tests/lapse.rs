//! A worker that is late for a moment.

use super::*;

/// Both GPUs serve, and the first has a relapse on record.
fn with_a_relapse() -> Watched {
    let mut watched = Watched::new(1);
    watched.go_well(ms(1));
    watched.crash(0);
    watched.go_well(ms(60_000));
    assert_eq!(watched.level, Level::Gpu(2));
    watched
}

/// The first GPU is late, and has answered everything so much later.
fn late_for(watched: &mut Watched, late: Duration) {
    let id = watched.of(0);
    watched.handle(Event::Late(id, "20 ms".to_owned()));
    assert_eq!(watched.level, Level::Gpu(1), "it gets nothing while it is late");
    watched.now += late;
    watched.handle(Event::CaughtUp(id));
    assert_eq!(watched.level, Level::Gpu(1), "nor before it has given the known answers");
    watched.handle(Event::Canary(id, Ok(())));
}

#[test]
fn who_lapses_serves_again_with_the_known_answers() {
    let mut watched = with_a_relapse();
    late_for(&mut watched, ms(5));
    assert_eq!(watched.level, Level::Gpu(2));
    watched.now += limits().restarts.lapse_gap();
    late_for(&mut watched, limits().restarts.lapse());
    assert_eq!(watched.level, Level::Gpu(2));
}

#[test]
fn who_lapses_again_soon_or_is_late_for_long_goes_on_probation() {
    let mut watched = with_a_relapse();
    late_for(&mut watched, ms(5));
    late_for(&mut watched, ms(5));
    assert_eq!(watched.states[0], WorkerState::Probation);
    let mut watched = with_a_relapse();
    late_for(&mut watched, limits().restarts.lapse() + ms(1));
    assert_eq!(watched.states[0], WorkerState::Probation);
}

#[test]
fn who_is_late_again_before_its_known_answers_goes_on_probation() {
    let mut watched = with_a_relapse();
    let id = watched.of(0);
    for _ in 0..2 {
        watched.handle(Event::Late(id, "20 ms".to_owned()));
        watched.handle(Event::CaughtUp(id));
    }
    watched.handle(Event::Canary(id, Ok(())));
    assert_eq!(watched.states[0], WorkerState::Probation);
}

/// How long the first GPU is on probation after this and the end of its worker.
fn dwell_after(falls: impl FnOnce(&mut Watched)) -> Duration {
    let mut watched = with_a_relapse();
    falls(&mut watched);
    watched.handle(Event::Lost(watched.of(0), "end of socket".to_owned()));
    watched.handle(Event::Capped(None));
    while watched.states[0] != WorkerState::Probation {
        watched.go_well(ms(0));
        if let Some(next) = watched.ladder.next_wakeup() {
            watched.to(next);
        }
    }
    let from = watched.now;
    while watched.states[0] == WorkerState::Probation {
        let next = watched.ladder.next_wakeup().expect("a canary or the end of the dwell");
        watched.to(next);
        watched.go_well(ms(0));
    }
    watched.now - from
}

fn late(watched: &mut Watched) {
    watched.handle(Event::Late(watched.of(0), "20 ms".to_owned()));
}

fn catch_up(watched: &mut Watched) {
    late(watched);
    watched.handle(Event::CaughtUp(watched.of(0)));
}

#[test]
fn who_ends_while_it_is_late_has_fallen() {
    let of_a_crash = dwell_after(|_| {});
    assert_eq!(dwell_after(late), of_a_crash, "one fall, not two and not none");
    assert_eq!(dwell_after(catch_up), of_a_crash);
}

#[test]
fn a_lapse_is_over_when_the_level_is_capped() {
    let cap = |watched: &mut Watched| {
        watched.handle(Event::Capped(Some(Level::Cpu)));
        watched.handle(Event::Canary(watched.of(0), Ok(())));
        assert_eq!(watched.states[0], WorkerState::Capped);
    };
    let of_a_capped_one = dwell_after(cap);
    assert!(of_a_capped_one < dwell_after(|_| {}), "it served nobody, so it has not fallen");
    let of_a_late_one = dwell_after(|watched| {
        catch_up(watched);
        cap(watched);
    });
    assert_eq!(of_a_late_one, of_a_capped_one);
}

#[test]
fn others_wait_out_their_back_off_for_who_has_lapsed_and_not_for_who_is_stuck() {
    let soon = limits().restarts.backoff_alone_max() + ms(100);
    let still_waits = |seed, falls: &dyn Fn(&mut Watched)| {
        let mut watched = Watched::new(seed);
        watched.go_well(ms(1));
        watched.handle(Event::Unkillable(watched.of(2)));
        for _ in 0..3 {
            watched.crash(1);
            watched.go_well(ms(5_000));
            assert_eq!(watched.states[1], WorkerState::Serving);
        }
        watched.crash(1);
        falls(&mut watched);
        watched.to(watched.now + soon);
        watched.states[1] == WorkerState::Backoff
    };
    let lapses = |watched: &mut Watched| {
        catch_up(watched);
        watched.handle(Event::Canary(watched.of(0), Ok(())));
        assert_eq!(watched.states[0], WorkerState::Serving);
    };
    let sticks = |watched: &mut Watched| {
        late(watched);
        watched.handle(Event::Unkillable(watched.of(0)));
    };
    assert!((0..20).any(|seed| still_waits(seed, &lapses)), "no back-off was long enough");
    assert!((0..20).all(|seed| !still_waits(seed, &sticks)));
}
