//! The load: requests leave when they are due, whatever became of earlier ones (open loop), or as
//! many are under way as was asked for (closed loop).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::clock::{us, us_since};
use crate::error::SoakError;
use crate::event::{Done, Event, Outcome, digest};
use crate::oracle::Oracle;
use crate::plan::{Plan, Planned};
use crate::profile::Class;
use crate::sync::Stop;
use crate::targets::{Answer, Call, Target};

/// Longest sleep of the generator: within it, it hears that it is to stop.
const NAP: Duration = Duration::from_millis(100);

/// How nice the generator's thread is to others.
const GENERATOR_NICE: i32 = -10;

/// What load needs.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) events: mpsc::Sender<Event>,
    /// When the run began.
    pub(crate) zero: Instant,
    /// Set when the run has to end early.
    pub(crate) stop: Stop,
    /// Requests that are sent and not over.
    pub(crate) outstanding: Arc<AtomicU64>,
    /// The number of the next request.
    pub(crate) next: Arc<AtomicU64>,
    pub(crate) outstanding_max: u64,
    pub(crate) connection_wait: Duration,
    pub(crate) reply_wait: Duration,
    pub(crate) slack: Duration,
}

/// Asks the system to wake this thread before others: what it does is little, and the moment
/// matters. Without the privilege for that it stays as it is, and the lag says how late it was.
fn prefer_this_thread() {
    let thread = Some(rustix::thread::gettid());
    if let Err(error) = rustix::process::setpriority_process(thread, GENERATOR_NICE) {
        tracing::debug!(%error, "the generator has no priority over other threads");
    }
}

/// By how much a request was fired later than it could be: when it was due, and the target had let go of
/// the thread that fires. What the target holds it for is the target's.
fn lag(due: Instant, free: Instant, fired: Instant) -> Duration {
    fired.saturating_duration_since(due.max(free))
}

impl Driver {
    /// Microseconds since the run began.
    pub(crate) fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    fn us(&self, moment: Instant) -> u64 {
        us_since(self.zero, moment)
    }

    fn next_request(&self) -> Planned {
        self.plan.request(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends at the moments given, which count from `start`, in a thread of its own.
    pub(crate) fn open_loop(
        &self,
        start: Instant,
        moments: Box<dyn Iterator<Item = Duration> + Send>,
    ) -> Result<std::thread::JoinHandle<()>, SoakError> {
        let driver = self.clone();
        let tasks = tokio::runtime::Handle::current();
        let body = move || {
            prefer_this_thread();
            let mut free = Instant::now();
            for at in moments {
                let due = start + at;
                if !driver.wait_until(due) || !driver.fire(due, &mut free, &tasks) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("fb-load".to_owned()).spawn(body);
        thread.map_err(|error| SoakError::Harness(format!("cannot start a thread: {error}")))
    }

    /// `false` if the run ends first.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            if self.stop.is_set() {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// Sends one request; `false` if nobody records any more. `free` is when the target had let go of
    /// this thread.
    fn fire(&self, due: Instant, free: &mut Instant, tasks: &tokio::runtime::Handle) -> bool {
        let request = self.next_request();
        let fired = Instant::now();
        let (scheduled_us, fired_us) = (self.us(due), self.us(fired));
        let lag_us = us(lag(due, *free, fired));
        // Noted first, so that no reply can come before it.
        let invoke = Event::Invoke { request, scheduled_us, at_us: fired_us };
        if self.events.blocking_send(invoke).is_err() {
            return false;
        }
        if self.outstanding.load(Ordering::Acquire) >= self.outstanding_max {
            let at_us = self.now_us();
            return self
                .events
                .blocking_send(Event::Unsent { request, scheduled_us, at_us })
                .is_ok();
        }
        self.outstanding.fetch_add(1, Ordering::AcqRel);
        // A library takes the texts here and now, in this thread, as a controller would hand them in.
        let _entered = tasks.enter();
        let call = self.call(&request, due);
        let begun = Instant::now();
        let sending = self.target.send(call);
        *free = Instant::now();
        let submit_us = us(free.saturating_duration_since(begun));
        let driver = self.clone();
        drop(tasks.spawn(async move {
            driver.finish(request, scheduled_us, [lag_us, submit_us], sending.await).await;
            driver.outstanding.fetch_sub(1, Ordering::AcqRel);
        }));
        true
    }

    /// Keeps this many requests under way until `end`.
    pub(crate) async fn closed_loop(&self, concurrency: u32, end: Instant) {
        let client = || async {
            while Instant::now() < end && !self.stop.is_set() {
                let request = self.next_request();
                let due = Instant::now();
                let at_us = self.us(due);
                let invoke = Event::Invoke { request, scheduled_us: at_us, at_us };
                if self.events.send(invoke).await.is_err() {
                    return;
                }
                let call = self.call(&request, due);
                let begun = Instant::now();
                let sending = self.target.send(call);
                let submit_us = us(begun.elapsed());
                let sent = sending.await;
                let is_served = matches!(sent.answer, Answer::Rows(_));
                self.finish(request, at_us, [0, submit_us], sent).await;
                if !is_served {
                    // Nobody gains by refusals as fast as they come.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        futures::future::join_all((0..concurrency).map(|_| client())).await;
    }

    fn call(&self, request: &Planned, due: Instant) -> Call {
        let deadline_ms = request.class.deadline_ms;
        let deadline = (deadline_ms > 0).then(|| due + Duration::from_millis(deadline_ms));
        let texts = (request.first..request.first + request.count)
            .filter_map(|text| self.oracle.texts.get(text as usize).cloned())
            .collect();
        let (connection_wait, wait) = (self.connection_wait, self.answer_wait(&request.class));
        Call {
            number: request.number,
            texts,
            priority: request.class.priority,
            deadline,
            connection_wait,
            wait,
        }
    }

    /// How long an answer is waited for from when its request has left.
    fn answer_wait(&self, class: &Class) -> Duration {
        let deadline = (class.deadline_ms > 0).then(|| Duration::from_millis(class.deadline_ms));
        self.reply_wait.max(deadline.map_or(Duration::ZERO, |deadline| deadline + self.slack))
    }

    /// The longest that a request may take from when it is due: for a connection, then for its answer.
    pub(crate) fn longest_wait(&self, classes: &[Class]) -> Duration {
        let answers = classes.iter().map(|class| self.answer_wait(class));
        self.connection_wait + answers.max().unwrap_or(self.reply_wait)
    }

    async fn finish(
        &self,
        request: Planned,
        scheduled_us: u64,
        [lag_us, submit_us]: [u64; 2],
        sent: crate::targets::Sent,
    ) {
        let at_us = self.us(sent.over_at);
        let outcome = match sent.answer {
            Answer::Rows(rows) => {
                Outcome::Rows(rows.into_iter().map(|vector| (digest(&vector), vector)).collect())
            }
            Answer::Refused(kind) => Outcome::Refused(kind),
            Answer::Error(kind) => Outcome::Error(kind),
            Answer::Unreadable(why) => Outcome::Unreadable(why),
            Answer::Lost(why) => Outcome::Lost(why),
        };
        let sent_us = self.us(sent.sent_at);
        let done = Done { request, scheduled_us, lag_us, submit_us, sent_us, at_us, outcome };
        // A recorder that is gone says why at the end.
        self.events.send(Event::Done(Box::new(done))).await.ok();
    }

    /// Waits until every request is over, for `at_most`.
    pub(crate) async fn drain(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        while self.outstanding.load(Ordering::Acquire) > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_target_holds_the_generator_for_is_no_lag_of_the_harness() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let ms = |due, free, fired| lag(at(due), at(free), at(fired)).as_millis();
        assert_eq!(ms(10, 3, 12), 2);
        assert_eq!(ms(10, 500, 501), 1);
        assert_eq!(ms(10, 3, 10), 0);
    }
}
