//! The watch on the devices as a part of a runtime: started if there is a GPU, heard by the
//! supervisor, and made to misbehave if that is asked for.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use forebay_protocol::{Fault, MonitorFault};
use kameo::actor::ActorRef;
use tokio::runtime::Handle;

use super::Runtime;
use super::launch::Plan;
use crate::config::{Config, Device};
use crate::events::EventLog;
use crate::health::{self, DeviceWatch, HealthReport, OnReport, WatcherArgs};
use crate::metrics::Metrics;
use crate::supervisor::{DeviceReport, FaultHook, FaultHooks, Supervisor};

/// Where the watcher is to be found once it has been started, and what it said last.
#[derive(Clone, Default)]
pub(super) struct Watcher(Arc<Watched>);

#[derive(Default)]
struct Watched {
    watch: OnceLock<DeviceWatch>,
    last: Mutex<Option<HealthReport>>,
}

impl Watcher {
    /// Ends the watcher and its process, if there is one.
    pub(super) async fn stop(&self) {
        if let Some(watch) = self.0.watch.get() {
            watch.clone().stop().await;
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<HealthReport>> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime {
    /// What was last heard of the devices; `None` if they are not watched, or before the first
    /// report. How old it is, it says itself.
    #[must_use]
    pub fn device_report(&self) -> Option<HealthReport> {
        self.watcher.last().clone()
    }
}

/// How to start the watcher; `None` if there is nothing to watch.
pub(super) struct WatchArgs(Option<Start>);

struct Start {
    program: PathBuf,
    devices: Vec<Device>,
    config: Config,
    metrics: Arc<Metrics>,
}

impl WatchArgs {
    pub(super) fn new(config: &Config, plan: &Plan, metrics: &Arc<Metrics>) -> Self {
        let program = plan.rungs.first().map(|rung| rung.program.clone());
        let program = program.filter(|_| health::is_wanted(&config.health, &plan.devices));
        Self(program.map(|program| Start {
            program,
            devices: plan.devices.clone(),
            config: config.clone(),
            metrics: Arc::clone(metrics),
        }))
    }

    /// Starts the watcher. It is not linked to the supervisor: a runtime whose devices nobody watches
    /// goes on with devices of which nothing is known.
    pub(super) fn start(self, watcher: &Watcher, supervisor: &ActorRef<Supervisor>) {
        let Self(Some(Start { program, devices, config, metrics })) = self else { return };
        let listener = supervisor.downgrade();
        let kept = watcher.clone();
        let on_report = OnReport::new(move |report: HealthReport| {
            *kept.last() = Some(report.clone());
            if let Some(supervisor) = listener.upgrade() {
                // One that has no room is told more by the next report.
                supervisor.tell(DeviceReport(report)).try_send().ok();
            }
        });
        let args = WatcherArgs {
            program,
            devices,
            probed: Vec::new(),
            config: config.health,
            faults: config.faults.enabled,
            on_report,
            metrics,
        };
        watcher.0.watch.set(health::watch(args)).ok();
    }
}

/// How faults of the event log and of the monitor are brought about.
pub(super) fn hooks(watcher: &Watcher, events: &EventLog, handle: &Handle) -> FaultHooks {
    let (events, watcher, handle) = (events.clone(), watcher.clone(), handle.clone());
    let event_log = FaultHook(Arc::new(move |fault| {
        if let Fault::LogDiskFull(is_full) = fault {
            events.fail_writes(is_full);
        }
    }));
    let monitor = FaultHook(Arc::new(move |fault| {
        let fault = match fault {
            Fault::MonitorHang(true) => MonitorFault::Hang,
            Fault::MonitorLies(true) => MonitorFault::Lies,
            _ => return,
        };
        let watcher = watcher.clone();
        handle.spawn(async move {
            let Some(watch) = watcher.0.watch.get() else {
                tracing::warn!("there is no monitor of devices that could misbehave");
                return;
            };
            if let Err(error) = watch.inject(fault).await {
                tracing::warn!("the monitor of the devices cannot be made to misbehave: {error}");
            }
        });
    }));
    FaultHooks { monitor: Some(monitor), event_log: Some(event_log) }
}
