//! `forebay selftest`: every kernel of the CUDA engine against a reference on this very device, then
//! a whole model. This process opens the device itself: it serves nobody.

use clap::Args;
use forebay::Config;
use forebay::config::{CudaPrecision, Device};
use forebay_cuda::selftest::{
    KnownAnswer, SelftestOptions, SelftestReport, Shape, run_engine, run_kernels,
};
use forebay_cuda::{CudaEngine, CudaError, Dtype, EngineError, EngineOptions, MemoryReport};
use forebay_model::{EncoderWeights, ModelFolder};
use serde::Serialize;

use super::cuda::{self, Machine};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::out::say;
use crate::settings::Settings;

/// Test the CUDA engine on this device
///
/// First every kernel on shapes and values that are chosen to break it, against a reference in
/// double precision on the CPU. Then, if a model is given (--model or model.path; no default folder
/// is looked for), texts through the whole engine against the same model computed on the CPU; the
/// same text must give the same row in any batch, and thousands of random batches must leave the
/// device's memory as it was. All of it in f16 and in bf16 unless --precision names one.
///
/// The table has, for each kernel, how many cases ran, the error that came closest to what is
/// allowed, and what is allowed.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay selftest --device cuda:0
  forebay selftest --device cuda:0 --model .forebay/models/all-MiniLM-L6-v2 --precision f16
  forebay selftest --quick --json

Exit codes: 0 everything passed, 1 something failed, 69 there is no such device or no driver")]
pub(crate) struct SelftestArgs {
    /// Few cases and batches, in about a second once kernels are compiled
    #[arg(long)]
    quick: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    passed: bool,
    machine: Machine,
    kernels: SelftestReport,
    models: Vec<Loaded>,
}

/// A model as the engine loaded it, for each precision.
#[derive(Serialize)]
struct Loaded {
    model: String,
    precision: Dtype,
    precision_reason: String,
    kernels: String,
    products: String,
    memory: MemoryReport,
    tests: SelftestReport,
}

/// Runs the command.
///
/// # Errors
/// Something failed its test, or cannot be tested.
pub(crate) fn run(args: &SelftestArgs, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config()?;
    log::start(&config.log);
    let Device::Cuda(index) = cuda::one_device(&config)? else {
        let message = "selftest tests the kernels of a GPU, and cpu has none of them";
        return Err(Failure::new(Exit::Usage, message)
            .help("use --device cuda:0; `forebay doctor --device cpu` tests the CPU engine"));
    };
    let dtypes = dtypes(settings)?;
    let folder = folder(&config)?;
    let machine = cuda::open(&config, index)?;
    if !args.json {
        say!("{machine}")?;
    }
    let kernels = test_kernels(&machine.options, &dtypes, folder.as_ref(), args.quick)?;
    if !args.json {
        say!("kernels   {}\n\n{kernels}\n", kernels.origins.join(", "))?;
    }
    let mut models = Vec::new();
    if let Some(folder) = &folder {
        for loaded in test_model(&machine.options, &dtypes, folder, args.quick)? {
            if !args.json {
                say!("{loaded}")?;
            }
            models.push(loaded);
        }
    }
    let passed = kernels.passed() && models.iter().all(|loaded| loaded.tests.passed());
    if args.json {
        let report = Report { passed, machine, kernels, models };
        say!("{}\n", serde_json::to_string(&report).unwrap_or_default())?;
    }
    if passed {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, "the self-test failed: the device must not serve").help(
        "set cuda.kernels to \"ptx\" or to \"nvrtc\" and test again: it tells kernels from compilers",
    ))
}

/// The types to test: those asked for, or both.
fn dtypes(settings: &Settings) -> Result<Vec<Dtype>, Failure> {
    let (cpu, gpu) = settings.precisions();
    if let Some(precision) = cpu.first() {
        let message = format!("precision {precision} is one of the CPU");
        return Err(Failure::new(Exit::Usage, message).help("give f16, bf16 or both: f16,bf16"));
    }
    let types = gpu.into_iter().filter_map(|precision| match precision {
        CudaPrecision::Auto => None,
        CudaPrecision::F16 => Some(Dtype::F16),
        CudaPrecision::Bf16 => Some(Dtype::BF16),
    });
    let types: Vec<Dtype> = types.collect();
    Ok(if types.is_empty() { vec![Dtype::F16, Dtype::BF16] } else { types })
}

/// The model that is configured, if one is.
fn folder(config: &Config) -> Result<Option<ModelFolder>, Failure> {
    let path = &config.model.path;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let opened = match config.model.verify_manifest {
        true => ModelFolder::open(path)?,
        false => ModelFolder::open_unverified(path)?,
    };
    Ok(Some(opened))
}

/// The kernels on all shapes, and on the model's own if that is another; a quick test of a model
/// has its shape only.
fn test_kernels(
    options: &EngineOptions,
    dtypes: &[Dtype],
    folder: Option<&ModelFolder>,
    quick: bool,
) -> Result<SelftestReport, Failure> {
    let own = folder.map(|folder| Shape::of(folder.encoder(), folder.pooling()));
    let shapes = match own {
        Some(own) if quick => vec![Some(own)],
        Some(own) if !Shape::all().contains(&own) => vec![None, Some(own)],
        _ => vec![None],
    };
    let mut report = SelftestReport::default();
    for shape in shapes {
        let SelftestReport { items, origins } = run_kernels(&SelftestOptions {
            ordinal: options.ordinal,
            dtypes: dtypes.to_vec(),
            shape,
            libraries: options.libraries.clone(),
            cache_dir: options.cache_dir.clone(),
            source: options.kernels,
            quick,
        })?;
        report.items.extend(items);
        report.origins.extend(origins);
    }
    report.origins.dedup();
    Ok(report)
}

/// The whole engine with the model, for each type.
fn test_model(
    options: &EngineOptions,
    dtypes: &[Dtype],
    folder: &ModelFolder,
    quick: bool,
) -> Result<Vec<Loaded>, Failure> {
    let weights = folder.weights()?;
    let encoder = EncoderWeights::from(&weights, folder.encoder())?;
    let (config, pooling) = (folder.encoder(), folder.pooling());
    let known = KnownAnswer::compute(config, &encoder, pooling, folder.tokens_max(), quick)?;
    let mut models = Vec::new();
    for &dtype in dtypes {
        let options = EngineOptions { precision: cuda::fixed(dtype), ..options.clone() };
        let mut engine = CudaEngine::open(folder, &options)?;
        let known_item = check(&known, dtype, &mut engine)?;
        let mut tests = run_engine(&mut engine, quick)?;
        tests.items.insert(0, known_item);
        let (precision, reason) = engine.precision();
        let (kernels, products) = engine.origins();
        models.push(Loaded {
            model: folder.name().to_owned(),
            precision,
            precision_reason: reason.to_owned(),
            kernels: kernels.to_owned(),
            products: products.to_owned(),
            memory: engine.report(),
            tests,
        });
    }
    Ok(models)
}

/// The known answers through the engine; what it says beyond a CUDA error is kept aside, as the
/// test knows only those.
fn check(
    known: &KnownAnswer,
    dtype: Dtype,
    engine: &mut CudaEngine,
) -> Result<forebay_cuda::selftest::Item, Failure> {
    let mut said: Option<EngineError> = None;
    let result = known.check(dtype, &mut |ids, cu| {
        engine.encode(ids, cu).map_err(|error| match error {
            EngineError::Cuda(error) => error,
            other => {
                let error = CudaError::usage("known answer", other.to_string());
                said = Some(other);
                error
            }
        })
    });
    match (result, said) {
        (Ok(item), _) => Ok(item),
        (Err(_), Some(error)) => Err(error.into()),
        (Err(error), None) => Err(error.into()),
    }
}

impl std::fmt::Display for Loaded {
    /// What was loaded, and the table of its test.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { model, precision, precision_reason, kernels, products, .. } = self;
        writeln!(f, "\n{model} in {precision} ({precision_reason})")?;
        writeln!(f, "kernels   {kernels}; matrix products: {products}")?;
        writeln!(f, "memory    {}\n", cuda::memory(&self.memory))?;
        writeln!(f, "{}", self.tests)
    }
}
