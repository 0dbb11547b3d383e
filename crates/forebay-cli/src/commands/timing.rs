//! Timed passes over texts, as `bench` and `demo` show them.

use std::time::{Duration, Instant};

use forebay::{EmbedOptions, Runtime};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::service::Service;

/// Longest time of one text that is told apart from longer ones.
const NANOSECONDS_MAX: u64 = 600_000_000_000;

/// One pass over all texts in bulk.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Bulk {
    pub(super) texts: usize,
    pub(super) seconds: f64,
    pub(super) texts_per_s: f64,
    pub(super) tokens_per_s: f64,
}

/// Texts that were embedded one at a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Single {
    pub(super) runs: u64,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
}

/// Embeds all texts in class bulk, from the first submission to the last result.
///
/// # Errors
/// A text without an embedding.
pub(super) async fn bulk(service: &Service, texts: &[String]) -> Result<Bulk, Failure> {
    let count = texts.len();
    // Copied before the clock starts: the runtime takes texts by value.
    let texts = texts.to_vec();
    let start = Instant::now();
    let embeddings = service.embed_all(texts).await?;
    let seconds = start.elapsed().as_secs_f64();
    let tokens: usize = embeddings.iter().map(|embedding| embedding.tokens).sum();
    Ok(Bulk {
        texts: count,
        seconds,
        texts_per_s: count as f64 / seconds,
        tokens_per_s: tokens as f64 / seconds,
    })
}

/// Embeds texts one after the other, each when the one before is done, going around the list until
/// there are `runs` of them. A tenth of the runs come first and are not counted.
///
/// # Errors
/// A text without an embedding.
pub(super) async fn single(
    runtime: &Runtime,
    texts: &[String],
    runs: u64,
) -> Result<Single, Failure> {
    let options = EmbedOptions::default();
    let mut taken = Histogram::<u64>::new_with_max(NANOSECONDS_MAX, 3)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot keep times: {error}")))?;
    let warm_up = (runs / 10).max(10);
    let rounds = (0..warm_up + runs).zip(texts.iter().cycle());
    for (round, text) in rounds {
        let text = text.clone();
        let start = Instant::now();
        runtime.embed(text, &options).await?;
        if round >= warm_up {
            taken.saturating_record(nanoseconds(start.elapsed()));
        }
    }
    let quantile_ms = |quantile| taken.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Single {
        runs: taken.len(),
        p50_ms: quantile_ms(0.50),
        p95_ms: quantile_ms(0.95),
        p99_ms: quantile_ms(0.99),
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
