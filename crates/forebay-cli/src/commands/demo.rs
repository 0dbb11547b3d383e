//! `forebay demo`: what the runtime does, shown on a file of event lines.

use std::path::PathBuf;

use clap::Args;
use forebay::Embedding;

use super::timing::{self, Bulk, Single};
use crate::failure::Failure;
use crate::input::read_texts;
use crate::out::say;
use crate::service::{Service, engines, precision};
use crate::settings::Settings;
use crate::stats::cosine;

/// Queries where no file of them is given.
const QUERIES: [&str; 3] = [
    "the gripper let go of what it was carrying",
    "no satellite position available",
    "someone walked into the road in front of the vehicle",
];

/// Lines shown for each query.
const NEAREST: usize = 5;

/// Texts that the bulk pass has at least; the lines are repeated to reach it.
const BULK_TEXTS_MIN: usize = 2000;

/// Show it at work: speed, and the nearest lines for a few queries
///
/// Embeds every line of a file of events, first one at a time (latency), then repeated and in bulk
/// (throughput), and finds for each query the five lines whose meaning is nearest. The scores are
/// cosines: 1 means the same direction.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  forebay demo --model .forebay/models/all-MiniLM-L6-v2 --input examples/data/events.txt")]
pub(crate) struct DemoArgs {
    /// File with one event per line
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// File with one query per line [default: three that suit the shipped events]
    #[arg(long, value_name = "FILE")]
    queries: Option<PathBuf>,
}

struct Shown {
    lines: Vec<Embedding>,
    queries: Vec<Embedding>,
    single: Single,
    bulk: Bulk,
}

/// Runs the command.
///
/// # Errors
/// Whatever is missing, or a text without an embedding.
pub(crate) async fn run(args: DemoArgs, settings: &Settings) -> Result<(), Failure> {
    let config = settings.runtime_config()?;
    let bytes_max = config.tokenize.text_bytes_max as usize;
    let lines = read_texts(&args.input, bytes_max)?;
    let queries = match &args.queries {
        Some(path) => read_texts(path, bytes_max)?,
        None => QUERIES.map(str::to_owned).to_vec(),
    };
    let service = Service::start_all(config).await?;
    let shown = embed(&service, &lines, &queries).await;
    let (status, model) = (service.runtime().status(), service.runtime().model().clone());
    let start_time = service.start_time();
    let precision = precision(&status);
    service.end().await;
    let Shown { lines: vectors, queries: query_vectors, single, bulk } = shown?;
    say!(
        "model     {}: {} dimensions, at most {} tokens\n\
         engine    {}, {precision}\n\
         level     {}, ready after {:.2} s\n\
         single    p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms  ({} texts, one at a time)\n\
         bulk      {:.0} texts/s, {:.0} tokens/s  ({} texts in {:.2} s)\n",
        model.name,
        model.width,
        model.tokens_max,
        engines(&status),
        status.level,
        start_time.as_secs_f64(),
        single.p50_ms,
        single.p95_ms,
        single.p99_ms,
        single.runs,
        bulk.texts_per_s,
        bulk.tokens_per_s,
        bulk.texts,
        bulk.seconds,
    )?;
    for (query, vector) in queries.iter().zip(&query_vectors) {
        say!("\nnearest to \"{query}\"\n")?;
        for (score, line) in nearest(&vector.vector, &vectors, &lines) {
            say!("  {score:.3}  {line}\n")?;
        }
    }
    Ok(())
}

async fn embed(service: &Service, lines: &[String], queries: &[String]) -> Result<Shown, Failure> {
    let single = timing::single(service.runtime(), lines, lines.len() as u64).await?;
    let repeats = BULK_TEXTS_MIN.div_ceil(lines.len());
    let many: Vec<String> = lines.iter().cycle().take(lines.len() * repeats).cloned().collect();
    let bulk = timing::bulk(service, &many).await?;
    Ok(Shown {
        lines: service.embed_all(lines.to_vec()).await?,
        queries: service.embed_all(queries.to_vec()).await?,
        single,
        bulk,
    })
}

/// The lines with the highest cosines, highest first.
fn nearest<'a>(query: &[f32], vectors: &[Embedding], lines: &'a [String]) -> Vec<(f64, &'a str)> {
    let mut scored: Vec<(f64, &str)> = vectors
        .iter()
        .zip(lines)
        .map(|(vector, line)| (cosine(query, &vector.vector), line.as_str()))
        .collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0));
    scored.truncate(NEAREST);
    scored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_queries_are_the_shipped_ones() {
        let shipped = include_str!("../../../../examples/data/queries.txt");
        assert!(shipped.lines().eq(QUERIES));
    }

    #[test]
    fn the_nearest_lines_come_first() {
        let vectors = [[0.0, 1.0], [1.0, 0.1], [1.0, 1.0]].map(|vector| Embedding {
            times: Default::default(),
            vector: vector.to_vec(),
            tokens: 1,
            tokens_before_cut: 1,
        });
        let lines = ["far", "near", "between"].map(str::to_owned);
        let order: Vec<&str> =
            nearest(&[1.0, 0.0], &vectors, &lines).into_iter().map(|(_, line)| line).collect();
        assert_eq!(order, ["near", "between", "far"]);
    }
}
