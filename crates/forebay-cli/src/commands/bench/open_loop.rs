//! Open-loop load: texts that arrive when they will, not when the one before is done, as they do in
//! a vehicle. A text's latency counts from when it was due, so a pipeline that falls behind cannot
//! hide it by taking texts later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay::{EmbedError, EmbedOptions, Runtime};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure};

/// Before this much time to an arrival the generator sleeps; then it looks at the clock only.
const SPIN: Duration = Duration::from_micros(200);
/// Answers that wait to be counted.
const OUTCOMES_WAITING: usize = 1024;
/// Longest time that is told apart from longer ones.
const NANOSECONDS_MAX: u64 = 600_000_000_000;

/// Texts that arrive at random moments.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Load {
    /// Mean rate in texts per second.
    pub(in crate::commands) rate: f64,
    /// How long texts arrive.
    pub(in crate::commands) seconds: f64,
    /// Start of the random numbers.
    pub(in crate::commands) seed: u64,
}

/// What became of them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct OpenLoop {
    pub(super) rate: f64,
    pub(super) seconds: f64,
    pub(super) seed: u64,
    /// Texts that were due.
    pub(super) offered: u64,
    pub(super) answered: u64,
    /// Turned away because the queue was full.
    pub(super) refused: u64,
    /// Answered with an error.
    pub(super) failed: u64,
    /// The first of those errors.
    pub(super) first_error: Option<String>,
    /// From when a text was due to its answer.
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// By how much the generator itself was late; it is part of the latency.
    pub(super) lag_p50_ms: f64,
    pub(super) lag_p99_ms: f64,
    pub(super) lag_max_ms: f64,
}

/// How texts ended.
struct Counts {
    latency: Histogram<u64>,
    answered: u64,
    refused: u64,
    failed: u64,
    first_error: Option<String>,
}

impl Counts {
    fn new() -> Result<Self, Failure> {
        let latency = histogram()?;
        Ok(Self { latency, answered: 0, refused: 0, failed: 0, first_error: None })
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Ok(time) => {
                self.answered += 1;
                self.latency.saturating_record(nanoseconds(time));
            }
            Err(EmbedError::Overloaded { .. }) => self.refused += 1,
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Moments of a Poisson process, as time since its start: the gaps between them are independent and
/// exponentially distributed.
pub(in crate::commands) fn arrivals(load: Load) -> impl Iterator<Item = Duration> {
    let mut random = StdRng::seed_from_u64(load.seed);
    let mut at = 0.0;
    std::iter::repeat_with(move || {
        // 1 - u is in (0, 1], so its logarithm is finite.
        at -= (1.0 - random.random::<f64>()).ln() / load.rate;
        at
    })
    .take_while(move |at| *at < load.seconds)
    .map(Duration::from_secs_f64)
}

/// How a text ended: its latency, or the error.
type Outcome = Result<Duration, EmbedError>;

/// Sends texts of the list in turn, and waits for every answer.
///
/// # Errors
/// The generator cannot be started.
pub(super) async fn run(
    runtime: &Arc<Runtime>,
    texts: &[String],
    load: Load,
) -> Result<OpenLoop, Failure> {
    let (outcomes, mut arrived) = mpsc::channel(OUTCOMES_WAITING);
    let generator = {
        let (runtime, texts) = (Arc::clone(runtime), texts.to_vec());
        let handle = tokio::runtime::Handle::current();
        let body = move || generate(&runtime, &texts, load, &handle, &outcomes);
        std::thread::Builder::new().name("fb-load".to_owned()).spawn(body)
    };
    let generator = generator.map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot start a thread: {error}"))
    })?;
    let mut ended = Counts::new()?;
    // It ends when the generator and every answer have let go of their end.
    while let Some(outcome) = arrived.recv().await {
        ended.add(outcome);
    }
    let generated = generator.join();
    let generated = generated.map_err(|_| Failure::new(Exit::Failed, "the generator panicked"))?;
    let (lag, unsent) = generated?;
    let ms = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    let latency = ended.latency;
    Ok(OpenLoop {
        rate: load.rate,
        seconds: load.seconds,
        seed: load.seed,
        offered: lag.len(),
        answered: ended.answered,
        refused: ended.refused + unsent.refused,
        failed: ended.failed + unsent.failed,
        first_error: unsent.first_error.or(ended.first_error),
        p50_ms: ms(&latency, 0.50),
        p95_ms: ms(&latency, 0.95),
        p99_ms: ms(&latency, 0.99),
        max_ms: latency.max() as f64 / 1e6,
        lag_p50_ms: ms(&lag, 0.50),
        lag_p99_ms: ms(&lag, 0.99),
        lag_max_ms: lag.max() as f64 / 1e6,
    })
}

/// Submits each text when it is due. Gives by how much it was late each time, and what was not
/// accepted.
fn generate(
    runtime: &Runtime,
    texts: &[String],
    load: Load,
    tasks: &tokio::runtime::Handle,
    outcomes: &mpsc::Sender<Outcome>,
) -> Result<(Histogram<u64>, Counts), Failure> {
    let (mut lag, mut unsent) = (histogram()?, Counts::new()?);
    let options = EmbedOptions::default();
    let start = Instant::now();
    for (at, text) in arrivals(load).zip(texts.iter().cycle()) {
        if outcomes.is_closed() {
            break;
        }
        let text = text.clone();
        let due = start + at;
        wait_until(due);
        lag.saturating_record(nanoseconds(due.elapsed()));
        match runtime.try_submit(text, &options) {
            Ok(ticket) => {
                let outcomes = outcomes.clone();
                drop(tasks.spawn(async move {
                    let outcome = ticket.await.map(|_| due.elapsed());
                    // Nobody listens any more only if the command was interrupted.
                    outcomes.send(outcome).await.ok();
                }));
            }
            Err(error) => unsent.add(Err(error)),
        }
    }
    Ok((lag, unsent))
}

/// Sleeping ends late by tens of microseconds, so it ends early here and the clock does the rest.
pub(in crate::commands) fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SPIN {
        std::thread::sleep(left - SPIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::<u64>::new_with_max(NANOSECONDS_MAX, 3)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot keep times: {error}")))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use forebay::Priority;

    use super::*;

    const LOAD: Load = Load { rate: 1000.0, seconds: 20.0, seed: 7 };

    #[test]
    fn arrivals_are_the_same_for_a_seed_and_others_for_another() {
        let one: Vec<Duration> = arrivals(LOAD).collect();
        assert_eq!(one, arrivals(LOAD).collect::<Vec<_>>());
        assert_ne!(one, arrivals(Load { seed: 8, ..LOAD }).collect::<Vec<_>>());
        assert!(one.is_sorted() && one.iter().all(|at| at.as_secs_f64() < LOAD.seconds));
    }

    #[test]
    fn gaps_are_exponential_with_the_rate_asked_for() {
        let at: Vec<f64> = arrivals(LOAD).map(|at| at.as_secs_f64()).collect();
        let gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // Twenty thousand gaps: the mean is within 3 % of its own with overwhelming odds, and of an
        // exponential distribution the standard deviation is the mean.
        assert!((mean * LOAD.rate - 1.0).abs() < 0.03, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
        let longer = gaps.iter().filter(|gap| **gap > 1.0 / LOAD.rate).count() as f64 / count;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.02, "{longer}");
    }

    #[test]
    fn every_outcome_is_counted_once() {
        let mut counts = Counts::new().expect("counts");
        counts.add(Ok(Duration::from_millis(3)));
        counts.add(Err(EmbedError::ShuttingDown));
        counts.add(Err(EmbedError::Cancelled));
        let (priority, retry_after) = (Priority::Interactive, Duration::from_millis(1));
        counts.add(Err(EmbedError::Overloaded { priority, retry_after }));
        let Counts { latency, answered, refused, failed, first_error } = counts;
        assert_eq!((answered, refused, failed), (1, 1, 2));
        assert_eq!(first_error, Some(EmbedError::ShuttingDown.to_string()));
        assert_eq!(latency.len(), 1);
    }
}
