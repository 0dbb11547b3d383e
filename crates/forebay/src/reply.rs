//! The place where the replies of one submission arrive, exactly one per text.
//!
//! A [`Replier`] is the obligation to answer one text. It can be used up once; one that is dropped
//! unused answers with an internal fault, so that no way through the program, a panic included,
//! leaves a caller waiting. The caller's side can be polled by any executor or waited for by a
//! plain thread.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::error::EmbedError;
use crate::metrics::{Metrics, Outcome};
use crate::options::Embedding;
use crate::priority::Priority;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// What became of one text.
pub type EmbedResult = Result<Embedding, EmbedError>;

pub(crate) struct ReplyGroup {
    state: Mutex<State>,
    complete: Condvar,
    cancelled: AtomicBool,
    priority: Priority,
    submitted_at: Instant,
    metrics: Arc<Metrics>,
    span: tracing::Span,
}

struct State {
    results: Vec<Option<EmbedResult>>,
    missing: usize,
    waker: Option<Waker>,
}

impl ReplyGroup {
    /// A group for `texts` texts and the obligation to answer each, in their order.
    pub(crate) fn new(
        texts: usize,
        priority: Priority,
        submitted_at: Instant,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, Vec<Replier>) {
        let results = std::iter::repeat_with(|| None).take(texts).collect();
        let group = Arc::new(Self {
            state: Mutex::new(State { results, missing: texts, waker: None }),
            complete: Condvar::new(),
            cancelled: AtomicBool::new(false),
            priority,
            submitted_at,
            metrics,
            span: tracing::debug_span!("request", %priority, texts),
        });
        let replier = |index| Replier { group: Arc::clone(&group), index, used: false };
        let repliers = (0..texts).map(replier).collect();
        (group, repliers)
    }

    pub(crate) fn submitted_at(&self) -> Instant {
        self.submitted_at
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.lock().missing == 0
    }

    /// All results once every text is answered. They are handed out once.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Vec<EmbedResult>> {
        let mut state = self.lock();
        if state.missing == 0 {
            return Poll::Ready(take(&mut state));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            empty => *empty = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Blocks this thread until every text is answered or `until` has passed.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Option<Vec<EmbedResult>> {
        let mut state = self.lock();
        while state.missing > 0 {
            state = match until {
                None => self.complete.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now())?;
                    let waited = self.complete.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Some(take(&mut state))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, the results would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, index: usize, mut result: EmbedResult) {
        let outcome = result.as_ref().map_or_else(EmbedError::outcome, |_| Outcome::Ok);
        let total = self.ended(std::iter::once(index), outcome);
        if let Ok(embedding) = &mut result {
            embedding.times.total = total;
        }
        self.put(|state| state.put(index, result));
    }

    /// Counts texts that end in the same way, before anybody can know of it: how long they took.
    fn ended(&self, texts: impl ExactSizeIterator<Item = usize>, outcome: Outcome) -> Duration {
        let elapsed = self.submitted_at.elapsed();
        self.metrics.ended(self.priority, outcome, elapsed, texts.len());
        for text in texts {
            tracing::debug!(
                parent: &self.span,
                text,
                outcome = outcome.as_str(),
                elapsed_us = elapsed.as_micros() as u64,
                "answered"
            );
        }
        elapsed
    }

    /// Stores results, and wakes whoever waits if none is missing any more.
    fn put(&self, put: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        put(&mut state);
        if state.missing == 0 {
            let waker = state.waker.take();
            drop(state);
            self.complete.notify_all();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl State {
    fn put(&mut self, index: usize, result: EmbedResult) {
        debug_assert!(self.results[index].is_none(), "a replier is used once");
        self.results[index] = Some(result);
        self.missing -= 1;
    }
}

fn take(state: &mut State) -> Vec<EmbedResult> {
    let missing = || EmbedError::Internal { message: "result was taken already".to_owned() };
    let results = std::mem::take(&mut state.results);
    results.into_iter().map(|result| result.unwrap_or_else(|| Err(missing()))).collect()
}

/// The obligation to answer one text.
pub(crate) struct Replier {
    group: Arc<ReplyGroup>,
    index: usize,
    used: bool,
}

impl Replier {
    /// Answers.
    pub(crate) fn reply(mut self, result: EmbedResult) {
        self.used = true;
        self.group.answer(self.index, result);
    }

    /// Answers all of these: with one lock and one look at the clock for neighbours of one group.
    pub(crate) fn reply_all(mut answers: Vec<(Self, Embedding)>) {
        let same = |(one, _): &(Self, Embedding), (next, _): &(Self, Embedding)| {
            Arc::ptr_eq(&one.group, &next.group)
        };
        for run in answers.chunk_by_mut(same) {
            // A run has at least one.
            let group = Arc::clone(&run[0].0.group);
            let texts = run.iter().map(|(replier, _)| replier.index);
            let total = group.ended(texts, Outcome::Ok);
            group.put(|state| {
                for (replier, embedding) in run {
                    replier.used = true;
                    embedding.times.total = total;
                    let vector = std::mem::take(&mut embedding.vector);
                    state.put(replier.index, Ok(Embedding { vector, ..*embedding }));
                }
            });
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.group.cancelled.load(Ordering::Acquire)
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if !self.used {
            let message = "request was dropped without an answer".to_owned();
            self.group.answer(self.index, Err(EmbedError::Internal { message }));
        }
    }
}

#[cfg(all(test, feature = "interleavings"))]
mod interleavings;

#[cfg(test)]
mod tests {
    use std::task::Wake;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::options::TextTimes;

    fn group(texts: usize) -> (Arc<ReplyGroup>, Vec<Replier>) {
        let metrics = Arc::new(Metrics::new());
        ReplyGroup::new(texts, Priority::Interactive, Instant::now(), metrics)
    }

    fn embedding(tokens: usize) -> EmbedResult {
        let times = TextTimes::default();
        Ok(Embedding { vector: vec![1.0], tokens, tokens_before_cut: tokens, times })
    }

    struct CountingWaker(std::sync::atomic::AtomicUsize);
    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    proptest! {
        #[test]
        fn results_come_in_text_order_whatever_the_order_of_answers(
            order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle(),
            dropped in proptest::collection::vec(any::<bool>(), 20),
        ) {
            let (group, repliers) = group(20);
            let counter = Arc::new(CountingWaker(0.into()));
            let waker = Waker::from(Arc::clone(&counter));
            let context = Context::from_waker(&waker);
            let mut repliers: Vec<_> = repliers.into_iter().map(Some).collect();
            for &index in &order {
                prop_assert!(group.poll(&context).is_pending());
                let replier = repliers[index].take().expect("once");
                if dropped[index] { drop(replier) } else { replier.reply(embedding(index)) }
            }
            prop_assert_eq!(counter.0.load(Ordering::SeqCst), 1);
            let Poll::Ready(results) = group.poll(&context) else { panic!("complete") };
            for (index, result) in results.into_iter().enumerate() {
                if dropped[index] {
                    prop_assert_eq!(result.expect_err("dropped").code(), "internal");
                } else {
                    prop_assert_eq!(result, embedding(index));
                }
            }
        }
    }

    #[test]
    fn answers_of_several_groups_together_find_their_places() {
        let (groups, repliers): (Vec<_>, Vec<_>) = [3, 1, 2].map(group).into_iter().unzip();
        let mut repliers: Vec<_> = repliers.into_iter().flatten().zip(1..).collect();
        // Runs of one group, broken by others.
        repliers.swap(1, 4);
        let last = repliers.pop().expect("six");
        let answer = |(replier, tokens)| (replier, embedding(tokens).expect("embedded"));
        Replier::reply_all(repliers.into_iter().map(answer).collect());
        assert!(groups[0].is_complete() && groups[1].is_complete() && !groups[2].is_complete());
        Replier::reply_all(vec![answer(last)]);
        Replier::reply_all(Vec::new());
        let tokens = groups.iter().flat_map(|group| group.wait(None).expect("complete"));
        let tokens: Vec<usize> = tokens.map(|result| result.expect("embedded").tokens).collect();
        assert_eq!(tokens, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_thread_waits_until_the_answer_or_its_own_limit() {
        let (group, mut repliers) = group(1);
        assert!(group.wait(Some(Instant::now())).is_none());
        let waiting = {
            let group = Arc::clone(&group);
            std::thread::spawn(move || group.wait(Some(Instant::now() + Duration::from_secs(60))))
        };
        repliers.remove(0).reply(embedding(5));
        assert_eq!(waiting.join().expect("no panic"), Some(vec![embedding(5)]));
    }
}
