//! One run against one target: warm-up, rest, load with faults, quiet, rest, verdict.

mod best;
mod found;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forebay::Level;
use tokio::sync::{mpsc, watch};

pub use found::Run;

use best::{best_level, first_look};

use crate::driver::Driver;
use crate::error::SoakError;
use crate::event::Event;
use crate::faults::PlannedFault;
use crate::heartbeat::{Heartbeat, late_ms_max};
use crate::history::{History, Rules};
use crate::injector::{Best, Injector};
use crate::observer::{DeviceSample, LevelChange, Observer, Sampler, pass_strays};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::profile::{Profile, Scenario};
use crate::recorder::{Recorded, Recorder, Seen, SoFar};
use crate::report::Machine;
use crate::samples::{self, Sample};
use crate::stats::{self, Drift, Scale, Span, Spread, Tally};
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
    /// Set from outside to end the run early; the report is partial then.
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
    let mut run = carry_out(&target, oracle, profile, &options).await?;
    // By now nothing but the file connects what was tested with who judges it.
    let path = options.history.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path)?;
        forebay_checker::check(std::io::BufReader::with_capacity(1 << 20, file))
    });
    let verdict = match judged.await.map_err(SoakError::harness)? {
        Ok(verdict) => verdict,
        Err(error) => {
            // The figures of a night are not thrown away for it, but nothing is proved.
            run.not_judged.get_or_insert(error.to_string());
            return Ok(run);
        }
    };
    run.checked_requests = verdict.counts.requests;
    run.checked_texts = verdict.counts.texts;
    run.vectors = verdict.counts.vectors;
    let mut verdict = verdict;
    if run.not_judged.is_some() {
        // What its end would say is not in it, and that is known.
        verdict.broken.remove(forebay_checker::WHOLE);
        verdict.broken.remove(forebay_checker::FORM);
    }
    let counts = verdict.broken.iter().map(|(name, broken)| ((*name).to_owned(), broken.count));
    run.broken = counts.collect();
    let first = verdict.first();
    run.counter_example = first.map(|first| {
        let history = options.history.display();
        format!("{} ({history}:{}): {}", first.promise, first.line, first.what)
    });
    run.counter_example_request = first.and_then(|first| first.request);
    Ok(run)
}

/// A target at rest.
struct Rest {
    look: Option<Look>,
    samples: Vec<Sample>,
    /// Its processes, also those that have ended and nobody has waited for.
    processes: Option<u64>,
}

struct Stage<'r> {
    profile: &'r Profile,
    driver: Driver,
    observer: Observer,
    heartbeat: Heartbeat,
}

impl Stage<'_> {
    /// Load from `start` on, for `length`.
    async fn load(&self, seed: u64, start: Instant, length: Duration) -> Result<(), SoakError> {
        if length.is_zero() {
            return Ok(());
        }
        let load = &self.profile.load;
        match (&load.arrivals, self.profile.scenario.is_open()) {
            (Some(arrivals), true) => {
                let thread = self.driver.open_loop(start, arrivals.moments(seed, length)?)?;
                while !thread.is_finished() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                thread.join().map_err(|_| SoakError::Harness("the generator panicked".to_owned()))
            }
            _ => {
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
        let interrupted = self.driver.stop.load(Ordering::Relaxed);
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
) -> Result<Run, SoakError> {
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
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    // Also one with a deadline, of a target that does not know them.
    let deadline_ms = profile.classes().iter().map(|class| class.deadline_ms).max().unwrap_or(0);
    let wait_us = us(reply_wait.max(ms(deadline_ms) + slack) + slack);
    let rules = Rules { tolerance: oracle.tolerance, slack_us: us(slack), wait_us };
    let (events, arrived) = mpsc::channel(EVENTS_WAITING);
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
        stop: Arc::clone(&options.interrupt),
        seen: Seen::default(),
    };
    let recording = std::thread::Builder::new()
        .name("fb-record".to_owned())
        .spawn(move || recorder.run(arrived))
        .map_err(SoakError::harness)?;
    let zero = Instant::now();
    let stage = Stage {
        profile,
        observer: Observer::start(Arc::clone(target), events.clone(), zero),
        heartbeat: Heartbeat::start(
            events.clone(),
            zero,
            Duration::from_secs_f64(late_ms_max(profile) / 1e3),
        )?,
        driver: Driver {
            target: Arc::clone(target),
            plan: Arc::new(Plan::new(options.seed, texts, count, profile.classes())),
            oracle,
            events: events.clone(),
            zero,
            stop: Arc::clone(&options.interrupt),
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
    let run = measured?;
    let Recorded { tallied, intervals, interval_s, windows, too_many_vectors, history_failed } =
        recorded;
    let joules_per_1k_texts = energy(&run.devices, tallied.texts);
    Ok(Run {
        interrupted: run.interrupted && !too_many_vectors && history_failed.is_none(),
        not_judged: history_failed,
        tallied,
        intervals,
        interval_s,
        fault_windows: windows,
        too_many_vectors,
        joules_per_1k_texts,
        ..run
    })
}

/// Everything but what the recorder and the checker find.
async fn measure(stage: &Stage<'_>, options: &RunOptions) -> Result<Run, SoakError> {
    let Stage { profile, driver, observer, heartbeat } = stage;
    let seconds = Duration::from_secs_f64;
    let best_level = best_level(driver, options.expect_level, profile.harness.level_wait_s).await?;
    stage.load(options.seed ^ WARMUP_SEED, Instant::now(), seconds(profile.warmup_s)).await?;
    let before = stage.rest().await;
    let look = match before.look {
        Some(look) => Some(look),
        None => first_look(driver.target.as_ref()).await,
    };
    let best = look.as_ref().zip(best_level).map(|(look, level)| Best::of(look, level));
    heartbeat.measure()?;
    let start = Instant::now();
    let length = seconds(profile.duration_s);
    let from_us = driver.now_us();
    let to_us = from_us + u64::try_from(length.as_micros()).unwrap_or(u64::MAX / 2);
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
                zero: driver.zero,
                start,
                until: start + length.saturating_sub(seconds(profile.quiet_s)),
                best: best.clone(),
                heal_within: seconds(faults.heal_within_s),
                lasts: seconds(faults.lasts_s),
                pause: (profile.scenario != Scenario::Chaos).then(|| seconds(faults.gap_min_s)),
                stop: Arc::clone(&driver.stop),
                ongoing: Arc::default(),
            };
            Some(tokio::spawn(injector.run(options.faults.clone())))
        }
        _ => None,
    };
    let first = driver.next.load(Ordering::Relaxed);
    stage.load(options.seed, start, length).await?;
    let requests = driver.next.load(Ordering::Relaxed) - first;
    let interrupted = driver.stop.load(Ordering::Relaxed);
    let (end, beats) = (Instant::now(), heartbeat.beats());
    let (samples, devices) = sampler.end().await;
    let faults = match injecting {
        Some(injecting) => injecting.await.map_err(SoakError::harness)?,
        None => Vec::new(),
    };
    let after = stage.rest().await;
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
    let levels = observer.changes(start, end);
    Ok(Run {
        target: driver.target.name(),
        interrupted,
        measured_s,
        best_level: best_level.map(|level| level.to_string()),
        level_at_end: look.map(|look| look.level),
        beats,
        level_s: level_seconds(&levels, measured_s),
        levels,
        faults_planned: options.faults.len(),
        detected: Spread::of(faults.iter().filter_map(|fault| fault.detected_ms)),
        demoted: Spread::of(faults.iter().filter_map(|fault| fault.demoted_ms)),
        healed: Spread::of(faults.iter().filter_map(|fault| fault.healed_ms)),
        restarts: samples::restarts(&samples),
        faults,
        growth: stats::growth(&samples, [0.0, measured_s], &profile.leak, scale, options.seed),
        samples,
        devices,
        seen_at_rest: !before.samples.is_empty() && !after.samples.is_empty(),
        drifts,
        ..Run::default()
    })
}

fn level_seconds(levels: &[LevelChange], end_s: f64) -> BTreeMap<String, f64> {
    let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
    let ends = levels.iter().skip(1).map(|change| change.at_s).chain([end_s]);
    for (change, end) in levels.iter().zip(ends) {
        *seconds.entry(change.level.clone()).or_default() += (end - change.at_s).max(0.0);
    }
    seconds
}

/// Joules per 1,000 texts: power over time, all devices together.
fn energy(devices: &[DeviceSample], texts: u64) -> Option<f64> {
    let mut last: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut joules = 0.0;
    for sample in devices.iter().filter(|sample| sample.name.ends_with("power_watts")) {
        let now = (sample.at_s, sample.value);
        if let Some((at_s, watts)) = last.insert(&sample.device, now) {
            joules += (sample.at_s - at_s) * (watts + sample.value) / 2.0;
        }
    }
    (texts > 0 && joules > 0.0).then(|| joules * 1000.0 / texts as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_levels_adds_up_and_energy_is_power_over_time() {
        let change = |at_s, level: &str| LevelChange { at_s, level: level.to_owned() };
        let levels = [change(0.0, "cpu"), change(4.0, "down"), change(5.0, "cpu")];
        let seconds = level_seconds(&levels, 10.0);
        assert_eq!((seconds["cpu"], seconds["down"]), (9.0, 1.0));
        let sample = |at_s, value| DeviceSample {
            at_s,
            name: "forebay_device_power_watts".to_owned(),
            device: "cuda:0".to_owned(),
            value,
        };
        let joules = energy(&[sample(0.0, 100.0), sample(2.0, 300.0)], 4000).unwrap();
        assert!((joules - 100.0).abs() < 1e-9, "{joules}");
        assert_eq!(energy(&[], 5), None);
    }
}
