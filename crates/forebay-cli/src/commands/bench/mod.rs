//! `forebay bench`: how fast this machine turns texts into embeddings, with everything that a
//! request passes, and the engine by itself.

use clap::Subcommand;

use crate::failure::Failure;
use crate::settings::Settings;

mod engine;
mod engine_cases;
mod engine_csv;
mod engine_runs;
pub(in crate::commands) mod open_loop;
mod pipeline;
mod spans;
mod timeline;

/// Measure speed on this machine
#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    Pipeline(pipeline::PipelineArgs),
    Engine(engine::EngineArgs),
}

/// Runs what works through a runtime with worker processes.
///
/// # Errors
/// Whatever is missing, or a text without an embedding.
pub(crate) async fn run(command: BenchCommand, settings: &Settings) -> Result<(), Failure> {
    match command {
        BenchCommand::Pipeline(args) => pipeline::run(args, settings).await,
        BenchCommand::Engine(args) => engine::run(&args, settings),
    }
}

pub(crate) use engine::run as engine;
