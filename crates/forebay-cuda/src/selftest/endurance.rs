//! Thousands of random batches: every row is finite and of unit length, the same batch gives the
//! same bits after thousands of others, and the device's memory stays as it was.
//!
//! Most batches are small, as most requests are; some are larger than the device takes at once, in
//! tokens or in texts, and have to be split.

use rand::Rng;

use super::engine::{Limits, Memory, Subject, bits};
use super::known_answer::{LENGTH_ERROR_MAX, dot};
use super::report::{Item, Tally};
use super::texts::{Batch, log_uniform, random_batch_of, random_text};
use super::values::generator;
use crate::EngineError;
use crate::engine::BUCKET_STEP;

const BATCHES_QUICK: u64 = 200;
const BATCHES_FULL: u64 = 10_000;

/// Batches run before memory is looked at for the first time, besides one for each graph: among
/// these are some of each kind. The driver takes memory when a kind of work is first given to it.
const WARM_UP: u64 = 100;

/// Every so many batches there is one that is run a second time, at the end. Neither number has a
/// factor in common with those below, so that every kind of batch has its turn.
const KEEP_EVERY_QUICK: u64 = 9;
const KEEP_EVERY_FULL: u64 = 49;

/// Growth below this cannot be seen: the driver gives memory out in pages of this size.
const GROWTH_MAX_BYTES: f64 = 2_097_152.0;

/// Every so many batches there is one with too many tokens, and one with too many texts.
const SPLIT_EVERY: u64 = 100;
/// Every so many batches there is one of any size up to half of what the device takes.
const MEDIUM_EVERY: u64 = 10;
/// Tokens of all other batches.
const SMALL_TOKENS_MAX: u32 = 512;

/// Runs the batches; one line for rows and one for memory.
pub(super) fn endurance(subject: &mut dyn Subject, quick: bool) -> Result<[Item; 2], EngineError> {
    let (dtype, limits) = (subject.dtype(), subject.limits());
    let (count, keep_every) = match quick {
        true => (BATCHES_QUICK, KEEP_EVERY_QUICK),
        false => (BATCHES_FULL, KEEP_EVERY_FULL),
    };
    let mut tally = Tally::new(format!("random batches in {dtype}"));
    for tokens in sizes(limits.tokens_max) {
        let mut rng = generator(u64::from(tokens), "warm-up");
        let rows = subject.encode(&random_batch_of(&mut rng, &limits, tokens));
        bits(&mut tally, &format!("{tokens} tokens"), rows)?;
    }
    for number in 0..WARM_UP {
        run(subject, &mut tally, &limits, number)?;
    }
    let before = subject.memory()?;
    let mut kept = Vec::new();
    for number in 0..count {
        let rows = run(subject, &mut tally, &limits, number)?;
        if number.is_multiple_of(keep_every) {
            kept.extend(rows.map(|rows| (number, rows)));
        }
    }
    let after = subject.memory()?;
    let stride = subject.width() + 1;
    for (number, earlier) in kept.iter().rev() {
        if let Some(rows) = run(subject, &mut tally, &limits, *number)? {
            let case = format!("batch {number}");
            tally.same_bits(&case, "the same batch later", stride, earlier, &rows);
        }
    }
    Ok([tally.finish(), memory(count, before, after)])
}

/// Batch sizes so close together that every graph is launched for one of them.
fn sizes(tokens_max: u32) -> impl Iterator<Item = u32> {
    let next = |&tokens: &u32| Some(tokens + (tokens / 8).max(BUCKET_STEP - 1));
    let rising = std::iter::successors(Some(1), next);
    rising.take_while(move |&tokens| tokens < tokens_max).chain([tokens_max])
}

/// What was lost, besides what graphs captured meanwhile account for.
fn memory(count: u64, before: Memory, after: Memory) -> Item {
    let mut tally = Tally::new("device memory after them, in bytes");
    tally.count();
    let graphs = after.graphs.saturating_sub(before.graphs);
    let lost = before.free.saturating_sub(after.free).saturating_sub(graphs);
    let what = "memory in bytes that is no longer free";
    tally.measure(&format!("{count} batches"), what, lost as f64, GROWTH_MAX_BYTES);
    tally.finish()
}

/// One batch: its rows, unless they are not finite.
fn run(
    subject: &mut dyn Subject,
    tally: &mut Tally,
    limits: &Limits,
    number: u64,
) -> Result<Option<Vec<u32>>, EngineError> {
    let batch = numbered(limits, number);
    let case = format!("batch {number}");
    let rows = subject.encode(&batch);
    let Some(rows) = bits(tally, &case, rows)? else { return Ok(None) };
    let width = subject.width();
    for row in rows.chunks_exact(width + 1) {
        let unit: &[f32] = bytemuck::cast_slice(&row[..width]);
        let error = dot(unit, unit).sqrt() - 1.0;
        tally.measure(&case, "distance of a row's length from 1", error, LENGTH_ERROR_MAX);
    }
    Ok(Some(rows))
}

/// Batch `number`, the same each time.
fn numbered(limits: &Limits, number: u64) -> Batch {
    let mut rng = generator(number, "random batch");
    let tokens_max = limits.tokens_max;
    if number % SPLIT_EVERY == SPLIT_EVERY / 2 {
        let texts: Vec<_> = (0..limits.rows_max + rng.random_range(1..=8))
            .map(|_| random_text(&mut rng, limits, 1))
            .collect();
        return Batch::of(texts.iter().map(|text| &text[..]));
    }
    let tokens = match number {
        _ if number % SPLIT_EVERY == SPLIT_EVERY - 1 => {
            tokens_max + rng.random_range(1..=tokens_max)
        }
        _ if number.is_multiple_of(MEDIUM_EVERY) => log_uniform(&mut rng, tokens_max / 2),
        _ => log_uniform(&mut rng, SMALL_TOKENS_MAX.min(tokens_max)),
    };
    random_batch_of(&mut rng, limits, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Buckets, split};

    const LIMITS: Limits =
        Limits { vocab: 30_522, row_tokens_max: 512, tokens_max: 8192, rows_max: 1024 };

    #[test]
    fn batches_are_mostly_small_of_every_size_and_some_are_split_for_either_reason() {
        let (mut small, mut by_tokens, mut by_rows, mut tokens_of_all) = (0, 0, 0, 0);
        for number in 0..1000 {
            let batch = numbered(&LIMITS, number);
            let (tokens, rows) = (batch.ids().len(), batch.cu().len() - 1);
            let chunks = split(batch.cu(), LIMITS.tokens_max, LIMITS.rows_max).unwrap();
            small += u32::from(tokens <= 512);
            by_tokens += u32::from(tokens > 8192);
            by_rows += u32::from(rows > 1024 && tokens <= 8192);
            tokens_of_all += tokens;
            assert_eq!(chunks.len() > 1, tokens > 8192 || rows > 1024);
            assert_eq!(batch, numbered(&LIMITS, number));
        }
        assert_eq!((by_tokens, by_rows), (10, 10));
        assert!(small > 900, "{small} of 1000 are small");
        assert!(tokens_of_all / 1000 < 400, "{tokens_of_all} tokens are too many for a short test");
    }

    #[test]
    fn every_graph_is_launched_before_memory_is_looked_at() {
        for tokens_max in [512, 520, 8192, 16_384, 131_072] {
            // As many as the default number of graphs allows.
            let buckets = Buckets::up_to(tokens_max, 24);
            let mut launched: Vec<u32> =
                sizes(tokens_max).filter_map(|tokens| buckets.holding(tokens)).collect();
            launched.dedup();
            assert_eq!(launched, buckets.capacities(), "{tokens_max}");
        }
    }

    #[test]
    fn graphs_are_no_loss_and_pages_of_the_driver_neither() {
        let memory = |free, graphs| Memory { free, graphs };
        let lost = |before, after| super::memory(7, before, after);
        assert!(lost(memory(100 << 20, 5 << 20), memory(90 << 20, 15 << 20)).passed);
        assert!(lost(memory(100 << 20, 0), memory(98 << 20, 0)).passed);
        assert!(lost(memory(100 << 20, 0), memory(101 << 20, 0)).passed);
        let grown = lost(memory(100 << 20, 5 << 20), memory(89 << 20, 13 << 20));
        assert!(!grown.passed && grown.max_error == f64::from(3 << 20), "{grown:?}");
    }
}
