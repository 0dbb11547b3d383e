//! `forebay bench engine`: the engine by itself, in this process, without workers: what a pipeline
//! around it can reach at best.

use std::path::PathBuf;

use clap::Args;
use forebay::Config;
use forebay::config::{CudaPrecision, Device, Precision};
use forebay_cuda::{CudaEngine, EngineOptions, split};
use forebay_model::ModelFolder;

use super::engine_cases::{Case, Packed, Shape, mix, random};
use super::engine_csv::{CsvFile, Row};
use super::engine_runs::{Cpu, Effort, Engine, Gpu, measure};
use crate::commands::cuda;
use crate::failure::{Exit, Failure};
use crate::log;
use crate::out::say;
use crate::settings::Settings;

/// Shapes that are measured if nothing else is asked for.
const SHAPES: [Shape; 4] = [
    Shape { rows: 1, tokens: 32 },
    Shape { rows: 8, tokens: 128 },
    Shape { rows: 32, tokens: 128 },
    Shape { rows: 256, tokens: 128 },
];

/// The engine alone: token ids in, embeddings out, no tokenizer and no worker process
///
/// Two times of a batch. Device: what encoder and pooling take on the device with the input in
/// place, from runs back to back between two of its time marks; on the CPU it is the same as the
/// other. Host: what a caller waits from token ids in host memory to embeddings in host memory,
/// with nothing else under way. Texts and tokens per second are by device time.
///
/// Shapes are batches of random ids, the same at every run. The mix is the lines of a file in their
/// order, tokenized before anything is measured, with as many a batch as --mix-batch says; its row
/// has the means over its batches, and the slowest p99. A warm-up precedes each case and is not
/// counted.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay bench engine --device cuda:0 --precision f16,bf16
  forebay bench engine --device cuda:0 --shapes 1x32,256x128 --mix lines.txt --csv engine.csv
  forebay bench engine --device cpu --precision f32,int8 --shapes 1x32,8x128")]
pub(crate) struct EngineArgs {
    /// Batches of equal rows, such as 32x128 for 32 rows of 128 tokens each
    /// [default: 1x32,8x128,32x128,256x128, or none with --mix]
    #[arg(long, value_name = "ROWSxTOKENS,...", value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// File with one text per line, measured in batches of real lengths
    #[arg(long, value_name = "FILE")]
    mix: Option<PathBuf>,
    /// Texts in a batch of the mix
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "mix",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    mix_batch: u32,
    /// Runs of a waiting caller for each batch
    /// [default: 200, or what 3 seconds hold, but at least 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    iterations: Option<u32>,
    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Whatever is missing, or a batch that fails.
pub(crate) fn run(args: &EngineArgs, settings: &Settings) -> Result<(), Failure> {
    let config = settings.runtime_config()?;
    log::start(&config.log);
    let precisions = Precisions::of(cuda::one_device(&config)?, settings, &config)?;
    let csv = args.csv.as_deref().map(CsvFile::create).transpose()?;
    let folder = match config.model.verify_manifest {
        true => ModelFolder::open(&config.model.path)?,
        false => ModelFolder::open_unverified(&config.model.path)?,
    };
    let cases = cases(args, &config, &folder)?;
    let rows = match precisions {
        Precisions::Cpu(precisions) => cpu(args, &config, &folder, &cases, &precisions)?,
        Precisions::Gpu(index, precisions) => {
            gpu(args, &config, &folder, &cases, (index, &precisions))?
        }
    };
    match csv {
        Some(file) => file.write(&rows),
        None => Ok(()),
    }
}

/// The device and the arithmetic on it.
#[derive(Debug)]
enum Precisions {
    Cpu(Vec<Precision>),
    Gpu(u32, Vec<CudaPrecision>),
}

impl Precisions {
    /// What is asked for, or else what the configuration has.
    fn of(device: Device, settings: &Settings, config: &Config) -> Result<Self, Failure> {
        let (cpu, gpu) = settings.precisions();
        let wrong = |message: &str, help: &str| {
            Err(Failure::new(Exit::Usage, format!("{message} {device}")).help(help))
        };
        match device {
            Device::Cpu if !gpu.is_empty() => {
                wrong("f16 and bf16 are not arithmetic of", "use f32 or int8, or --device cuda:0")
            }
            Device::Cuda(_) if !cpu.is_empty() => {
                wrong("f32 and int8 are not arithmetic of", "use f16 or bf16, or --device cpu")
            }
            Device::Cpu if cpu.is_empty() => Ok(Self::Cpu(vec![config.model.precision])),
            Device::Cpu => Ok(Self::Cpu(cpu)),
            Device::Cuda(index) if gpu.is_empty() => {
                Ok(Self::Gpu(index, vec![config.cuda.precision]))
            }
            Device::Cuda(index) => Ok(Self::Gpu(index, gpu)),
        }
    }
}

fn cases(args: &EngineArgs, config: &Config, folder: &ModelFolder) -> Result<Vec<Case>, Failure> {
    let shapes = match (args.shapes.as_slice(), &args.mix) {
        ([], None) => &SHAPES[..],
        (shapes, _) => shapes,
    };
    let mut cases: Vec<Case> =
        shapes.iter().map(|shape| random(folder, *shape)).collect::<Result<_, _>>()?;
    if let Some(path) = &args.mix {
        cases.push(mix(folder, config, path, args.mix_batch as usize)?);
    }
    Ok(cases)
}

fn cpu(
    args: &EngineArgs,
    config: &Config,
    folder: &ModelFolder,
    cases: &[Case],
    precisions: &[Precision],
) -> Result<Vec<Row>, Failure> {
    say!("device    cpu\nmodel     {}\n\n{}\n", folder.name(), Row::header())?;
    let mut rows = Vec::new();
    for precision in precisions {
        let mut engine = Cpu::open(folder, config, *precision)?;
        rows.extend(all(&mut engine, cases, args, folder.name(), &precision.to_string())?);
    }
    Ok(rows)
}

fn gpu(
    args: &EngineArgs,
    config: &Config,
    folder: &ModelFolder,
    cases: &[Case],
    (index, precisions): (u32, &[CudaPrecision]),
) -> Result<Vec<Row>, Failure> {
    let machine = cuda::open(config, index)?;
    let options = EngineOptions {
        tokens_max: config.cuda.tokens_max,
        rows_max: config.cuda.rows_max,
        ..machine.options.clone()
    };
    let slots = slots(cases, &options)?;
    say!("{machine}model     {}\n", folder.name())?;
    let mut rows = Vec::new();
    for precision in precisions {
        let options =
            EngineOptions { precision: cuda::choice(*precision), slots, ..options.clone() };
        let engine = CudaEngine::open(folder, &options)?;
        let (dtype, reason) = engine.precision();
        let (kernels, products) = engine.origins();
        say!(
            "\n{dtype} ({reason}); kernels: {kernels}; matrix products: {products}\n{}\n",
            Row::header()
        )?;
        let mut gpu = Gpu { engine, rows: Vec::new() };
        rows.extend(all(&mut gpu, cases, args, folder.name(), dtype.name())?);
        say!("memory    {}\n", cuda::memory(&gpu.engine.report()))?;
    }
    Ok(rows)
}

/// Slots with which any batch stays on the device as a whole, as its device time wants it.
fn slots(cases: &[Case], options: &EngineOptions) -> Result<u32, Failure> {
    let mut slots = options.slots;
    for Packed { cu, .. } in cases.iter().flat_map(Case::batches) {
        let parts = split(cu, options.tokens_max, options.rows_max);
        let parts = parts.map_err(|error| Failure::new(Exit::BadInput, error.to_string()))?;
        slots = slots.max(u32::try_from(parts.len()).unwrap_or(u32::MAX));
    }
    Ok(slots)
}

/// Measures every case and shows it.
fn all(
    engine: &mut dyn Engine,
    cases: &[Case],
    args: &EngineArgs,
    model: &str,
    precision: &str,
) -> Result<Vec<Row>, Failure> {
    let effort = Effort::new(args.iterations.map(|count| count as usize));
    let mut rows = Vec::new();
    for case in cases {
        let times = match case {
            Case::Shape { sets, .. } => vec![measure(engine, sets, effort)?],
            Case::Mix { batches, .. } => {
                let each = batches.iter().map(std::slice::from_ref);
                each.map(|batch| measure(engine, batch, effort)).collect::<Result<_, _>>()?
            }
        };
        let row = Row::of(case, &times, model, precision)
            .ok_or_else(|| Failure::new(Exit::Failed, "a case has no batches"))?;
        say!("{row}\n")?;
        rows.push(row);
    }
    Ok(rows)
}
