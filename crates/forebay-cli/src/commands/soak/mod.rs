//! `forebay soak`: load, faults, known answers, a verdict and its report. The work is done by
//! `forebay-soak`; here its parts are chosen from the command line, and its verdict becomes an exit
//! code.

mod args;
mod check;
mod compare;
mod targets;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::{Config, Level};
use forebay_soak::capacity::{Capacity, Probe, Search};
use forebay_soak::faults::{self, PlannedFault};
use forebay_soak::profile::Scenario;
use forebay_soak::report::{Files, Frame};
use forebay_soak::targets::Address;
use forebay_soak::{Code, Oracle, Profile, Report, Run, RunOptions, SoFar, SoakError, Verdict};
use forebay_soak::{oracle, texts};
use tokio::sync::watch;

use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::out::{note, say};
use crate::settings::Settings;

pub(crate) use args::SoakArgs;
use args::{SoakCommand, SoakRun};
use targets::Opened;

/// Tolerance for a server, whose arithmetic is not known: that of 16-bit floats.
const SERVER_TOLERANCE: f64 = 5e-3;
/// Length of one probe of the search for the capacity, warm-up apart, in seconds.
const PROBE_S: f64 = 10.0;
/// Where the search for the capacity begins if the profile names no rate, in requests per second.
const PROBE_RATE: f64 = 16.0;
/// The search ends when the capacity is known to this share.
const PROBE_RESOLUTION: f64 = 0.05;
/// Share of the requests that must be answered rightly and in time at a rate that is met: without
/// faults there is no reason for less, and one in a thousand leaves room for a hiccup.
const PROBE_GOOD_SHARE: f64 = 0.999;
/// Connections of a probe: the target is to be the limit and not these.
const PROBE_CONNECTIONS: u32 = 256;

impl From<SoakError> for Failure {
    fn from(error: SoakError) -> Self {
        let exit = match &error {
            SoakError::Usage(_) => Exit::Usage,
            SoakError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Exit::NoInput
            }
            SoakError::File { .. } => Exit::Io,
            SoakError::Unreachable { .. } => Exit::Unavailable,
            SoakError::NotBest { .. } => Exit::NotHealed,
            _ => Exit::Overloaded,
        };
        Self::new(exit, error.to_string())
    }
}

fn exit(code: Code) -> Exit {
    match code {
        Code::Pass | Code::ObjectiveMissed => Exit::Failed,
        Code::PromiseBroken => Exit::PromiseBroken,
        Code::Leak => Exit::Leak,
        Code::NotHealed => Exit::NotHealed,
        Code::Overloaded => Exit::Overloaded,
        Code::Interrupted => Exit::Interrupted,
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever is missing; a verdict other than a pass.
pub(crate) async fn run(
    args: SoakArgs,
    settings: &Settings,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    match args.command {
        Some(SoakCommand::Compare(args)) => compare::run(&args),
        Some(SoakCommand::Check(args)) => check::run(&args),
        None => soak(args.run, settings, interrupt).await,
    }
}

async fn soak(
    args: SoakRun,
    settings: &Settings,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let profile = profile(&args)?;
    let files = Files::of(&args.report);
    let config = settings.runtime_config()?;
    crate::log::start(&config.log);
    let stop = Arc::new(AtomicBool::new(false));
    let work = carry_out(&args, settings, config, profile, Arc::clone(&stop));
    tokio::pin!(work);
    let (mut asked, mut ending) = (false, interrupt.clone());
    let report = loop {
        tokio::select! {
            report = &mut work => break report?,
            _ = ending.raised(), if !asked => {
                note!("interrupted: the report will be partial");
                stop.store(true, Ordering::Relaxed);
                asked = true;
            }
        }
    };
    report.write(&files)?;
    say!("{}", view::summary(&report))?;
    note!("report: {}, {} and {}", files.html.display(), files.json.display(), files.csv.display());
    match (report.code(), asked) {
        // By whichever signal: the code says that the report is partial.
        (_, true) => Err(Failure::silent(Exit::Interrupted)),
        (Code::Pass, false) => Ok(()),
        (code, false) => {
            let failure = Failure::new(exit(code), view::objection(&report));
            Err(failure.help(format!("repeat it with: {}", report.replay)))
        }
    }
}

/// The profile with what the command line changes of it.
fn profile(args: &SoakRun) -> Result<Profile, Failure> {
    let mut profile = Profile::load(&args.profile)?;
    profile.scenario = args.scenario.map_or(profile.scenario, Scenario::from);
    if let Some(rate) = args.rate {
        let arrivals = profile.load.arrivals.as_ref();
        let scaled = arrivals.map(|arrivals| arrivals.at_rate(rate)).transpose()?;
        profile.load.arrivals = scaled;
    }
    if let Some(duration) = args.duration {
        profile.duration_s = duration.as_secs_f64();
        profile.quiet_s = profile.quiet_s.min(profile.duration_s / 3.0);
    }
    if args.no_faults || !profile.scenario.is_open() {
        profile.faults = None;
    }
    if args.remote || args.find_capacity {
        profile.leak.required = Vec::new();
    }
    if args.find_capacity {
        profile.faults = None;
        profile.scenario = Scenario::Server;
        profile.quiet_s = 0.0;
        profile.warmup_s = profile.warmup_s.min(2.0);
        profile.duration_s = args.duration.map_or(PROBE_S, |duration| duration.as_secs_f64());
        profile.harness.rest_s = 0.5;
        profile.load.connections_max = profile.load.connections_max.max(PROBE_CONNECTIONS);
        profile.objectives.good_share_min = Some(PROBE_GOOD_SHARE);
        let p99_ms = profile.objectives.p99_ms.or(profile.objectives.calm_p99_ms);
        profile.objectives.p99_ms = p99_ms;
        // What is asked of a run with faults and pauses is not asked of the highest rate.
        profile.objectives.calm_p99_ms = None;
        profile.objectives.calm_p999_ms = None;
        profile.objectives.calm_max_ms = None;
        profile.objectives.errors_with_faults = None;
    }
    if let Some(p99_ms) = args.p99_ms {
        profile.objectives.p99_ms = Some(p99_ms);
    }
    profile.check()?;
    Ok(profile)
}

/// Everything that the runs have in common.
struct Soak<'a> {
    args: &'a SoakRun,
    profile: Profile,
    oracle: Arc<Oracle>,
    /// Set when the command is interrupted. What ends one run early does not set it.
    stop: Arc<AtomicBool>,
}

/// The variables of the environment that can be shown.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    })
}

async fn carry_out(
    args: &SoakRun,
    settings: &Settings,
    config: Config,
    profile: Profile,
    stop: Arc<AtomicBool>,
) -> Result<Report, Failure> {
    // What cannot be injected is better known before an hour of load than after it.
    let planned = planned(args, &profile)?;
    let count = profile.texts.count as usize;
    let texts = match &args.texts {
        Some(path) => texts::of_file(path, count)?,
        None => {
            let lengths = texts::Lengths {
                words_median: profile.texts.words_median,
                words_max: profile.texts.words_max,
            };
            texts::generated(count, lengths, args.seed)
        }
    };
    let tolerance = args.tolerance.unwrap_or(match &args.target {
        Address::Library => oracle::tolerance(&config),
        Address::Server { .. } => oracle::tolerance(&config).max(SERVER_TOLERANCE),
    });
    let model = config.model.path.file_name().map(|name| name.to_string_lossy().into_owned());
    note!("computing {} known answers on the CPU", texts.len());
    let mut oracle = Oracle::compute(&config, texts, tolerance).await?;
    if args.tolerance.is_none() {
        oracle.hold_levels(&config);
    }
    let oracle = Arc::new(oracle);
    let frame = Frame {
        replay: args.replay(settings, variables()),
        seed: args.seed,
        profile: profile.clone(),
        model: model.unwrap_or_default(),
        texts: oracle.texts.len(),
        texts_left_out: oracle.left_out,
        tolerance,
    };
    let soak = Soak { args, profile, oracle, stop };
    let mut runs = Vec::new();
    let opened = targets::open(&args.target, args, &soak.profile, &config, true).await?;
    if args.find_capacity {
        let found = soak.capacity(&opened).await;
        opened.end().await;
        let capacity = found?;
        return Ok(Report::new(frame, runs, Some(capacity)));
    }
    let expect = args.expect_level;
    let ran = soak.one(&opened, &soak.profile, planned, &history(&args.report, 0), expect).await;
    opened.end().await;
    runs.push(ran?);
    for (place, address) in (1..).zip(&args.beside) {
        if soak.stop.load(Ordering::Relaxed) {
            note!("interrupted: {address} was not tested");
            continue;
        }
        let profile = soak.profile.beside();
        let opened = targets::open(address, args, &profile, &config, false).await?;
        let history = history(&args.report, place);
        let ran = soak.one(&opened, &profile, Vec::new(), &history, None).await;
        opened.end().await;
        runs.push(ran?);
    }
    Ok(Report::new(frame, runs, None))
}

/// The faults of a run, from the file that was named or by the seed.
fn planned(args: &SoakRun, profile: &Profile) -> Result<Vec<PlannedFault>, Failure> {
    let until = Duration::from_secs_f64((profile.duration_s - profile.quiet_s).max(0.0));
    match (&args.faults, &profile.faults) {
        (None, None) => Ok(Vec::new()),
        (None, Some(rules)) => Ok(faults::by_seed(rules, args.seed, until)?),
        (Some(path), Some(_)) => Ok(faults::of_file(path, until)?),
        (Some(path), None) => {
            let message = format!(
                "the faults of {} cannot be injected: the profile has no [faults], which says within \
                 what time they must heal, or the scenario is a closed one or the search for the \
                 capacity",
                path.display()
            );
            Err(SoakError::Usage(message).into())
        }
    }
}

/// Where the history of a run is written.
fn history(prefix: &Path, place: usize) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    match place {
        0 => name.push(".history"),
        place => name.push(format!(".{place}.history")),
    }
    name.into()
}

impl Soak<'_> {
    async fn one(
        &self,
        target: &Opened,
        profile: &Profile,
        faults: Vec<PlannedFault>,
        history: &Path,
        expect_level: Option<Level>,
    ) -> Result<Run, Failure> {
        let (so_far, seen) = watch::channel(SoFar::default());
        let options = RunOptions {
            seed: self.args.seed,
            history: history.to_owned(),
            faults,
            interrupt: Arc::clone(&self.stop),
            expect_level,
            so_far,
        };
        let target = target.target();
        let shown = view::Shown::start(seen, target.name(), profile.duration_s);
        let run = forebay_soak::run(target, Arc::clone(&self.oracle), profile, options).await;
        drop(shown);
        Ok(run?)
    }

    /// Finds the highest rate that meets the objectives.
    async fn capacity(&self, target: &Opened) -> Result<Capacity, Failure> {
        let arrivals = self.profile.load.arrivals.as_ref();
        let start = arrivals.and_then(|arrivals| arrivals.rate()).unwrap_or(PROBE_RATE);
        let mut search = Search::new(start, PROBE_RESOLUTION);
        let mut probes = Vec::new();
        let history = history(&self.args.report, 0);
        while let Some(rate) = search.next() {
            if self.stop.load(Ordering::Relaxed) {
                note!("interrupted: {rate:.0}/s and what would have come after it was not tried");
                break;
            }
            let mut profile = self.profile.clone();
            let arrivals = profile.load.arrivals.as_ref();
            profile.load.arrivals = arrivals.map(|load| load.at_rate(rate)).transpose()?;
            let expect = self.args.expect_level;
            let run = self.one(target, &profile, Vec::new(), &history, expect).await?;
            let verdict = Verdict::of(&run, &profile);
            if verdict.code == Code::PromiseBroken {
                // There is no capacity to speak of.
                let example = run.counter_example.unwrap_or_default();
                let message = format!("a promise was broken at {rate:.1}/s: {example}");
                return Err(Failure::new(Exit::PromiseBroken, message));
            }
            let probe = Probe::of(rate, &run, &verdict);
            let words = match (probe.met, verdict.code) {
                (true, _) => "met",
                (false, Code::Overloaded) if run.not_judged.is_some() => "void: not judged",
                (false, Code::Overloaded) => "void: the harness could not offer it",
                (false, _) => "not met",
            };
            let (good, p99) = (probe.good_per_s, probe.p99_ms);
            note!("{rate:.0}/s: {good:.0}/s good, p99 {p99:.1} ms, {words}");
            search.tell(probe.met);
            probes.push(probe);
        }
        Ok(Capacity::of(search.found(), probes))
    }
}
