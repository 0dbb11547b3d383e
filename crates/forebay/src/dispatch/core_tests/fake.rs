//! A worker whose every move is scripted, and the books in which it notes what it was given. It
//! checks on the spot what must hold for every batch.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::world::ms;
use crate::config::Tier;
use crate::dispatch::port::{Batch, EndedBatch, LateBatch, Load, Standing, WorkerId, WorkerPort};
use crate::request::Pending;
use crate::supervisor::EndCause;

/// What one slot holds.
pub(super) const TOKENS_MAX: usize = 64;
pub(super) const ROWS_MAX: usize = 8;
/// Tokens of a canary batch.
pub(super) const CANARY_TOKENS: usize = 20;
/// Time after which a worker counts as hung.
pub(super) const HUNG: Duration = ms(200);

/// What a text does to the worker that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Its worker dies.
    Kills,
    /// The whole batch is answered as failed.
    FailsBatch,
    /// Its own row fails the check of the results.
    FailsRow,
}

/// One batch in a fake worker.
pub(super) struct FakeBatch {
    pub(super) rows: Vec<Option<Pending>>,
    pub(super) effects: Vec<Effect>,
    pub(super) tokens: usize,
    pub(super) exclusive: bool,
    pub(super) canary: bool,
    pub(super) beside: bool,
    pub(super) begins: Instant,
    pub(super) due: Instant,
    pub(super) hung_at: Instant,
    pub(super) late: LateBatch,
}

/// A worker whose every move the world decides.
pub(super) struct FakeState {
    pub(super) id: WorkerId,
    pub(super) tier: Tier,
    /// What the core takes it for.
    pub(super) standing: Standing,
    pub(super) slots: usize,
    pub(super) side_by_side: usize,
    pub(super) service: Duration,
    pub(super) hangs: bool,
    /// It fails every batch, whatever is in it.
    pub(super) broken: bool,
    /// Its canaries are wrong.
    pub(super) corrupt: bool,
    /// A batch that is being read back: its slot is not free yet.
    pub(super) reading: usize,
    pub(super) in_flight: VecDeque<FakeBatch>,
    /// Dead, and what it had has been handed back.
    pub(super) ended: bool,
    /// The core has asked for its end.
    pub(super) end_asked: bool,
}

impl FakeState {
    /// Whether ordinary texts are safe with it at this moment.
    fn is_well(&self, now: Instant) -> bool {
        let late = self.in_flight.iter().any(|batch| batch.late.at <= now);
        self.standing >= Standing::Probation && !self.ended && !self.end_asked && !late
    }

    /// The place of the batch that is done first, of those before which it may be: one after the other
    /// are done in order.
    pub(super) fn first(&self) -> Option<usize> {
        (0..self.in_flight.len()).min_by_key(|place| self.in_flight[*place].due)
    }

    /// It computes nothing for so long.
    pub(super) fn stall(&mut self, time: Duration) {
        for batch in &mut self.in_flight {
            batch.due += time;
        }
    }

    fn push(&mut self, rows: Vec<Pending>, effects: Vec<Effect>, kind: Kind, now: Instant) {
        let Kind { tokens, exclusive, canary, beside, late_after } = kind;
        let share = if beside { self.side_by_side as u32 } else { 1 };
        // One beside others waits for none of them.
        let ahead = || self.in_flight.iter().filter(|_| !beside);
        let begins = ahead().map(|before| before.due).max().unwrap_or(now).max(now);
        let late_begins = ahead().map(|before| before.late.at).max().unwrap_or(now).max(now);
        let allowance = late_after.unwrap_or(HUNG).min(HUNG) * share;
        self.in_flight.push_back(FakeBatch {
            rows: rows.into_iter().map(Some).collect(),
            effects,
            tokens,
            exclusive,
            canary,
            beside,
            begins,
            due: begins + self.service * share,
            hung_at: begins + HUNG * share,
            late: LateBatch { at: late_begins + allowance, allowance, tokens },
        });
    }
}

struct Kind {
    tokens: usize,
    exclusive: bool,
    canary: bool,
    beside: bool,
    late_after: Option<Duration>,
}

#[derive(Clone)]
pub(super) struct FakeWorker {
    pub(super) state: Rc<RefCell<FakeState>>,
    pub(super) books: Rc<RefCell<Books>>,
}

/// One batch as it was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    pub(super) at: Instant,
    pub(super) worker: WorkerId,
    pub(super) tier: Tier,
    pub(super) standing: Standing,
    pub(super) exclusive: bool,
    pub(super) beside: bool,
    pub(super) texts: Vec<u32>,
}

/// What the world knows about the texts.
#[derive(Default)]
pub(super) struct Books {
    pub(super) runs: BTreeMap<u32, u32>,
    /// Workers end for something else than their texts.
    pub(super) ends_blameless: bool,
    pub(super) effects: BTreeMap<u32, Effect>,
    /// Every batch of texts, in order.
    pub(super) handed: Vec<Handed>,
    /// The workers that ran a canary batch, in order.
    pub(super) canaries: Vec<WorkerId>,
    /// Why the core has ended which worker, in order.
    pub(super) ends: Vec<(WorkerId, EndCause)>,
    /// Every worker that ever was.
    pub(super) all: Vec<Rc<RefCell<FakeState>>>,
}

impl Books {
    /// The texts that ran alone, in order.
    pub(super) fn alone(&self) -> Vec<u32> {
        self.handed.iter().filter(|batch| batch.exclusive).map(|batch| batch.texts[0]).collect()
    }
}

impl WorkerPort for FakeWorker {
    fn id(&self) -> WorkerId {
        self.state.borrow().id
    }

    fn tier(&self) -> Tier {
        self.state.borrow().tier
    }

    fn slot_limits(&self) -> (usize, usize) {
        (TOKENS_MAX, ROWS_MAX)
    }

    fn side_by_side(&self) -> usize {
        self.state.borrow().side_by_side
    }

    fn load(&self) -> Load {
        let state = self.state.borrow();
        let taken = state.in_flight.len() + state.reading;
        Load {
            // Every other worker dies between this look and the batch that follows from it.
            free: if state.ended && state.id.incarnation.is_multiple_of(2) {
                0
            } else {
                state.slots - taken
            },
            batches: state.in_flight.len(),
            tokens: state.in_flight.iter().map(|batch| batch.tokens).sum(),
            rows: state.in_flight.iter().map(|batch| batch.rows.len()).sum(),
            exclusive: state.in_flight.iter().any(|batch| batch.exclusive),
            whole: state.in_flight.iter().any(|batch| !batch.beside),
        }
    }

    fn run(&self, batch: Batch, now: Instant) -> Result<(), EndedBatch> {
        let Batch { rows, exclusive, beside, late_after, .. } = batch;
        let mut state = self.state.borrow_mut();
        if state.ended {
            return Err(EndedBatch { rows, exclusive });
        }
        assert!(!state.end_asked, "a worker that is being ended gets no batch");
        assert!(state.standing >= Standing::Probation, "texts for a {:?} worker", state.standing);
        assert!(state.in_flight.len() + state.reading < state.slots, "no slot is free");
        assert!(!state.in_flight.iter().any(|b| b.exclusive), "a suspect has company");
        assert!(!exclusive || state.in_flight.is_empty(), "a suspect has company");
        assert!(!exclusive || rows.len() == 1, "one suspect at a time");
        if state.side_by_side > 1 {
            let whole = state.in_flight.iter().any(|batch| !batch.beside);
            assert!(!whole, "something beside a batch with all the cores");
            assert!(state.in_flight.len() < state.side_by_side, "a batch is sent ahead");
            assert!(beside || state.in_flight.is_empty(), "all the cores beside another batch");
        } else {
            assert!(!beside, "it computes one batch after the other");
        }
        let tokens = rows.iter().map(|pending| pending.ids.len()).sum();
        assert!(rows.len() <= ROWS_MAX && (tokens <= TOKENS_MAX || rows.len() == 1));
        let mut books = self.books.borrow_mut();
        let mut others = books.all.iter().filter_map(|other| other.try_borrow().ok());
        let late = state.in_flight.iter().any(|batch| batch.late.at <= now);
        assert!(!late || !others.any(|other| other.is_well(now)), "more for a late worker");
        let mut others = books.all.iter().filter_map(|other| other.try_borrow().ok());
        let gpu = others.any(|other| {
            other.tier == Tier::Gpu && other.standing == Standing::Serving && other.is_well(now)
        });
        assert!(exclusive || state.tier == Tier::Gpu || !gpu, "the CPU works while a GPU serves");
        let runs_max = if books.ends_blameless { 3 } else { 2 };
        for pending in &rows {
            let runs = books.runs.entry(pending.ids[0]).or_default();
            *runs += 1;
            assert!(*runs <= runs_max, "text {} runs {runs} times", pending.ids[0]);
            assert_eq!(*runs >= 2, exclusive, "the later runs, and no other, are alone");
            assert_eq!(pending.owed.executions(), *runs);
            assert!(!pending.owed.is_answered() || !exclusive, "a second run for nothing");
        }
        books.handed.push(Handed {
            at: now,
            worker: state.id,
            tier: state.tier,
            standing: state.standing,
            exclusive,
            beside,
            texts: rows.iter().map(|pending| pending.ids[0]).collect(),
        });
        let effects = rows.iter().map(|pending| books.effects[&pending.ids[0]]).collect();
        state.push(
            rows,
            effects,
            Kind { tokens, exclusive, canary: false, beside, late_after },
            now,
        );
        Ok(())
    }

    fn canary_tokens(&self) -> usize {
        CANARY_TOKENS
    }

    fn run_canary(&self, _: u64, late_after: Option<Duration>, now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        if state.ended {
            return false;
        }
        assert!(!state.end_asked, "a worker that is being ended gets no batch");
        assert!(state.in_flight.len() + state.reading < state.slots, "no slot is free");
        assert!(!state.in_flight.iter().any(|b| b.exclusive), "a suspect has company");
        self.books.borrow_mut().canaries.push(state.id);
        let tokens = CANARY_TOKENS;
        let kind = Kind { tokens, exclusive: false, canary: true, beside: false, late_after };
        state.push(Vec::new(), Vec::new(), kind, now);
        true
    }

    fn take_expired(&self, now: Instant) -> Vec<Pending> {
        let mut state = self.state.borrow_mut();
        let rows = state.in_flight.iter_mut().flat_map(|batch| &mut batch.rows);
        rows.filter_map(|row| row.take_if(|pending| pending.spec.expired(now))).collect()
    }

    fn next_expiry(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let rows = state.in_flight.iter().flat_map(|batch| batch.rows.iter().flatten());
        rows.filter_map(|pending| pending.spec.deadline).min()
    }

    fn next_hung(&self) -> Option<Instant> {
        self.state.borrow().in_flight.iter().map(|batch| batch.hung_at).min()
    }

    fn next_late(&self) -> Option<LateBatch> {
        let state = self.state.borrow();
        state.in_flight.iter().map(|batch| batch.late).min_by_key(|late| late.at)
    }

    fn postpone(&self, by: Duration) {
        for batch in &mut self.state.borrow_mut().in_flight {
            batch.hung_at += by;
            batch.late.at += by;
        }
    }

    fn twins(&self, executions_max: u32, texts_max: usize) -> Vec<Pending> {
        let mut state = self.state.borrow_mut();
        let rows = state.in_flight.iter_mut().flat_map(|batch| batch.rows.iter_mut().flatten());
        let once =
            rows.filter(|row| !row.owed.is_shared() && row.owed.executions() < executions_max);
        once.take(texts_max).map(Pending::twin).collect()
    }

    fn oldest_queued_at(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let rows = state.in_flight.iter().flat_map(|batch| batch.rows.iter().flatten());
        rows.map(|pending| pending.queued_at).min()
    }

    /// The world hands back what it held before it says that it is gone.
    fn abandon(&self) -> Vec<EndedBatch> {
        assert!(self.state.borrow().in_flight.is_empty());
        Vec::new()
    }

    fn publish(&self) {}

    fn end(&self, cause: EndCause) {
        self.books.borrow_mut().ends.push((self.id(), cause));
        self.state.borrow_mut().end_asked = true;
    }
}
