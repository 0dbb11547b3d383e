//! From the options that every command takes to a configuration: defaults, file, environment, then
//! the options themselves. Nothing is started here.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::Args;
use forebay::Config;
use forebay::config::{CudaPrecision, Fallback, LogFormat, LogLevel, Precision, Rungs};

use crate::failure::{Exit, Failure};

/// Where `cargo xtask setup` puts the model, below the project's folder.
const DEFAULT_MODEL: &str = ".forebay/models/all-MiniLM-L6-v2";

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Settings {
    /// Configuration file; `forebay config show` prints one with every key explained
    #[arg(long, global = true, value_name = "FILE", env = "FOREBAY_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Model folder as published (config.json, tokenizer.json, model.safetensors)
    /// [default: .forebay/models/all-MiniLM-L6-v2 here or in a folder above]
    #[arg(long, global = true, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Devices to serve on, best first: auto (every GPU, and the CPU), cpu, or a list such as
    /// cuda:0,cuda:1; what a list does not name is not used, so add cpu for a fallback
    #[arg(long, global = true, value_name = "LIST")]
    device: Option<Rungs>,
    /// Arithmetic: on the CPU f32, or int8 (faster, a little less accurate); on a GPU f16 or bf16.
    /// May be given for both: f16,int8
    #[arg(long, global = true, value_name = "f32|int8|f16|bf16", value_delimiter = ',')]
    precision: Vec<Arithmetic>,
    /// ONNX Runtime's shared library, or the folder that holds it
    #[arg(long, global = true, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
    /// Keep this file up to date with all metrics in Prometheus text format
    #[arg(long, global = true, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// Least severe event in the log: off, error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Form of the log on standard error: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Arithmetic of one kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Cpu(Precision),
    Gpu(CudaPrecision),
}

impl std::fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu(precision) => precision.fmt(f),
            Self::Gpu(precision) => precision.fmt(f),
        }
    }
}

impl std::str::FromStr for Arithmetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let gpu = text.parse().ok().filter(|precision| *precision != CudaPrecision::Auto);
        let cpu = text.parse().ok().map(Self::Cpu);
        cpu.or(gpu.map(Self::Gpu))
            .ok_or_else(|| format!("`{text}` is not one of f32, int8 (CPU), f16, bf16 (GPU)"))
    }
}

impl Settings {
    /// The configuration in effect; its model path may be empty.
    ///
    /// # Errors
    /// Every problem of the file, the environment and the options.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::from_env()?,
        };
        let Self { model, device, onnxruntime, metrics_file, .. } = self.clone();
        config.model.path = model.unwrap_or(config.model.path);
        for arithmetic in &self.precision {
            match *arithmetic {
                Arithmetic::Cpu(precision) => config.model.precision = precision,
                Arithmetic::Gpu(precision) => config.cuda.precision = precision,
            }
        }
        if let Some(rungs) = device {
            // Who names devices wants these: figures of another would mislead.
            if matches!(rungs, Rungs::Listed(_)) {
                config.devices.fallback = Fallback::None;
            }
            config.devices.rungs = rungs;
        }
        config.cpu.onnxruntime = onnxruntime.or(config.cpu.onnxruntime);
        config.metrics.prometheus_file = metrics_file.or(config.metrics.prometheus_file);
        config.log.level = self.log_level.unwrap_or(config.log.level);
        config.log.format = self.log_format.unwrap_or(config.log.format);
        config.validate()?;
        Ok(config)
    }

    /// The devices that were named on the command line; `None` for all there are.
    pub(crate) fn device_names(&self) -> Option<Vec<String>> {
        match &self.device {
            Some(Rungs::Listed(devices)) => Some(devices.iter().map(ToString::to_string).collect()),
            Some(Rungs::Auto) | None => None,
        }
    }

    /// The arithmetic that was asked for on the command line, on the CPU and on a GPU, in order.
    pub(crate) fn precisions(&self) -> (Vec<Precision>, Vec<CudaPrecision>) {
        let (mut cpu, mut gpu) = (Vec::new(), Vec::new());
        for arithmetic in &self.precision {
            match *arithmetic {
                Arithmetic::Cpu(precision) => cpu.push(precision),
                Arithmetic::Gpu(precision) => gpu.push(precision),
            }
        }
        (cpu, gpu)
    }

    /// These options as they were given, as words of a line that repeats a command.
    pub(crate) fn replay(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let precision =
            self.precision.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let devices = self.device_names().map_or("auto".to_owned(), |names| names.join(","));
        let given = [
            ("--config", path(&self.config)),
            ("--model", path(&self.model)),
            ("--device", self.device.as_ref().map(|_| devices)),
            ("--precision", Some(precision).filter(|list| !list.is_empty())),
            ("--onnxruntime", path(&self.onnxruntime)),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
        given.flatten().collect()
    }

    /// The configuration in effect, with a model and the program that serves as worker.
    ///
    /// # Errors
    /// As for [`Settings::config`], and if no model is named and none is at the usual place.
    pub(crate) fn runtime_config(&self) -> Result<Config, Failure> {
        let mut config = self.config()?;
        if config.model.path.as_os_str().is_empty() {
            config.model.path = default_model()?;
        }
        // This program is its own worker unless another is named.
        if config.worker.program.is_none() && std::env::var_os("FOREBAY_WORKER").is_none() {
            config.worker.program = this_program();
        }
        Ok(config)
    }
}

/// Where this program was started from. Looked up once: when a new version takes its place the system
/// calls the one that runs deleted.
fn this_program() -> Option<PathBuf> {
    static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::current_exe().ok());
    PROGRAM.clone()
}

/// The model folder at its usual place, here or in a folder above.
fn default_model() -> Result<PathBuf, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::reading("the current folder's name", &error))?;
    let found = here.ancestors().map(|place| place.join(DEFAULT_MODEL)).find(|path| path.is_dir());
    found.ok_or_else(|| {
        let message = format!(
            "no model: none is given, and there is no {DEFAULT_MODEL} in {} or above it",
            here.display()
        );
        Failure::new(Exit::NoInput, message)
            .help("give the model folder with --model DIR, or fetch one with `cargo xtask setup`")
    })
}
