//! A worker whose every move is scripted, and the books in which it notes what it was given. It
//! checks on the spot what must hold for every batch.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::world::ms;
use crate::config::Tier;
use crate::dispatch::port::{Batch, EndedBatch, Load, WorkerId, WorkerPort};
use crate::request::Pending;
use crate::supervisor::EndCause;

/// What one slot holds.
pub(super) const TOKENS_MAX: usize = 64;
pub(super) const ROWS_MAX: usize = 8;
/// Time after which a worker counts as hung.
const LATE: Duration = ms(200);

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
    pub(super) due: Instant,
    pub(super) late_at: Instant,
}

/// A worker whose every move the world decides.
pub(super) struct FakeState {
    pub(super) id: WorkerId,
    pub(super) tier: Tier,
    pub(super) slots: usize,
    pub(super) service: Duration,
    pub(super) hangs: bool,
    /// It fails every batch, whatever is in it.
    pub(super) broken: bool,
    /// A batch that is being read back: its slot is not free yet.
    pub(super) reading: usize,
    pub(super) in_flight: VecDeque<FakeBatch>,
    /// Dead, and what it had has been handed back.
    pub(super) ended: bool,
    /// The core has asked for its end.
    pub(super) end_asked: bool,
}

#[derive(Clone)]
pub(super) struct FakeWorker {
    pub(super) state: Rc<RefCell<FakeState>>,
    pub(super) books: Rc<RefCell<Books>>,
}

/// What the world knows about the texts.
#[derive(Default)]
pub(super) struct Books {
    pub(super) runs: BTreeMap<u32, u32>,
    pub(super) effects: BTreeMap<u32, Effect>,
    /// Whether each batch that was handed over was to run alone, in order.
    pub(super) turns: Vec<bool>,
    /// The texts that ran alone, in order.
    pub(super) alone: Vec<u32>,
    /// The tier of the worker of each batch that was handed over, in order.
    pub(super) tiers: Vec<Tier>,
    /// Why the core has ended which worker, in order.
    pub(super) ends: Vec<(WorkerId, EndCause)>,
    /// Every GPU worker that ever served.
    pub(super) gpus: Vec<Rc<RefCell<FakeState>>>,
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
            exclusive: state.in_flight.iter().any(|batch| batch.exclusive),
        }
    }

    fn run(&self, batch: Batch, now: Instant) -> Result<(), EndedBatch> {
        let Batch { rows, exclusive, .. } = batch;
        let mut state = self.state.borrow_mut();
        if state.ended {
            return Err(EndedBatch { rows, exclusive });
        }
        assert!(!state.end_asked, "a worker that is being ended gets no batch");
        assert!(state.in_flight.len() + state.reading < state.slots, "no slot is free");
        assert!(!state.in_flight.iter().any(|b| b.exclusive), "a suspect has company");
        assert!(!exclusive || state.in_flight.is_empty(), "a suspect has company");
        assert!(!exclusive || rows.len() == 1, "one suspect at a time");
        let tokens = rows.iter().map(|pending| pending.ids.len()).sum();
        assert!(rows.len() <= ROWS_MAX && (tokens <= TOKENS_MAX || rows.len() == 1));
        let mut books = self.books.borrow_mut();
        let serves = |gpu: &Rc<RefCell<FakeState>>| {
            let gpu = gpu.borrow();
            !gpu.ended && !gpu.end_asked
        };
        let idle_gpu = state.tier == Tier::Cpu && books.gpus.iter().any(serves);
        assert!(exclusive || !idle_gpu, "ordinary work on the CPU while a GPU serves");
        books.turns.push(exclusive);
        books.tiers.push(state.tier);
        for pending in &rows {
            let runs = books.runs.entry(pending.ids[0]).or_default();
            *runs += 1;
            assert!(*runs <= 2, "text {} runs {runs} times", pending.ids[0]);
            assert_eq!(*runs == 2, exclusive, "the second run, and no other, is alone");
            assert_eq!(pending.executions, *runs);
        }
        if exclusive {
            books.alone.push(rows[0].ids[0]);
        }
        let effects = rows.iter().map(|pending| books.effects[&pending.ids[0]]).collect();
        let begins = state.in_flight.back().map_or(now, |before| before.due).max(now);
        let (due, late_at) = (begins + state.service, begins + LATE);
        let rows = rows.into_iter().map(Some).collect();
        state.in_flight.push_back(FakeBatch { rows, effects, tokens, exclusive, due, late_at });
        Ok(())
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

    fn next_late(&self) -> Option<Instant> {
        self.state.borrow().in_flight.iter().map(|batch| batch.late_at).min()
    }

    fn is_late(&self, now: Instant) -> bool {
        self.next_late().is_some_and(|late_at| late_at <= now)
    }

    fn publish(&self) {}

    fn end(&self, cause: EndCause) {
        self.books.borrow_mut().ends.push((self.id(), cause));
        self.state.borrow_mut().end_asked = true;
    }
}
