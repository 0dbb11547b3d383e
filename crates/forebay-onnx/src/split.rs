//! A batch in two halves side by side.
//!
//! Threads that share one run wait for each other after each of its operators, about a hundred
//! times. Two sessions on half of the threads each wait once, at the end of the batch. A few short
//! texts still need all threads in one run to be soon done, so there are three sessions: one on all
//! threads and two on half of them. What a row's states are does not depend on where it runs.

use std::sync::{Mutex, PoisonError};

use forebay_model::ModelFolder;

use crate::batch::{Batch, Job};
use crate::error::OnnxError;
use crate::options::{EngineOptions, Precision};
use crate::plan::SubBatch;
use crate::session::Session;
use crate::states::TokenStates;

/// Tokens from which on halves are faster, or as fast for less processor time. INT8 gains sooner:
/// its operators are shorter, so that waiting is more of the time.
fn tokens_min(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 80,
        Precision::Int8 => 24,
    }
}

/// An encoder that computes small batches on all its threads together and larger ones in halves.
#[derive(Debug)]
pub struct SplitSession {
    whole: Session,
    halves: Option<[Session; 2]>,
    /// Tokens from which on a batch is computed in halves.
    tokens_min: usize,
}

impl SplitSession {
    /// Loads the encoder of `folder`: with `halves` and more than one thread as three sessions that
    /// share the word table, else as one.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn load(
        folder: &ModelFolder,
        options: &EngineOptions,
        halves: bool,
    ) -> Result<Self, OnnxError> {
        let whole = Session::load(folder, options)?;
        let halves = if halves && options.intra_threads > 1 {
            let intra_threads = options.intra_threads / 2;
            let options = EngineOptions { intra_threads, ..options.clone() };
            let half = || Session::load_sharing(folder, &options, Some(&whole));
            Some([half()?, half()?])
        } else {
            None
        };
        Ok(Self { whole, halves, tokens_min: tokens_min(options.precision) })
    }

    /// Computes the states of all tokens; what [`Session::encode`] says holds here too.
    ///
    /// # Errors
    /// As [`Session::encode`].
    pub fn encode(&mut self, ids: &[u32], cu_seqlens: &[u32]) -> Result<TokenStates, OnnxError> {
        let Some([first, second]) = &mut self.halves else {
            return self.whole.encode(ids, cu_seqlens);
        };
        if ids.len() < self.tokens_min || cu_seqlens.len() < 3 {
            return self.whole.encode(ids, cu_seqlens);
        }
        let lengths = first.check(ids, cu_seqlens)?;
        let plan = first.plan(&lengths, 2);
        if !is_balanced(&plan) {
            return self.whole.encode(ids, cu_seqlens);
        }
        let batch = Batch { ids, cu_seqlens, hidden: first.hidden() };
        batch.encode(plan, |mut jobs| {
            // The longest begin, so that a late long run does not hold up the end.
            jobs.sort_by_key(|job| std::cmp::Reverse(job.run.padded_tokens()));
            let queue = Mutex::new(jobs.into_iter());
            std::thread::scope(|scope| {
                let other = scope.spawn(|| work(second, &queue));
                let own = work(first, &queue);
                // A panic of the other goes on here.
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                own.and(other)
            })
        })
    }
}

/// Whether no run is so much of the batch that half of the threads would wait for it: a long text
/// beside a short one is done sooner on all threads.
fn is_balanced(plan: &[SubBatch]) -> bool {
    let tokens = |run: &SubBatch| run.padded_tokens();
    let longest = plan.iter().map(tokens).max().unwrap_or(0);
    longest * 5 <= plan.iter().map(tokens).sum::<usize>() * 3
}

/// Runs what is left of the queue until it is empty or a run fails.
fn work<'a>(
    session: &mut Session,
    queue: &Mutex<impl Iterator<Item = Job<'a>>>,
) -> Result<(), OnnxError> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(job) = next else { return Ok(()) };
        session.run(job)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SubBatchLimits;
    use crate::plan;

    #[test]
    fn one_long_text_is_not_left_to_half_of_the_threads() {
        let balanced = |lengths: &[usize]| {
            is_balanced(&plan::cut(lengths, &SubBatchLimits::default(), 512, 2))
        };
        assert!(balanced(&[11; 8]) && balanced(&[100, 128]) && balanced(&[9; 200]));
        assert!(!balanced(&[200, 5]) && !balanced(&[500, 8, 8, 8]));
    }
}
