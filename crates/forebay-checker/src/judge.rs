//! The rules: what a history must hold, said once more and apart from everything that was tested.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::BufRead;

use crate::doubts::Doubt;
use crate::lateness::{Late, Lateness};
use crate::levels::Levels;
use crate::read::{self, Line};
use crate::vectors::Vectors;
use crate::{Broken, CheckError, CounterExample, Length, Rules, Verdict};

/// First line of a history.
const HEADER: &str = "forebay-soak-history,2";

/// An accepted request without a reply.
const REPLY: &str = "every accepted request is answered";
const ONE_REPLY: &str = "a request is answered once";
const ASKED: &str = "only what was asked is answered";
const RIGHT: &str = "every vector is the one of its text";
const ROWS: &str = "an answer has one vector for each text";
const READABLE: &str = "every answer can be read";
const FINITE: &str = "every value is finite and every vector as long as it is to be";
const IN_TIME: &str = "every reply comes within its deadline and the slack";
const ORDER: &str = "nothing is answered before it was sent";
/// Each line is one of a history.
pub const FORM: &str = "every line can be read";
/// The last line says that it is the last.
pub const WHOLE: &str = "the history has an end";

/// Every promise, in the order of their weight.
pub const PROMISES: [&str; 11] =
    [REPLY, ONE_REPLY, RIGHT, ROWS, READABLE, FINITE, IN_TIME, ASKED, ORDER, FORM, WHOLE];

struct Open {
    line: u64,
    first: u64,
    count: u64,
    deadline_us: u64,
    scheduled_us: u64,
    at_us: u64,
}

/// A history half read.
pub(crate) struct Judge {
    verdict: Verdict,
    rules: Option<Rules>,
    length: Length,
    vectors: Vectors,
    levels: Levels,
    lateness: Lateness,
    open: BTreeMap<u64, Open>,
    /// One bit for each request that is over.
    closed: Vec<u64>,
    ended: bool,
}

impl Judge {
    pub(crate) fn run(mut history: impl BufRead) -> Result<Verdict, CheckError> {
        let mut judge = Self {
            verdict: Verdict::default(),
            rules: None,
            length: Length::default(),
            vectors: Vectors::default(),
            levels: Levels::default(),
            lateness: Lateness::default(),
            open: BTreeMap::new(),
            closed: Vec::new(),
            ended: false,
        };
        let mut buffer = Vec::new();
        let head = read::next_line(&mut history, &mut buffer)?.unwrap_or_default();
        if head != HEADER.as_bytes() {
            let found = String::from_utf8_lossy(head).chars().take(80).collect();
            return Err(CheckError::Header { found, expected: HEADER });
        }
        let mut number = 1;
        while let Some(line) = read::next_line(&mut history, &mut buffer)? {
            number += 1;
            match std::str::from_utf8(line).ok().and_then(read::line) {
                // Requests are numbered from 0 on, and each begins with a line of its own.
                Some(parsed) if !judge.ended && parsed.request() < Some(number) => {
                    judge.take(number, parsed);
                }
                _ => {
                    let text: String = String::from_utf8_lossy(line).chars().take(80).collect();
                    judge.breaks(FORM, number, format!("{text:?}"), None, None);
                }
            }
        }
        judge.finish(number);
        Ok(judge.verdict)
    }

    fn breaks(
        &mut self,
        promise: &'static str,
        line: u64,
        what: String,
        request: Option<u64>,
        text: Option<u64>,
    ) {
        let what = match request {
            Some(request) => format!("request {request}: {what}"),
            None => what,
        };
        let example = CounterExample { line, promise, what, request, text };
        match self.verdict.broken.entry(promise) {
            Entry::Vacant(entry) => {
                entry.insert(Broken { count: 1, first: example });
            }
            Entry::Occupied(entry) => {
                let broken = entry.into_mut();
                broken.count += 1;
                // What waited for what comes later is told late.
                if line < broken.first.line {
                    broken.first = example;
                }
            }
        }
    }

    fn take(&mut self, number: u64, line: Line<'_>) {
        let counts = &mut self.verdict.counts;
        match line {
            Line::Rule(rules) => self.rules = Some(rules),
            Line::Length(length) => self.length = length,
            Line::Tolerance { level, tolerance } => self.levels.allow(level, tolerance),
            Line::Text { text, vector } => self.vectors.know(text, vector),
            Line::Invoke { request, first, count, deadline_us, scheduled_us, at_us } => {
                counts.requests += 1;
                counts.texts = counts.texts.saturating_add(count);
                if self.is_closed(request) || self.open.contains_key(&request) {
                    let what = "its number was used before".to_owned();
                    return self.breaks(ASKED, number, what, Some(request), Some(first));
                }
                let open = Open { line: number, first, count, deadline_us, scheduled_us, at_us };
                self.open.insert(request, open);
            }
            Line::Unsent { request } => {
                counts.unsent += 1;
                self.close(number, request);
            }
            Line::Refused { request } => {
                counts.refused += 1;
                self.close(number, request);
            }
            Line::Vector { id, vector } => {
                counts.vectors += 1;
                if let Some(what) = self.vectors.add(id, vector, self.length) {
                    self.breaks(FINITE, number, what, None, None);
                }
            }
            Line::Ok { request, sent_us, at_us, vectors } => {
                counts.answered += 1;
                self.settle(at_us);
                if let Some(open) = self.close(number, request) {
                    self.compare(number, request, &open, &vectors, [sent_us, at_us]);
                    self.in_time(number, request, &open, [sent_us, at_us]);
                }
            }
            Line::Err { request, sent_us, at_us } => {
                counts.errors += 1;
                self.settle(at_us);
                if let Some(open) = self.close(number, request) {
                    self.in_time(number, request, &open, [sent_us, at_us]);
                }
            }
            Line::Unreadable { request, sent_us, at_us, why } => {
                counts.errors += 1;
                self.settle(at_us);
                if let Some(open) = self.close(number, request) {
                    let what = format!("text {}: {why}", open.first);
                    self.breaks(READABLE, number, what, Some(request), Some(open.first));
                    self.in_time(number, request, &open, [sent_us, at_us]);
                }
            }
            Line::Lost { request, why } => {
                if let Some(open) = self.close(number, request) {
                    let what = format!("text {}: {why}", open.first);
                    self.breaks(REPLY, number, what, Some(request), Some(open.first));
                }
            }
            Line::Stray { request, why } => {
                self.breaks(ONE_REPLY, number, why.to_owned(), request, None);
            }
            Line::Stall { from_us, to_us } => {
                if let Err(what) = self.lateness.stall(from_us, to_us) {
                    self.breaks(FORM, number, what, None, None);
                }
            }
            Line::Fault => counts.faults += 1,
            Line::Level { at_us, level } => self.levels.change(level, at_us),
            Line::End => self.ended = true,
        }
    }

    /// Takes the request off the list of what is open.
    fn close(&mut self, line: u64, request: u64) -> Option<Open> {
        let Some(open) = self.open.remove(&request) else {
            let (promise, what) = match self.is_closed(request) {
                true => (ONE_REPLY, "it was over before"),
                false => (ASKED, "nobody had sent it"),
            };
            self.breaks(promise, line, what.to_owned(), Some(request), None);
            return None;
        };
        let word = usize::try_from(request / 64).unwrap_or(usize::MAX);
        if word >= self.closed.len() {
            self.closed.resize(word + 1, 0);
        }
        self.closed[word] |= 1 << (request % 64);
        Some(open)
    }

    fn is_closed(&self, request: u64) -> bool {
        let word = usize::try_from(request / 64).ok().and_then(|word| self.closed.get(word));
        word.is_some_and(|word| word >> (request % 64) & 1 == 1)
    }

    fn compare(
        &mut self,
        line: u64,
        request: u64,
        open: &Open,
        vectors: &[u64],
        [sent_us, at_us]: [u64; 2],
    ) {
        let first = Some(open.first);
        if vectors.len() as u64 != open.count {
            let what = format!("{} texts and {} vectors", open.count, vectors.len());
            // A second vector for the one text is a second answer to it.
            let promise = if vectors.len() as u64 > open.count { ONE_REPLY } else { ROWS };
            return self.breaks(promise, line, what, Some(request), first);
        }
        let tolerance = self.rules.map_or(0.0, |rules| rules.tolerance);
        let of_level = self.levels.tolerance(sent_us);
        // A line whose texts have no numbers was not taken.
        for (text, vector) in (open.first..open.first.saturating_add(open.count)).zip(vectors) {
            match self.vectors.compare(text, *vector, tolerance, self.length) {
                Err(what) => {
                    let what = format!("text {text}: {what}");
                    self.breaks(RIGHT, line, what, Some(request), Some(text));
                }
                Ok(distance) => {
                    if let Some(allowed) = of_level.filter(|allowed| distance > *allowed) {
                        let what = format!(
                            "text {text}: 1 - cosine is {distance:.6}, allowed at this level is \
                             {allowed}"
                        );
                        self.levels.doubt(Doubt { line, request, text, at_us, what });
                    }
                }
            }
        }
    }

    /// What nothing can explain any more is broken.
    fn settle(&mut self, now_us: u64) {
        while let Some(doubt) = self.levels.certain(now_us) {
            self.is_certain(RIGHT, doubt);
        }
        while let Some(doubt) = self.lateness.certain(now_us) {
            self.is_certain(IN_TIME, doubt);
        }
    }

    fn is_certain(&mut self, promise: &'static str, doubt: Doubt) {
        let Doubt { line, request, text, what, .. } = doubt;
        self.breaks(promise, line, what, Some(request), Some(text));
    }

    /// A deadline counts from when the request was due, and one that left has told what was left of it.
    /// Without a deadline the time counts from when it left: that it had to wait for a connection is the
    /// sender's doing, and shows in its latency.
    fn in_time(&mut self, line: u64, request: u64, open: &Open, [sent_us, at_us]: [u64; 2]) {
        if sent_us < open.at_us || at_us < sent_us {
            let what = format!("begun at {} us, sent at {sent_us}, over at {at_us}", open.at_us);
            return self.breaks(ORDER, line, what, Some(request), Some(open.first));
        }
        let Some(rules) = self.rules else { return };
        let until = if open.deadline_us > 0 {
            // One that left after its deadline should not have left; the target cannot be earlier.
            let deadline = open.scheduled_us.saturating_add(open.deadline_us);
            deadline.max(sent_us).saturating_add(rules.slack_us)
        } else {
            sent_us.saturating_add(rules.wait_us)
        };
        if at_us > until {
            let what = format!(
                "due at {} us, sent at {sent_us}, answered at {at_us}, allowed until {until}",
                open.scheduled_us
            );
            let doubt = Doubt { line, request, text: open.first, at_us, what };
            self.lateness.late(doubt, Late { from_us: sent_us, over_us: at_us - until });
        }
    }

    fn finish(&mut self, lines: u64) {
        while let Some(doubt) = self.levels.last() {
            self.is_certain(RIGHT, doubt);
        }
        while let Some(doubt) = self.lateness.last() {
            self.is_certain(IN_TIME, doubt);
        }
        if self.rules.is_none() {
            self.breaks(FORM, lines, "there are no rules in it".to_owned(), None, None);
        }
        if !self.ended {
            let what = "it was broken off, so that replies may be missing from it".to_owned();
            // What is open may be missing for the same reason.
            return self.breaks(WHOLE, lines, what, None, None);
        }
        for (request, open) in std::mem::take(&mut self.open) {
            let what = format!("text {} has no reply", open.first);
            self.breaks(REPLY, open.line, what, Some(request), Some(open.first));
        }
    }
}
