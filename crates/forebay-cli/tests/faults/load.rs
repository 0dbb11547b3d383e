//! The load under which faults are injected, and what must hold when it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use forebay::blocking::Runtime;
use forebay::config::Device;
use forebay::events::Event;
use forebay::metrics::prometheus::{self, PrometheusHandle};
use forebay::{Config, EmbedOptions, EmbedResult, Fault, Level};

use crate::history::{assert_sound, words};
use crate::support::script::Script;
use crate::support::tiny::{TinyModel, expected, text};
use crate::support::{assert_right, eventually, exists, fake_config, restarts, start};

/// Threads that submit, each waiting for what it has submitted.
const CALLERS: usize = 4;
/// Texts that one submission of a caller has.
const TOGETHER: usize = 5;
/// Rows that are right after a fault before it counts as survived.
const ROWS_AFTER: u64 = 200;
/// Texts of the greatest length before the load, so that the usual time of every size is known.
const WARM_UP_TEXTS: usize = 1_024;

pub(crate) const GPU: Device = Device::Cuda(0);
pub(crate) const OTHER: Device = Device::Cuda(1);

/// A runtime of fake workers under load.
pub(crate) struct Loaded {
    pub(crate) runtime: Runtime,
    pub(crate) model: TinyModel,
    /// All metrics as they were before.
    before: String,
    rows: AtomicU64,
    /// Rows that are none of the text's, but the one of a worker with a flipped weight.
    wrong: AtomicU64,
    /// Submissions of each caller that were answered in full.
    rounds: [AtomicU64; CALLERS],
    errors: Mutex<Vec<&'static str>>,
    over: AtomicBool,
}

/// How it came out.
pub(crate) struct Outcome {
    pub(crate) wrong: u64,
    /// The codes of all errors.
    pub(crate) errors: Vec<&'static str>,
    pub(crate) restarts: u64,
    pub(crate) ends: Vec<String>,
    /// Everything that was recorded.
    pub(crate) events: Vec<Event>,
}

impl Outcome {
    pub(crate) fn assert_no_error(&self) {
        assert!(self.errors.is_empty(), "{:?}", self.errors);
    }

    /// A text that runs alone in a worker when that is struck, after another one was struck with it
    /// inside, is given up; each fault can strike one.
    pub(crate) fn assert_few_suspects(&self, faults: usize) {
        assert!(self.errors.iter().all(|code| *code == "poison_input"), "{:?}", self.errors);
        assert!(self.errors.len() <= faults, "{:?}", self.errors);
    }
}

/// Two GPU rungs and the CPU, with faults enabled.
pub(crate) fn config(model: &TinyModel) -> Config {
    let mut config = fake_config(model.path());
    config.devices.rungs = "cuda:0,cuda:1".parse().expect("devices");
    config.faults.enabled = true;
    config.cuda.rows_max = 16;
    // What the load before each test gives of every size.
    config.hedge.samples_min = 8;
    // All of a test's.
    config.events.recent_events_max = 65_536;
    // Far above what a batch takes, and short where it is waited for.
    config.worker.batch_deadline_ms = 2_000;
    config
}

/// Whoever has this is alone in the process: all tests in it share one recorder.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed leaves nothing here.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The recorder of the process.
fn metrics() -> &'static PrometheusHandle {
    static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();
    METRICS.get_or_init(|| prometheus::install().expect("the only recorder"))
}

/// The sum of a metric over all labels that contain `label`.
fn sum(rendered: &str, name: &str, label: &str) -> u64 {
    let values = rendered.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// What every worker does to its batches here.
pub(crate) fn script() -> Script {
    Script { delay_us: 500, ..Script::default() }
}

/// On a busy machine, too, only what is meant to be late is so.
pub(crate) fn patient(config: &mut Config) {
    config.hedge.floor_ms = 500;
}

/// Does `disturb` under load, waits until the level is back and everybody is served, and ends in
/// order.
pub(crate) fn under_load(disturb: impl FnOnce(&Loaded)) -> Outcome {
    under_load_of(&script(), |_| {}, disturb)
}

/// The same for workers that follow a script, by a configuration of one's own.
pub(crate) fn under_load_of(
    script: &Script,
    change: impl FnOnce(&mut Config),
    disturb: impl FnOnce(&Loaded),
) -> Outcome {
    let _alone = alone();
    // It has to come before the runtime, which reports to the recorder that it finds.
    let before = metrics().render();
    let model = TinyModel::scripted(script);
    let mut config = config(&model);
    change(&mut config);
    let runtime = start(config);
    runtime.settled();
    let long = vec!["w1 w2 w3 w4 w5 w6 w7".to_owned(); WARM_UP_TEXTS];
    let warm = runtime.embed_batch(long.clone(), &EmbedOptions::bulk()).expect("accepted");
    long.iter().zip(&warm).for_each(|(text, result)| assert_right(text, result));
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    let counter = || AtomicU64::new(0);
    let loaded = Loaded {
        runtime,
        model,
        before,
        rows: counter(),
        wrong: counter(),
        rounds: Default::default(),
        errors: Mutex::default(),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let loaded = &loaded;
            scope.spawn(move || loaded.call(caller));
        }
        // Callers stop also when something is found wrong here.
        let _over = Over(&loaded.over);
        loaded.serves();
        disturb(&loaded);
        loaded.comes_back();
        loaded.serves();
    });
    loaded.ends()
}

/// Ends the load when it goes, however that comes about.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Loaded {
    pub(crate) fn inject(&self, device: Device, fault: Fault) {
        let injected = self.runtime.inject(Some(device), fault);
        injected.unwrap_or_else(|error| panic!("{fault} on {device}: {error}"));
    }

    /// Injects as soon as there is a worker that can be asked.
    pub(crate) fn inject_when_up(&self, device: Device, fault: Fault) {
        eventually("a worker", || self.runtime.inject(Some(device), fault).ok());
    }

    /// Waits for this many restarts in all.
    pub(crate) fn restarted(&self, count: u64) {
        eventually("restarts", || (restarts(&self.runtime) >= count).then_some(()));
    }

    /// Waits until both GPUs serve.
    pub(crate) fn comes_back(&self) {
        eventually("the full level", || (self.runtime.level() == Level::Gpu(2)).then_some(()));
    }

    /// Waits until the callers have had many more right rows.
    pub(crate) fn serves(&self) {
        let before = self.rows.load(Ordering::Relaxed);
        let served = || self.rows.load(Ordering::Relaxed) - before;
        eventually("rows", || (served() >= ROWS_AFTER).then_some(()));
    }

    /// Waits until each caller has had an answer to everything that it had submitted, and to
    /// something submitted after.
    pub(crate) fn answers_everybody(&self) {
        let rounds = || self.rounds.each_ref().map(|rounds| rounds.load(Ordering::Relaxed));
        let before = rounds();
        eventually("answers to every caller", || {
            let on = rounds().iter().zip(before).all(|(now, before)| *now >= before + 2);
            on.then_some(())
        });
    }

    /// What happened so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.runtime.events().recent(usize::MAX)
    }

    /// Waits until this, in the words of [`words`], has happened so often on this device.
    pub(crate) fn happened(&self, device: Device, what: &str, times: usize) {
        let device = device.to_string();
        eventually(what, || {
            let events = self.events();
            let of_device = events.iter().filter(|event| event.kind.device() == Some(&device));
            (of_device.filter(|event| words(event) == what).count() >= times).then_some(())
        });
    }

    /// Rows that were wrong so far.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    /// What a counter has risen by since the start, over all labels that contain `label`.
    pub(crate) fn counted(&self, name: &str, label: &str) -> u64 {
        sum(&metrics().render(), name, label) - sum(&self.before, name, label)
    }

    fn call(&self, caller: usize) {
        let mut number = caller;
        while !self.over.load(Ordering::Relaxed) {
            let texts: Vec<String> = (0..TOGETHER).map(|nth| text(number + nth * 97)).collect();
            number += CALLERS;
            let ticket = self.runtime.submit_batch(texts.clone(), &EmbedOptions::default());
            let replies = ticket
                .expect("accepted")
                .wait(None)
                .unwrap_or_else(|_| panic!("a wait without a limit"));
            assert_eq!(replies.len(), texts.len(), "one reply each");
            texts.iter().zip(&replies).for_each(|(text, reply)| self.check(text, reply));
            self.rounds[caller].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn check(&self, text: &str, reply: &EmbedResult) {
        let counter = match reply {
            Ok(embedding) if embedding.vector == expected(text) => &self.rows,
            Ok(embedding) => {
                let first = embedding.vector[0];
                let same = embedding.vector.iter().all(|value| *value == first);
                assert!(same, "{text:?} has a row that nobody was asked for");
                &self.wrong
            }
            Err(error) => {
                self.errors.lock().expect("no panic").push(error.code());
                return;
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn ends(self) -> Outcome {
        // Every slot of every worker is free.
        eventually("free slots", || {
            let rendered = metrics().render();
            let slots = sum(&rendered, "forebay_slots", "rung");
            let free = sum(&rendered, "forebay_slots_free", "rung");
            (slots > 0 && slots == free).then_some(())
        });
        let status = self.runtime.status();
        assert!(status.queues.iter().all(|queue| queue.under_way == 0), "{:?}", status.queues);
        let restarts = restarts(&self.runtime);
        let log = self.runtime.events().clone();
        assert!(self.runtime.shutdown().drained);
        let events = log.recent(usize::MAX);
        assert_sound(&events);
        for pid in self.model.pids() {
            assert!(!exists(pid), "worker {pid} is left behind");
        }
        let ends = status.workers.into_iter().filter_map(|worker| worker.last_end).collect();
        let count = |counter: AtomicU64| counter.into_inner();
        let errors = self.errors.into_inner().expect("no panic");
        Outcome { wrong: count(self.wrong), errors, restarts, ends, events }
    }
}
