//! The `forebay` program. Each command has its file in `commands`; here they are started, and what
//! they return becomes an exit code. The same program serves as worker process.

mod bundle;
mod cli;
mod commands;
mod failure;
mod input;
mod interrupt;
mod lines;
mod log;
mod npy;
mod out;
mod output;
mod pump;
mod service;
mod settings;
mod stats;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use commands::bench::BenchCommand;
use failure::{Exit, Failure};
use interrupt::Interrupt;

/// Threads that wait for what a command has begun; the work is done by threads of the runtime and by
/// the workers. The daemon's are `server.threads`.
const THREADS: usize = 2;

fn main() -> ExitCode {
    // Before anything else: a worker has its own idea of logs, signals and threads.
    if let Some(code) = forebay_worker::run_if_worker() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage.code() } else { 0 };
            return if error.print().is_ok() { exit.into() } else { Exit::Io.code().into() };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out::report(&failure);
            failure.exit.code().into()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { command, settings } = cli;
    match command {
        Command::Config(command) => return commands::config::run(command, &settings),
        Command::Bundle(args) => return commands::bundle::run(&args, &settings),
        Command::Selftest(args) => return commands::selftest::run(&args, &settings),
        Command::Events(args) => return commands::events::run(&args, &settings),
        Command::Explain(args) => return commands::explain::run(&args, &settings),
        Command::Bench(BenchCommand::Engine(args)) => {
            return commands::bench::engine(&args, &settings);
        }
        Command::Worker => {
            let message = "`forebay worker` is started by Forebay itself";
            return Err(Failure::new(Exit::Usage, message)
                .help("use `forebay embed` or the library, which start the workers they need"));
        }
        Command::Serve(args) => return commands::serve::run(args, settings),
        _ => {}
    }
    executor(THREADS)?.block_on(dispatch(command, settings))
}

/// What runs a command's asynchronous part, on so many threads.
pub(crate) fn executor(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("fb-cli")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Unavailable, format!("cannot start: {error}")))
}

async fn dispatch(command: Command, settings: settings::Settings) -> Result<(), Failure> {
    let mut interrupt = Interrupt::listen()?;
    if let Command::Embed(args) = command {
        return commands::embed::run(args, &settings, &mut interrupt).await;
    }
    if let Command::Soak(args) = command {
        return commands::soak::run(args, &settings, &mut interrupt).await;
    }
    let work = async {
        match command {
            Command::Bench(command) => commands::bench::run(command, &settings).await,
            Command::Eval(command) => commands::eval::run(command, &settings).await,
            Command::Demo(args) => commands::demo::run(args, &settings).await,
            Command::Doctor(args) => commands::doctor::run(args, &settings).await,
            Command::Drill(args) => commands::drill::run(args, &settings).await,
            Command::Ready(args) => commands::ready::run(args, &settings).await,
            Command::Top(args) => commands::top::run(args, &settings).await,
            Command::Embed(_)
            | Command::Serve(_)
            | Command::Soak(_)
            | Command::Bundle(_)
            | Command::Config(_)
            | Command::Selftest(_)
            | Command::Events(_)
            | Command::Explain(_)
            | Command::Worker => Ok(()),
        }
    };
    // These keep nothing that would have to be completed: dropping one ends its workers.
    tokio::select! {
        done = work => done,
        exit = interrupt.raised() => Err(Failure::new(exit, "interrupted")),
    }
}
