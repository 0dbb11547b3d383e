//! Waits on a made-up clock, for a made-up device.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// What one look at the device takes.
const LOOK: Duration = Duration::from_micros(1);

/// A clock that moves by looks and sleeps only, and notes both.
struct Fake {
    start: Instant,
    state: RefCell<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    now: Duration,
    sleep_extra: Duration,
    looks: u32,
    sleeps: u32,
}

impl Clock for &Fake {
    fn now(&self) -> Instant {
        self.start + self.state.borrow().now
    }

    fn sleep(&self, time: Duration) {
        let mut state = self.state.borrow_mut();
        let extra = state.sleep_extra;
        state.now += time + extra;
        state.sleeps += 1;
    }
}

/// How one wait went.
#[derive(Debug)]
struct Wait {
    late: Duration,
    /// Looks that were followed by no sleep: what polling cost, and two for any wait.
    polled: u32,
    sleeps: u32,
}

impl Fake {
    fn new(sleep_extra_us: u64) -> Self {
        let sleep_extra = Duration::from_micros(sleep_extra_us);
        let state = State { sleep_extra, ..State::default() };
        Self { start: Instant::now(), state: RefCell::new(state) }
    }

    fn look(&self, end: Instant) -> bool {
        let clock = self;
        let is_over = clock.now() >= end;
        let mut state = self.state.borrow_mut();
        state.now += LOOK;
        state.looks += 1;
        is_over
    }

    /// Waits for a batch given now that is over `us` later.
    fn run(&self, completion: &mut Completion<&Self>, tokens: u32, us: u64) -> Wait {
        let clock = self;
        let work = Enqueued { tokens, at: clock.now() };
        self.run_until(completion, work, work.at + Duration::from_micros(us))
    }

    fn run_until(&self, completion: &mut Completion<&Self>, work: Enqueued, end: Instant) -> Wait {
        let clock = self;
        let before = *self.state.borrow();
        completion.batch(work, "a batch", || Ok(self.look(end))).unwrap();
        let after = *self.state.borrow();
        let sleeps = after.sleeps - before.sleeps;
        let polled = (after.looks - before.looks).saturating_sub(sleeps);
        Wait { late: clock.now().saturating_duration_since(end), polled, sleeps }
    }
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

#[test]
fn what_is_done_is_not_waited_for_and_failures_end_the_wait() {
    let completion = Completion::new(0);
    let mut looks = 0;
    let done = completion.until(None, "test", || {
        looks += 1;
        Ok(looks == 4)
    });
    assert_eq!(done.unwrap(), Seen::Between);
    assert_eq!(looks, 4);
    assert_eq!(completion.until(None, "test", || Ok(true)).unwrap(), Seen::Before);
    let failed = completion.until(None, "test", || Err(EngineError::Pipeline("gone")));
    assert!(matches!(failed, Err(EngineError::Pipeline("gone"))));
}

#[test]
fn a_wait_has_an_end() {
    for spin_us in [0, 1000] {
        let fake = Fake::new(0);
        let completion = Completion { limit: us(50_000), ..Completion::with_clock(spin_us, &fake) };
        let never = fake.start + Duration::from_secs(1000);
        for expected in [None, Some(never)] {
            let waited = completion.until(expected, "a batch", || Ok(fake.look(never)));
            let error = waited.unwrap_err();
            assert!(error.to_string().starts_with("a batch did not finish"), "{error}");
        }
    }
}

#[test]
fn an_expected_batch_is_slept_for_once_and_found_at_once() {
    // A sleep that ends 60 us late is within what the wait allows for.
    let fake = Fake::new(60);
    let mut completion = Completion::with_clock(200, &fake);
    for _ in 0..TRUSTED_AFTER {
        let first = fake.run(&mut completion, 4096, 345);
        assert!(first.late <= us(10 + 60 + 30) && first.sleeps > 0, "{first:?}");
    }
    for _ in 0..8 {
        let wait = fake.run(&mut completion, 4096, 345);
        assert!(wait.sleeps == 1 && wait.late <= 2 * LOOK && wait.polled <= 102, "{wait:?}");
    }
    // Nothing is known of other sizes.
    assert!(fake.run(&mut completion, 512, 150).sleeps == 0);
}

#[test]
fn a_batch_behind_another_is_expected_from_the_end_of_that_one() {
    let fake = Fake::new(0);
    let mut completion = Completion::with_clock(200, &fake);
    let mut end = (&fake).now();
    for batch in 0..20 {
        // Two are always under way.
        let work = Enqueued { tokens: 8192, at: end.checked_sub(us(1000)).unwrap_or(end) };
        end += us(1950);
        let wait = fake.run_until(&mut completion, work, end);
        if batch > u32::from(TRUSTED_AFTER) {
            assert!(wait.sleeps == 1 && wait.late <= 2 * LOOK, "batch {batch}: {wait:?}");
        }
    }
}

#[test]
fn too_long_an_expectation_is_forgotten() {
    let fake = Fake::new(0);
    let mut completion = Completion::with_clock(200, &fake);
    for _ in 0..TRUSTED_AFTER {
        fake.run(&mut completion, 100, 100_000);
    }
    let late: Vec<_> = (0..9).map(|_| fake.run(&mut completion, 100, 110).late).collect();
    assert!(late[0] > us(50_000), "the test tests nothing: {late:?}");
    assert!(late[1..].iter().all(|&late| late <= 2 * LOOK), "{late:?}");
}

#[test]
fn classes_are_fine_and_cover_every_size() {
    assert_eq!((class(0), class(1), class(u32::MAX)), (0, 0, CLASSES - 1));
    for tokens in (1..9000_u32).chain([1 << 20, u32::MAX - 1]) {
        let next = tokens.saturating_add(tokens / 4 + 1);
        assert!(class(tokens) < class(next) || next == u32::MAX, "{tokens}");
        assert!(class(tokens) <= class(tokens + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(0xc03),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the device does, a wait polls no longer than it may, and is late by no more than
    /// its last pause or, when the device became faster, by what it expected.
    #[test]
    fn polling_is_bounded(
        spin_us in 0..400_u32,
        sleep_extra_us in 0..100_u64,
        batches in prop::collection::vec((1..10_000_u32, 1..20_000_u64), 1..80),
    ) {
        let fake = Fake::new(sleep_extra_us);
        let mut completion = Completion::with_clock(spin_us, &fake);
        let mut longest = 0;
        for (tokens, time_us) in batches {
            let wait = fake.run(&mut completion, tokens, time_us);
            longest = longest.max(time_us);
            prop_assert!(wait.polled <= spin_us + 3, "{wait:?}");
            let pause = PAUSE_MAX + us(sleep_extra_us) + 3 * LOOK;
            prop_assert!(wait.late <= pause + us(longest.saturating_sub(time_us)), "{wait:?}");
        }
    }
}
