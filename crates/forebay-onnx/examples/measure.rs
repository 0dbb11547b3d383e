//! Measures the engine: `cargo run --release -p forebay-onnx --example measure -- WHAT`.
//!
//! `shapes` times single runs, `layout` compares thread layouts, `cut` compares limits of the
//! sub-batches, `mixed` how many widths one run may have, `memory` shows what sessions cost, `quality FILE.csv` compares INT8 with F32 on
//! scored pairs of sentences, `all` is everything but `quality`. Variants take turns, so that other
//! work on the machine meets all of them; the fastest and the median of the turns are printed, and
//! the least processor time of all threads, which other work disturbs less. The model and the library are found as the tests find them (`FOREBAY_MODEL`, `FOREBAY_ORT`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for developers")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forebay_model::{ModelFolder, Scratch, pooling};
use forebay_onnx::{EngineOptions, Precision, Session, SubBatchLimits};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bench = Bench::open();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["shapes"] => bench.shapes(),
        ["layout"] => bench.layout(),
        ["cut"] => bench.cut(),
        ["mixed"] => bench.mixed(),
        ["memory"] => bench.memory(),
        ["quality", file] => bench.quality(Path::new(file)),
        ["all"] => {
            bench.memory();
            bench.shapes();
            bench.cut();
            bench.mixed();
            bench.layout();
        }
        _ => println!(
            "usage: measure shapes | layout | cut | mixed | memory | quality FILE.csv | all"
        ),
    }
}

struct Bench {
    folder: ModelFolder,
    library: PathBuf,
}

/// A batch: ids and boundaries.
type Batch = (Vec<u32>, Vec<u32>);

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Int8];

impl Bench {
    fn open() -> Self {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.forebay");
        let model = std::env::var_os("FOREBAY_MODEL")
            .map_or_else(|| home.join("models/all-MiniLM-L6-v2"), PathBuf::from);
        let library = std::env::var_os("FOREBAY_ORT").map(PathBuf::from).unwrap_or_else(|| {
            let mut entries = std::fs::read_dir(home.join("onnxruntime")).unwrap();
            entries.next().unwrap().unwrap().path()
        });
        Self { folder: ModelFolder::open_unverified(&model).unwrap(), library }
    }

    fn session(&self, precision: Precision, threads: usize, spinning: bool) -> Session {
        self.session_with(precision, threads, spinning, SubBatchLimits::default())
    }

    fn session_with(
        &self,
        precision: Precision,
        intra_threads: usize,
        spinning: bool,
        sub_batch: SubBatchLimits,
    ) -> Session {
        let library = self.library.clone();
        let options = EngineOptions { library, precision, intra_threads, spinning, sub_batch };
        Session::load(&self.folder, &options).unwrap()
    }

    /// `rows` rows of `min..=max` tokens.
    fn batch(&self, rows: usize, min: usize, max: usize, seed: u64) -> Batch {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut ids, mut boundaries) = (Vec::new(), vec![0]);
        for _ in 0..rows {
            let tokens = rng.random_range(min..=max);
            ids.extend((0..tokens).map(|_| rng.random_range(1000..30_000_u32)));
            boundaries.push(ids.len() as u32);
        }
        (ids, boundaries)
    }

    fn shapes(&self) {
        println!("\n## one run, ms (fastest / median / processor)");
        let shapes = [(1, 11), (8, 11), (32, 11), (64, 11), (16, 64), (4, 256)];
        // A pool that spins disturbs whatever comes next, so those take turns among themselves.
        for spinning in [false, true] {
            let mut variants = Vec::new();
            for precision in PRECISIONS {
                for threads in if spinning { 2..=2 } else { 1..=2 } {
                    let name = format!("{precision} {threads} threads, spinning {spinning}");
                    variants.push((name, self.session(precision, threads, spinning)));
                }
            }
            for (rows, tokens) in shapes {
                let batch = self.batch(rows, tokens, tokens, 1);
                println!("{rows} x {tokens}");
                let turns = (6000 / (rows * tokens)).clamp(12, 200);
                take_turns(1, turns, &mut variants, |session| encode(session, &batch));
            }
        }
    }

    fn cut(&self) {
        println!(
            "\n## limits of the sub-batches, 1 thread, ms per text (fastest / median / processor)"
        );
        let limits = |rows_max, tokens_max, width_step| SubBatchLimits {
            rows_max,
            tokens_max,
            width_step,
            ..SubBatchLimits::default()
        };
        let choices = [
            limits(16, 1024, 16),
            limits(32, 1024, 16),
            limits(64, 1024, 16),
            limits(256, 4096, 16),
            limits(64, 1024, 8),
            limits(64, 1024, 4),
            limits(64, 1024, 1),
            limits(64, 1024, 32),
        ];
        for precision in PRECISIONS {
            let mut variants: Vec<_> = choices
                .iter()
                .map(|choice| {
                    let (rows, tokens) = (choice.rows_max, choice.tokens_max);
                    let name = format!(
                        "{precision} {rows} rows, {tokens} tokens, step {}",
                        choice.width_step
                    );
                    (name, self.session_with(precision, 1, false, *choice))
                })
                .collect();
            for (rows, min, max) in [(8, 6, 18), (32, 6, 18), (256, 6, 18), (64, 6, 128)] {
                println!("{rows} rows of {min} to {max} tokens");
                let batch = self.batch(rows, min, max, 2);
                let turns = (800 / rows).clamp(6, 40);
                take_turns(rows, turns, &mut variants, |session| encode(session, &batch));
            }
        }
    }

    fn mixed(&self) {
        println!("\n## widths per run, ms per text (fastest / median / processor)");
        for precision in PRECISIONS {
            for threads in 1..=2 {
                let variant = |widths_max| {
                    let limits = SubBatchLimits { widths_max, ..SubBatchLimits::default() };
                    let name = format!("{precision} {threads} threads, {widths_max} widths");
                    (name, self.session_with(precision, threads, true, limits))
                };
                let mut variants: Vec<_> = [1, 2, 3, 4, 6].into_iter().map(variant).collect();
                for (rows, min, max) in [
                    (1, 11, 11),
                    (4, 6, 18),
                    (8, 6, 18),
                    (16, 6, 18),
                    (32, 6, 18),
                    (64, 6, 18),
                    (16, 6, 128),
                    (64, 6, 128),
                ] {
                    println!("{rows} rows of {min} to {max} tokens");
                    let batch = self.batch(rows, min, max, 2);
                    let turns = (4000 / (rows * max)).clamp(8, 60);
                    take_turns(rows, turns, &mut variants, |session| encode(session, &batch));
                }
            }
        }
    }

    fn layout(&self) {
        const TURNS: usize = 15;
        println!("\n## threads: bulk of texts of 6 to 18 tokens in batches of 250, texts/s");
        println!("   (best / median of {TURNS} turns), and one text of 11 tokens, us");
        println!("   (fastest / median of the turns' medians)");
        let batches: Vec<Batch> = (0..2).map(|seed| self.batch(250, 6, 18, seed)).collect();
        let single = self.batch(1, 11, 11, 3);
        for precision in PRECISIONS {
            let [mut first, mut second] = [(); 2].map(|()| self.session(precision, 1, false));
            let mut pools = [false, true].map(|spins| self.session(precision, 2, spins));
            let mut rates = [const { Vec::new() }; 4];
            let mut latencies = [const { Vec::new() }; 3];
            for _ in 0..TURNS {
                let rate = |texts: usize, time: Duration| texts as f64 / time.as_secs_f64();
                rates[0].push(rate(250, encode(&mut first, &batches[0])));
                let start = Instant::now();
                std::thread::scope(|scope| {
                    scope.spawn(|| encode(&mut first, &batches[0]));
                    encode(&mut second, &batches[1]);
                });
                rates[1].push(rate(500, start.elapsed()));
                latencies[0].push(median_us(&mut first, &single));
                for (index, pool) in pools.iter_mut().enumerate() {
                    let time = batches.iter().map(|batch| encode(pool, batch)).sum();
                    rates[2 + index].push(rate(500, time));
                    latencies[1 + index].push(median_us(pool, &single));
                    // A pool that spins has to fall asleep before others are measured.
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let names = ["1 x 1", "2 x 1", "1 x 2", "1 x 2, spinning"];
            for (name, mut rates) in names.iter().zip(rates) {
                rates.sort_by(f64::total_cmp);
                let (best, median) = (rates[TURNS - 1], rates[TURNS / 2]);
                println!("{precision} bulk, sessions x threads {name}: {best:.0} / {median:.0}");
            }
            for (threads, mut times) in ["1", "2", "2, spinning"].iter().zip(latencies) {
                times.sort();
                let (best, median) = (times[0], times[TURNS / 2]);
                println!("{precision} one text, threads {threads}: {best} / {median}");
            }
        }
    }

    fn memory(&self) {
        println!("\n## resident memory, MiB, and time to load, ms");
        for precision in PRECISIONS {
            let mut sessions: Vec<Session> = Vec::new();
            for count in 1..=2 {
                let options = EngineOptions {
                    library: self.library.clone(),
                    precision,
                    intra_threads: 1,
                    spinning: false,
                    sub_batch: SubBatchLimits::default(),
                };
                let (before, start) = (resident_mib(), Instant::now());
                let session = Session::load_beside(&self.folder, &options, sessions.first());
                sessions.push(session.unwrap());
                let load = start.elapsed().as_millis();
                let after = resident_mib();
                let batch = self.batch(256, 6, 18, 4);
                for session in &mut sessions {
                    encode(session, &batch);
                }
                let run = resident_mib();
                println!(
                    "{precision} session {count}: {before} -> {after} -> {run} after a batch, {load} ms"
                );
            }
        }
    }

    /// Lines `sentence,sentence,score`, fields quoted where needed.
    fn quality(&self, file: &Path) {
        println!("\n## INT8 beside F32 on {}", file.display());
        let content = std::fs::read_to_string(file).unwrap();
        let lines: Vec<Vec<String>> = content.lines().map(fields).collect();
        let scored: Vec<(&[String], f64)> = lines
            .iter()
            .filter_map(|line| Some((&line[..2], line.last()?.parse().ok()?)))
            .collect();
        let tokenizer = self.folder.tokenizer().unwrap();
        let (mut scratch, mut ids, mut boundaries) = (Scratch::default(), Vec::new(), vec![0]);
        for text in scored.iter().flat_map(|(pair, _)| *pair) {
            let limit = self.folder.tokens_max();
            tokenizer.encode(text, limit, &mut scratch, &mut ids).unwrap();
            boundaries.push(ids.len() as u32);
        }
        let mut embeddings = Vec::new();
        for precision in PRECISIONS {
            let mut session = self.session(precision, 2, false);
            let states = session.encode(&ids, &boundaries).unwrap();
            let row = |index| {
                let mut out = vec![0.0; states.width()];
                pooling::pool_rows(
                    self.folder.pooling(),
                    states.row(index),
                    states.width(),
                    &mut out,
                )
                .unwrap();
                pooling::normalize(&mut out);
                out
            };
            let rows: Vec<Vec<f32>> = (0..states.rows()).map(row).collect();
            let similar: Vec<f64> = rows.chunks(2).map(|pair| dot(&pair[0], &pair[1])).collect();
            let expected: Vec<f64> = scored.iter().map(|(_, score)| *score).collect();
            println!(
                "{precision}: {} pairs, Spearman {:.5}",
                expected.len(),
                spearman(&similar, &expected)
            );
            embeddings.push(rows);
        }
        let mut cosines: Vec<f64> = embeddings[0]
            .iter()
            .zip(&embeddings[1])
            .map(|(left, right)| dot(left, right))
            .collect();
        cosines.sort_by(f64::total_cmp);
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let (min, low) = (cosines[0], cosines[cosines.len() / 100]);
        println!("cosine of INT8 to F32: mean {mean:.5}, 1st percentile {low:.5}, least {min:.5}");
    }
}

fn encode(session: &mut Session, (ids, boundaries): &Batch) -> Duration {
    let start = Instant::now();
    let states = session.encode(ids, boundaries).unwrap();
    assert!(states.rows() > 0);
    start.elapsed()
}

fn median_us(session: &mut Session, batch: &Batch) -> u128 {
    let mut times: Vec<Duration> = (0..25).map(|_| encode(session, batch)).collect();
    times.sort();
    times[12].as_micros()
}

/// Runs every variant once per turn; `per` is what a printed time is divided by.
fn take_turns(
    per: usize,
    turns: usize,
    variants: &mut [(String, Session)],
    run: impl Fn(&mut Session) -> Duration,
) {
    let mut times = vec![(Vec::new(), f64::INFINITY); variants.len()];
    for turn in 0..=turns {
        for ((_, session), (times, least)) in variants.iter_mut().zip(&mut times) {
            let before = processor_ms();
            let time = run(session);
            // The first turn warms up.
            if turn > 0 {
                times.push(time.as_secs_f64() * 1e3 / per as f64);
                *least = least.min((processor_ms() - before) / per as f64);
            }
        }
    }
    for ((name, _), (mut times, least)) in variants.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        let (best, median) = (times[0], times[times.len() / 2]);
        println!("  {best:8.3} / {median:8.3} / {least:8.3}  {name}");
    }
}

/// Processor time of all threads of this process so far.
fn processor_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum()
}

/// Fields of one CSV line.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                fields.last_mut().unwrap().push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    fields
}

/// Pearson correlation of the ranks; equal values share their mean rank.
fn spearman(left: &[f64], right: &[f64]) -> f64 {
    let (left, right) = (ranks(left), ranks(right));
    let mean = (left.len() as f64 - 1.0) / 2.0;
    let moment = |left: &[f64], right: &[f64]| -> f64 {
        left.iter().zip(right).map(|(left, right)| (left - mean) * (right - mean)).sum()
    };
    moment(&left, &right) / (moment(&left, &left) * moment(&right, &right)).sqrt()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&left, &right| values[left].total_cmp(&values[right]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for group in order.chunk_by(|&left, &right| values[left] == values[right]) {
        let rank = start as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|&index| ranks[index] = rank);
        start += group.len();
    }
    ranks
}
