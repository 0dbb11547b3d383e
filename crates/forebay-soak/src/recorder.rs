//! The recorder: one thread that takes every event, writes the history, judges vectors for the
//! figures (the checker does so again for the verdict) and counts.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};

use crate::error::SoakError;
use crate::event::{Done, Event, Outcome};
use crate::history::{History, base64, field};
use crate::oracle::Oracle;
use crate::stats::{Ended, FaultTally, Interval, Tallied, Tally};

/// Time between two views of the figures so far, in microseconds of events.
const VIEW_US: u64 = 500_000;

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
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) seen: Seen,
}

/// Vectors and answers that have a number.
#[derive(Default)]
pub(crate) struct Seen {
    vectors: HashMap<u64, u64>,
    answers: HashMap<Vec<u64>, u64>,
    /// Pairs of text and vector that are right.
    right: HashSet<(u32, u64)>,
    faults: u64,
    level: String,
    viewed_us: u64,
}

impl Recorder {
    /// Takes events until the last.
    pub(crate) fn run(mut self, mut events: mpsc::Receiver<Event>) -> Result<Recorded, SoakError> {
        loop {
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(_) => {
                    // Nothing to do: a good time to have everything on the disk.
                    self.history.flush()?;
                    match events.blocking_recv() {
                        Some(event) => event,
                        None => break,
                    }
                }
            };
            let is_last = matches!(event, Event::End { .. });
            self.take(event)?;
            if is_last {
                break;
            }
        }
        self.history.flush()?;
        let interval_s = self.tally.interval_s();
        let (tallied, intervals, windows) = self.tally.finish();
        let too_many_vectors = self.seen.vectors.len() > self.vectors_max;
        Ok(Recorded { tallied, intervals, interval_s, windows, too_many_vectors })
    }

    fn take(&mut self, event: Event) -> Result<(), SoakError> {
        match event {
            Event::Measure(span) => {
                self.tally.measure(span);
                Ok(())
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
            Event::Stray { at_us, why } => {
                self.history.line(format_args!("stray,{at_us},{}", field(&why)))
            }
            Event::Fault { at_us, on, fault } => {
                self.tally.fault(at_us);
                self.seen.faults += 1;
                self.history.line(format_args!("fault,{at_us},{on},{fault}"))
            }
            Event::Healed { at_us, index } => {
                self.tally.healed(index, at_us);
                Ok(())
            }
            Event::Level { at_us, level } => {
                self.tally.level(&level);
                self.seen.level.clone_from(&level);
                self.history.line(format_args!("level,{at_us},{}", field(&level)))
            }
            Event::End { at_us } => self.history.line(format_args!("end,{at_us}")),
        }
    }

    fn done(&mut self, done: &Done) -> Result<(), SoakError> {
        let (number, sent_us, at_us) = (done.request.number, done.sent_us, done.at_us);
        match &done.outcome {
            Outcome::Rows(rows) => {
                let (answer, right) = self.answer(done.request.first, rows)?;
                let right = right && rows.len() == done.request.count as usize;
                self.tally.done(done, &Ended::Served { right });
                self.history.line(format_args!("ok,{number},{sent_us},{at_us},{answer}"))?;
            }
            Outcome::Refused(kind) => {
                self.tally.done(done, &Ended::Refused(kind));
                self.history.line(format_args!("refused,{number},{at_us},{}", field(kind)))?;
            }
            Outcome::Error(kind) => {
                self.tally.done(done, &Ended::Error(kind));
                let kind = field(kind);
                self.history.line(format_args!("err,{number},{sent_us},{at_us},{kind}"))?;
            }
            Outcome::Unreadable(why) => {
                self.tally.done(done, &Ended::Error(&Cow::Borrowed("unreadable_answer")));
                let why = field(why);
                self.history.line(format_args!("unreadable,{number},{sent_us},{at_us},{why}"))?;
            }
            Outcome::Lost(why) => {
                self.tally.done(done, &Ended::Lost);
                self.history.line(format_args!("lost,{number},{at_us},{}", field(why)))?;
            }
        }
        if at_us >= self.seen.viewed_us + VIEW_US {
            self.seen.viewed_us = at_us;
            self.view(at_us);
        }
        Ok(())
    }

    /// The number of an answer, noted if it is new, and whether each vector is right.
    fn answer(&mut self, first: u32, rows: &[(u64, Vec<f32>)]) -> Result<(u64, bool), SoakError> {
        let mut ids = Vec::with_capacity(rows.len());
        let mut right = true;
        for (text, (digest, vector)) in (first..).zip(rows) {
            let next = self.seen.vectors.len() as u64;
            let id = *self.seen.vectors.entry(*digest).or_insert(next);
            if id == next {
                self.history.line(format_args!("vector,{id},{}", base64(vector)))?;
                if self.seen.vectors.len() > self.vectors_max {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            if !self.seen.right.contains(&(text, id)) {
                if self.oracle.is_right(text, vector) {
                    self.seen.right.insert((text, id));
                } else {
                    right = false;
                }
            }
            ids.push(id);
        }
        let next = self.seen.answers.len() as u64;
        if let Some(answer) = self.seen.answers.get(&ids) {
            return Ok((*answer, right));
        }
        let list: Vec<String> = ids.iter().map(u64::to_string).collect();
        self.history.line(format_args!("answer,{next},{}", list.join(" ")))?;
        self.seen.answers.insert(ids, next);
        Ok((next, right))
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
            faults: self.seen.faults,
            level: self.seen.level.clone(),
        });
    }
}
