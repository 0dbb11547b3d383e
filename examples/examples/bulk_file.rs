//! A file of any size through the async interface, with a bounded number of texts under way and
//! the results in the order of the lines.
//!
//! `cargo run --release -p forebay-examples --example bulk_file [MODEL_FOLDER [FILE]]`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use forebay::{BatchTicket, EmbedOptions, Runtime};
use forebay_examples::config;

/// Portions under way: enough to keep the workers busy, and a bound on memory.
const WINDOW: usize = 8;
const PORTION: usize = 128;

#[derive(Default)]
struct Totals {
    rows: usize,
    tokens: usize,
    truncated: usize,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // First of all, before any thread: this same program also serves as the worker process.
    if let Some(code) = forebay_worker::run_if_worker() {
        return Ok(code);
    }
    tokio::runtime::Builder::new_current_thread().build()?.block_on(embed_file())?;
    Ok(ExitCode::SUCCESS)
}

async fn embed_file() -> Result<(), Box<dyn Error>> {
    let shipped = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/events.txt"));
    let path = std::env::args_os().nth(2).map_or_else(shipped, PathBuf::from);
    let mut lines = BufReader::new(File::open(&path)?).lines();
    // Any executor will do: the runtime brings its own threads.
    let runtime = Runtime::start(config()?).await?;
    let options = EmbedOptions::bulk();
    let start = Instant::now();
    let mut totals = Totals::default();
    let mut under_way: VecDeque<BatchTicket> = VecDeque::new();
    loop {
        let portion: Vec<String> = lines.by_ref().take(PORTION).collect::<Result<_, _>>()?;
        let read_all = portion.is_empty();
        if !read_all {
            under_way.push_back(runtime.submit_batch(portion, &options).await?);
        }
        // The oldest first, so the results come in the order of the lines.
        while under_way.len() >= WINDOW || read_all {
            let Some(oldest) = under_way.pop_front() else { break };
            use_results(oldest, &mut totals).await?;
        }
        if read_all {
            break;
        }
    }
    let Totals { rows, tokens, truncated } = totals;
    let seconds = start.elapsed().as_secs_f64();
    let rate = rows as f64 / seconds;
    println!("{rows} rows, {tokens} tokens, {truncated} truncated: {rate:.0} texts/s");
    runtime.shutdown().await;
    Ok(())
}

/// Where a program would store the vectors.
async fn use_results(ticket: BatchTicket, totals: &mut Totals) -> Result<(), Box<dyn Error>> {
    for result in ticket.await {
        let embedding = result?;
        totals.rows += 1;
        totals.tokens += embedding.tokens;
        totals.truncated += usize::from(embedding.truncated());
    }
    Ok(())
}
