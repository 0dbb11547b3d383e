//! Goes through many simulated histories with faults, each given by its seed, and stops at the first
//! that breaks an invariant.
//!
//! ```sh
//! cargo xtask simulate --seeds 100000
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay::simulation::{SOMETIMES, run};

/// Seeds that a thread takes at a time.
const SHARE: u64 = 64;

#[derive(Default)]
struct Totals {
    steps: u64,
    texts: u64,
    faults: u64,
    elapsed: Duration,
    reached: BTreeSet<&'static str>,
    violations: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((seeds, start)) = parse(&arguments) else {
        eprintln!("usage: simulate [--seeds N] [--start SEED]");
        return ExitCode::from(64);
    };
    let began = Instant::now();
    let next = AtomicU64::new(start);
    let broken = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&next, start + seeds, &broken, &totals));
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    for violation in &totals.violations {
        eprintln!("{violation}");
    }
    println!(
        "{seeds} histories from seed {start}: {} steps, {} texts, {} faults, {:.0} s of virtual time \
         in {:.1} s",
        totals.steps,
        totals.texts,
        totals.faults,
        totals.elapsed.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let missed: Vec<&&str> =
        SOMETIMES.iter().filter(|place| !totals.reached.contains(*place)).collect();
    println!("{} of {} rare places reached", SOMETIMES.len() - missed.len(), SOMETIMES.len());
    if !totals.violations.is_empty() {
        return ExitCode::FAILURE;
    }
    // A few histories cannot come to everything.
    if !missed.is_empty() && seeds >= 1_000 {
        eprintln!("never reached: {missed:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn work(next: &AtomicU64, end: u64, broken: &AtomicBool, totals: &Mutex<Totals>) {
    loop {
        let from = next.fetch_add(SHARE, Ordering::Relaxed);
        if from >= end || broken.load(Ordering::Relaxed) {
            return;
        }
        for seed in from..end.min(from + SHARE) {
            let outcome = run(seed, None);
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(report) => {
                    totals.steps += report.steps;
                    totals.texts += report.texts;
                    totals.faults += report.faults;
                    totals.elapsed += report.elapsed;
                    totals.reached.extend(report.reached);
                }
                Err(violation) => {
                    totals.violations.push(violation.to_string());
                    broken.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

fn parse(arguments: &[String]) -> Option<(u64, u64)> {
    let (mut seeds, mut start) = (10_000, 0);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        let value = value.parse().ok()?;
        match name.as_str() {
            "--seeds" => seeds = value,
            "--start" => start = value,
            _ => return None,
        }
    }
    Some((seeds, start))
}
