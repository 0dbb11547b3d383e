//! Timed runs of one engine: how long a batch takes on the device, and for a caller that waits.

use std::time::{Duration, Instant};

use forebay::Config;
use forebay::config::Precision;
use forebay_cuda::CudaEngine;
use forebay_model::{ModelFolder, PoolingSpec, pooling};
use forebay_onnx::{EngineOptions, Session, SubBatchLimits};

use super::engine_cases::Packed;
use crate::failure::{Exit, Failure};
use crate::stats::{median, quantile};

/// A group of runs between two time marks of the device lasts about this long: above 10 ms also if
/// the guess of a run's time is a little high.
const GROUP_US: f64 = 12_000.0;
/// Runs in one group at most.
const GROUP_RUNS_MAX: usize = 2_000;
/// Groups that are measured, over all batches of a case.
const GROUPS: usize = 20;
/// Runs of a waiting caller: this many, or what fits into the time, but not fewer than the least.
const RUNS: usize = 200;
const RUNS_TIME: Duration = Duration::from_secs(3);
const RUNS_MIN: usize = 50;

/// What can be measured.
pub(super) trait Engine {
    /// Encodes and pools a batch, with the rows in host memory at the end.
    fn encode(&mut self, batch: &Packed) -> Result<(), Failure>;

    /// Device time of one run, in microseconds, `groups` times; each the mean of `runs` runs back to
    /// back whose input is in place and whose rows stay. `None` if the device has no clock.
    fn device_us(
        &mut self,
        batch: &Packed,
        groups: usize,
        runs: usize,
    ) -> Result<Option<Vec<f64>>, Failure>;
}

/// The engine on a GPU.
pub(super) struct Gpu {
    pub(super) engine: CudaEngine,
    pub(super) rows: Vec<f32>,
}

impl Engine for Gpu {
    fn encode(&mut self, batch: &Packed) -> Result<(), Failure> {
        self.rows.resize(batch.rows() * (self.engine.width() + 1), 0.0);
        Ok(self.engine.encode_into(&batch.ids, &batch.cu, &mut self.rows)?)
    }

    fn device_us(
        &mut self,
        batch: &Packed,
        groups: usize,
        runs: usize,
    ) -> Result<Option<Vec<f64>>, Failure> {
        Ok(Some(self.engine.device_times(&batch.ids, &batch.cu, groups, runs)?))
    }
}

/// The engine on the CPU; there the device's time is the caller's.
pub(super) struct Cpu {
    session: Session,
    pooling: PoolingSpec,
    rows: Vec<f32>,
}

impl Cpu {
    /// Loads a model as a worker would, but for the number of sessions.
    pub(super) fn open(
        folder: &ModelFolder,
        config: &Config,
        precision: Precision,
    ) -> Result<Self, Failure> {
        let program = std::env::current_exe().unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let failed = |error: forebay_onnx::OnnxError| Failure::new(Exit::Failed, error.to_string());
        let options = EngineOptions {
            library: forebay::onnxruntime_library(config, &program)?,
            precision: precision.to_string().parse().map_err(failed)?,
            intra_threads: match config.cpu.threads_per_session {
                0 => cores,
                threads => threads as usize,
            },
            spinning: config.cpu.spinning,
            sub_batch: SubBatchLimits {
                rows_max: config.cpu.sub_batch_rows_max as usize,
                tokens_max: config.cpu.sub_batch_tokens_max as usize,
                ..SubBatchLimits::default()
            },
        };
        let session = Session::load(folder, &options).map_err(failed)?;
        Ok(Self { session, pooling: *folder.pooling(), rows: Vec::new() })
    }
}

impl Engine for Cpu {
    fn encode(&mut self, batch: &Packed) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error.to_string());
        let encoded = self.session.encode(&batch.ids, &batch.cu);
        let states = encoded.map_err(|error| failed(&error))?;
        let width = states.width();
        self.rows.resize(states.rows() * width, 0.0);
        for (index, row) in self.rows.chunks_exact_mut(width).enumerate() {
            let pooled = pooling::pool_rows(&self.pooling, states.row(index), width, row);
            pooled.map_err(|error| failed(&error))?;
            pooling::normalize(row);
        }
        Ok(())
    }

    fn device_us(&mut self, _: &Packed, _: usize, _: usize) -> Result<Option<Vec<f64>>, Failure> {
        Ok(None)
    }
}

/// Times of one batch, or of several that take turns, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) device_ms_p50: f64,
    pub(super) device_ms_min: f64,
    pub(super) host_ms_p50: f64,
    pub(super) host_ms_p99: f64,
    /// Runs of a waiting caller.
    pub(super) runs: usize,
}

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Time before the first counted run, so that clocks are up and every graph is there; each
    /// batch runs once at least.
    pub(super) warm_up: Duration,
    /// How often a caller waits, or `None` for what gives steady figures.
    pub(super) iterations: Option<usize>,
}

impl Effort {
    /// The usual warm-up.
    pub(super) fn new(iterations: Option<usize>) -> Self {
        Self { warm_up: Duration::from_millis(500), iterations }
    }
}

/// Measures batches that take turns.
pub(super) fn measure(
    engine: &mut dyn Engine,
    batches: &[Packed],
    effort: Effort,
) -> Result<Times, Failure> {
    let start = Instant::now();
    loop {
        for batch in batches {
            engine.encode(batch)?;
        }
        if start.elapsed() >= effort.warm_up {
            break;
        }
    }
    let device = device(engine, batches)?;
    let start = Instant::now();
    let mut host = Vec::new();
    for batch in batches.iter().cycle() {
        let done = match effort.iterations {
            Some(iterations) => host.len() >= iterations,
            None => enough(host.len(), start.elapsed()),
        };
        if done {
            break;
        }
        let start = Instant::now();
        engine.encode(batch)?;
        host.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let device = device.unwrap_or_else(|| host.clone());
    Ok(Times {
        device_ms_p50: median(&device).unwrap_or(f64::NAN),
        device_ms_min: device.iter().copied().fold(f64::INFINITY, f64::min),
        host_ms_p50: median(&host).unwrap_or(f64::NAN),
        host_ms_p99: quantile(&host, 0.99).unwrap_or(f64::NAN),
        runs: host.len(),
    })
}

fn enough(runs: usize, elapsed: Duration) -> bool {
    runs >= RUNS || (runs >= RUNS_MIN && elapsed >= RUNS_TIME)
}

/// Device times in milliseconds, of all batches together.
fn device(engine: &mut dyn Engine, batches: &[Packed]) -> Result<Option<Vec<f64>>, Failure> {
    let mut times = Vec::new();
    for batch in batches {
        // A few runs first: how long one takes decides how many go between two time marks.
        let Some(probe) = engine.device_us(batch, 3, 10)? else { return Ok(None) };
        let one_us = median(&probe).unwrap_or(GROUP_US).max(1.0);
        let runs = ((GROUP_US / one_us).ceil() as usize).clamp(1, GROUP_RUNS_MAX);
        let groups = GROUPS.div_ceil(batches.len());
        let Some(found) = engine.device_us(batch, groups + 1, runs)? else { return Ok(None) };
        times.extend(found.into_iter().skip(1).map(|us| us / 1e3));
    }
    Ok(Some(times))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine that notes what it is asked.
    #[derive(Default)]
    struct Noted {
        encoded: Vec<usize>,
        groups: usize,
        run_us: f64,
        runs: usize,
    }

    impl Engine for Noted {
        fn encode(&mut self, batch: &Packed) -> Result<(), Failure> {
            self.encoded.push(batch.ids.len());
            Ok(())
        }

        fn device_us(
            &mut self,
            _: &Packed,
            groups: usize,
            runs: usize,
        ) -> Result<Option<Vec<f64>>, Failure> {
            self.groups += groups;
            self.runs = runs;
            Ok((self.run_us > 0.0).then(|| vec![self.run_us; groups]))
        }
    }

    fn runs(count: usize) -> Effort {
        Effort { warm_up: Duration::ZERO, iterations: Some(count) }
    }

    fn batches(count: u32) -> Vec<Packed> {
        (1..=count).map(|n| Packed { ids: vec![1; n as usize], cu: vec![0, n] }).collect()
    }

    #[test]
    fn batches_take_turns_and_the_asked_number_of_runs_is_counted() {
        let mut noted = Noted::default();
        let times = measure(&mut noted, &batches(4), runs(7)).expect("measures");
        assert_eq!(times.runs, 7);
        assert_eq!(noted.encoded, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]);
        // Without a clock of its own the device's time is the caller's.
        assert_eq!(times.device_ms_p50, times.host_ms_p50);
    }

    #[test]
    fn groups_are_long_enough_and_enough() {
        for (run_us, expected) in [(100.0, 120), (50_000.0, 1), (0.5, GROUP_RUNS_MAX)] {
            let mut noted = Noted { run_us, ..Noted::default() };
            let times = measure(&mut noted, &batches(4), runs(1)).expect("measures");
            assert_eq!(noted.runs, expected);
            // Three for the probe and one that is not counted, for each batch.
            assert_eq!(noted.groups, GROUPS + 4 * 4);
            assert_eq!(times.device_ms_p50, run_us / 1e3);
        }
    }

    #[test]
    fn slow_batches_end_by_time_but_not_before_the_least_number_of_runs() {
        assert!(!enough(RUNS - 1, Duration::ZERO) && enough(RUNS, Duration::ZERO));
        assert!(!enough(RUNS_MIN - 1, RUNS_TIME * 9) && enough(RUNS_MIN, RUNS_TIME));
    }
}
