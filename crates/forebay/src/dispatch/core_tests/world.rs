//! A world for the dispatcher's decisions to run in: scripted workers, a virtual clock, and books
//! about every text. It advances only to moments at which something is due, the core's own next
//! wake-up among them, so a wake-up that comes too late or never shows as a broken promise.

mod workers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fake::{Books, Effect, FakeWorker, ROWS_MAX, TOKENS_MAX};
use crate::admission::Admission;
use crate::batch::BatchPolicy;
use crate::config::{AdmissionConfig, HedgeConfig, Tier};
use crate::dispatch::core::{Core, CoreSettings};
use crate::dispatch::port::{Standing, WorkerId, WorkerNews};
use crate::error::EmbedError;
use crate::metrics::Metrics;
use crate::owed::Owed;
use crate::priority::Priority;
use crate::reply::{EmbedResult, ReplyGroup};
use crate::request::{Pending, RequestSpec};

pub(super) const SLACK: Duration = Duration::from_millis(5);
pub(super) const GRACE: Duration = Duration::from_millis(400);

pub(super) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What will happen at a moment.
enum Due {
    Completion(WorkerId),
    /// Its death; the news of it comes later.
    Death(WorkerId),
    /// The slot of a batch that has been read is free again.
    Release(WorkerId),
    /// The news that it can answer no more, with what it had.
    Lost(WorkerId),
    /// The news that its process is gone.
    Ended(WorkerId),
    /// The ladder thinks better of it.
    Standing(WorkerId, Standing),
    Start(Tier),
    Arrive(Vec<u32>),
    Cancel(u32),
}

/// A text as its caller sees it.
pub(super) struct Text {
    pub(super) group: Arc<ReplyGroup>,
    pub(super) effect: Effect,
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: bool,
    pub(super) result: Option<EmbedResult>,
    pending: Option<Pending>,
}

/// How a worker gets from greeting to serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ladder {
    /// It serves at once.
    None,
    /// By a canary, and after this time on probation.
    Canary(Duration),
}

pub(super) struct World {
    pub(super) core: Core<FakeWorker>,
    pub(super) now: Instant,
    pub(super) texts: BTreeMap<u32, Text>,
    pub(super) books: Rc<RefCell<Books>>,
    pub(super) workers: BTreeMap<WorkerId, FakeWorker>,
    /// Time from an end to the next start; `None` leaves a worker that died dead.
    pub(super) restart_after: Option<Duration>,
    /// Tier, slots and time per batch of the next worker.
    pub(super) tier: Tier,
    pub(super) slots: usize,
    /// Batches that the next one computes side by side, if it is a CPU.
    pub(super) side_by_side: usize,
    pub(super) service: Duration,
    pub(super) hang_next: bool,
    pub(super) break_next: bool,
    pub(super) corrupt_next: bool,
    /// How a worker gets from greeting to serving.
    pub(super) ladder: Ladder,
    /// What the core had to say, in order.
    pub(super) news: Vec<WorkerNews>,
    due: BTreeMap<(Instant, u64), Due>,
    number: u64,
    incarnations: u64,
    down_since: Option<Instant>,
    /// The core has been told that nothing will serve soon.
    hopeless: bool,
    /// Tell it so when the next worker has ended.
    pub(super) no_hope_next: bool,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
}

impl World {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        Self::with(HedgeConfig { samples_min: 4, ..HedgeConfig::default() }, metrics)
    }

    pub(super) fn with(hedge: HedgeConfig, metrics: &Arc<Metrics>) -> Self {
        let now = Instant::now();
        let batch = BatchPolicy {
            tokens_max: TOKENS_MAX,
            rows_max: ROWS_MAX,
            max_wait: ms(2),
            interactive_ageing: ms(20),
            bulk_ageing: ms(100),
            entries_max: 4096,
            duration_target: ms(10),
            bulk_duration_target: ms(40),
            tokens_min: 8,
        };
        let settings = CoreSettings {
            batch,
            hedge,
            waits_max: [Some(ms(1_000)), Some(ms(5_000)), Some(ms(60_000))],
            down_grace: GRACE,
            deadline_slack: SLACK,
        };
        Self {
            core: Core::new(settings, Arc::clone(metrics), now),
            now,
            texts: BTreeMap::new(),
            books: Rc::default(),
            workers: BTreeMap::new(),
            restart_after: Some(ms(30)),
            tier: Tier::Cpu,
            slots: 3,
            side_by_side: 1,
            service: ms(7),
            hang_next: false,
            break_next: false,
            corrupt_next: false,
            ladder: Ladder::None,
            news: Vec::new(),
            due: BTreeMap::new(),
            number: 0,
            incarnations: 0,
            down_since: Some(now),
            hopeless: false,
            no_hope_next: false,
            admission: Admission::new(&AdmissionConfig::default()),
            metrics: Arc::clone(metrics),
        }
    }

    fn at(&mut self, at: Instant, due: Due) {
        self.number += 1;
        self.due.insert((at, self.number), due);
    }

    pub(super) fn start_worker(&mut self, after: Duration) {
        self.at(self.now + after, Due::Start(self.tier));
    }

    pub(super) fn kill_worker(&mut self, id: WorkerId, after: Duration) {
        self.at(self.now + after, Due::Death(id));
    }

    /// A text that will arrive with others of the same call of [`World::arrive`].
    pub(super) fn text(
        &mut self,
        tokens: usize,
        priority: Priority,
        effect: Effect,
        deadline: Option<Instant>,
    ) -> u32 {
        let id = self.texts.len() as u32;
        let spec = RequestSpec {
            priority,
            deadline,
            truncate: true,
            cut_from: forebay_model::CutFrom::Right,
            normalize: true,
            dimensions: 1,
            accepted_at: self.now,
        };
        let metrics = Arc::clone(&self.metrics);
        let (group, mut repliers) = ReplyGroup::new(1, priority, self.now, metrics);
        let mut permits = self.admission.try_acquire(priority, &[1]).expect("room");
        let pending = Pending {
            spec,
            ids: vec![id; tokens],
            tokens_before_cut: tokens,
            tokenize: Duration::ZERO,
            queued_at: self.now,
            owed: Owed::new(repliers.remove(0), permits.remove(0)),
        };
        self.books.borrow_mut().effects.insert(id, effect);
        let pending = Some(pending);
        let text = Text { group, effect, deadline, cancelled: false, result: None, pending };
        self.texts.insert(id, text);
        id
    }

    /// A worker computes nothing for so long.
    pub(super) fn stall(&mut self, id: WorkerId, time: Duration) {
        if let Some(worker) = self.workers.get(&id) {
            worker.state.borrow_mut().stall(time);
        }
    }

    pub(super) fn arrive(&mut self, ids: Vec<u32>, after: Duration) {
        self.at(self.now + after, Due::Arrive(ids));
    }

    pub(super) fn cancel(&mut self, id: u32, after: Duration) {
        self.at(self.now + after, Due::Cancel(id));
    }

    pub(super) fn runs(&self, id: u32) -> u32 {
        self.books.borrow().runs.get(&id).copied().unwrap_or(0)
    }

    pub(super) fn all_answered(&self) -> bool {
        self.texts.values().all(|text| text.result.is_some())
    }

    /// Goes on until every text is answered and no worker holds anything; a text that never will
    /// be is a failure.
    pub(super) fn run_to_the_end(&mut self) {
        for _ in 0..100_000 {
            if self.all_answered() && self.due.is_empty() && self.core.is_quiet() {
                return;
            }
            assert!(self.step(), "nothing will ever happen; waiting: {:?}", self.waiting());
        }
        panic!("no end in sight; waiting: {:?}", self.waiting());
    }

    fn waiting(&self) -> Vec<u32> {
        self.texts.iter().filter(|(_, text)| text.result.is_none()).map(|(&id, _)| id).collect()
    }

    /// Goes to the next moment at which anything is due. `false` if there is none.
    pub(super) fn step(&mut self) -> bool {
        let event = self.due.keys().next().map(|&(at, _)| at);
        let Some(at) = [event, self.core.next_wakeup(self.now)].into_iter().flatten().min() else {
            return false;
        };
        self.now = at.max(self.now);
        while let Some((&key, _)) = self.due.iter().next().filter(|&(&(at, _), _)| at <= self.now) {
            if let Some(due) = self.due.remove(&key) {
                self.happen(due);
            }
        }
        self.core.pump(self.now);
        while self.hear() {
            self.core.pump(self.now);
        }
        if let Some(wake) = self.core.next_wakeup(self.now) {
            assert!(wake > self.now, "wakes at once after having done all that could be done");
        }
        self.schedule();
        self.collect();
        true
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Start(tier) => self.start(tier),
            Due::Arrive(ids) => self.accept(ids),
            Due::Cancel(id) => {
                if let Some(text) = self.texts.get_mut(&id).filter(|text| text.result.is_none()) {
                    text.cancelled = true;
                    text.group.cancel();
                    self.core.sweep_cancelled();
                }
            }
            Due::Completion(id) => self.complete(id),
            Due::Release(id) => {
                if let Some(worker) = self.workers.get(&id) {
                    worker.state.borrow_mut().reading -= 1;
                }
            }
            Due::Death(id) => self.die(id),
            Due::Lost(id) => self.lost(id),
            Due::Ended(id) => self.ended(id),
            Due::Standing(id, standing) => {
                let worker = self.workers.get(&id);
                if worker.is_some_and(|worker| !worker.state.borrow().end_asked) {
                    self.set_standing(id, standing);
                }
            }
        }
    }

    /// The core takes these texts in, and does nothing yet.
    pub(super) fn accept(&mut self, ids: Vec<u32>) {
        let take = |id| self.texts.get_mut(&id).and_then(|text| text.pending.take());
        let pending: Vec<Pending> = ids.into_iter().filter_map(take).collect();
        self.core.accept(pending);
    }

    /// Tells the core that nothing will serve soon, if that is so.
    pub(super) fn no_hope(&mut self) {
        if !self.serves() {
            self.hopeless = true;
            self.core.no_hope("scripted".to_owned());
        }
    }

    fn serves(&self) -> bool {
        self.workers.values().any(|worker| {
            let state = worker.state.borrow();
            !state.ended && !state.end_asked && state.standing >= Standing::Probation
        })
    }

    /// Schedules what follows from what the core has just done.
    fn schedule(&mut self) {
        let mut coming = Vec::new();
        for (&id, worker) in &self.workers {
            let state = worker.state.borrow();
            if let Some(first) = state.first().filter(|_| !state.hangs && !state.ended) {
                coming.push((state.in_flight[first].due, Due::Completion(id)));
            }
            if state.end_asked && !state.ended {
                coming.push((self.now + ms(40), Due::Death(id)));
            }
        }
        for (at, due) in coming {
            let completion = matches!(due, Due::Completion(_));
            if !completion || !self.due.range((at, 0)..=(at, u64::MAX)).any(|(_, d)| same(d, &due))
            {
                self.at(at, due);
            }
        }
        if self.serves() {
            self.down_since = None;
        } else {
            self.down_since.get_or_insert(self.now);
        }
    }

    /// Takes the answers, and checks what is promised about their time and kind.
    fn collect(&mut self) {
        for (&id, text) in &mut self.texts {
            if text.result.is_none() && text.group.is_complete() {
                let mut results = text.group.wait(Some(self.now)).expect("complete");
                assert_eq!(results.len(), 1);
                let result = results.remove(0);
                if let Err(EmbedError::Unavailable { .. }) = &result {
                    let down = self.down_since.is_some_and(|since| self.now >= since + GRACE);
                    assert!(
                        down || self.hopeless,
                        "text {id} is refused although a worker was there in time"
                    );
                }
                text.result = Some(result);
            }
            let over = text.deadline.is_some_and(|deadline| deadline + SLACK <= self.now);
            let arrived = text.pending.is_none();
            assert!(!over || !arrived || text.result.is_some(), "text {id} is told too late");
        }
    }
}

fn same(one: &Due, other: &Due) -> bool {
    matches!((one, other), (Due::Completion(one), Due::Completion(other)) if one == other)
}
