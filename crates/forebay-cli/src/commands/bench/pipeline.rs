//! `forebay bench pipeline`: from texts to embeddings through everything that a request passes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use forebay::WorkerStatus;
use serde::Serialize;

use super::open_loop::{self, Load, OpenLoop};
use super::spans::SpanRecorder;
use super::timeline::TimelineFile;
use crate::commands::timing::{self, Bulk, Single};
use crate::failure::{Exit, Failure};
use crate::input::read_texts;
use crate::out::{note, say};
use crate::service::{Service, engines, precision, restarts, working};
use crate::settings::Settings;
use crate::stats::median;

/// Texts that go through before the first timed pass.
const WARM_UP_TEXTS: usize = 1000;

/// Highest rate that one generator keeps up with.
const RATE_MAX: f64 = 1e6;
/// Longest open-loop run in seconds.
const SECONDS_MAX: f64 = 3600.0;

/// The whole way: text in, embedding out
///
/// Figures that are not the same thing. Bulk: all lines of the file are submitted in class bulk, as
/// `forebay embed` does, and the clock runs from the first submission to the last result; with
/// several rounds the one of median duration is shown. Single: the first line alone, each time when
/// the run before is done, so that nothing can be batched; what counts is the latency. Open, with
/// --rate: lines arrive one by one at random moments (Poisson) whether or not earlier ones are done,
/// and the latency counts from when each was due.
///
/// With --trace, the way of every batch is written as a timeline that opens in Perfetto
/// (ui.perfetto.dev): on the host and, on a GPU, in each stage and stream of the worker. Writing it
/// costs a little, so take figures without it.
///
/// Tokenizing, batching, the worker process and all checks are part of each. Nothing is read or
/// written while the clock runs. A warm-up precedes each and is not counted.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay bench pipeline --input sentences.txt
  forebay bench pipeline --input sentences.txt --precision int8 --rounds 5 --json
  forebay bench pipeline --input sentences.txt --rate 500 --seconds 30
  forebay bench pipeline --input sentences.txt --rounds 1 --device cuda:0 --trace trace.json")]
pub(crate) struct PipelineArgs {
    /// File with one text per line
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// Timed passes over the file
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Timed runs of one text alone
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    single_runs: u64,
    /// Also run open-loop load: texts per second that arrive on average
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// How long open-loop load runs
    #[arg(long, value_name = "S", default_value_t = 10.0, requires = "rate",
          value_parser = seconds)]
    seconds: f64,
    /// Start of the random numbers of open-loop load
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate")]
    seed: u64,
    /// Write a timeline of the whole run to this file
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    positive(text, RATE_MAX)
}

fn seconds(text: &str) -> Result<f64, String> {
    positive(text, SECONDS_MAX)
}

fn positive(text: &str, max: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= max);
    number.ok_or_else(|| format!("a number above 0 and at most {max} is expected"))
}

#[derive(Serialize)]
struct Report {
    precision: String,
    level: String,
    workers: Vec<Rung>,
    bulk: Bulk,
    rounds: Vec<f64>,
    single: Single,
    open_loop: Option<OpenLoop>,
    worker_restarts: u64,
}

/// What was measured.
struct Figures {
    passes: Vec<Bulk>,
    single: Single,
    open: Option<OpenLoop>,
}

/// A rung that computed.
#[derive(Serialize)]
struct Rung {
    device: String,
    engine: String,
    precision: String,
    details: BTreeMap<String, String>,
}

/// Runs the command.
///
/// # Errors
/// Whatever is missing, or a text without an embedding.
pub(super) async fn run(args: PipelineArgs, settings: &Settings) -> Result<(), Failure> {
    let mut config = settings.runtime_config()?;
    let texts = read_texts(&args.input, config.tokenize.text_bytes_max as usize)?;
    let trace = args.trace.as_deref().map(TimelineFile::create).transpose()?;
    let recorder = trace.as_ref().map(|file| {
        config.cuda.trace = Some(file.worker_path());
        SpanRecorder::new()
    });
    let listener = recorder.clone().map(SpanRecorder::layer);
    let service = Service::start_all_heard(config, listener).await?;
    let measured = measure(&service, &args, &texts).await;
    let status = service.runtime().status();
    service.end().await;
    if let (Some(file), Some(recorder)) = (trace, recorder) {
        let (spans, left_out) = recorder.take();
        note!("{}", file.finish(&spans, left_out)?);
    }
    let (engine, precision) = (engines(&status), precision(&status));
    let workers = working(&status).into_iter().map(|worker| {
        let WorkerStatus { device, engine, precision, details, .. } = worker.clone();
        Rung { device, engine, precision, details }
    });
    let workers: Vec<Rung> = workers.collect();
    let Figures { passes, single, open } = measured?;
    let rounds: Vec<f64> = passes.iter().map(|pass| pass.seconds).collect();
    let Some(bulk) = typical(&passes) else { return Ok(()) };
    let level = status.level.to_string();
    let worker_restarts = restarts(&status);
    if worker_restarts > 0 {
        note!("warning: {worker_restarts} worker restarts; the figures include them");
    }
    if args.json {
        let open_loop = open.clone();
        let report =
            Report { precision, level, workers, bulk, rounds, single, open_loop, worker_restarts };
        let text = serde_json::to_string(&report).unwrap_or_default();
        say!("{text}\n")?;
    } else {
        say!("level {level}, {engine}, {precision}\n{}", table(&bulk, &rounds, &single))?;
        if let Some(open) = &open {
            say!("{}", open_table(open))?;
        }
    }
    match open.filter(|open| open.failed > 0) {
        Some(OpenLoop { failed, first_error, .. }) => {
            let first = first_error.unwrap_or_default();
            let message = format!("{failed} texts of open-loop load failed, the first: {first}");
            Err(Failure::new(Exit::Failed, message))
        }
        None => Ok(()),
    }
}

fn table(bulk: &Bulk, rounds: &[f64], single: &Single) -> String {
    let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = rounds.iter().copied().fold(0.0, f64::max);
    format!(
        "bulk    {:.0} texts/s, {:.0} tokens/s: {} texts in {:.2} s (median of {} rounds, \
         {lowest:.2} to {highest:.2} s)\n\
         single  p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms ({} runs of the first line)\n",
        bulk.texts_per_s,
        bulk.tokens_per_s,
        bulk.texts,
        bulk.seconds,
        rounds.len(),
        single.p50_ms,
        single.p95_ms,
        single.p99_ms,
        single.runs,
    )
}

fn open_table(open: &OpenLoop) -> String {
    format!(
        "open    p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms, max {:.3} ms at {} texts/s for {} s\n\
         \x20       {} offered, {} answered, {} refused, {} failed; the generator was late by p50 \
         {:.3} ms, p99 {:.3} ms, max {:.3} ms\n",
        open.p50_ms,
        open.p95_ms,
        open.p99_ms,
        open.max_ms,
        open.rate,
        open.seconds,
        open.offered,
        open.answered,
        open.refused,
        open.failed,
        open.lag_p50_ms,
        open.lag_p99_ms,
        open.lag_max_ms,
    )
}

async fn measure(
    service: &Service,
    args: &PipelineArgs,
    texts: &[String],
) -> Result<Figures, Failure> {
    let warm_up = texts.get(..WARM_UP_TEXTS).unwrap_or(texts);
    timing::bulk(service, warm_up).await?;
    let mut passes = Vec::new();
    for _ in 0..args.rounds {
        passes.push(timing::bulk(service, texts).await?);
    }
    let first = texts.get(..1).unwrap_or_default();
    let single = timing::single(service.runtime(), first, args.single_runs).await?;
    let open = match args.rate {
        Some(rate) => {
            let load = Load { rate, seconds: args.seconds, seed: args.seed };
            Some(open_loop::run(service.runtime(), texts, load).await?)
        }
        None => None,
    };
    Ok(Figures { passes, single, open })
}

/// The pass whose duration is nearest to the median.
fn typical(passes: &[Bulk]) -> Option<Bulk> {
    let seconds: Vec<f64> = passes.iter().map(|pass| pass.seconds).collect();
    let middle = median(&seconds)?;
    let distance = |pass: &Bulk| (pass.seconds - middle).abs();
    passes.iter().copied().min_by(|left, right| distance(left).total_cmp(&distance(right)))
}
