//! A batch in two halves side by side.
//!
//! Threads that share one run wait for each other after each of its operators, about a hundred
//! times. Two sessions on half of the threads each wait once, at the end of the batch. A few short
//! texts still need all threads in one run to be soon done, so there are three sessions: one on all
//! threads and two on half of them. What a row's states are does not depend on where it runs.

use std::sync::{Mutex, PoisonError};

use forebay_model::{EncoderConfig, GraphSource, ModelFolder};

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

/// Bytes of the weights of all layers, as a session holds them.
fn layers_bytes(config: &EncoderConfig, precision: Precision) -> usize {
    let EncoderConfig { layers, hidden, intermediate, .. } = *config;
    let value = match precision {
        Precision::F32 => 4,
        Precision::Int8 => 1,
    };
    layers * (4 * hidden * hidden + 2 * hidden * intermediate) * value
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
    /// Loads the encoder of `folder`: with more than one thread and layers of no more than
    /// `halves_weights_mib_max` MiB of weights as three sessions that share the word table, else as
    /// one. An exported graph has its word table inside and is not loaded three times.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn load(
        folder: &ModelFolder,
        options: &EngineOptions,
        halves_weights_mib_max: u32,
    ) -> Result<Self, OnnxError> {
        let whole = Session::load(folder, options)?;
        let is_packed = matches!(folder.graph(), GraphSource::Safetensors { .. });
        let mib = layers_bytes(folder.encoder(), options.precision).div_ceil(1 << 20);
        let fits = mib <= halves_weights_mib_max as usize;
        let halves = if is_packed && fits && options.intra_threads > 1 {
            let half = |intra_threads| {
                let options = EngineOptions { intra_threads, ..options.clone() };
                Session::load_sharing(folder, &options, Some(&whole))
            };
            // Of an odd number the first has one more.
            Some([half(options.intra_threads.div_ceil(2))?, half(options.intra_threads / 2)?])
        } else {
            None
        };
        Ok(Self { whole, halves, tokens_min: tokens_min(options.precision) })
    }

    /// The sessions that batches are computed by, one after the other: for a look at each.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        std::iter::once(&mut self.whole).chain(self.halves.iter_mut().flatten())
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
                let thread = std::thread::Builder::new().name("fb-half".to_owned());
                // Without another thread this one does all of it.
                let other = thread.spawn_scoped(scope, || work(second, &queue)).ok();
                let own = work(first, &queue);
                // A panic of the other goes on here.
                let other = other.map_or(Ok(Ok(())), std::thread::ScopedJoinHandle::join);
                own.and(other.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
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
        session.run(job).inspect_err(|_| {
            // The batch has failed: the rest would be computed for nothing.
            queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
        })?;
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
