//! A worker process that is not there: it takes batches as the books of a real one do, computes them
//! in virtual time, one after the other or side by side, and fails as it is told to.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::config::{Device, Tier};
use crate::dispatch::due::Due;
use crate::dispatch::port::{Batch, EndedBatch, LateBatch, Load, WorkerId, WorkerPort};
use crate::request::Pending;
use crate::supervisor::EndCause;

/// Tokens of a canary batch.
const CANARY_TOKENS: usize = 24;

/// One batch in a process.
pub(super) struct Job {
    pub(super) batch_id: u64,
    pub(super) rows: Vec<Option<Pending>>,
    /// The texts by number, also those that have been answered early.
    pub(super) texts: Vec<u32>,
    pub(super) tokens: usize,
    pub(super) exclusive: bool,
    pub(super) beside: bool,
    pub(super) canary: bool,
    pub(super) sent_at: Instant,
    hung: Due,
    late: Due,
}

/// A breach of an invariant that a process sees when it is given something.
pub(super) type Breach = (&'static str, String);

/// What a process is and does.
pub(super) struct Process {
    pub(super) id: WorkerId,
    pub(super) device: Device,
    pub(super) slots: usize,
    pub(super) side_by_side: u32,
    pub(super) tokens_per_ms: usize,
    pub(super) jobs: VecDeque<Job>,
    /// Batches that are answered and whose slot is being read.
    pub(super) reading: usize,
    /// The batches that are computed.
    pub(super) computing: Vec<u64>,
    pub(super) free_since: Instant,
    /// It exists.
    pub(super) alive: bool,
    /// It does nothing more.
    pub(super) stopped: bool,
    /// The host has handed back what it held: nothing that it says is heard.
    pub(super) lost: bool,
    pub(super) unkillable: bool,
    /// Something is or was wrong with it that may make it late.
    pub(super) ill: bool,
    /// Nothing can be sent to it any more once it is dead, also before that has been noticed.
    pub(super) refuses: bool,
    /// A batch could not be sent to it.
    pub(super) unsent: bool,
    pub(super) slow: u32,
    pub(super) flip_output: bool,
    pub(super) flipped_weights: bool,
    pub(super) failing_batches: u32,
    /// Embeddings handed out since its last good canary, and how many of them were wrong.
    pub(super) replies: u64,
    pub(super) wrong_replies: u64,
    /// Why its end was asked for.
    pub(super) end_asked: Option<EndCause>,
    pub(super) ended_by_core: bool,
    pub(super) end_noted: bool,
    pub(super) breaches: Vec<Breach>,
    pub(super) draining: bool,
    pub(super) reaping: bool,
    /// How often each text of this history has been handed to a process.
    pub(super) runs: Rc<RefCell<BTreeMap<u32, u32>>>,
}

impl Process {
    pub(super) fn tier(&self) -> Tier {
        self.device.tier()
    }

    fn limits(&self) -> (usize, usize) {
        match self.tier() {
            Tier::Cpu => (128, 8),
            Tier::Gpu => (512, 24),
        }
    }

    /// How many share the device with this batch, itself included.
    fn share(&self, job: &Job) -> u32 {
        if job.beside { self.side_by_side } else { 1 }
    }

    /// Time that the device takes for a batch now.
    pub(super) fn service(&self, job: &Job) -> Duration {
        let micros = 200 + 1_000 * job.tokens / self.tokens_per_ms;
        Duration::from_micros(micros as u64) * self.slow.max(1) * self.share(job)
    }

    /// The batch that it begins with now: the first one that waits, unless as many as it can are
    /// computed, or one that has all the cores is and this one would have, too.
    pub(super) fn next_job(&self) -> Option<&Job> {
        let is_computed = |job: &Job| self.computing.contains(&job.batch_id);
        let next = self.jobs.iter().find(|job| !is_computed(job))?;
        let whole = |job: &Job| !job.beside;
        let waits = whole(next) && self.jobs.iter().any(|job| whole(job) && is_computed(job));
        (!waits && self.computing.len() < self.side_by_side as usize).then_some(next)
    }

    fn add(&mut self, mut job: Job, late_after: Option<Duration>, now: Instant) {
        // What a real rung allows: half a second and a little per token.
        let hung_after = Duration::from_millis(500 + job.tokens as u64);
        let late_after = late_after.unwrap_or(hung_after).min(hung_after);
        let due = |of: fn(&Job) -> Due, after: Duration| match job.beside {
            true => Due::beside(now, after * self.side_by_side),
            false => Due::behind(self.jobs.iter().map(of), now, after),
        };
        (job.hung, job.late) = (due(|job| job.hung, hung_after), due(|job| job.late, late_after));
        self.jobs.push_back(job);
    }

    /// Takes the batch out that has just been computed, with the time that it took.
    pub(super) fn finish(&mut self, batch_id: u64, now: Instant) -> Option<(Job, Duration)> {
        let place = self.jobs.iter().position(|job| job.batch_id == batch_id)?;
        let job = self.jobs.remove(place)?;
        self.computing.retain(|other| *other != batch_id);
        let service = match job.beside {
            true => now.saturating_duration_since(job.sent_at) / self.side_by_side,
            false => now.saturating_duration_since(job.sent_at.max(self.free_since)),
        };
        self.free_since = now;
        Due::advance(self.jobs.iter_mut().map(|job| &mut job.hung), now);
        Due::advance(self.jobs.iter_mut().map(|job| &mut job.late), now);
        Some((job, service))
    }

    /// Takes everything out: no answer can come any more.
    pub(super) fn abandon(&mut self) -> Vec<EndedBatch> {
        self.lost = true;
        self.computing.clear();
        let batch = |job: Job| EndedBatch {
            exclusive: job.exclusive,
            rows: job.rows.into_iter().flatten().collect(),
        };
        self.jobs.drain(..).map(batch).collect()
    }

    /// Whether what is sent to it now comes back at once.
    fn is_gone(&self) -> bool {
        self.lost || (!self.alive && self.refuses)
    }

    fn breach(&mut self, holds: bool, invariant: &'static str, found: impl FnOnce() -> String) {
        if !holds {
            self.breaches.push((invariant, found()));
        }
    }
}

/// The dispatcher's side of a process.
#[derive(Clone)]
pub(super) struct SimWorker(pub(super) Rc<RefCell<Process>>);

impl WorkerPort for SimWorker {
    fn id(&self) -> WorkerId {
        self.0.borrow().id
    }

    fn tier(&self) -> Tier {
        self.0.borrow().tier()
    }

    fn slot_limits(&self) -> (usize, usize) {
        self.0.borrow().limits()
    }

    fn side_by_side(&self) -> usize {
        self.0.borrow().side_by_side as usize
    }

    fn load(&self) -> Load {
        let process = self.0.borrow();
        let taken = process.jobs.len() + process.reading;
        Load {
            // It may be lost between this look and the batch that follows from it.
            free: if process.lost && !process.refuses { 0 } else { process.slots - taken },
            batches: process.jobs.len(),
            tokens: process.jobs.iter().map(|job| job.tokens).sum(),
            rows: process.jobs.iter().map(|job| job.rows.len()).sum(),
            exclusive: process.jobs.iter().any(|job| job.exclusive),
            whole: process.jobs.iter().any(|job| !job.beside),
        }
    }

    fn run(&self, batch: Batch, now: Instant) -> Result<(), EndedBatch> {
        let Batch { batch_id, rows, exclusive, beside, late_after } = batch;
        let mut process = self.0.borrow_mut();
        if process.is_gone() {
            process.unsent = true;
            return Err(EndedBatch { rows, exclusive });
        }
        let texts: Vec<u32> = rows.iter().map(|pending| pending.ids[0]).collect();
        let tokens: usize = rows.iter().map(|pending| pending.ids.len()).sum();
        let (tokens_max, rows_max) = process.limits();
        let fits = rows.len() <= rows_max && (tokens <= tokens_max || rows.len() == 1);
        process.breach(fits, "I8", || format!("batch of {} rows, {tokens} tokens", rows.len()));
        let taken = process.jobs.len() + process.reading;
        let free = taken < process.slots;
        process.breach(free, "I7", || format!("batch {batch_id} without a free slot"));
        let company = process.jobs.iter().any(|job| job.exclusive || exclusive);
        process.breach(!company, "I13", || format!("batch {batch_id} in company of a suspect"));
        let alone = !exclusive || rows.len() == 1;
        process.breach(alone, "I13", || format!("{} suspects together", rows.len()));
        if process.side_by_side > 1 {
            let whole = process.jobs.iter().any(|job| !job.beside);
            let ahead = whole || process.jobs.len() >= process.side_by_side as usize;
            let shares = beside || process.jobs.is_empty();
            process.breach(!ahead && shares, "I8", || format!("batch {batch_id} is sent ahead"));
        } else {
            process.breach(!beside, "I8", || format!("batch {batch_id} has half of one device"));
        }
        for pending in &rows {
            let runs = pending.owed.executions();
            let right = runs == 1 || (runs <= 3 && exclusive);
            process.breach(right, "I13", || {
                format!("text {} in run {runs}, alone: {exclusive}", pending.ids[0])
            });
            process.runs.borrow_mut().insert(pending.ids[0], runs);
        }
        let goes_on = !process.ended_by_core;
        process.breach(goes_on, "I8", || "a worker that is being ended gets a batch".to_owned());
        let rows = rows.into_iter().map(Some).collect();
        let due = Due::behind(std::iter::empty(), now, Duration::ZERO);
        let job = Job {
            batch_id,
            rows,
            texts,
            tokens,
            exclusive,
            beside,
            canary: false,
            sent_at: now,
            hung: due,
            late: due,
        };
        process.add(job, late_after, now);
        Ok(())
    }

    fn canary_tokens(&self) -> usize {
        CANARY_TOKENS
    }

    fn run_canary(&self, batch_id: u64, late_after: Option<Duration>, now: Instant) -> bool {
        let mut process = self.0.borrow_mut();
        if process.is_gone() {
            return false;
        }
        let company = process.jobs.iter().any(|job| job.exclusive);
        process.breach(!company, "I13", || "a canary in company of a suspect".to_owned());
        let free = process.jobs.len() + process.reading < process.slots;
        process.breach(free, "I7", || "a canary without a free slot".to_owned());
        let due = Due::behind(std::iter::empty(), now, Duration::ZERO);
        let job = Job {
            batch_id,
            rows: Vec::new(),
            texts: Vec::new(),
            tokens: CANARY_TOKENS,
            exclusive: false,
            beside: false,
            canary: true,
            sent_at: now,
            hung: due,
            late: due,
        };
        process.add(job, late_after, now);
        true
    }

    fn take_expired(&self, now: Instant) -> Vec<Pending> {
        let mut process = self.0.borrow_mut();
        let rows = process.jobs.iter_mut().flat_map(|job| &mut job.rows);
        rows.filter_map(|row| row.take_if(|pending| pending.spec.expired(now))).collect()
    }

    fn next_expiry(&self) -> Option<Instant> {
        let process = self.0.borrow();
        let rows = process.jobs.iter().flat_map(|job| job.rows.iter().flatten());
        rows.filter_map(|pending| pending.spec.deadline).min()
    }

    fn next_hung(&self) -> Option<Instant> {
        self.0.borrow().jobs.iter().map(|job| job.hung.at).min()
    }

    fn next_late(&self) -> Option<LateBatch> {
        let process = self.0.borrow();
        let job = process.jobs.iter().min_by_key(|job| job.late.at)?;
        let Due { at, allowance, .. } = job.late;
        Some(LateBatch { at, allowance, tokens: job.tokens })
    }

    fn postpone(&self, by: Duration) {
        for job in &mut self.0.borrow_mut().jobs {
            job.hung.postpone(by);
            job.late.postpone(by);
        }
    }

    fn twins(&self, executions_max: u32, texts_max: usize) -> Vec<Pending> {
        let mut process = self.0.borrow_mut();
        let rows = process.jobs.iter_mut().flat_map(|job| &mut job.rows).flatten();
        let once =
            rows.filter(|row| !row.owed.is_shared() && row.owed.executions() < executions_max);
        once.take(texts_max).map(Pending::twin).collect()
    }

    fn oldest_queued_at(&self) -> Option<Instant> {
        let process = self.0.borrow();
        let rows = process.jobs.iter().flat_map(|job| job.rows.iter().flatten());
        rows.map(|pending| pending.queued_at).min()
    }

    fn abandon(&self) -> Vec<EndedBatch> {
        self.0.borrow_mut().abandon()
    }

    fn publish(&self) {}

    fn end(&self, cause: EndCause) {
        let mut process = self.0.borrow_mut();
        process.ended_by_core = true;
        process.end_asked.get_or_insert(cause);
    }
}
