//! The workers of the world: how they come, what becomes of their batches, how they go, and the
//! ladder that hears of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use forebay_protocol::ErrorClass;

use super::super::fake::{CANARY_TOKENS, Effect, FakeBatch, FakeState, FakeWorker, HUNG};
use super::{Due, Ladder, World, ms};
use crate::config::Tier;
use crate::dispatch::core::FailedRows;
use crate::dispatch::port::{
    BatchDone, CanaryDone, EndedBatch, EndedWorker, Standing, WorkerId, WorkerNews,
};
use crate::options::{Embedding, TextTimes};
use crate::request::Pending;

impl World {
    pub(in crate::dispatch::core_tests) fn start(&mut self, tier: Tier) {
        self.incarnations += 1;
        let id = WorkerId { slot: 0, incarnation: self.incarnations };
        let state = FakeState {
            id,
            tier,
            slots: self.slots,
            side_by_side: if tier == Tier::Cpu { self.side_by_side } else { 1 },
            service: self.service,
            standing: Standing::Warming,
            corrupt: std::mem::take(&mut self.corrupt_next),
            hangs: std::mem::take(&mut self.hang_next),
            broken: std::mem::take(&mut self.break_next),
            reading: 0,
            in_flight: VecDeque::new(),
            ended: false,
            end_asked: false,
        };
        let state = Rc::new(RefCell::new(state));
        self.books.borrow_mut().all.push(Rc::clone(&state));
        let worker = FakeWorker { state, books: Rc::clone(&self.books) };
        self.workers.insert(id, worker.clone());
        self.core.worker_up(worker);
        match self.ladder {
            Ladder::None => self.set_standing(id, Standing::Serving),
            Ladder::Canary(_) => self.core.run_canary(id),
        }
    }

    pub(in crate::dispatch::core_tests) fn set_standing(
        &mut self,
        id: WorkerId,
        standing: Standing,
    ) {
        let Some(worker) = self.workers.get(&id) else { return };
        worker.state.borrow_mut().standing = standing;
        if standing >= Standing::Probation {
            self.down_since = None;
            self.hopeless = false;
        }
        self.core.set_standing(id, standing, self.now);
    }

    /// The ladder hears the news; says whether it has done anything about it at once.
    pub(super) fn hear(&mut self) -> bool {
        let mut acted = false;
        for news in self.core.take_news() {
            match &news {
                WorkerNews::Good { .. } | WorkerNews::RerunsRefused { .. } => {}
                WorkerNews::Late { id, .. } => {
                    if let Some(worker) = self.workers.get(id) {
                        worker.state.borrow_mut().standing = Standing::Suspect;
                    }
                }
                WorkerNews::CaughtUp { id } => {
                    self.at(self.now + ms(2), Due::Standing(*id, Standing::Serving));
                }
                WorkerNews::Canary { id, verdict: Err(_), .. } => {
                    self.at(self.now + ms(1), Due::Death(*id));
                }
                WorkerNews::Canary { id, verdict: Ok(()), .. } => {
                    let warming = |worker: &FakeWorker| {
                        let state = worker.state.borrow();
                        state.standing == Standing::Warming && !state.end_asked
                    };
                    if let Ladder::Canary(probation) = self.ladder
                        && self.workers.get(id).is_some_and(warming)
                    {
                        self.set_standing(*id, Standing::Probation);
                        acted = true;
                        self.at(self.now + probation, Due::Standing(*id, Standing::Serving));
                    }
                }
            }
            self.news.push(news);
        }
        acted
    }

    /// The first batch of a worker is done: its effects come true.
    pub(super) fn complete(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id).cloned() else { return };
        let first = worker.state.borrow().first();
        let Some(first) = first else { return };
        if worker.state.borrow().in_flight[first].due > self.now {
            return;
        }
        let kills = |batch: &FakeBatch| batch.effects.contains(&Effect::Kills);
        if kills(&worker.state.borrow().in_flight[first]) {
            self.die(id);
            return;
        }
        let Some(batch) = worker.state.borrow_mut().in_flight.remove(first) else { return };
        worker.state.borrow_mut().reading += 1;
        self.at(self.now + Duration::from_micros(300), Due::Release(id));
        let (tier, broken, corrupt, side_by_side) = {
            let state = worker.state.borrow();
            (state.tier, state.broken, state.corrupt, state.side_by_side)
        };
        let share = if batch.beside { side_by_side as u32 } else { 1 };
        let service = self.now.saturating_duration_since(batch.begins) / share;
        {
            // The rest is due sooner if this one was late.
            let mut state = worker.state.borrow_mut();
            let beside = || state.in_flight.iter().filter(|other| other.beside);
            let mut hung = beside().map(|other| other.hung_at).fold(self.now, Ord::max);
            let mut late = beside().map(|other| other.late.at).fold(self.now, Ord::max);
            for next in state.in_flight.iter_mut().filter(|next| !next.beside) {
                next.hung_at = next.hung_at.min(hung + HUNG);
                next.late.at = next.late.at.min(late + next.late.allowance);
                (hung, late) = (next.hung_at, next.late.at);
            }
        }
        if batch.canary {
            let verdict = if corrupt { Err("scripted".to_owned()) } else { Ok(()) };
            if corrupt {
                worker.state.borrow_mut().standing = Standing::Suspect;
            }
            let tokens = CANARY_TOKENS;
            let done = CanaryDone { worker: id, verdict, replies: 0, tokens, service };
            self.core.canary_done(done, self.now);
            return;
        }
        let alone = batch.rows.len() == 1;
        let rows = batch.rows.into_iter().zip(&batch.effects);
        let fails_batch = broken || batch.effects.contains(&Effect::FailsBatch);
        let (failed, done): (Vec<_>, Vec<_>) =
            rows.partition(|(_, effect)| fails_batch || **effect == Effect::FailsRow);
        if !fails_batch {
            let done = BatchDone {
                worker: id,
                tier,
                tokens: batch.tokens,
                texts: done.len(),
                service,
                exclusive: batch.exclusive,
                good: failed.is_empty(),
            };
            self.core.completed(&done, self.now);
        }
        for (pending, _) in done {
            if let Some(pending) = pending {
                let tokens = pending.ids.len();
                pending.reply(Ok(Embedding {
                    vector: vec![1.0],
                    tokens,
                    tokens_before_cut: tokens,
                    times: TextTimes::default(),
                }));
            }
        }
        let class = match fails_batch {
            _ if broken => ErrorClass::Retry,
            true => ErrorClass::Input,
            false => ErrorClass::NonFinite,
        };
        let rows: Vec<Pending> = failed.into_iter().filter_map(|(pending, _)| pending).collect();
        if fails_batch || !rows.is_empty() {
            let message = "scripted".to_owned();
            let failed = FailedRows { worker: id, class, message, alone, rows };
            self.core.rows_failed(failed, self.now);
        }
    }

    /// The worker takes nothing any more; the news of its end follows after a while.
    pub(super) fn die(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id).filter(|w| !w.state.borrow().ended) else {
            return;
        };
        let tier = worker.state.borrow().tier;
        worker.state.borrow_mut().ended = true;
        self.at(self.now + ms(2), Due::Lost(id));
        self.at(self.now + ms(3), Due::Ended(id));
        if let Some(after) = self.restart_after {
            self.at(self.now + ms(3) + after, Due::Start(tier));
        }
    }

    pub(super) fn lost(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let batches = worker.state.borrow_mut().in_flight.drain(..).collect::<Vec<_>>();
        let batches = batches.into_iter().map(|batch| EndedBatch {
            rows: batch.rows.into_iter().flatten().collect(),
            exclusive: batch.exclusive,
        });
        let blameless = self.books.borrow().ends_blameless;
        self.core.worker_lost(id, batches.collect(), blameless, self.now);
    }

    pub(super) fn ended(&mut self, id: WorkerId) {
        if self.workers.remove(&id).is_none() {
            return;
        }
        let ended = EndedWorker { id, batches: Vec::new(), requested: false };
        self.core.worker_ended(ended, self.now);
        if self.no_hope_next {
            self.no_hope();
        }
    }
}
