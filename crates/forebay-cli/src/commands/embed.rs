//! `forebay embed`: a file of texts in, a file of embeddings out, of any size.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use forebay::{Config, EmbedOptions, Priority, Runtime, Status};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Exit, Failure};
use crate::input::{ChunkLimits, Format, Input, TextReader, path_or_dash};
use crate::interrupt::Interrupt;
use crate::out::{self, note};
use crate::output::{Output, Target, partial_path};
use crate::pump::{Pump, Totals};
use crate::service::{Service, restarts};
use crate::settings::Settings;

/// Bytes of text in a chunk; keeps the window small also where every text is large.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Turn each line of a file into an embedding
///
/// Every line is one text, an empty line too (the empty text), and row N of the output belongs to
/// line N of the input. The input is streamed: memory does not grow with it.
///
/// The output's name says its form: `.npy` is a NumPy array of float32 [rows, dimensions]; `.jsonl`
/// and `-` (standard output) have one object per line:
/// {"index":0,"embedding":[0.01,...],"tokens":12,"truncated":false}. A file is written as
/// NAME.partial and gets its name when it is complete, so a file that is there is whole.
///
/// A line that is not UTF-8, too long or (jsonl) not an object with a field `text` ends the command
/// with an error that names the line. Texts beyond the model's limit are cut and counted; set
/// tokenize.truncate to false to refuse them instead. The exit code is 0 only if every row was
/// written. Ctrl-C ends in order and leaves no file; a second Ctrl-C ends at once.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay embed --input lines.txt --output lines.npy
  forebay embed --input log.jsonl --format jsonl --output log-vectors.jsonl
  journalctl -o cat | forebay embed --input - --output - | head -n 1
  forebay embed --precision int8 --input lines.txt --output lines.npy")]
pub(crate) struct EmbedArgs {
    /// File of texts, or - for standard input
    #[arg(long, short, value_name = "FILE|-", value_parser = path_or_dash)]
    input: PathBuf,
    /// What a line is: the text itself, or a JSON object with a field `text`
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// FILE.npy, FILE.jsonl, or - for JSON lines on standard output
    #[arg(long, short, value_name = "FILE|-")]
    output: Target,
    /// Keep only the first N values of each embedding (for Matryoshka models)
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Leave embeddings as long as the model makes them, even if it asks for length 1
    #[arg(long)]
    no_normalize: bool,
    /// Class in which the texts queue: control, interactive or bulk
    #[arg(long, default_value = "bulk", value_parser = priority)]
    priority: Priority,
}

fn priority(text: &str) -> Result<Priority, String> {
    let found = Priority::ALL.into_iter().find(|priority| priority.as_str() == text);
    found.ok_or_else(|| "it is one of control, interactive, bulk".to_owned())
}

/// Runs the command.
///
/// # Errors
/// Whatever kept it from writing every row.
pub(crate) async fn run(
    args: EmbedArgs,
    settings: &Settings,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let input = Input::open(&args.input)?;
    refuse_same_file(&input, &args.output)?;
    let config = settings.runtime_config()?;
    let output = Output::create(args.output.clone())?;
    let limits = chunk_limits(&config, args.priority);
    let service = tokio::select! {
        service = Service::start(config) => service?,
        exit = interrupt.raised() => return Err(interrupted(exit, &args.output)),
    };
    let begun = begin(&args, &service, input, output, limits);
    let (mut pump, shown, options) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            service.end().await;
            return Err(failure);
        }
    };
    let start = Instant::now();
    let outcome = tokio::select! {
        outcome = pump.run(service.runtime(), &options) => outcome,
        exit = interrupt.raised() => Err(interrupted(exit, &args.output)),
    };
    let elapsed = start.elapsed();
    drop(shown);
    pump.abandon().await;
    let status = service.runtime().status();
    let report = service.end().await;
    let totals = outcome?;
    if !report.drained {
        note!("warning: the workers did not end within shutdown.drain_ms");
    }
    summary(totals, elapsed, &status, &args.output);
    Ok(())
}

/// Starts the pump and shows its progress.
fn begin(
    args: &EmbedArgs,
    service: &Service,
    input: Input,
    output: Output,
    mut limits: ChunkLimits,
) -> Result<(Pump, out::ShownBar, EmbedOptions), Failure> {
    let width = width(args, service.runtime())?;
    limits.texts_max = service.runtime().chunk_texts_max(args.priority);
    let options = EmbedOptions {
        priority: args.priority,
        normalize: args.no_normalize.then_some(false),
        dimensions: args.dimensions,
        ..EmbedOptions::default()
    };
    let shown = out::show(progress_bar(input.bytes));
    let reader = TextReader::new(input, args.format, limits);
    let pump = Pump::start(reader, output.begin(width)?, shown.bar().clone())?;
    Ok((pump, shown, options))
}

fn refuse_same_file(input: &Input, output: &Target) -> Result<(), Failure> {
    let Some(path) = output.path() else { return Ok(()) };
    if input.is(path) || input.is(&partial_path(path)) {
        let message = format!("{} is the input, which would be overwritten", path.display());
        return Err(Failure::new(Exit::Usage, message).help("give the output another name"));
    }
    Ok(())
}

fn chunk_limits(config: &Config, priority: Priority) -> ChunkLimits {
    let queued_max = config.admission.limits(priority).text_bytes_queued_max as usize;
    ChunkLimits {
        texts_max: 1,
        text_bytes_max: config.tokenize.text_bytes_max as usize,
        chunk_bytes_max: CHUNK_BYTES_MAX.min(queued_max),
    }
}

/// Values in a row. The library checks the option too, but an input may have no line.
fn width(args: &EmbedArgs, runtime: &Runtime) -> Result<usize, Failure> {
    let width = runtime.model().width;
    match args.dimensions {
        None => Ok(width),
        Some(dimensions) if (1..=width).contains(&dimensions) => Ok(dimensions),
        Some(dimensions) => {
            let message = format!("--dimensions is {dimensions}, this model has {width}");
            Err(Failure::new(Exit::Usage, message).help(format!("give a number from 1 to {width}")))
        }
    }
}

fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    if !out::is_terminal() {
        return ProgressBar::hidden();
    }
    // Without a size there is no share and no end in sight.
    let (bar, template) = match bytes {
        Some(bytes) => {
            let template = "{bar:30} {percent:>3} %  {msg}  {elapsed} of about {duration}";
            (ProgressBar::new(bytes), template)
        }
        None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn interrupted(exit: Exit, output: &Target) -> Failure {
    let message = match output.path() {
        Some(path) => format!("interrupted; {} was not written", path.display()),
        None => "interrupted".to_owned(),
    };
    Failure::new(exit, message)
}

fn summary(totals: Totals, elapsed: Duration, status: &Status, output: &Target) {
    let Totals { rows, tokens, truncated } = totals;
    let seconds = elapsed.as_secs_f64();
    let per_second = |count: u64| count as f64 / seconds.max(1e-9);
    let name = output.name();
    if rows == 0 {
        note!("0 rows to {name}: the input is empty");
        return;
    }
    note!(
        "{rows} rows to {name}: {truncated} truncated, {seconds:.2} s, {:.0} texts/s, \
         {:.0} tokens/s, level {}, {} worker restarts",
        per_second(rows),
        per_second(tokens),
        status.level,
        restarts(status),
    );
}
