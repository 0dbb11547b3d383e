//! What a run's requests come to: counts, latencies, windows of faults. Reads no clock.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::backlog::{Backlog, Progress};
use super::latency::{Latencies, LatencySummary};
use super::series::{Interval, Series};
use crate::error::SoakError;
use crate::event::Done;
use crate::plan::Planned;

/// Intervals of a plot over time at most.
const INTERVALS_MAX: usize = 600;
/// Windows that are over and may still get a request, since a fault may be followed by others.
const WINDOWS_BACK: usize = 8;
/// Faults whose figures are kept at most.
pub(super) const FAULTS_MAX: usize = 100_000;

/// The measured part of a run, in microseconds since it began. Times in reports count from its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) from_us: u64,
    pub(crate) to_us: u64,
}

/// What came of requests while a fault was not over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultTally {
    /// When it was injected, in seconds since the run began.
    pub from_s: f64,
    /// When the best level was back, or the time for that had passed, and what had piled up was worked
    /// off.
    pub to_s: Option<f64>,
    /// Requests that were answered with vectors.
    pub served: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that ended in an error or were lost.
    pub errors: u64,
    /// The longest latency of these, in milliseconds.
    pub slowest_ms: f64,
    /// Latency from when they were due of those that were answered with vectors.
    #[serde(default)]
    pub latency: LatencySummary,
}

/// What requests came to in the measured time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tallied {
    /// Requests that were due.
    pub offered: u64,
    /// Of these, not sent: the target had too many under way.
    pub unsent: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that were answered with vectors.
    pub served: u64,
    /// Of these, rightly and within their deadline.
    pub good: u64,
    /// Of the served, with a wrong vector or another number of vectors, by the tolerance of the coarsest
    /// arithmetic of the target; the checker holds what was sent and answered at some levels to less.
    pub wrong: u64,
    /// Of the served, after their deadline.
    pub late: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Requests of which it is certain that no reply will come.
    pub lost: u64,
    /// Texts of the served requests.
    pub texts: u64,
    /// Refusals and errors by their names.
    pub by_kind: BTreeMap<String, u64>,
    /// Errors and losses by their names, without refusals.
    #[serde(default)]
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Of these, the ones of requests that were under way in no window of a fault.
    #[serde(default)]
    pub calm_errors: BTreeMap<String, u64>,
    /// Requests that were due and over in no window of a fault.
    #[serde(default)]
    pub calm_offered: u64,
    /// Of these, answered rightly and within their deadline.
    #[serde(default)]
    pub calm_good: u64,
    /// Faults beyond those whose figures are kept: requests under way in their windows count as if no
    /// fault lasted.
    #[serde(default)]
    pub faults_not_kept: u64,
    /// Requests that were sent late by the harness.
    pub sent_late: u64,
    /// Latency from when a request was due to its answer: what a caller of an open loop sees.
    pub from_due: LatencySummary,
    /// Latency from when it left: what a client sees that waits with its next request. The
    /// difference is what measuring in a closed loop omits.
    pub from_sent: LatencySummary,
    /// Time by which the generator was late, what the target held it for apart.
    pub lag: LatencySummary,
    /// Time until the target let go of whoever handed a request in.
    #[serde(default)]
    pub submit: LatencySummary,
    /// Latency from when a request was due, outside of the windows of faults.
    pub calm: LatencySummary,
    /// The same within these windows.
    pub disturbed: LatencySummary,
    /// The same by the level at which it was answered.
    pub by_level: BTreeMap<String, LatencySummary>,
    /// The same by class.
    pub by_class: BTreeMap<String, LatencySummary>,
    /// Latency by percentile, from when a request was due: pairs of quantile and milliseconds.
    pub curve_from_due: Vec<(f64, f64)>,
    /// The same from when it left.
    pub curve_from_sent: Vec<(f64, f64)>,
}

impl Tallied {
    fn error(&mut self, kind: &str, is_disturbed: bool) {
        let in_calm = (!is_disturbed).then_some(&mut self.calm_errors);
        for counts in [&mut self.by_kind, &mut self.errors_by_kind].into_iter().chain(in_calm) {
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
    }
}

/// A run's requests so far.
pub(crate) struct Tally {
    span: Span,
    lag_us_max: u64,
    counts: Tallied,
    from_due: Latencies,
    from_sent: Latencies,
    lag: Latencies,
    submit: Latencies,
    calm: Latencies,
    disturbed: Latencies,
    by_level: BTreeMap<String, Latencies>,
    by_class: BTreeMap<&'static str, Latencies>,
    series: Series,
    level: String,
    windows: Vec<FaultTally>,
    /// Latencies of the windows that may still get some: those from this place on.
    in_windows: VecDeque<Latencies>,
    summed_up: usize,
    /// The first window that is not over; all before it are. Each ends with its fault, which has a time
    /// to heal.
    open_from: usize,
    backlog: Backlog,
    /// Windows whose fault is over, and how far what had piled up is worked off.
    healing: Vec<(usize, Progress)>,
}

/// How a request ended, once it is judged.
#[derive(Debug)]
pub(crate) enum Ended<'t> {
    Served { right: bool },
    Refused(&'t Cow<'static, str>),
    Error(&'t Cow<'static, str>),
    Lost,
}

impl Tally {
    /// Nothing is measured before [`Tally::measure`]; the measured part is `length_s` long.
    pub(crate) fn new(lag_us_max: u64, length_s: f64) -> Result<Self, SoakError> {
        Ok(Self {
            span: Span::default(),
            lag_us_max,
            counts: Tallied::default(),
            from_due: Latencies::new()?,
            from_sent: Latencies::new()?,
            lag: Latencies::new()?,
            submit: Latencies::new()?,
            calm: Latencies::new()?,
            disturbed: Latencies::new()?,
            by_level: BTreeMap::new(),
            by_class: BTreeMap::new(),
            series: Series::new(length_s, INTERVALS_MAX)?,
            level: "unknown".to_owned(),
            windows: Vec::new(),
            in_windows: VecDeque::new(),
            summed_up: 0,
            open_from: 0,
            backlog: Backlog::default(),
            healing: Vec::new(),
        })
    }

    fn is_measured(&self, scheduled_us: u64) -> bool {
        (self.span.from_us..self.span.to_us).contains(&scheduled_us)
    }

    pub(crate) fn measure(&mut self, span: Span) {
        self.span = span;
    }

    /// Seconds since the measured part began, for a moment of the run; 0 for what was before.
    fn seconds(&self, us: u64) -> f64 {
        us.saturating_sub(self.span.from_us) as f64 / 1e6
    }

    /// The interval of a moment; `None` before the measured part.
    fn at(&mut self, us: u64) -> Option<&mut Interval> {
        let has_begun = self.span.to_us > 0;
        let us = us.checked_sub(self.span.from_us).filter(|_| has_begun)?;
        self.series.at(us)
    }

    pub(crate) fn level(&mut self, level: &str) {
        level.clone_into(&mut self.level);
    }

    pub(crate) fn fault(&mut self, at_us: u64) {
        if self.windows.len() < FAULTS_MAX {
            let from_s = self.seconds(at_us);
            self.windows.push(FaultTally { from_s, ..FaultTally::default() });
            self.in_windows.extend(Latencies::coarse());
            self.sum_up(self.open_from.saturating_sub(WINDOWS_BACK));
        } else {
            self.counts.faults_not_kept += 1;
        }
    }

    /// The fault with this number is over; its window ends when what had piled up is worked off.
    pub(crate) fn fault_over(&mut self, index: usize, at_us: u64) {
        self.healing.push((index, self.backlog.start()));
        self.work_off(at_us);
    }

    /// A request is about to be sent.
    pub(crate) fn invoked(&mut self, number: u64) {
        self.backlog.begins(number);
    }

    fn work_off(&mut self, at_us: u64) {
        if self.healing.is_empty() {
            return;
        }
        let to_s = self.seconds(at_us);
        let (backlog, windows) = (&self.backlog, &mut self.windows);
        self.healing.retain_mut(|(index, progress)| {
            let is_over = backlog.is_over(progress);
            if is_over && let Some(window) = windows.get_mut(*index) {
                window.to_s = Some(to_s);
            }
            !is_over
        });
        let is_over = |window: &FaultTally| window.to_s.is_some();
        while self.windows.get(self.open_from).is_some_and(is_over) {
            self.open_from += 1;
        }
    }

    pub(crate) fn unsent(&mut self, number: u64, scheduled_us: u64) {
        self.backlog.ends(number);
        if let Some(interval) = self.at(scheduled_us) {
            interval.offered += 1;
        }
        if self.is_measured(scheduled_us) {
            self.counts.offered += 1;
            self.counts.unsent += 1;
        }
    }

    pub(crate) fn done(&mut self, done: &Done, ended: &Ended<'_>) {
        let Done { request, scheduled_us, lag_us, sent_us, at_us, .. } = done;
        let (from_due, from_sent) =
            (at_us.saturating_sub(*scheduled_us), at_us.saturating_sub(*sent_us));
        let deadline_us = request.class.deadline_ms.saturating_mul(1000);
        // A deadline is that of the caller, who has waited since the request was due.
        let is_late = deadline_us > 0 && from_due > deadline_us;
        self.interval(done, ended, is_late, from_due);
        let is_disturbed = self.window(done, ended, from_due);
        self.backlog.ends(request.number);
        self.work_off(*at_us);
        if !self.is_measured(*scheduled_us) {
            return;
        }
        self.lag.add(*lag_us);
        self.submit.add(done.submit_us);
        let counts = &mut self.counts;
        counts.offered += 1;
        counts.sent_late += u64::from(*lag_us > self.lag_us_max);
        counts.calm_offered += u64::from(!is_disturbed);
        match ended {
            Ended::Served { right } => {
                counts.served += 1;
                counts.texts += u64::from(request.count);
                counts.wrong += u64::from(!right);
                counts.late += u64::from(is_late);
                counts.good += u64::from(*right && !is_late);
                counts.calm_good += u64::from(*right && !is_late && !is_disturbed);
                self.latencies(request, from_due, from_sent, is_disturbed);
            }
            Ended::Refused(kind) => {
                counts.refused += 1;
                *counts.by_kind.entry(kind.to_string()).or_default() += 1;
            }
            Ended::Error(kind) => {
                counts.errors += 1;
                counts.error(kind, is_disturbed);
            }
            Ended::Lost => {
                counts.lost += 1;
                counts.error("lost", is_disturbed);
            }
        }
    }

    fn latencies(&mut self, request: &Planned, from_due: u64, from_sent: u64, disturbed: bool) {
        self.from_due.add(from_due);
        self.from_sent.add(from_sent);
        if disturbed {
            self.disturbed.add(from_due)
        } else {
            self.calm.add(from_due)
        }
        if let Some(latencies) = self.by_level.get_mut(&self.level) {
            latencies.add(from_due);
        } else if let Ok(mut latencies) = Latencies::new() {
            latencies.add(from_due);
            self.by_level.insert(self.level.clone(), latencies);
        }
        let class = request.class.priority.as_str();
        if let Some(latencies) = self.by_class.get_mut(class) {
            latencies.add(from_due);
        } else if let Ok(mut latencies) = Latencies::new() {
            latencies.add(from_due);
            self.by_class.insert(class, latencies);
        }
    }

    fn interval(&mut self, done: &Done, ended: &Ended<'_>, is_late: bool, from_due: u64) {
        if !self.is_measured(done.scheduled_us) {
            return;
        }
        if let Some(interval) = self.at(done.scheduled_us) {
            interval.offered += 1;
        }
        if matches!(ended, Ended::Served { .. }) {
            let at_us = done.at_us.saturating_sub(self.span.from_us);
            self.series.latency(at_us, from_due);
        }
        let Some(interval) = self.at(done.at_us) else { return };
        match ended {
            Ended::Served { right } => {
                interval.served += 1;
                interval.texts += u64::from(done.request.count);
                interval.good += u64::from(*right && !is_late);
            }
            Ended::Refused(_) => interval.refused += 1,
            Ended::Error(_) | Ended::Lost => interval.errors += 1,
        }
    }

    /// Lets go of the latencies of all windows before this one.
    fn sum_up(&mut self, before: usize) {
        while self.summed_up < before
            && let Some(latencies) = self.in_windows.pop_front()
        {
            if let Some(window) = self.windows.get_mut(self.summed_up) {
                window.latency = latencies.summary();
            }
            self.summed_up += 1;
        }
    }

    /// Counts a request in every window that it was under way in; whether there was one.
    fn window(&mut self, done: &Done, ended: &Ended<'_>, from_due: u64) -> bool {
        let (from_s, to_s) = (self.seconds(done.scheduled_us), self.seconds(done.at_us));
        let mut found = false;
        // Windows that ended before a request was due are all before the last few.
        let start = self.open_from.saturating_sub(WINDOWS_BACK);
        for (place, window) in self.windows.iter_mut().enumerate().skip(start) {
            if window.from_s > to_s || window.to_s.is_some_and(|end| end < from_s) {
                continue;
            }
            found = true;
            window.slowest_ms = window.slowest_ms.max(from_due as f64 / 1e3);
            match ended {
                Ended::Served { .. } => {
                    window.served += 1;
                    let latencies = place.checked_sub(self.summed_up);
                    let latencies = latencies.and_then(|place| self.in_windows.get_mut(place));
                    latencies.into_iter().for_each(|latencies| latencies.add(from_due));
                }
                Ended::Refused(_) => window.refused += 1,
                Ended::Error(_) | Ended::Lost => window.errors += 1,
            }
        }
        found
    }

    /// So far: offered, served, good, refused, errors with lost.
    pub(crate) fn so_far(&self) -> [u64; 5] {
        let Tallied { offered, served, good, refused, errors, lost, .. } = &self.counts;
        [*offered, *served, *good, *refused, errors + lost]
    }

    /// Requests that are sent and not over.
    pub(crate) fn under_way(&self) -> u64 {
        self.backlog.under_way()
    }

    /// So far: median and 99th percentile in milliseconds.
    pub(crate) fn latency_so_far(&self) -> (f64, f64) {
        (self.from_due.quantile_ms(0.5), self.from_due.quantile_ms(0.99))
    }

    pub(crate) fn interval_s(&self) -> f64 {
        self.series.width_s()
    }

    pub(crate) fn finish(mut self) -> (Tallied, Vec<Interval>, Vec<FaultTally>) {
        self.sum_up(usize::MAX);
        let summaries = |map: BTreeMap<String, Latencies>| {
            map.into_iter().map(|(name, latencies)| (name, latencies.summary())).collect()
        };
        let by_class =
            self.by_class.into_iter().map(|(name, latencies)| (name.to_owned(), latencies));
        let tallied = Tallied {
            from_due: self.from_due.summary(),
            from_sent: self.from_sent.summary(),
            lag: self.lag.summary(),
            submit: self.submit.summary(),
            calm: self.calm.summary(),
            disturbed: self.disturbed.summary(),
            by_level: summaries(self.by_level),
            by_class: summaries(by_class.collect()),
            curve_from_due: self.from_due.curve_ms(),
            curve_from_sent: self.from_sent.curve_ms(),
            ..self.counts
        };
        (tallied, self.series.finish(), self.windows)
    }
}

#[cfg(test)]
mod tests;
