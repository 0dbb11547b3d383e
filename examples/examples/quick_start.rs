//! Three sentences in, their similarities out, with plain blocking calls.
//!
//! `cargo run --release -p forebay-examples --example quick_start [MODEL_FOLDER]`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;
use std::process::ExitCode;

use forebay::EmbedOptions;
use forebay::blocking::Runtime;
use forebay_examples::{config, cosine};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // First of all: this same program also serves as the worker process.
    if let Some(code) = forebay_worker::run_if_worker() {
        return Ok(code);
    }
    let runtime = Runtime::start(config()?)?;

    let sentences = [
        "a pedestrian steps onto the road",
        "someone on foot walks into the lane",
        "the battery is cold",
    ];
    let texts = sentences.map(str::to_owned).to_vec();
    let results = runtime.embed_batch(texts, &EmbedOptions::default())?;
    // Each text has its own result: one bad text does not spoil the others.
    let embeddings = results.into_iter().collect::<Result<Vec<_>, _>>()?;

    println!("{} dimensions, level {}", runtime.model().width, runtime.level());
    let all: Vec<_> = sentences.iter().zip(&embeddings).collect();
    for (place, (left, left_embedding)) in all.iter().enumerate() {
        for (right, right_embedding) in all.iter().skip(place + 1) {
            let score = cosine(&left_embedding.vector, &right_embedding.vector);
            println!("{score:.3}  {left}  |  {right}");
        }
    }

    runtime.shutdown();
    Ok(ExitCode::SUCCESS)
}
