//! `forebay drill`: faults under load, and whether anybody but the operator noticed.
//!
//! [`answers`] computes what may come out, [`schedule`] says what is injected, [`load`] submits and
//! records, [`watch`] reads in the event log when the level went and came back, [`tally`] counts, [`report`] shows.

mod answers;
mod event;
mod load;
mod report;
mod schedule;
mod tally;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use forebay::config::{Config, Device};
use forebay::{Fault, Level, Runtime};

use super::timing;
use crate::failure::{Exit, Failure};
use crate::input::read_texts;
use crate::out::{note, say};
use crate::service::{Service, working};
use crate::settings::Settings;
use answers::Answers;
use event::Event;
use load::{Plan, Running};
use report::{Done, Frame, Report};
pub(crate) use schedule::duration;
use schedule::{On, Step};
use tally::Tally;
use watch::Watch;

/// Time between two looks at the event log, whose events say when they happened.
const LOOK: Duration = Duration::from_millis(10);
/// Newest events of a look: far more than happen between two.
const EVENTS_LOOK: usize = 1024;
/// Texts that measure the bulk rate at least; the lines are repeated to reach it.
const BULK_TEXTS_MIN: usize = 4000;
/// Highest rate that the clients keep up with.
const RATE_MAX: f64 = 1e6;

/// Inject faults under load, and check every reply
///
/// Clients submit lines of the file at random moments, whether or not earlier ones are done, while
/// workers are killed, stopped, slowed down or made to compute wrongly. Every vector is compared bit
/// by bit with what each rung gives for its text when it serves alone. The latency of a reply counts
/// from when its text was due.
///
/// The command turns faults on for itself. It ends with 1 if an accepted text had no reply, or two,
/// or a wrong vector (a typed error is a reply); if a fault could not be injected, or was not over in
/// time; if the level did not come back; or if no text was embedded.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Faults: kill, stop, trap, illegal_address, endless_kernel, device_out_of_memory, slow=FACTOR,
flip_output_bit, flip_weight_bit, fail_starts=N, monitor_hang, monitor_lies, log_disk_full

Examples:
  forebay drill --input lines.txt --fault kill --fault stop --on all
  forebay drill --input lines.txt --load 0.6 --fault kill,trap --on alternating --for 5m \\
      --history history.csv --answers answers.csv
  cargo xtask check-history history.csv --answers answers.csv")]
pub(crate) struct DrillArgs {
    /// File with one text per line
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// Faults in the order in which they are injected
    #[arg(long = "fault", value_name = "FAULT", value_delimiter = ',', required = true)]
    faults: Vec<Fault>,
    /// Where: a device, all at once, or alternating (one after the other)
    #[arg(long, value_name = "DEVICE|all|alternating", default_value = "alternating")]
    on: On,
    /// How long faults are injected, over and over [default: each once]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    period: Option<Duration>,
    /// Load as a share of the bulk rate, which is measured first
    #[arg(long, value_name = "SHARE", default_value_t = 0.6, conflicts_with = "rate",
          value_parser = share)]
    load: f64,
    /// Load in texts per second
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Time under load before the first fault, to know the usual latency
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    calm: Duration,
    /// Time from one fault to the next at least; one that does not end by itself ends after it
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pause: Duration,
    /// Longest wait for a fault to show and to be over before the next
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    heal_within: Duration,
    /// Deadline of every text [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,
    /// Threads that submit
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Different texts of the file that are used at most
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    texts: u32,
    /// Start of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write every submission and reply to this file, line by line
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Write the known answers to this file, for the checker
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 2.0)
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, RATE_MAX)
}

fn number(text: &str, max: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= max);
    number.ok_or_else(|| format!("a number above 0 and at most {max} is expected"))
}

/// Runs the command.
///
/// # Errors
/// Whatever is missing; a text lost, answered twice or answered wrongly.
pub(crate) async fn run(args: DrillArgs, settings: &Settings) -> Result<(), Failure> {
    let mut config = settings.runtime_config()?;
    config.faults.enabled = true;
    let mut texts = read_texts(&args.input, config.tokenize.text_bytes_max as usize)?;
    texts.truncate(args.texts as usize);
    let service = Service::start_all(config.clone()).await?;
    let drilled = drill(&service, &config, &args, texts.into()).await;
    service.end().await;
    let report = drilled?;
    if args.json {
        let text = serde_json::to_string(&report).unwrap_or_default();
        say!("{text}\n")?;
    } else {
        say!("{}", report.table())?;
    }
    match report.objection() {
        Some(objection) => Err(Failure::new(Exit::Failed, objection)),
        None => Ok(()),
    }
}

async fn drill(
    service: &Service,
    config: &Config,
    args: &DrillArgs,
    texts: Arc<[String]>,
) -> Result<Report, Failure> {
    let runtime = service.runtime();
    let status = runtime.status();
    let parsed = |device: &String| device.parse::<Device>().ok();
    let devices: Vec<Device> =
        status.workers.iter().filter_map(|worker| parsed(&worker.device)).collect();
    let best: Vec<Device> =
        working(&status).into_iter().filter_map(|worker| parsed(&worker.device)).collect();
    if let On::One(device) = args.on
        && !devices.contains(&device)
    {
        return Err(Failure::new(Exit::Usage, format!("there is no rung on {device}"))
            .help("name a device of the runtime, or add it with --device"));
    }
    let answers = Answers::compute(config, &devices, &texts).await?;
    if let Some(path) = &args.answers {
        answers.write(path)?;
    }
    let rate = match args.rate {
        Some(rate) => rate,
        None => {
            let count = BULK_TEXTS_MIN.max(texts.len());
            let many: Vec<String> = texts.iter().cycle().take(count).cloned().collect();
            let bulk = timing::bulk(service, &many).await?;
            note!("bulk rate {:.0} texts/s", bulk.texts_per_s);
            bulk.texts_per_s * args.load
        }
    };
    let plan = Plan {
        runtime: Arc::clone(runtime),
        texts,
        rate,
        clients: args.clients,
        seed: args.seed,
        deadline: args.deadline,
    };
    let level = runtime.level();
    let running = Running::start(plan, Tally::new(answers)?, args.history.as_deref())?;
    tokio::time::sleep(args.calm).await;
    let done = inject_all(runtime, &running, args, level, &best).await;
    let level_at_end = runtime.level().to_string();
    let tallied = running.end(args.heal_within).await?;
    let frame = Frame { level: level.to_string(), level_at_end, rate, seed: args.seed };
    Ok(Report::new(frame, done, &tallied))
}

/// Injects one fault after the other.
async fn inject_all(
    runtime: &Runtime,
    running: &Running,
    args: &DrillArgs,
    best: Level,
    devices: &[Device],
) -> Vec<Done> {
    let round = schedule::round(&args.faults, args.on, devices);
    let rounds = if args.period.is_some() { usize::MAX } else { 1 };
    let until = args.period.and_then(|period| Instant::now().checked_add(period));
    let mut done = Vec::new();
    for step in std::iter::repeat_n(&round, rounds).flatten() {
        if running.is_broken() || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        done.push(inject(runtime, running, args, best, step).await);
    }
    done
}

/// Injects one fault and watches until it is over, for `--heal-within` at most.
async fn inject(
    runtime: &Runtime,
    running: &Running,
    args: &DrillArgs,
    best: Level,
    step: &Step,
) -> Done {
    let (levels, log) = ([runtime.level(), best], runtime.events());
    let workers = runtime.status().workers;
    let last = log.recent(1).pop();
    let mut watch = Watch::new(levels, &step.devices, step.fault.shows(), &workers, last.as_ref());
    let (on, fault) = (step.on(), step.fault);
    running.note(|at_us| Event::Fault { at_us, on, fault }).await;
    let start = Instant::now();
    let mut refused = ask(runtime, step, fault).await;
    if let (None, Some(next)) = (&refused, step.follow_up()) {
        refused = ask(runtime, step, next).await;
    }
    let (mut undo, mut over_since) = (step.fault.undo(), None);
    while refused.is_none() && start.elapsed() < args.heal_within.max(args.pause) {
        tokio::time::sleep(LOOK).await;
        watch.look(&log.recent(EVENTS_LOOK));
        if start.elapsed() < args.pause {
            continue;
        }
        if let Some(back) = undo.take() {
            // A worker that has gone has taken the fault along.
            ask(runtime, step, back).await;
        }
        if watch.is_open() || (step.fault.shows() && watch.seen().healed.is_none()) {
            continue;
        }
        // What is still late belongs to this fault and not to the next.
        if running.caught_up(*over_since.get_or_insert_with(Instant::now)) {
            break;
        }
    }
    Done { step: step.clone(), refused, seen: watch.seen() }
}

/// Asks for a fault on every device of the step; why it is refused, if it is.
async fn ask(runtime: &Runtime, step: &Step, fault: Fault) -> Option<String> {
    if step.devices.is_empty() {
        return runtime.inject(None, fault).await.err().map(|error| error.to_string());
    }
    let mut refused = None;
    for device in &step.devices {
        if let Err(error) = runtime.inject(Some(*device), fault).await {
            refused.get_or_insert(error.to_string());
        }
    }
    refused
}
