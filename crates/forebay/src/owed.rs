//! The obligation to answer one text and the room that the text takes, which two workers may hold
//! at once.
//!
//! A text that is late in one worker is computed by another too. Both hold a *twin* of the same
//! obligation: the first answer is the text's answer, what the other says later is dropped. One
//! that gives up while its twin still runs just goes; the last one decides what becomes of the
//! text. Whichever way they go, the text is answered exactly once and its room given back exactly
//! once. The shared cell is made with the first twin: a text that has none pays nothing for this.
//!
//! It knows nothing of workers, batches or time.

use std::sync::{Arc, PoisonError};

use crate::admission::Permit;
use crate::reply::{EmbedResult, Replier};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// The obligation to answer one text; it cannot be copied, only twinned. The last one that is
/// dropped unused answers with an internal fault.
pub(crate) struct Owed {
    /// `None` once it has a twin.
    alone: Option<(Replier, Permit)>,
    /// What it shares with its twins.
    shared: Option<Arc<Shared>>,
    /// Runs so far of a text without twins.
    executions: u32,
}

struct Shared {
    /// `None` once answered.
    owed: Mutex<Option<(Replier, Permit)>>,
    executions: AtomicU32,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<(Replier, Permit)>> {
        // Nothing happens under the lock but a look or a move.
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owed {
    pub(crate) fn new(replier: Replier, permit: Permit) -> Self {
        Self { alone: Some((replier, permit)), shared: None, executions: 0 }
    }

    /// Runs on a worker so far, present ones and those of twins included.
    pub(crate) fn executions(&self) -> u32 {
        match &self.shared {
            None => self.executions,
            Some(shared) => shared.executions.load(Ordering::Acquire),
        }
    }

    /// It is given to a worker.
    pub(crate) fn begin_run(&mut self) {
        match &self.shared {
            None => self.executions += 1,
            Some(shared) => {
                shared.executions.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// That worker never got it.
    pub(crate) fn undo_run(&mut self) {
        match &self.shared {
            None => self.executions -= 1,
            Some(shared) => {
                shared.executions.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// A second holder of the same obligation.
    pub(crate) fn twin(&mut self) -> Self {
        let executions = self.executions;
        let shared = match &self.shared {
            Some(shared) => Arc::clone(shared),
            None => {
                let owed = Mutex::new(self.alone.take());
                Arc::new(Shared { owed, executions: AtomicU32::new(executions) })
            }
        };
        self.shared = Some(Arc::clone(&shared));
        Self { alone: None, shared: Some(shared), executions }
    }

    /// Whether it has been twinned.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether a twin has answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.lock().is_none())
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        let cancelled = |(replier, _): &(Replier, Permit)| replier.is_cancelled();
        match &self.shared {
            None => self.alone.as_ref().is_some_and(cancelled),
            Some(shared) => shared.lock().as_ref().is_some_and(cancelled),
        }
    }

    /// Answers and gives the room back, unless a twin has. Says whether it did. The room first: a
    /// caller that has its answer may count on room for its next request.
    pub(crate) fn reply(self, result: EmbedResult) -> bool {
        let Some((replier, permit)) = self.settle() else { return false };
        drop(permit);
        replier.reply(result);
        true
    }

    /// Takes the obligation and the room away from all holders, to answer and give the room back
    /// at once; `None` if a twin has answered.
    pub(crate) fn settle(self) -> Option<(Replier, Permit)> {
        let Self { alone, shared, .. } = self;
        alone.or_else(|| shared.and_then(|shared| shared.lock().take()))
    }

    /// Gives up a run that has failed. `None` if that decides nothing: the text has been answered,
    /// or a twin still may. Otherwise it is the last one, and on its own again.
    pub(crate) fn give_up(mut self) -> Option<Self> {
        let Some(shared) = self.shared.take() else { return Some(self) };
        if mutated!(TwinsAllGiveUp) {
            return None;
        }
        // Of several that give up at once, exactly one gets what they shared.
        let Shared { owed, executions } = Arc::into_inner(shared)?;
        let owed = owed.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        Some(Self { alone: Some(owed), shared: None, executions: executions.into_inner() })
    }
}

#[cfg(all(test, feature = "interleavings"))]
mod interleavings;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::admission::Admission;
    use crate::config::AdmissionConfig;
    use crate::error::EmbedError;
    use crate::metrics::Metrics;
    use crate::options::{Embedding, TextTimes};
    use crate::priority::Priority;
    use crate::reply::ReplyGroup;

    struct OneText {
        group: Arc<ReplyGroup>,
        admission: Arc<Admission>,
    }

    fn text() -> (OneText, Owed) {
        let admission = Admission::new(&AdmissionConfig::default());
        let metrics = Arc::new(Metrics::new());
        let (group, mut repliers) = ReplyGroup::new(1, Priority::Bulk, Instant::now(), metrics);
        let mut permits = admission.try_acquire(Priority::Bulk, &[1]).expect("room");
        let owed = Owed::new(repliers.remove(0), permits.remove(0));
        (OneText { group, admission }, owed)
    }

    fn embedding(value: f32) -> EmbedResult {
        let times = TextTimes::default();
        Ok(Embedding { vector: vec![value], tokens: 1, tokens_before_cut: 1, times })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Run(usize),
        Twin(usize),
        Reply(usize),
        GiveUp(usize),
        Drop(usize),
        Cancel,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => any::<usize>().prop_map(Step::Run),
            3 => any::<usize>().prop_map(Step::Twin),
            1 => any::<usize>().prop_map(Step::Reply),
            2 => any::<usize>().prop_map(Step::GiveUp),
            1 => any::<usize>().prop_map(Step::Drop),
            1 => Just(Step::Cancel),
        ];
        proptest::collection::vec(step, 1..24)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever its holders do in whatever order, a text is answered by the first of them that
        /// answers or, if none does, when the last one goes; and its room comes back then.
        #[test]
        fn one_answer_and_one_return_of_the_room(steps in steps()) {
            let (text, first) = text();
            let mut holders = vec![first];
            let (mut runs, mut expected, mut cancelled) = (0, None, false);
            for (number, step) in steps.into_iter().enumerate() {
                let at = |index: usize| index.checked_rem(holders.len());
                match step {
                    Step::Run(index) => if let Some(at) = at(index) {
                        holders[at].begin_run();
                        runs += 1;
                    },
                    Step::Twin(index) => if let Some(at) = at(index) {
                        let twin = holders[at].twin();
                        holders.push(twin);
                    },
                    Step::Reply(index) => if let Some(at) = at(index) {
                        let first = holders.remove(at).reply(embedding(number as f32));
                        prop_assert_eq!(first, expected.is_none());
                        expected.get_or_insert(embedding(number as f32));
                    },
                    Step::GiveUp(index) => if let Some(at) = at(index) {
                        let last = holders.len() == 1 && expected.is_none();
                        let left = holders.remove(at).give_up();
                        prop_assert_eq!(left.is_some(), last);
                        if let Some(left) = left {
                            prop_assert!(!left.is_shared());
                            holders.push(left);
                        }
                    },
                    Step::Drop(index) => if let Some(at) = at(index) {
                        drop(holders.remove(at));
                        if holders.is_empty() && expected.is_none() {
                            let message = "request was dropped without an answer".to_owned();
                            expected = Some(Err(EmbedError::Internal { message }));
                        }
                    },
                    Step::Cancel => {
                        text.group.cancel();
                        cancelled = true;
                    }
                }
                for holder in &holders {
                    prop_assert_eq!(holder.executions(), runs);
                    prop_assert_eq!(holder.is_answered(), expected.is_some());
                    prop_assert_eq!(holder.is_cancelled(), cancelled && expected.is_none());
                }
                prop_assert_eq!(text.group.is_complete(), expected.is_some());
                let room = usize::from(expected.is_none());
                prop_assert_eq!(text.admission.under_way(Priority::Bulk), room);
            }
            drop(holders);
            prop_assert_eq!(text.admission.under_way(Priority::Bulk), 0);
            let mut results = text.group.wait(Some(Instant::now())).expect("complete");
            let result = results.remove(0);
            match expected {
                Some(expected) => prop_assert_eq!(result, expected),
                None => prop_assert_eq!(result.expect_err("nobody answered").code(), "internal"),
            }
        }
    }

    #[test]
    fn of_twins_that_end_at_the_same_time_one_decides() {
        for _ in 0..2_000 {
            let (text, mut first) = text();
            let second = first.twin();
            let ends = [first, second].map(|owed| std::thread::spawn(move || owed.give_up()));
            let left: Vec<Owed> =
                ends.into_iter().filter_map(|end| end.join().expect("no panic")).collect();
            assert_eq!(left.len(), 1);
            assert!(!text.group.is_complete());
            let answered = left.into_iter().map(|owed| owed.reply(embedding(1.0)));
            assert_eq!(answered.collect::<Vec<_>>(), [true]);
        }
        for _ in 0..2_000 {
            let (text, mut first) = text();
            let second = first.twin();
            let one = std::thread::spawn(move || usize::from(first.reply(embedding(1.0))));
            let other = std::thread::spawn(move || match second.give_up() {
                Some(last) => usize::from(last.reply(embedding(2.0))),
                None => 0,
            });
            let answers = one.join().expect("no panic") + other.join().expect("no panic");
            assert_eq!(answers, 1);
            assert!(text.group.is_complete());
        }
    }
}
