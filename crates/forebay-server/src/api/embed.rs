//! From inputs to embeddings: every text of a request is submitted together, none is left behind,
//! and nothing here blocks a thread.
//!
//! A request that finds no room is refused at once. One with more texts than the gate takes in one
//! step is let in by its first step; the others follow as room appears, until the deadline. If one
//! text has no embedding the request has none. Whoever drops the future cancels the texts.

use std::time::Duration;

use forebay::{BatchTicket, EmbedInput, EmbedOptions, EmbedResult, Embedding, Level, Runtime};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::Problem;
use super::observe::Arrived;
use crate::trace::current;

/// What a request comes to.
pub(crate) struct Embedded {
    /// One per input, in their order.
    pub(crate) rows: Vec<Embedding>,
    /// Characters of the texts, and one for each token id that was sent.
    pub(crate) characters: usize,
    arrived: Arrived,
    is_gpu: bool,
}

/// Embeds every input, or says why not.
pub(crate) async fn embed(
    runtime: &Runtime,
    inputs: Vec<EmbedInput>,
    options: EmbedOptions,
    arrived: Arrived,
) -> Result<Embedded, Problem> {
    enter(runtime, inputs, options, arrived, Entry::AtOnce).await
}

/// How a request comes in if there is no room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is refused.
    AtOnce,
    /// It waits: it belongs to one that has been let in.
    Waiting,
}

/// [`embed`], for a request that may be a part of another.
pub(crate) async fn enter(
    runtime: &Runtime,
    inputs: Vec<EmbedInput>,
    options: EmbedOptions,
    arrived: Arrived,
    entry: Entry,
) -> Result<Embedded, Problem> {
    let characters = inputs.iter().map(characters).sum();
    if let Some(trace) = current() {
        trace.priority(options.priority.as_str());
    }
    let rows = match <[EmbedInput; 1]>::try_from(inputs) {
        Ok([only]) => {
            let ticket = match entry {
                Entry::AtOnce => runtime.try_submit(only, &options)?,
                Entry::Waiting => runtime.submit(only, &options).await?,
            };
            let submitted_at = ticket.submitted_at();
            let row = ticket.await?;
            if let Some(trace) = current() {
                trace.texts(submitted_at, [&row]);
            }
            vec![row]
        }
        Err(inputs) => together(runtime, inputs, &options, entry).await?,
    };
    Ok(Embedded { rows, characters, arrived, is_gpu: is_gpu(runtime) })
}

fn is_gpu(runtime: &Runtime) -> bool {
    matches!(runtime.level(), Level::Gpu(_))
}

async fn together(
    runtime: &Runtime,
    inputs: Vec<EmbedInput>,
    options: &EmbedOptions,
    entry: Entry,
) -> Result<Vec<Embedding>, Problem> {
    let step = runtime.chunk_texts_max(options.priority).max(1);
    let count = inputs.len();
    let mut inputs = inputs.into_iter();
    let mut tickets: Vec<BatchTicket> = Vec::with_capacity(count.div_ceil(step));
    loop {
        let chunk: Vec<EmbedInput> = inputs.by_ref().take(step).collect();
        if chunk.is_empty() {
            break;
        }
        tickets.push(if tickets.is_empty() && entry == Entry::AtOnce {
            runtime.try_submit_batch(chunk, options)?
        } else {
            runtime.submit_batch(chunk, options).await?
        });
    }
    let mut rows = Vec::with_capacity(count);
    for ticket in tickets {
        let submitted_at = ticket.submitted_at();
        let results = ticket.await;
        if let Some(trace) = current() {
            trace.texts(submitted_at, results.iter().flatten());
        }
        for result in results {
            let index = rows.len();
            rows.push(of_text(result, index)?);
        }
    }
    Ok(rows)
}

/// One of several: its problem says which text has it.
fn of_text(result: EmbedResult, index: usize) -> Result<Embedding, Problem> {
    result.map_err(|error| {
        let mut problem = Problem::from(error);
        problem.message.push_str(&format!(" (input number {index})"));
        problem
    })
}

fn characters(input: &EmbedInput) -> usize {
    match input {
        EmbedInput::Text(text) => text.chars().count(),
        EmbedInput::Ids(ids) => ids.len(),
    }
}

impl Embedded {
    /// Several requests as one.
    pub(crate) fn join(parts: Vec<Self>, arrived: Arrived, runtime: &Runtime) -> Self {
        let characters = parts.iter().map(|part| part.characters).sum();
        let rows = parts.into_iter().flat_map(|part| part.rows).collect();
        Self { rows, characters, arrived, is_gpu: is_gpu(runtime) }
    }

    /// Mean over the texts of one of their times.
    pub(crate) fn mean(&self, time: fn(&Embedding) -> Duration) -> Duration {
        let texts = u32::try_from(self.rows.len()).unwrap_or(u32::MAX).max(1);
        self.rows.iter().map(time).sum::<Duration>() / texts
    }

    /// Tokens that the encoder saw.
    pub(crate) fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.tokens).sum()
    }

    /// The headers that clients of text-embeddings-inference read: whole milliseconds, means over
    /// the inputs. The times are those measured of each text.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mean = |time| millis(self.mean(time));
        let elapsed = millis(self.arrived.0.elapsed());
        let kind = if self.is_gpu { "gpu+optimized" } else { "cpu+optimized" };
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(COMPUTE_TYPE, HeaderValue::from_static(kind));
        for (name, number) in [
            (COMPUTE_TIME, elapsed),
            (COMPUTE_CHARACTERS, self.characters as u64),
            (COMPUTE_TOKENS, self.tokens() as u64),
            (TOTAL_TIME, elapsed),
            (TOKENIZATION_TIME, mean(|row| row.times.tokenize)),
            (QUEUE_TIME, mean(|row| row.times.queue)),
            (INFERENCE_TIME, mean(|row| row.times.infer)),
        ] {
            headers.insert(name, HeaderValue::from(number));
        }
        headers
    }
}

const COMPUTE_TYPE: HeaderName = HeaderName::from_static("x-compute-type");
const COMPUTE_TIME: HeaderName = HeaderName::from_static("x-compute-time");
const COMPUTE_CHARACTERS: HeaderName = HeaderName::from_static("x-compute-characters");
const COMPUTE_TOKENS: HeaderName = HeaderName::from_static("x-compute-tokens");
const TOTAL_TIME: HeaderName = HeaderName::from_static("x-total-time");
const TOKENIZATION_TIME: HeaderName = HeaderName::from_static("x-tokenization-time");
const QUEUE_TIME: HeaderName = HeaderName::from_static("x-queue-time");
const INFERENCE_TIME: HeaderName = HeaderName::from_static("x-inference-time");

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
