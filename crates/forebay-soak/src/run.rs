//! One run against one target: warm-up, rest, load with faults, quiet, rest, verdict.

mod best;
mod result;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::Level;
use tokio::sync::{mpsc, watch};

pub use result::Run;

use best::{best_level, first_look};
use result::Measured;

use crate::clock::us;
use crate::driver::Driver;
use crate::error::SoakError;
use crate::event::Event;
use crate::faults::PlannedFault;
use crate::heartbeat::{Heartbeat, late_ms_max};
use crate::history::{History, Rules};
use crate::injector::{Best, Injector};
use crate::observer::{Observer, Sampler, pass_strays};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::profile::{Profile, Scenario};
use crate::recorder::{Recorded, Recorder, Seen, SoFar};
use crate::report::Machine;
use crate::samples::{self, Sample};
use crate::stats::{self, Drift, Scale, Span, Tally};
use crate::sync::Stop;
use crate::targets::{Look, Target};

/// Events that wait to be recorded.
const EVENTS_WAITING: usize = 1 << 16;
/// Looks at processes at rest, of which the least counts: a question about the state of a server is a
/// connection of its own, and what leaks stays.
const REST_LOOKS: u32 = 5;
const REST_LOOK_INTERVAL: Duration = Duration::from_millis(70);
/// Time beyond the longest wait for a reply in which the harness notes that it did not come.
const DRAIN_MORE: Duration = Duration::from_secs(1);
/// What is drawn from the seed for the warm-up must not be what is drawn for the rest.
const WARMUP_SEED: u64 = 0x5741_524d;

/// What a run needs besides its profile.
pub struct RunOptions {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// Where the history is written.
    pub history: PathBuf,
    /// The faults to inject.
    pub faults: Vec<PlannedFault>,
    /// Set from outside to end the run early; the report is partial then. The run does not set it.
    pub interrupt: Arc<AtomicBool>,
    /// The level at which everything serves; left out, what the target says that it has decides.
    pub expect_level: Option<Level>,
    /// Where the figures so far are shown.
    pub so_far: watch::Sender<SoFar>,
}

/// Carries a run out.
///
/// # Errors
/// The history cannot be written; a thread cannot be started; a schedule cannot be read.
pub async fn run(
    target: Arc<dyn Target>,
    oracle: Arc<Oracle>,
    profile: &Profile,
    options: RunOptions,
) -> Result<Run, SoakError> {
    let (measured, recorded) = carry_out(&target, oracle, profile, &options).await?;
    // By now nothing but the file connects what was tested with who judges it.
    let path = options.history.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path)?;
        forebay_checker::check(std::io::BufReader::with_capacity(1 << 20, file))
    });
    let judged = judged.await.map_err(SoakError::harness)?.map_err(|error| error.to_string());
    Ok(Run::of(measured, recorded, judged, &options.history.display().to_string()))
}

/// A target at rest.
struct Rest {
    look: Option<Look>,
    samples: Vec<Sample>,
    /// Its processes, also those that have ended and nobody has waited for.
    processes: Option<u64>,
}

/// When requests are due, from the start of the load on.
type Moments = Box<dyn Iterator<Item = Duration> + Send>;

struct Stage<'r> {
    profile: &'r Profile,
    driver: Driver,
    observer: Observer,
    heartbeat: Heartbeat,
}

impl Stage<'_> {
    /// When requests are due in a load of this length; `None` in a closed loop. What is wrong with a
    /// recorded schedule shows here, before anything has begun.
    fn moments(&self, seed: u64, length: Duration) -> Result<Option<Moments>, SoakError> {
        let arrivals = self.profile.load.arrivals.as_ref();
        let arrivals = arrivals.filter(|_| self.profile.scenario.is_open());
        arrivals.map(|arrivals| arrivals.moments(seed, length)).transpose()
    }

    /// Load from `start` on, for `length`.
    async fn load(
        &self,
        moments: Option<Moments>,
        start: Instant,
        length: Duration,
    ) -> Result<(), SoakError> {
        if length.is_zero() {
            return Ok(());
        }
        let load = &self.profile.load;
        match moments {
            Some(moments) => {
                let thread = self.driver.open_loop(start, moments)?;
                while !thread.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                thread.join().map_err(|_| SoakError::Harness("the generator panicked".to_owned()))
            }
            None => {
                let concurrency = match self.profile.scenario {
                    Scenario::SingleStream | Scenario::MultiStream => 1,
                    _ => load.concurrency,
                };
                self.driver.closed_loop(concurrency, start + length).await;
                Ok(())
            }
        }
    }

    /// Waits until everything is answered, lets go of connections, and looks at the processes.
    async fn rest(&self) -> Rest {
        // One that is still open after its longest wait and a moment for the harness has no reply.
        let wait = self.driver.longest_wait(&self.profile.classes());
        self.driver.drain(wait + self.driver.slack + DRAIN_MORE).await;
        self.driver.target.rest();
        let interrupted = self.driver.stop.is_set();
        let rest_s = if interrupted { 0.0 } else { self.profile.harness.rest_s };
        tokio::time::sleep(Duration::from_secs_f64(rest_s)).await;
        let look = self.observer.latest();
        let Some(root) = self.driver.target.root_pid() else {
            return Rest { look, samples: Vec::new(), processes: None };
        };
        let (mut looks, mut processes) = (Vec::new(), u64::MAX);
        for _ in 0..REST_LOOKS {
            looks.push(samples::look(root, look.as_ref(), 0.0));
            processes = processes.min(samples::count(root));
            tokio::time::sleep(REST_LOOK_INTERVAL).await;
        }
        Rest { look, samples: samples::least(looks), processes: Some(processes) }
    }
}

async fn carry_out(
    target: &Arc<dyn Target>,
    oracle: Arc<Oracle>,
    profile: &Profile,
    options: &RunOptions,
) -> Result<(Measured, Recorded), SoakError> {
    let count = profile.texts_per_request();
    let texts = u32::try_from(oracle.texts.len()).unwrap_or(u32::MAX);
    if texts < count {
        let message = format!("{texts} texts are not enough for requests of {count}");
        return Err(SoakError::Usage(message));
    }
    let sees = |root: u32| samples::look(root, None, 0.0).iter().any(|sample| sample.pid == root);
    if !profile.leak.required.is_empty() && !target.root_pid().is_some_and(sees) {
        let message = "the target's process is not known or may not be looked at: name it with \
                       --target-pid, run as its user, or say --remote if it is not to be judged";
        return Err(SoakError::Usage(message.to_owned()));
    }
    let ms = Duration::from_millis;
    let (slack, reply_wait) = (ms(profile.harness.slack_ms), ms(profile.load.reply_wait_ms));
    // Also one with a deadline, of a target that does not know them.
    let deadline_ms = profile.classes().iter().map(|class| class.deadline_ms).max().unwrap_or(0);
    let wait_us = us(reply_wait.max(ms(deadline_ms) + slack) + slack);
    let rules = Rules { tolerance: oracle.tolerance, slack_us: us(slack), wait_us };
    let (events, arrived) = mpsc::channel(EVENTS_WAITING);
    let stop = Stop::new(Arc::clone(&options.interrupt));
    let recorder = Recorder {
        history: History::create(
            &options.history,
            profile.harness.history_mib_max.saturating_mul(1 << 20),
            rules,
            &oracle,
        )?,
        oracle: Arc::clone(&oracle),
        tally: Tally::new((late_ms_max(profile) * 1e3) as u64, profile.duration_s)?,
        knows_deadlines: target.knows_deadlines(),
        vectors_max: profile.harness.vectors_max as usize,
        so_far: options.so_far.clone(),
        stop: stop.clone(),
        seen: Seen::default(),
    };
    let recording = std::thread::Builder::new()
        .name("fb-record".to_owned())
        .spawn(move || recorder.run(arrived))
        .map_err(SoakError::harness)?;
    let zero = Instant::now();
    let late_max = Duration::from_secs_f64(late_ms_max(profile) / 1e3);
    let heartbeat = Heartbeat::start(events.clone(), zero, late_max)?;
    let stage = Stage {
        profile,
        observer: Observer::start(Arc::clone(target), events.clone(), zero),
        heartbeat,
        driver: Driver {
            target: Arc::clone(target),
            plan: Arc::new(Plan::new(options.seed, texts, count, profile.classes())),
            oracle,
            events: events.clone(),
            zero,
            stop,
            outstanding: Arc::default(),
            next: Arc::default(),
            outstanding_max: profile.load.outstanding_max.into(),
            connection_wait: ms(profile.load.connection_wait_ms),
            reply_wait,
            slack,
        },
    };
    let measured = measure(&stage, options).await;
    pass_strays(target.as_ref(), &events, zero).await;
    events.send(Event::End { at_us: stage.driver.now_us() }).await.ok();
    let Stage { observer, driver, heartbeat, .. } = stage;
    drop(heartbeat);
    // It holds the target, which the caller wants to end.
    observer.end().await;
    drop((driver, events));
    while !recording.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let recorded =
        recording.join().map_err(|_| SoakError::Harness("the recorder panicked".to_owned()))?;
    Ok((measured?, recorded))
}

/// Everything but what the recorder and the checker find.
async fn measure(stage: &Stage<'_>, options: &RunOptions) -> Result<Measured, SoakError> {
    let Stage { profile, driver, observer, heartbeat } = stage;
    let seconds = Duration::from_secs_f64;
    let best_level = best_level(driver, options.expect_level, profile.harness.level_wait_s).await?;
    let (warmup, length) = (seconds(profile.warmup_s), seconds(profile.duration_s));
    let moments = stage.moments(options.seed, length)?;
    let warming = stage.moments(options.seed ^ WARMUP_SEED, warmup)?;
    stage.load(warming, Instant::now(), warmup).await?;
    let before = stage.rest().await;
    let look = match before.look {
        Some(look) => Some(look),
        None => first_look(driver.target.as_ref()).await,
    };
    let best = look.as_ref().zip(best_level).map(|(look, level)| Best::of(look, level));
    heartbeat.measure()?;
    let start = Instant::now();
    let from_us = driver.now_us();
    let to_us = from_us.saturating_add(us(length));
    driver.events.send(Event::Measure(Span { from_us, to_us })).await.ok();
    let sampler = Sampler::start(
        Arc::clone(&driver.target),
        observer.looks(),
        seconds(profile.leak.sample_s),
        start,
    )?;
    let injecting = match (&profile.faults, &best) {
        (Some(faults), Some(best)) => {
            let injector = Injector {
                target: Arc::clone(&driver.target),
                events: driver.events.clone(),
                looks: observer.looks(),
                zero: driver.zero.into(),
                start: start.into(),
                until: (start + length.saturating_sub(seconds(profile.quiet_s))).into(),
                best: best.clone(),
                heal_within: seconds(faults.heal_within_s),
                lasts: seconds(faults.lasts_s),
                pause: (profile.scenario != Scenario::Chaos).then(|| seconds(faults.gap_min_s)),
                stop: driver.stop.clone(),
                ongoing: Arc::default(),
            };
            Some(tokio::spawn(injector.run(options.faults.clone())))
        }
        _ => None,
    };
    let first = driver.next.load(Ordering::Relaxed);
    let loaded = stage.load(moments, start, length).await;
    if loaded.is_err() {
        // Nothing of the run may outlive it: it would strike and hold the target.
        driver.stop.set();
    }
    let requests = driver.next.load(Ordering::Relaxed) - first;
    let interrupted = driver.stop.is_interrupted();
    let (end, beats) = (Instant::now(), heartbeat.beats());
    let (samples, devices) = sampler.end().await;
    let faults = match injecting {
        Some(injecting) => injecting.await.map_err(SoakError::harness).flatten(),
        None => Ok(Vec::new()),
    };
    let after = stage.rest().await;
    loaded?;
    let faults = faults?;
    let look = after.look;
    let measured_s = end.saturating_duration_since(start).as_secs_f64();
    let scale = Scale {
        requests_per_s: requests as f64 / measured_s.max(1e-9),
        memory_mib: Machine::this().memory_mib as f64,
    };
    let mut drifts = stats::drifts(&before.samples, &after.samples, &profile.leak);
    let all = || "the target".to_owned();
    drifts.extend(before.processes.zip(after.processes).and_then(|(before, after)| {
        stats::drift(all(), "processes", before, after, &profile.leak)
    }));
    if let Some(look) = look.as_ref().filter(|look| look.under_way > 0) {
        let (role, counter) = (all(), "texts under way".to_owned());
        drifts.push(Drift { role, counter, before: 0, after: look.under_way, is_leak: true });
    }
    Ok(Measured {
        target: driver.target.name(),
        interrupted,
        measured_s,
        beats,
        best_level: best_level.map(|level| level.to_string()),
        level_at_end: look.map(|look| look.level),
        levels: observer.changes(start, end),
        faults_planned: options.faults.len(),
        faults,
        growth: stats::growth(&samples, [0.0, measured_s], &profile.leak, scale, options.seed),
        samples,
        devices,
        seen_at_rest: !before.samples.is_empty() && !after.samples.is_empty(),
        drifts,
    })
}
