//! `forebay doctor`: looks at everything that the runtime needs, then tries it.
//!
//! Only files are looked at here; libraries and devices are opened by worker processes, as always,
//! and what they say is what is shown.

use std::path::{Path, PathBuf};

use clap::Args;
use forebay::{Config, EmbedOptions, Status, WorkerState, onnxruntime_library, worker_program};
use forebay_arena::ArenaLayout;
use forebay_model::{GraphSource, Manifest, ModelFolder};
use forebay_protocol::ArenaSpec;

use super::doctor_report::Report;
use super::{doctor_bundle, doctor_devices as devices, doctor_machine as machine};
use crate::failure::{Exit, Failure};
use crate::out::say;
use crate::service::Service;
use crate::settings::Settings;

/// What the self-test embeds.
const SELF_TEST: &str = "brake pressure below limit";

/// Look at everything that is needed, and try it
///
/// Prints what was found: program and worker, ONNX Runtime, model, devices with CUDA's libraries,
/// limits of this system. Then it starts a worker on each device and embeds a text. Every problem
/// comes with a remedy. The exit code is 1 if something needed is broken.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay doctor
  forebay doctor --model models/all-MiniLM-L6-v2 --config forebay.toml
  forebay doctor --bundle forebay.tar.gz")]
pub(crate) struct DoctorArgs {
    /// Look at this bundle instead: that every file is as it was, that its program runs here, and that
    /// library and model load. Its program is started, so give one whose origin you trust
    #[arg(long, value_name = "PATH")]
    bundle: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Something needed is broken; what, has been printed.
pub(crate) async fn run(args: DoctorArgs, settings: &Settings) -> Result<(), Failure> {
    if let Some(path) = args.bundle {
        return doctor_bundle::run(&path).await;
    }
    let mut report = Report::default();
    report.section("program");
    report.ok("version", format_args!("forebay {}", env!("CARGO_PKG_VERSION")));
    match &settings.config {
        Some(path) => report.ok("configuration", path.display()),
        None => report.ok("configuration", "defaults and environment; no file given"),
    }
    let config = match settings.config() {
        Ok(_) => settings.runtime_config(),
        Err(failure) => Err(failure),
    };
    match config {
        Ok(config) => look(&mut report, config).await,
        Err(failure) => {
            let what = if failure.exit == Exit::Config { "settings" } else { "model" };
            report.broken(what, &failure.message, failure.help.as_deref());
            devices::cpu(&mut report);
            machine::limits(&mut report, None);
        }
    }
    say!("{report}")?;
    if report.broken_count() > 0 { Err(Failure::silent(Exit::Failed)) } else { Ok(()) }
}

async fn look(report: &mut Report, config: Config) {
    let worker = worker_program(&config).map_err(Failure::from);
    match &worker {
        Ok(path) => report.ok("worker program", path.display()),
        Err(failure) => {
            report.broken("worker program", &failure.message, failure.help.as_deref());
        }
    }
    let found = devices::look(&config).await;
    let wants_gpu = devices::wants_gpu(&config, &found);
    let beside = worker.as_deref().unwrap_or(Path::new("."));
    let library = onnxruntime_library(&config, beside).map_err(Failure::from);
    let library_lacks = library.is_err() && devices::wants_cpu(&config, &found);
    match &library {
        Ok(path) => report.ok("ONNX Runtime", path.display()),
        Err(failure) if library_lacks => {
            report.broken("ONNX Runtime", &failure.message, failure.help.as_deref());
        }
        Err(_) => report.note("ONNX Runtime", "none; no CPU rung is configured", None),
    }
    let folder = model(report, &config);
    devices::cpu(report);
    devices::cuda(report, &config, &found);
    if wants_gpu {
        devices::monitor(report, &config).await;
    }
    let arena_bytes = folder.as_ref().and_then(|folder| arena_bytes(&config, wants_gpu, folder));
    machine::limits(report, arena_bytes);
    report.section("self-test");
    if worker.is_err() || library_lacks || folder.is_none() {
        report.note("worker", "not tried: see above", None);
        return;
    }
    if let Err(failure) = self_test(report, config).await {
        report.broken("worker", &failure.message, failure.help.as_deref());
    }
}

fn model(report: &mut Report, config: &Config) -> Option<ModelFolder> {
    report.section("model");
    let path = &config.model.path;
    report.ok("folder", path.display());
    let opened = if config.model.verify_manifest {
        ModelFolder::open(path)
    } else {
        ModelFolder::open_unverified(path)
    };
    let folder = match opened {
        Ok(folder) => folder,
        Err(error) => {
            let failure = Failure::from(error);
            report.broken("files", &failure.message, failure.help.as_deref());
            return None;
        }
    };
    let pooling = folder.pooling();
    let normalize = if pooling.normalize { ", scaled to length 1" } else { "" };
    report.ok(
        "shape",
        format_args!("{} dimensions, at most {} tokens", folder.width(), folder.tokens_max()),
    );
    report.ok("pooling", format_args!("{:?}{normalize}", pooling.mode));
    let weights = match folder.graph() {
        GraphSource::Safetensors { .. } => "safetensors",
        GraphSource::Onnx { .. } => "an exported ONNX graph",
    };
    report.ok("weights", weights);
    let has_manifest = path.join(Manifest::FILE_NAME).is_file();
    match (has_manifest, config.model.verify_manifest) {
        (true, true) => report.ok("manifest", "sha256 of every file verified"),
        (true, false) => report.note("manifest", "not verified (model.verify_manifest)", None),
        (false, _) => report.note("manifest", "none; damage would not be noticed", None),
    }
    Some(folder)
}

/// Memory that a worker of the best tier shares with this process.
fn arena_bytes(config: &Config, gpu: bool, folder: &ModelFolder) -> Option<usize> {
    let (tokens_max, rows_max) = match gpu {
        true => (config.cuda.tokens_max, config.cuda.rows_max),
        false => (config.batch.tokens_max, config.batch.rows_max),
    };
    let spec = ArenaSpec {
        slots: config.worker.slots,
        tokens_max: tokens_max.max(u32::try_from(folder.tokens_max()).ok()?),
        rows_max,
        row_values: ArenaSpec::row_values_of(u32::try_from(folder.width()).ok()?),
    };
    ArenaLayout::of(spec).ok().map(|layout| layout.bytes())
}

async fn self_test(report: &mut Report, config: Config) -> Result<(), Failure> {
    let tolerance = config.reply.norm_tolerance;
    let service = Service::start_all(config).await?;
    let status = service.runtime().status();
    rungs(report, &status);
    let seconds = service.start_time().as_secs_f64();
    report.ok("level", format_args!("{}, ready after {seconds:.2} s", status.level));
    let options = EmbedOptions { normalize: Some(true), ..EmbedOptions::default() };
    let embedded = service.runtime().embed(SELF_TEST, &options).await;
    let drained = service.end().await.drained;
    let embedding = embedded?;
    let squares: f64 = embedding.vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    let (count, tokens) = (embedding.vector.len(), embedding.tokens);
    let shown = format!("{tokens} tokens to {count} values of length {:.6}", squares.sqrt());
    if (squares.sqrt() - 1.0).abs() <= tolerance {
        report.ok("embedding", shown);
    } else {
        let help = "the model or the library is damaged: fetch both again";
        report.broken("embedding", format_args!("{shown}, expected 1"), Some(help));
    }
    if drained {
        report.ok("end", "the worker ended in order");
    } else {
        report.note("end", "the worker did not end in time", None);
    }
    Ok(())
}

/// Each rung with what its engine says of itself, or why it does not serve.
fn rungs(report: &mut Report, status: &Status) {
    for worker in &status.workers {
        let device = &worker.device;
        if worker.state != WorkerState::Serving {
            let reason = worker.last_end.as_deref().unwrap_or("it has not become ready");
            report.broken("rung", format_args!("{device} does not serve: {reason}"), None);
            continue;
        }
        let mut found = format!("{device} serves: {}, {}", worker.engine, worker.precision);
        for (name, value) in &worker.details {
            found += &format!("\n{name}: {value}");
        }
        report.ok("rung", found);
    }
}
