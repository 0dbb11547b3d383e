//! The watch on the devices as a part of a runtime: started if there is a GPU, heard by the
//! supervisor, and made to misbehave if that is asked for.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_protocol::{CudaDevice, DeviceHealth, Fault, MonitorFault};
use kameo::actor::ActorRef;

use super::Runtime;
use super::launch::Plan;
use crate::config::{Config, Device};
use crate::events::EventLog;
use crate::health::{self, DeviceVerdict, DeviceWatch, HealthReport, OnReport, WatcherArgs};
use crate::metrics::Metrics;
use crate::supervisor::{DeviceReport, FaultHook, FaultHooks, Supervisor};

/// How long after the end of a watcher, which is a fault of ours, the next one is started.
const RESTART_WAIT: Duration = Duration::from_secs(5);

/// The watcher of a runtime, if there is anything to watch.
#[derive(Clone, Default)]
pub(super) struct Watcher(Option<Arc<Watched>>);

struct Watched {
    now: Mutex<Option<DeviceWatch>>,
    last: Mutex<Option<HealthReport>>,
    stopping: AtomicBool,
    restarts: tokio::sync::Notify,
}

/// What is known of every GPU while nobody watches it.
fn unknown(devices: &[Device]) -> HealthReport {
    let gpus = devices.iter().filter(|device| matches!(device, Device::Cuda(_)));
    let nothing = |device: &Device| {
        let verdict = DeviceVerdict::Unknown("nobody watches it".to_owned());
        (*device, DeviceHealth::default(), verdict)
    };
    let problem = Some("the watcher of the devices has failed".to_owned());
    HealthReport { at: Instant::now(), devices: gpus.map(nothing).collect(), problem }
}

impl Watcher {
    /// A watcher that is started by [`Watcher::start`], or none if there is nothing to watch.
    pub(super) fn new(config: &Config, devices: &[Device]) -> Self {
        let watched = || Watched {
            now: Mutex::new(None),
            last: Mutex::new(None),
            stopping: AtomicBool::new(false),
            restarts: tokio::sync::Notify::new(),
        };
        Self(health::is_wanted(&config.health, devices).then(|| Arc::new(watched())))
    }

    /// Whether anything will be heard of the devices.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Starts the watcher, and another one if it fails: a panic of ours must not leave the last
    /// report in force for ever.
    pub(super) fn start(
        &self,
        config: &Config,
        plan: &WatchPlan,
        metrics: &Arc<Metrics>,
        supervisor: &ActorRef<Supervisor>,
    ) {
        let (Some(watched), Some(program)) = (self.0.clone(), plan.program.clone()) else { return };
        let (listener, kept) = (supervisor.downgrade(), Arc::clone(&watched));
        let on_report = move |report: HealthReport| {
            *lock(&kept.last) = Some(report.clone());
            if let Some(supervisor) = listener.upgrade() {
                // One that has no room is told more by the next report.
                supervisor.tell(DeviceReport(report)).try_send().ok();
            }
        };
        let args = WatcherArgs {
            program,
            devices: plan.devices.clone(),
            probed: plan.probed.clone(),
            config: config.health.clone(),
            faults: config.faults.enabled,
            on_report: OnReport::new(on_report.clone()),
            metrics: Arc::clone(metrics),
        };
        tokio::spawn(async move {
            loop {
                let watch = health::watch(args.clone());
                *lock(&watched.now) = Some(watch.clone());
                watch.ended().await;
                if watched.stopping.load(Ordering::Acquire) {
                    return;
                }
                tracing::error!("the watcher of the devices has failed; another one follows");
                on_report(unknown(&args.devices));
                tokio::select! {
                    () = tokio::time::sleep(RESTART_WAIT) => {}
                    () = watched.restarts.notified() => return,
                }
            }
        });
    }

    /// Ends the watcher and its process, if there is one.
    pub(super) async fn stop(&self) {
        let Some(watched) = &self.0 else { return };
        watched.stopping.store(true, Ordering::Release);
        watched.restarts.notify_one();
        let watch = lock(&watched.now).take();
        if let Some(watch) = watch {
            watch.stop().await;
        }
    }
}

fn lock<T>(value: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    // It is only ever replaced as a whole.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runtime {
    /// What was last heard of the devices; `None` if they are not watched, or before the first
    /// report. How old it is, it says itself.
    #[must_use]
    pub fn device_report(&self) -> Option<HealthReport> {
        lock(&self.watcher.0.as_ref()?.last).clone()
    }
}

/// What is watched, and by which program.
pub(super) struct WatchPlan {
    program: Option<PathBuf>,
    devices: Vec<Device>,
    probed: Vec<CudaDevice>,
}

impl WatchPlan {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            program: plan.rungs.first().map(|rung| rung.program.clone()),
            devices: plan.devices.clone(),
            probed: plan.probed.clone(),
        }
    }
}

/// How faults of the event log and of the monitor are brought about, where there are such parts.
pub(super) fn hooks(watcher: &Watcher, events: &EventLog, config: &Config) -> FaultHooks {
    let events = events.clone();
    let event_log = FaultHook(Arc::new(move |fault| {
        if let Fault::LogDiskFull(is_full) = fault {
            events.fail_writes(is_full);
        }
    }));
    let on_disk = !config.events.folder.as_os_str().is_empty();
    let monitor = watcher.0.clone().map(|watched| {
        FaultHook(Arc::new(move |fault| {
            let fault = match fault {
                Fault::MonitorHang => MonitorFault::Hang,
                Fault::MonitorLies => MonitorFault::Lies,
                _ => return,
            };
            let Some(watch) = lock(&watched.now).clone() else { return };
            tokio::spawn(async move {
                if let Err(error) = watch.inject(fault).await {
                    tracing::warn!("the monitor cannot be made to misbehave: {error}");
                }
            });
        }))
    });
    FaultHooks { monitor, event_log: on_disk.then_some(event_log) }
}
