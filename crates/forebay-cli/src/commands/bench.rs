//! `forebay bench`: how fast this machine turns texts into embeddings, measured through everything
//! that a request passes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::timing::{self, Bulk, Single};
use crate::failure::Failure;
use crate::input::read_texts;
use crate::out::{note, say};
use crate::service::{Service, restarts};
use crate::settings::Settings;
use crate::stats::median;

/// Texts that go through before the first timed pass.
const WARM_UP_TEXTS: usize = 1000;

/// Measure speed on this machine
#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    Pipeline(PipelineArgs),
}

/// The whole way: text in, embedding out
///
/// Two figures, which are not the same thing. Bulk: all lines of the file are submitted in class
/// bulk, as `forebay embed` does, and the clock runs from the first submission to the last result;
/// with several rounds the one of median duration is shown. Single: the first line alone, each time
/// when the run before is done, so that nothing can be batched; what counts is the latency.
///
/// Tokenizing, batching, the worker process and all checks are part of both. Nothing is read or
/// written while the clock runs. A warm-up precedes each and is not counted.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay bench pipeline --input sentences.txt
  forebay bench pipeline --input sentences.txt --precision int8 --rounds 5 --json")]
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
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    precision: String,
    level: String,
    bulk: Bulk,
    rounds: Vec<f64>,
    single: Single,
    worker_restarts: u64,
}

/// Runs the command.
///
/// # Errors
/// Whatever is missing, or a text without an embedding.
pub(crate) async fn run(command: BenchCommand, settings: &Settings) -> Result<(), Failure> {
    let BenchCommand::Pipeline(args) = command;
    let config = settings.runtime_config()?;
    let texts = read_texts(&args.input, config.tokenize.text_bytes_max as usize)?;
    let precision = config.model.precision.to_string();
    let service = Service::start(config).await?;
    let measured = measure(&service, &args, &texts).await;
    let status = service.runtime().status();
    service.end().await;
    let (passes, single) = measured?;
    let rounds: Vec<f64> = passes.iter().map(|pass| pass.seconds).collect();
    let Some(bulk) = typical(&passes) else { return Ok(()) };
    let level = status.level.to_string();
    let worker_restarts = restarts(&status);
    if worker_restarts > 0 {
        note!("warning: {worker_restarts} worker restarts; the figures include them");
    }
    if args.json {
        let report = Report { precision, level, bulk, rounds, single, worker_restarts };
        let text = serde_json::to_string(&report).unwrap_or_default();
        return say!("{text}\n");
    }
    let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = rounds.iter().copied().fold(0.0, f64::max);
    say!(
        "level {level}, {precision}\n\
         bulk    {:.0} texts/s, {:.0} tokens/s: {} texts in {:.2} s (median of {} rounds, \
         {lowest:.2} to {highest:.2} s)\n\
         single  p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms ({} runs of the first line)\n",
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

async fn measure(
    service: &Service,
    args: &PipelineArgs,
    texts: &[String],
) -> Result<(Vec<Bulk>, Single), Failure> {
    let warm_up = texts.get(..WARM_UP_TEXTS).unwrap_or(texts);
    timing::bulk(service, warm_up).await?;
    let mut passes = Vec::new();
    for _ in 0..args.rounds {
        passes.push(timing::bulk(service, texts).await?);
    }
    let first = texts.get(..1).unwrap_or_default();
    let single = timing::single(service.runtime(), first, args.single_runs).await?;
    Ok((passes, single))
}

/// The pass whose duration is nearest to the median.
fn typical(passes: &[Bulk]) -> Option<Bulk> {
    let seconds: Vec<f64> = passes.iter().map(|pass| pass.seconds).collect();
    let middle = median(&seconds)?;
    let distance = |pass: &Bulk| (pass.seconds - middle).abs();
    passes.iter().copied().min_by(|left, right| distance(left).total_cmp(&distance(right)))
}
