//! A worker as the dispatcher sees it: free slots, a way to run a batch, nothing else.

use std::time::{Duration, Instant};

use crate::config::Tier;
use crate::request::Pending;
use crate::supervisor::EndCause;

/// Names one incarnation of one worker: a restarted worker is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WorkerId {
    /// Position in the ladder's list of rungs.
    pub(crate) slot: usize,
    /// Which start of that rung, from 1.
    pub(crate) incarnation: u64,
}

/// What a worker may be given. The ladder decides; the core itself only ever lowers it to
/// [`Standing::Suspect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Late or odd: canaries only.
    Suspect,
    /// It has greeted and shown nothing yet: canaries only.
    Warming,
    /// A small share of the ordinary texts; more while only a slower tier serves and is behind; all
    /// of them while nothing serves.
    Probation,
    /// Whatever its tier is given.
    Serving,
}

/// What the dispatcher tells the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkerNews {
    /// A canary batch came back.
    Canary {
        id: WorkerId,
        /// What was wrong with it.
        verdict: Result<(), String>,
        /// Embeddings that this worker has handed out since its last good canary.
        replies: u64,
    },
    /// A batch of real texts came back good while the worker is on probation.
    Good { id: WorkerId },
    /// A batch is later than its length bucket allows; the worker gets no more work already, and
    /// what it holds runs elsewhere too.
    Late {
        id: WorkerId,
        reason: String,
        /// Texts that run elsewhere too.
        texts: usize,
    },
    /// A late worker has answered everything it held.
    CaughtUp { id: WorkerId },
    /// So many texts were not run again, because too many had been already.
    RerunsRefused { texts: usize },
}

/// A batch to run.
pub(crate) struct Batch {
    pub(crate) batch_id: u64,
    pub(crate) rows: Vec<Pending>,
    /// A suspect runs alone: nothing else is in that worker until it is back.
    pub(crate) exclusive: bool,
    /// It has its share of the worker's cores and leaves the rest to those beside it. Any other has
    /// all of them.
    pub(crate) beside: bool,
    /// Time of its own after which it counts as late, of a batch beside others so many times as long
    /// as run side by side; `None` for not before its worker counts as hung.
    pub(crate) late_after: Option<Duration>,
}

/// A batch that a worker has answered in whole or in part; its slot is free again.
pub(crate) struct BatchDone {
    pub(crate) worker: WorkerId,
    pub(crate) tier: Tier,
    pub(crate) tokens: usize,
    /// Texts whose rows are good.
    pub(crate) texts: usize,
    /// Time that it took the worker, without the wait for the batches before it; of a batch that ran
    /// beside others its share of that, so that the tokens of all batches by the sum of their times
    /// are what the worker computes.
    pub(crate) service: Duration,
    /// A suspect, alone.
    pub(crate) exclusive: bool,
    /// Every row passed its check.
    pub(crate) good: bool,
}

/// A canary batch that came back.
pub(crate) struct CanaryDone {
    pub(crate) worker: WorkerId,
    /// What was wrong with it.
    pub(crate) verdict: Result<(), String>,
    /// Embeddings that the worker has handed out since its last good canary.
    pub(crate) replies: u64,
    pub(crate) tokens: usize,
    pub(crate) service: Duration,
}

/// The batch of a worker that counts as late next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LateBatch {
    /// The moment.
    pub(crate) at: Instant,
    /// The time that it may take by itself.
    pub(crate) allowance: Duration,
    pub(crate) tokens: usize,
}

/// A batch that came to its end without results: its worker died or could not take it.
pub(crate) struct EndedBatch {
    pub(crate) rows: Vec<Pending>,
    pub(crate) exclusive: bool,
}

/// A worker that is gone, with what it had in flight.
pub(crate) struct EndedWorker {
    pub(crate) id: WorkerId,
    pub(crate) batches: Vec<EndedBatch>,
    /// It was told to end, so what it had is not to blame.
    pub(crate) requested: bool,
}

/// How busy a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Slots that a batch can be put into now.
    pub(crate) free: usize,
    /// Batches in flight.
    pub(crate) batches: usize,
    /// Tokens in flight.
    pub(crate) tokens: usize,
    /// Rows in flight.
    pub(crate) rows: usize,
    /// The batch in flight must stay alone.
    pub(crate) exclusive: bool,
    /// A batch in flight has all the cores: any but one that runs beside others, so known answers
    /// and suspects, too.
    pub(crate) whole: bool,
}

/// A worker at one moment: how busy it is, and when something must be done about what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) load: Load,
    /// See the methods of [`WorkerPort`] with these names.
    pub(crate) next_expiry: Option<Instant>,
    pub(crate) next_hung: Option<Instant>,
    pub(crate) next_late: Option<LateBatch>,
    pub(crate) oldest_queued_at: Option<Instant>,
}

/// One worker that has greeted.
pub(crate) trait WorkerPort {
    /// Which worker it is.
    fn id(&self) -> WorkerId;
    /// How fast it is, roughly.
    fn tier(&self) -> Tier;
    /// Tokens and rows that one slot holds.
    fn slot_limits(&self) -> (usize, usize);
    /// Batches that it computes side by side, each with its share of the cores; 1 if it computes one
    /// after the other.
    fn side_by_side(&self) -> usize {
        1
    }
    /// How busy it is.
    fn load(&self) -> Load;
    /// Hands a batch over. The rows come back if the worker cannot take it; the worker is of no
    /// more use then, and its end is under way.
    fn run(&self, batch: Batch, now: Instant) -> Result<(), EndedBatch>;
    /// Takes the rows in flight whose deadline has passed.
    fn take_expired(&self, now: Instant) -> Vec<Pending>;
    /// The earliest deadline of a row in flight.
    fn next_expiry(&self) -> Option<Instant>;
    /// Tokens of a canary batch for this worker.
    fn canary_tokens(&self) -> usize;
    /// Runs a canary batch; `false` if the worker cannot take it, as for [`WorkerPort::run`].
    fn run_canary(&self, batch_id: u64, late_after: Option<Duration>, now: Instant) -> bool;
    /// The next moment at which a batch takes longer than any of its size may.
    fn next_hung(&self) -> Option<Instant>;
    /// The batch in flight that counts as late first.
    fn next_late(&self) -> Option<LateBatch>;
    /// Allows every batch in flight so much more time: the dispatcher was held up for as long, and
    /// perhaps the worker with it.
    fn postpone(&self, by: Duration);
    /// Twins of up to `texts_max` texts in flight that have none yet, are not answered and have run
    /// less than `executions_max` times.
    fn twins(&self, executions_max: u32, texts_max: usize) -> Vec<Pending>;
    /// Since when the oldest text in flight has waited for a batch.
    fn oldest_queued_at(&self) -> Option<Instant>;
    /// Takes out everything in flight; the worker is gone, and nothing that it says counts.
    fn abandon(&self) -> Vec<EndedBatch>;
    /// All of that in one look, which costs hardly more than one of them.
    fn view(&self) -> View {
        View {
            load: self.load(),
            next_expiry: self.next_expiry(),
            next_hung: self.next_hung(),
            next_late: self.next_late(),
            oldest_queued_at: self.oldest_queued_at(),
        }
    }
    /// Shows how many slots are free.
    fn publish(&self);
    /// Ends the worker. What it holds comes back as the worker's end.
    fn end(&self, cause: EndCause);
}
