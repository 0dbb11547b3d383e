//! What the host's way costs by itself: texts through a runtime whose worker is the real worker
//! process over an engine that computes nothing. Prints one JSON object a line: for each pass in
//! bulk, texts per second and the processor time of each thread per text; for single texts, how long
//! they took. `benches/host_path.py` runs it in turn for several builds and compares.
//!
//! Processor time is read from the kernel's accounts of this process's threads, so other work on the
//! machine changes little of it.

#![allow(clippy::expect_used, reason = "shares files with the tests, where that is a failure")]
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use forebay::config::{Device, Fallback, LaneWait, Rungs};
use forebay::metrics::prometheus;
use forebay::{Config, EmbedOptions, Runtime};
use serde_json::json;

#[path = "../tests/support/script.rs"]
#[allow(dead_code, reason = "shared with the tests, which use other parts")]
mod script;
#[path = "../tests/support/tiny.rs"]
#[allow(dead_code, reason = "shared with the tests, which use other parts")]
mod tiny;
#[path = "../tests/support/vector.rs"]
mod vector;

/// Length of an embedding, as of all-MiniLM-L6-v2.
const WIDTH: usize = 384;
/// Words of a text; with the special tokens it has two tokens more.
const WORDS: usize = 12;
/// What a slot of a GPU holds by default.
const SLOT_TOKENS: u32 = 8_192;
const SLOT_ROWS: u32 = 1_024;

type Failure = Box<dyn std::error::Error>;

/// Processor time of the host's threads per text, and the time of one text alone
#[derive(Parser)]
struct Args {
    /// The program `forebay-fake-worker` of the same build
    #[arg(long)]
    worker: PathBuf,
    /// Texts of a pass in bulk
    #[arg(long, default_value_t = 100_000)]
    texts: usize,
    /// Passes in bulk
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// Texts that go through alone, one after the other
    #[arg(long, default_value_t = 2_000)]
    singles: usize,
    /// Lanes spin for this long before they sleep; 0 for lanes that sleep at once
    #[arg(long, default_value_t = 0)]
    spin_us: u32,
    /// Keep metrics, as a program with a metrics file does
    #[arg(long)]
    metrics: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if args.metrics {
        prometheus::install()?;
    }
    let model = tiny::TinyModel::scripted(&script::Script { alike: true, ..Default::default() });
    let mut shape = tiny::config();
    shape["hidden_size"] = json!(WIDTH);
    model.json("config.json", &shape);
    model.json(
        "1_Pooling/config.json",
        &json!({"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": true,
                "pooling_mode_cls_token": false}),
    );
    let runtime = Runtime::start(config(&args, &model)).await?;
    runtime.settled().await;
    let texts: Vec<String> = (0..args.texts).map(text).collect();
    // As many as in a pass, so that no pass is the first to touch the memory.
    bulk(&runtime, texts.clone()).await?;
    for _ in 0..args.passes {
        let before = threads()?;
        let seconds = bulk(&runtime, texts.clone()).await?;
        let ns = per_text(&before, &threads()?, args.texts);
        println!("{}", json!({"texts_per_s": args.texts as f64 / seconds, "thread_ns": ns}));
    }
    if args.singles > 0 {
        let before = threads()?;
        let mut took = singles(&runtime, &texts, args.singles).await?;
        let ns = per_text(&before, &threads()?, args.singles);
        took.sort_unstable();
        let us = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1e6;
        println!("{}", json!({"p50_us": us(50), "p95_us": us(95), "single_thread_ns": ns}));
    }
    runtime.shutdown().await;
    Ok(())
}

fn config(args: &Args, model: &tiny::TinyModel) -> Config {
    let mut config = Config::default();
    config.model.path = model.path().to_owned();
    config.worker.program = Some(args.worker.clone());
    config.devices.rungs = Rungs::Listed(vec![Device::Cpu]);
    config.devices.fallback = Fallback::None;
    // The fake worker loads no library; any file will do.
    config.cpu.onnxruntime = Some(args.worker.clone());
    config.batch.tokens_max = SLOT_TOKENS;
    config.batch.rows_max = SLOT_ROWS;
    if args.spin_us > 0 {
        config.lanes.wait = LaneWait::Spin;
        config.lanes.spin_us = args.spin_us;
    }
    config
}

/// Short texts of different words.
fn text(number: usize) -> String {
    let words = (0..WORDS).map(|word| format!("w{}", (number * 31 + word * 17) % 500));
    words.collect::<Vec<_>>().join(" ")
}

/// Seconds for all of these.
async fn bulk(runtime: &Runtime, texts: Vec<String>) -> Result<f64, Failure> {
    let start = Instant::now();
    let results = runtime.embed_batch(texts, &EmbedOptions::bulk()).await?;
    let seconds = start.elapsed().as_secs_f64();
    for result in results {
        result?;
    }
    Ok(seconds)
}

async fn singles(
    runtime: &Runtime,
    texts: &[String],
    count: usize,
) -> Result<Vec<Duration>, Failure> {
    let options = EmbedOptions::default();
    let mut took = Vec::with_capacity(count);
    for text in texts.iter().cycle().take(count) {
        let text = text.clone();
        let start = Instant::now();
        runtime.embed(text, &options).await?;
        took.push(start.elapsed());
    }
    Ok(took)
}

/// Processor time in nanoseconds of the threads of each name.
fn threads() -> Result<BTreeMap<String, u64>, Failure> {
    let mut all = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = std::fs::read_to_string(task.join("comm"))?;
        let accounts = std::fs::read_to_string(task.join("schedstat"))?;
        let on_processor: u64 = accounts.split(' ').next().unwrap_or_default().parse()?;
        *all.entry(name.trim().to_owned()).or_default() += on_processor;
    }
    Ok(all)
}

fn per_text(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    texts: usize,
) -> BTreeMap<String, f64> {
    let spent = |name: &String, at: u64| at - before.get(name).copied().unwrap_or_default();
    after.iter().map(|(name, at)| (name.clone(), spent(name, *at) as f64 / texts as f64)).collect()
}
