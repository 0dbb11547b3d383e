//! Counts what a drill's events come to: how requests ended, and how late, between one fault and the
//! next. Pure: it reads no clock and asks nobody.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;

use super::answers::Answers;
use super::event::Event;
use crate::failure::{Exit, Failure};

/// A reply is late if it takes this much longer than nearly all did before the first fault.
const LATE_BEYOND_US: u64 = 100_000;
/// Longest latency that is told apart from longer ones.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// What happened from one fault to the next; the first stretch is before any.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stretch {
    pub(super) from_us: u64,
    pub(super) replies: u64,
    pub(super) refused: u64,
    /// Replies that are errors, by code.
    pub(super) errors: BTreeMap<&'static str, u64>,
    pub(super) late: u64,
    pub(super) slowest_us: u64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
}

/// A request that has no reply yet.
struct Pending {
    text: u32,
    scheduled_us: u64,
}

/// Everything so far.
pub(super) struct Tally {
    answers: Answers,
    pending: HashMap<u64, Pending>,
    stretches: Vec<Stretch>,
    calm: Histogram<u64>,
    late_from_us: u64,
    caught_up: u64,
    lag: Histogram<u64>,
    invoked: u64,
    twice: u64,
}

/// What it comes to.
pub(super) struct Tallied {
    /// Before the first fault, then from each fault on.
    pub(super) stretches: Vec<Stretch>,
    pub(super) invoked: u64,
    /// Replies to requests that had none to come: answered before, refused, or never made.
    pub(super) twice: u64,
    pub(super) calm_p50_us: u64,
    pub(super) calm_p999_us: u64,
    /// By how much clients were late themselves; it is part of every latency.
    pub(super) lag_p99_us: u64,
    pub(super) lag_max_us: u64,
}

impl Tally {
    /// Nothing yet.
    ///
    /// # Errors
    /// Memory for the times cannot be had.
    pub(super) fn new(answers: Answers) -> Result<Self, Failure> {
        let histogram = || {
            Histogram::new_with_max(LATENCY_MAX_US, 3)
                .map_err(|error| Failure::new(Exit::Failed, format!("cannot keep times: {error}")))
        };
        Ok(Self {
            answers,
            pending: HashMap::new(),
            stretches: vec![Stretch::default()],
            calm: histogram()?,
            late_from_us: u64::MAX,
            caught_up: 0,
            lag: histogram()?,
            invoked: 0,
            twice: 0,
        })
    }

    /// Takes the next event.
    pub(super) fn take(&mut self, event: &Event) {
        match *event {
            Event::Invoke { request, text, scheduled_us, at_us, .. } => {
                self.invoked += 1;
                self.lag.saturating_record(at_us.saturating_sub(scheduled_us));
                self.pending.insert(request, Pending { text, scheduled_us });
            }
            Event::Refused { request, at_us, .. } => match self.pending.remove(&request) {
                Some(_) => self.at(at_us).refused += 1,
                None => self.twice += 1,
            },
            Event::Reply { request, at_us, outcome } => match self.pending.remove(&request) {
                Some(pending) => self.replied(&pending, at_us, outcome),
                None => self.twice += 1,
            },
            Event::Fault { at_us, .. } => {
                if self.stretches.len() == 1 {
                    let usual = self.calm.value_at_quantile(0.999);
                    self.late_from_us = usual.saturating_add(LATE_BEYOND_US);
                }
                self.stretches.push(Stretch { from_us: at_us, ..Stretch::default() });
            }
            Event::End { .. } => {}
        }
    }

    /// When the latest text that was answered in time was due.
    pub(super) fn caught_up_us(&self) -> u64 {
        self.caught_up
    }

    fn replied(&mut self, pending: &Pending, at_us: u64, outcome: Result<u64, &'static str>) {
        let latency = at_us.saturating_sub(pending.scheduled_us);
        let wrong = outcome.is_ok_and(|digest| !self.answers.is_known(pending.text, digest));
        let late = latency > self.late_from_us;
        if !late {
            self.caught_up = self.caught_up.max(pending.scheduled_us);
        }
        if self.stretches.len() == 1 {
            self.calm.saturating_record(latency);
        }
        let stretch = self.at(at_us);
        stretch.replies += 1;
        stretch.wrong += u64::from(wrong);
        stretch.late += u64::from(late);
        stretch.slowest_us = stretch.slowest_us.max(latency);
        if let Err(kind) = outcome {
            *stretch.errors.entry(kind).or_default() += 1;
        }
    }

    /// The stretch that a moment belongs to. There is always one, and the first begins at 0.
    fn at(&mut self, at_us: u64) -> &mut Stretch {
        let later = self.stretches.iter().rev().take_while(|stretch| stretch.from_us > at_us);
        let place = self.stretches.len().saturating_sub(1 + later.count());
        &mut self.stretches[place]
    }

    /// Counts what has no reply as lost.
    pub(super) fn finish(mut self) -> Tallied {
        let pending = std::mem::take(&mut self.pending);
        pending.values().for_each(|pending| self.at(pending.scheduled_us).lost += 1);
        Tallied {
            stretches: self.stretches,
            invoked: self.invoked,
            twice: self.twice,
            calm_p50_us: self.calm.value_at_quantile(0.5),
            calm_p999_us: self.calm.value_at_quantile(0.999),
            lag_p99_us: self.lag.value_at_quantile(0.99),
            lag_max_us: self.lag.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay::Fault;
    use forebay::config::Device;

    use super::*;

    fn tally(events: &[Event]) -> Tallied {
        let answers = Answers::of(vec![vec![(Device::Cuda(0), 1), (Device::Cpu, 2)]]);
        let mut tally = Tally::new(answers).unwrap_or_else(|failure| panic!("{failure:?}"));
        events.iter().for_each(|event| tally.take(event));
        tally.finish()
    }

    fn invoke(request: u64, at_us: u64) -> Event {
        Event::Invoke { request, client: 0, text: 0, scheduled_us: at_us, at_us }
    }

    fn reply(request: u64, at_us: u64, outcome: Result<u64, &'static str>) -> Event {
        Event::Reply { request, at_us, outcome }
    }

    fn fault(at_us: u64) -> Event {
        Event::Fault { at_us, on: "cuda:0".to_owned(), fault: Fault::Kill }
    }

    #[test]
    fn replies_count_where_they_come_and_lost_ones_where_they_were_due() {
        let tallied = tally(&[
            invoke(1, 10),
            reply(1, 1_000, Ok(1)),
            invoke(2, 20),
            invoke(3, 30),
            fault(5_000),
            reply(2, 150_000, Ok(2)),
            invoke(4, 6_000),
            Event::Refused { request: 4, at_us: 6_100, kind: "overloaded" },
            invoke(5, 7_000),
            reply(5, 8_000, Err("unavailable")),
            invoke(6, 9_000),
            reply(6, 9_500, Ok(3)),
        ]);
        let [calm, after] = &tallied.stretches[..] else { panic!("two stretches") };
        assert_eq!((calm.replies, calm.lost, calm.late, calm.wrong), (1, 1, 0, 0));
        assert_eq!((after.replies, after.refused, after.late, after.wrong), (3, 1, 1, 1));
        assert_eq!((after.slowest_us, after.lost), (149_980, 0));
        assert_eq!(after.errors, BTreeMap::from([("unavailable", 1)]));
        assert_eq!((tallied.invoked, tallied.twice), (6, 0));
    }

    #[test]
    fn a_second_reply_and_one_to_nothing_are_seen() {
        let tallied =
            tally(&[invoke(1, 0), reply(1, 5, Ok(1)), reply(1, 6, Ok(1)), reply(9, 7, Ok(1))]);
        assert_eq!(tallied.twice, 2);
        assert_eq!(tallied.stretches[0].replies, 1);
    }
}
