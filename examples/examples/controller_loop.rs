//! A control loop at 50 Hz that asks for one embedding per cycle and never waits longer than its
//! deadline: it goes on without an answer, counts that, and looks at the service level.
//!
//! `cargo run --release -p forebay-examples --example controller_loop [MODEL_FOLDER]`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forebay::blocking::Runtime;
use forebay::{EmbedError, EmbedOptions, Level};
use forebay_examples::config;

const CYCLE: Duration = Duration::from_millis(20);
/// Within a cycle: what is left of it is for the rest of the controller.
const DEADLINE: Duration = Duration::from_millis(15);
const CYCLES: u32 = 250;

const EVENTS: [&str; 4] = [
    "pedestrian close to the kerb",
    "wheel slip on the rear axle",
    "localisation is uncertain",
    "obstacle ahead is gone",
];

/// How the cycles went.
#[derive(Default)]
struct Counts {
    answered: u32,
    /// No answer by the deadline.
    late: u32,
    /// Refused at once, because too much was under way or nothing serves.
    refused: u32,
    /// Answered with any other error.
    failed: u32,
    slowest: Duration,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // First of all: this same program also serves as the worker process.
    if let Some(code) = forebay_worker::run_if_worker() {
        return Ok(code);
    }
    let runtime = Runtime::start(config()?)?;
    let mut counts = Counts::default();
    let mut next = Instant::now();
    for event in EVENTS.iter().cycle().take(CYCLES as usize) {
        // One cheap read: a controller adapts before it asks, not after it has failed.
        if runtime.level() > Level::Down {
            ask(&runtime, event, &mut counts);
        } else {
            counts.refused += 1;
        }
        // The rest of the controller's work would be here.
        next += CYCLE;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }

    let Counts { answered, late, refused, failed, slowest } = counts;
    println!("{CYCLES} cycles of {CYCLE:?}, deadline {DEADLINE:?}, level {}", runtime.level());
    println!(
        "answered {answered} (slowest after {slowest:.2?}), late {late}, refused {refused}, \
         failed {failed}"
    );
    runtime.shutdown();
    Ok(ExitCode::SUCCESS)
}

/// Asks for one embedding and waits for it until the deadline at most.
fn ask(runtime: &Runtime, event: &str, counts: &mut Counts) {
    let start = Instant::now();
    // The deadline is the runtime's too: it spends no work on what nobody waits for.
    let ticket = match runtime.try_submit(event, &EmbedOptions::control(DEADLINE)) {
        Ok(ticket) => ticket,
        Err(_) => {
            counts.refused += 1;
            return;
        }
    };
    match ticket.wait(Some(DEADLINE)) {
        Ok(Ok(_embedding)) => {
            counts.answered += 1;
            counts.slowest = counts.slowest.max(start.elapsed());
        }
        Ok(Err(EmbedError::DeadlineExceeded { .. })) => counts.late += 1,
        Ok(Err(_)) => counts.failed += 1,
        // Dropping the ticket that comes back cancels the request.
        Err(_ticket) => counts.late += 1,
    }
}
