//! The callers: texts of every class that arrive in bursts, some with deadlines, some withdrawn,
//! a few of which kill or hang whatever computes them.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::SmallRng;

use crate::admission::Admission;
use crate::error::EmbedError;
use crate::metrics::Metrics;
use crate::owed::Owed;
use crate::priority::Priority;
use crate::reply::{EmbedResult, ReplyGroup};
use crate::request::{Pending, RequestSpec};

/// What a text does to the worker that computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// The worker dies.
    Kills,
    /// The worker never answers again.
    Hangs,
    /// The batch is answered as failed.
    FailsBatch,
}

/// An accepted text as its caller sees it.
pub(super) struct Text {
    pub(super) number: u32,
    pub(super) group: Arc<ReplyGroup>,
    pub(super) deadline: Option<Instant>,
    pub(super) effect: Effect,
    pub(super) cancelled: bool,
}

impl Text {
    /// The result, once it is there.
    pub(super) fn result(&self) -> Option<EmbedResult> {
        match self.group.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(mut results) => results.pop(),
            Poll::Pending => None,
        }
    }
}

/// The unit vector and its length that a sound worker makes of a text.
pub(super) fn row_of(text: u32) -> [f32; 3] {
    let angle = text as f32 * 0.001 + 0.1;
    [angle.cos(), angle.sin(), 1.0]
}

/// What a worker with a flipped weight makes of it: wrong, and well formed.
pub(super) fn wrong_row_of(text: u32) -> [f32; 3] {
    row_of(text + 1_000)
}

/// How a caller wants its text treated.
pub(super) struct Wish {
    pub(super) priority: Priority,
    pub(super) tokens: usize,
    pub(super) deadline: Option<Duration>,
    pub(super) effect: Effect,
}

impl Wish {
    /// Some text.
    pub(super) fn any(random: &mut SmallRng) -> Self {
        let priority = match random.random_range(0..10) {
            0 => Priority::Control,
            1..5 => Priority::Interactive,
            _ => Priority::Bulk,
        };
        let deadline =
            random.random_bool(0.5).then(|| Duration::from_millis(random.random_range(5..1_500)));
        let effect = match random.random_range(0..300) {
            0 => Effect::FailsBatch,
            _ => Effect::None,
        };
        Self { priority, tokens: random.random_range(1..40), deadline, effect }
    }
}

/// Submits one text as an application would: it is accepted, or refused at once and costs nothing.
pub(super) fn submit(
    number: u32,
    wish: &Wish,
    admission: &Arc<Admission>,
    metrics: &Arc<Metrics>,
    now: Instant,
) -> Result<(Text, Pending), EmbedError> {
    let mut permits = admission.try_acquire(wish.priority, &[1])?;
    let deadline = wish.deadline.map(|deadline| now + deadline);
    let spec = RequestSpec {
        priority: wish.priority,
        deadline,
        truncate: true,
        cut_from: forebay_model::CutFrom::Right,
        normalize: true,
        dimensions: 2,
        accepted_at: now,
    };
    let (group, mut repliers) = ReplyGroup::new(1, wish.priority, now, Arc::clone(metrics));
    let (Some(replier), Some(permit)) = (repliers.pop(), permits.pop()) else {
        return Err(EmbedError::Internal { message: "no permit for one text".to_owned() });
    };
    let pending = Pending {
        spec,
        ids: vec![number; wish.tokens],
        tokens_before_cut: wish.tokens,
        tokenize: Duration::ZERO,
        queued_at: now,
        owed: Owed::new(replier, permit),
    };
    let text = Text { number, group, deadline, effect: wish.effect, cancelled: false };
    Ok((text, pending))
}
