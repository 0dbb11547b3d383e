//! The recorder: one thread that takes every event, writes the history, judges vectors for the
//! figures (the checker does so again for the verdict) and counts.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::event::{Done, Event, Outcome};
use crate::history::{History, base64, field};
use crate::oracle::Oracle;
use crate::stats::{Ended, FaultTally, Interval, Tallied, Tally};
use crate::sync::Stop;

/// The figures so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SoFar {
    /// Seconds since the run began.
    pub at_s: f64,
    /// Requests that were due in the measured time.
    pub offered: u64,
    /// Answered with vectors.
    pub served: u64,
    /// Rightly and in time.
    pub good: u64,
    /// Refused.
    pub refused: u64,
    /// Ended in an error, or lost.
    pub errors: u64,
    /// Median latency from when requests were due, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of these.
    pub p99_ms: f64,
    /// Requests that are sent and not over.
    pub under_way: u64,
    /// Faults injected.
    pub faults: u64,
    /// The level.
    pub level: String,
}

/// What the recorder has when everything is over.
pub(crate) struct Recorded {
    pub(crate) tallied: Tallied,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) interval_s: f64,
    pub(crate) windows: Vec<FaultTally>,
    /// More different vectors came than may be kept.
    pub(crate) too_many_vectors: bool,
    /// Why the history is not whole.
    pub(crate) history_failed: Option<String>,
}

/// The recorder.
pub(crate) struct Recorder {
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) history: History,
    pub(crate) tally: Tally,
    /// Whether the target answers for deadlines; those of others are for the figures alone.
    pub(crate) knows_deadlines: bool,
    pub(crate) vectors_max: usize,
    pub(crate) so_far: watch::Sender<SoFar>,
    /// Set when the run has to end early.
    pub(crate) stop: Stop,
    pub(crate) seen: Seen,
}

/// Vectors that have a number: as many as `vectors_max`, and those that were under way beyond.
#[derive(Default)]
pub(crate) struct Seen {
    vectors: HashMap<u64, u64>,
    /// Pairs of text and vector that are right.
    right: HashSet<(u32, u64)>,
    faults: u64,
    level: String,
}

impl Recorder {
    /// Takes events until the last.
    pub(crate) fn run(mut self, mut events: mpsc::Receiver<Event>) -> Recorded {
        loop {
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(_) => {
                    // Nothing to do: a good time to have everything on the disk.
                    self.history.flush();
                    match events.blocking_recv() {
                        Some(event) => event,
                        None => break,
                    }
                }
            };
            let is_last = matches!(event, Event::End { .. });
            self.take(event);
            if self.history.failed().is_some() {
                // Nothing more can be proved.
                self.stop.set();
            }
            if is_last {
                break;
            }
        }
        self.history.flush();
        let history_failed = self.history.failed().map(str::to_owned);
        let interval_s = self.tally.interval_s();
        let (tallied, intervals, windows) = self.tally.finish();
        let too_many_vectors = self.seen.vectors.len() > self.vectors_max;
        Recorded { tallied, intervals, interval_s, windows, too_many_vectors, history_failed }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Measure(span) => {
                self.tally.measure(span);
            }
            Event::Invoke { request, scheduled_us, at_us } => {
                let deadline_ms = if self.knows_deadlines { request.class.deadline_ms } else { 0 };
                let deadline_us = deadline_ms.saturating_mul(1000);
                self.tally.invoked(request.number);
                let (number, first, count) = (request.number, request.first, request.count);
                self.history.line(format_args!(
                    "invoke,{number},{first},{count},{deadline_us},{scheduled_us},{at_us}"
                ))
            }
            Event::Unsent { request, scheduled_us, at_us } => {
                self.tally.unsent(request.number, scheduled_us);
                let number = request.number;
                self.history.line(format_args!("unsent,{number},{at_us},too_many_under_way"))
            }
            Event::Done(done) => self.done(&done),
            Event::Stray { at_us, request, why } => {
                let why = field(&why);
                match request {
                    Some(request) => {
                        self.history.line(format_args!("stray,{at_us},{why},{request}"))
                    }
                    None => self.history.line(format_args!("stray,{at_us},{why}")),
                }
            }
            Event::Tick { at_us } => self.view(at_us),
            Event::Stall { from_us, to_us } => {
                self.history.line(format_args!("stall,{from_us},{to_us}"));
            }
            Event::Fault { at_us, on, fault } => {
                self.tally.fault(at_us);
                self.seen.faults += 1;
                self.history.line(format_args!("fault,{at_us},{on},{fault}"))
            }
            Event::FaultOver { at_us, index } => {
                self.tally.fault_over(index, at_us);
            }
            Event::Level { at_us, level } => {
                self.tally.level(&level);
                self.seen.level.clone_from(&level);
                self.history.line(format_args!("level,{at_us},{}", field(&level)))
            }
            Event::End { at_us } => self.history.line(format_args!("end,{at_us}")),
        }
    }

    fn done(&mut self, done: &Done) {
        let (number, sent_us, at_us) = (done.request.number, done.sent_us, done.at_us);
        match &done.outcome {
            Outcome::Rows(rows) => {
                let (vectors, right) = self.vectors(done.request.first, rows);
                let right = right && rows.len() == done.request.count as usize;
                self.tally.done(done, &Ended::Served { right });
                self.history.line(format_args!("ok,{number},{sent_us},{at_us},{vectors}"));
            }
            Outcome::Refused(kind) => {
                self.tally.done(done, &Ended::Refused(kind));
                self.history.line(format_args!("refused,{number},{at_us},{}", field(kind)));
            }
            Outcome::Error(kind) => {
                self.tally.done(done, &Ended::Error(kind));
                let kind = field(kind);
                self.history.line(format_args!("err,{number},{sent_us},{at_us},{kind}"));
            }
            Outcome::Unreadable(why) => {
                self.tally.done(done, &Ended::Error(&Cow::Borrowed("unreadable_answer")));
                let why = field(why);
                self.history.line(format_args!("unreadable,{number},{sent_us},{at_us},{why}"));
            }
            Outcome::Lost(why) => {
                self.tally.done(done, &Ended::Lost);
                self.history.line(format_args!("lost,{number},{at_us},{}", field(why)));
            }
        }
    }

    /// The numbers of an answer's vectors, which are noted if they are new, and whether each is right.
    fn vectors(&mut self, first: u32, rows: &[(u64, Vec<f32>)]) -> (String, bool) {
        let mut ids = String::new();
        let mut right = true;
        for (text, (digest, vector)) in (first..).zip(rows) {
            let next = self.seen.vectors.len() as u64;
            let id = *self.seen.vectors.entry(*digest).or_insert(next);
            if id == next {
                self.history.line(format_args!("vector,{id},{}", base64(vector)));
                if self.seen.vectors.len() > self.vectors_max {
                    self.stop.set();
                }
            }
            if !self.seen.right.contains(&(text, id)) {
                if self.oracle.is_right(text, vector) {
                    self.seen.right.insert((text, id));
                } else {
                    right = false;
                }
            }
            if !ids.is_empty() {
                ids.push(' ');
            }
            ids.push_str(&id.to_string());
        }
        (ids, right)
    }

    fn view(&self, at_us: u64) {
        let [offered, served, good, refused, errors] = self.tally.so_far();
        let (p50_ms, p99_ms) = self.tally.latency_so_far();
        self.so_far.send_replace(SoFar {
            at_s: at_us as f64 / 1e6,
            offered,
            served,
            good,
            refused,
            errors,
            p50_ms,
            p99_ms,
            under_way: self.tally.under_way(),
            faults: self.seen.faults,
            level: self.seen.level.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Rules;
    use crate::plan::Plan;
    use crate::profile::Class;

    #[test]
    fn a_target_that_answers_nothing_is_shown_as_time_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let texts = vec!["a".to_owned(), "b".to_owned()];
        let oracle = Oracle::of(texts, vec![vec![1.0, 0.0], vec![0.0, 1.0]], 1e-3).unwrap();
        let rules = Rules { tolerance: 1e-3, slack_us: 1, wait_us: 1 };
        let (so_far, seen) = watch::channel(SoFar::default());
        let recorder = Recorder {
            history: History::create(&folder.path().join("history"), 1 << 20, rules, &oracle)
                .unwrap(),
            oracle: Arc::new(oracle),
            tally: Tally::new(1000, 10.0).unwrap(),
            knows_deadlines: true,
            vectors_max: 10,
            so_far,
            stop: Stop::default(),
            seen: Seen::default(),
        };
        let (events, arrived) = mpsc::channel(16);
        let class = Class { priority: forebay::Priority::Bulk, share: 1.0, deadline_ms: 0 };
        let plan = Plan::new(1, 2, 1, vec![class]);
        for number in 0..3 {
            let request = plan.request(number);
            let invoke = Event::Invoke { request, scheduled_us: number, at_us: number };
            events.try_send(invoke).unwrap();
        }
        events.try_send(Event::Tick { at_us: 2_000_000 }).unwrap();
        events.try_send(Event::End { at_us: 3_000_000 }).unwrap();
        recorder.run(arrived);
        let shown = seen.borrow().clone();
        assert_eq!((shown.at_s, shown.under_way), (2.0, 3));
    }
}
