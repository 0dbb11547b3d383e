//! How fast embeddings are written into the bytes of an answer: GB of F32 values per second, and
//! microseconds per vector, beside a tree of values that is then serialized.
//!
//! `cargo run --release -p forebay-server --example answer_rate [WIDTH [ROWS]]`

#![expect(clippy::print_stdout, reason = "it prints its figures")]

#[path = "../src/api/answer.rs"]
#[allow(dead_code, reason = "a part of the routes, of which only the writing is measured")]
mod answer;

use std::hint::black_box;
use std::time::{Duration, Instant};

use answer::{Answer, Encoding};
use forebay::{Embedding, TextTimes};

const ENOUGH: Duration = Duration::from_secs(1);

fn main() {
    let mut numbers = std::env::args().skip(1).map_while(|number| number.parse().ok());
    let (width, rows) = (numbers.next().unwrap_or(384), numbers.next().unwrap_or(1_usize));
    let rows: Vec<Embedding> = (0..rows).map(|row| embedding(row, width)).collect();
    println!("{} rows of {width} values", rows.len());
    measure("base64, direct", &rows, |rows| direct(rows, Encoding::Base64));
    measure("numbers, direct", &rows, |rows| direct(rows, Encoding::Float));
    measure("numbers, by serde_json from vectors", &rows, |rows| {
        let vectors: Vec<&[f32]> = rows.iter().map(|row| row.vector.as_slice()).collect();
        serde_json::to_vec(&vectors).map_or(0, |bytes| bytes.len())
    });
    measure("numbers, by a tree of values", &rows, |rows| {
        let tree: Vec<serde_json::Value> =
            rows.iter().map(|row| row.vector.clone().into()).collect();
        serde_json::to_vec(&tree).map_or(0, |bytes| bytes.len())
    });
}

/// A unit-length vector of values that are not round.
fn embedding(row: usize, width: usize) -> Embedding {
    let mut vector: Vec<f32> =
        (0..width).map(|place| ((row * width + place) as f32 * 0.7).sin()).collect();
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= length);
    Embedding { vector, tokens: 8, tokens_before_cut: 8, times: TextTimes::default() }
}

fn direct(rows: &[Embedding], encoding: Encoding) -> usize {
    let mut answer = Answer::for_rows(rows, encoding, 1);
    answer.rows(rows, encoding);
    answer.finish().len()
}

fn measure(name: &str, rows: &[Embedding], write: impl Fn(&[Embedding]) -> usize) {
    let values: usize = rows.iter().map(|row| row.vector.len()).sum();
    let (start, mut runs, mut bytes) = (Instant::now(), 0_u32, 0);
    while start.elapsed() < ENOUGH {
        bytes = black_box(write(black_box(rows)));
        runs += 1;
    }
    let each = start.elapsed() / runs;
    let gigabytes = (values * size_of::<f32>()) as f64 / each.as_secs_f64() / 1e9;
    let per_row = each.as_secs_f64() * 1e6 / rows.len() as f64;
    println!("{name:36} {gigabytes:7.3} GB/s {per_row:8.2} us per vector, {bytes} bytes");
}
