//! The actor that keeps one monitor process going and tells what it says.
//!
//! At most one such process exists. One that is late, or says what is no report, is killed; the next
//! starts after a back-off, and not before the kernel has given the last one back. From the failure
//! until the next report every device is unknown.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_protocol::{CudaDevice, DeviceHealth, MonitorCommand, MonitorFault, MonitorReport};
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, Infallible, SendError};
use kameo::mailbox;
use kameo::message::{Context, Message};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::process::{END_GRACE, MonitorError, Reports, forward_log, spawn};
use super::{DeviceVerdict, HealthReport, OnReport, VerdictLimits, places, plausible, verdict};
use crate::config::{Device, HealthConfig};
use crate::metrics::{DeviceMetrics, Metrics, MonitorMetrics};
use crate::worker_process::visible::Visibility;

/// Control messages that may wait for the watcher.
const MAILBOX: usize = 16;

/// What a watcher is started with.
#[derive(Clone)]
pub struct WatcherArgs {
    /// The worker program, which is also the monitor.
    pub program: PathBuf,
    /// The rungs; those that are no GPU are left out.
    pub devices: Vec<Device>,
    /// What CUDA said of the devices, if it was asked: it names each one for certain. May be empty.
    pub probed: Vec<CudaDevice>,
    /// How to watch.
    pub config: HealthConfig,
    /// Whether [`MonitorFault`]s are obeyed.
    pub faults: bool,
    /// Who hears of the reports.
    pub on_report: OnReport,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

/// Watches devices until it is stopped, or until what it is linked to ends.
pub(super) struct HealthWatcher {
    args: WatcherArgs,
    limits: VerdictLimits,
    visibility: Visibility,
    devices: Vec<(Device, DeviceMetrics)>,
    /// When each device last wanted nothing done.
    wanted_nothing_at: HashMap<Device, Instant>,
    metrics: MonitorMetrics,
    backoff: Backoff,
    /// Which start of the process it is; messages of earlier ones are left aside.
    incarnation: u64,
    process: Option<Process>,
}

/// A monitor that is not reaped yet.
struct Process {
    pid: u32,
    stdin: Option<ChildStdin>,
    kill: mpsc::Sender<()>,
    reaped: JoinHandle<()>,
    reports: u64,
    /// Nothing more is expected of it but its end.
    given_up: bool,
}

/// Starts a monitor, if there is none.
struct Start;
/// A monitor said something, or will say nothing more.
struct Heard(u64, Result<MonitorReport, MonitorError>);
/// The kernel has given a monitor back.
struct Reaped(u64);
/// A killed monitor has had its time.
struct EndLate(u64);

/// Makes the running monitor misbehave. To be asked, not told: an answer that is an error and that
/// nobody waits for ends the watcher.
struct InjectMonitorFault(MonitorFault);

/// Why a fault was not passed on.
#[derive(Debug, thiserror::Error)]
pub enum InjectMonitorError {
    /// Faults are not enabled.
    #[error("faults are not enabled; set faults.enabled = true")]
    Disabled,
    /// There is no process that could misbehave.
    #[error("no device monitor is running now; try again when it has been restarted")]
    NotRunning,
    /// It does not listen.
    #[error("the device monitor does not listen: {0}")]
    Broken(std::io::Error),
}

impl Actor for HealthWatcher {
    type Args = WatcherArgs;
    type Error = Infallible;

    fn name() -> &'static str {
        "health-watcher"
    }

    async fn on_start(args: Self::Args, me: ActorRef<Self>) -> Result<Self, Self::Error> {
        let gpus = args.devices.iter().filter(|device| matches!(device, Device::Cuda(_)));
        let named = |device: &Device| (*device, args.metrics.device(&device.to_string()));
        let watcher = Self {
            limits: VerdictLimits::of(&args.config),
            visibility: Visibility::of_this_process(),
            devices: gpus.map(named).collect(),
            wanted_nothing_at: HashMap::new(),
            metrics: args.metrics.monitor(),
            backoff: Backoff::new(args.config.backoff_min(), args.config.backoff_max()),
            incarnation: 0,
            process: None,
            args,
        };
        me.tell(Start).send().await.ok();
        Ok(watcher)
    }

    /// Leaves no process behind that can be killed.
    async fn on_stop(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorStopReason,
    ) -> Result<(), Self::Error> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        drop(process.stdin.take());
        if tokio::time::timeout(END_GRACE, &mut process.reaped).await.is_ok() {
            return Ok(());
        }
        process.kill.try_send(()).ok();
        let reap_deadline = self.args.config.reap_deadline();
        if tokio::time::timeout(reap_deadline, &mut process.reaped).await.is_err() {
            tracing::error!(pid = process.pid, "{LEFT_BEHIND}");
        }
        Ok(())
    }
}

/// State of a device, the verdict, and how many of its values could not be.
type Judged = (DeviceHealth, DeviceVerdict, usize);

const LEFT_BEHIND: &str = "device monitor did not end within health.reap_deadline_ms; it is left \
                           behind, and no other is started before it has ended";

impl HealthWatcher {
    fn begin(&mut self, me: &ActorRef<Self>) -> Result<(), MonitorError> {
        let mut child = spawn(&self.args.program, &self.args.config, self.args.faults)?;
        self.incarnation += 1;
        let incarnation = self.incarnation;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward_log(stderr));
        }
        let pid = child.id().unwrap_or_default();
        let (kill, kills) = mpsc::channel(1);
        let ended = me.clone();
        let reaped = tokio::spawn(async move {
            reap(child, kills).await;
            // A watcher that is gone waits for this task itself.
            tokio::spawn(async move { ended.tell(Reaped(incarnation)).send().await.ok() });
        });
        if let Some(stdout) = stdout {
            let times = (self.args.config.start_deadline(), self.args.config.report_deadline());
            tokio::spawn(listen(Reports::new(stdout), times, incarnation, me.clone()));
        }
        self.process = Some(Process { pid, stdin, kill, reaped, reports: 0, given_up: false });
        Ok(())
    }

    /// Starts the next monitor when its time has come.
    fn start_later(&mut self, reports: u64, me: &ActorRef<Self>) {
        let wait = self.backoff.failed(reports);
        self.metrics.restarted();
        later(wait, me, Start);
    }

    /// Nothing is known of any device.
    fn unknown(&mut self, problem: String) {
        tracing::warn!("no device is known: {problem}");
        let judged = |_| (DeviceHealth::default(), DeviceVerdict::Unknown(problem.clone()), 0);
        let judged = self.devices.iter().map(judged).collect();
        self.tell(judged, Some(problem));
    }

    fn known(&mut self, report: &MonitorReport) {
        let judged = self.devices.iter().map(|(device, _)| self.judge(*device, report)).collect();
        self.metrics.reported();
        self.tell(judged, report.problem.clone());
    }

    /// Measures and passes on what is known of each device.
    fn tell(&mut self, judged: Vec<Judged>, problem: Option<String>) {
        let told = |((device, metrics), judged): (&mut (Device, DeviceMetrics), Judged)| {
            let (health, verdict, nonsense) = judged;
            metrics.report(&health, nonsense);
            (*device, health, verdict)
        };
        let devices: Vec<_> = self.devices.iter_mut().zip(judged).map(told).collect();
        for (device, health, _) in &devices {
            if health.recovery_action == Some(0) {
                self.wanted_nothing_at.insert(*device, Instant::now());
            }
        }
        self.args.on_report.call(HealthReport { at: Instant::now(), devices, problem });
    }

    /// What a report says of one device, and how many of its values cannot be.
    fn judge(&self, device: Device, report: &MonitorReport) -> Judged {
        let Device::Cuda(index) = device else {
            let reason = "it is no GPU".to_owned();
            return (DeviceHealth::default(), DeviceVerdict::Unknown(reason), 0);
        };
        let found = match &report.problem {
            Some(problem) => Err(problem.clone()),
            None => places::find(index, &report.devices, &self.visibility, &self.args.probed),
        };
        match found {
            Ok(found) => {
                let mut health = found.clone();
                let nonsense = plausible::forget_nonsense(&mut health).len();
                if let (None, Some(at)) =
                    (health.recovery_action, self.wanted_nothing_at.get(&device))
                {
                    // It cannot be read now. What came before it was last 0 is over.
                    plausible::forget_xids_before(&mut health, at.elapsed());
                }
                let verdict = verdict(&health, &self.limits);
                (health, verdict, nonsense)
            }
            Err(reason) => (DeviceHealth::default(), DeviceVerdict::Unknown(reason), 0),
        }
    }
}

/// Tells the watcher something later.
fn later<M: Send + 'static>(wait: Duration, me: &ActorRef<HealthWatcher>, message: M)
where
    HealthWatcher: Message<M>,
{
    let me = me.downgrade();
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        if let Some(me) = me.upgrade() {
            me.tell(message).send().await.ok();
        }
    });
}

/// Owns the child: kills it when asked to and waits for its end.
async fn reap(mut child: Child, mut kills: mpsc::Receiver<()>) {
    let asked = tokio::select! {
        _ = child.wait() => false,
        asked = kills.recv() => asked.is_some(),
    };
    if asked {
        // It may have exited by itself in the meantime.
        child.start_kill().ok();
    }
    child.wait().await.ok();
}

/// Passes reports on until there are no more.
async fn listen(
    mut reports: Reports,
    (first, further): (Duration, Duration),
    incarnation: u64,
    watcher: ActorRef<HealthWatcher>,
) {
    let (mut deadline, mut key) = (first, "start_deadline_ms");
    loop {
        let heard = reports.next(deadline, key).await;
        (deadline, key) = (further, "report_deadline_ms");
        let more = heard.is_ok();
        if watcher.tell(Heard(incarnation, heard)).send().await.is_err() || !more {
            return;
        }
    }
}

impl Message<Start> for HealthWatcher {
    type Reply = ();

    async fn handle(&mut self, _: Start, context: &mut Context<Self, ()>) {
        if self.process.is_some() {
            return;
        }
        let me = context.actor_ref().clone();
        if let Err(error) = self.begin(&me) {
            self.unknown(error.to_string());
            self.start_later(0, &me);
        }
    }
}

impl Message<Heard> for HealthWatcher {
    type Reply = ();

    async fn handle(&mut self, Heard(incarnation, heard): Heard, context: &mut Context<Self, ()>) {
        if incarnation != self.incarnation {
            return;
        }
        let Some(process) = self.process.as_mut().filter(|process| !process.given_up) else {
            return;
        };
        match heard {
            Ok(report) => {
                process.reports += 1;
                self.known(&report);
            }
            Err(error) => {
                process.given_up = true;
                process.stdin = None;
                process.kill.try_send(()).ok();
                let wait = self.args.config.reap_deadline();
                later(wait, context.actor_ref(), EndLate(incarnation));
                self.unknown(error.to_string());
            }
        }
    }
}

impl Message<Reaped> for HealthWatcher {
    type Reply = ();

    async fn handle(&mut self, Reaped(incarnation): Reaped, context: &mut Context<Self, ()>) {
        if incarnation != self.incarnation {
            return;
        }
        let Some(process) = self.process.take() else { return };
        self.metrics.stuck(false);
        if !process.given_up {
            self.unknown(MonitorError::Ended.to_string());
        }
        self.start_later(process.reports, context.actor_ref());
    }
}

impl Message<EndLate> for HealthWatcher {
    type Reply = ();

    async fn handle(&mut self, EndLate(incarnation): EndLate, _: &mut Context<Self, ()>) {
        if incarnation == self.incarnation
            && let Some(process) = &self.process
        {
            self.metrics.stuck(true);
            tracing::error!(pid = process.pid, "{LEFT_BEHIND}");
        }
    }
}

impl Message<InjectMonitorFault> for HealthWatcher {
    type Reply = Result<(), InjectMonitorError>;

    async fn handle(
        &mut self,
        InjectMonitorFault(fault): InjectMonitorFault,
        _: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        if !self.args.faults {
            return Err(InjectMonitorError::Disabled);
        }
        let process = self.process.as_mut().and_then(|process| process.stdin.as_mut());
        let stdin = process.ok_or(InjectMonitorError::NotRunning)?;
        let broken = InjectMonitorError::Broken;
        let line = MonitorCommand::Inject(fault).encode();
        let line = line.map_err(|error| broken(std::io::Error::other(error)))?;
        stdin.write_all(line.as_bytes()).await.map_err(broken)
    }
}

/// A running watcher.
#[derive(Debug, Clone)]
pub struct DeviceWatch(ActorRef<HealthWatcher>);

/// Watches devices on their own, until [`DeviceWatch::stop`]; a runtime does so by itself. To be
/// called inside a tokio runtime.
#[must_use]
pub fn watch(args: WatcherArgs) -> DeviceWatch {
    DeviceWatch(HealthWatcher::spawn_with_mailbox(args, mailbox::bounded(MAILBOX)))
}

impl DeviceWatch {
    /// Makes the monitor misbehave.
    ///
    /// # Errors
    /// [`InjectMonitorError`]; the monitor then goes on as it was.
    pub async fn inject(&self, fault: MonitorFault) -> Result<(), InjectMonitorError> {
        match self.0.ask(InjectMonitorFault(fault)).send().await {
            Ok(()) => Ok(()),
            Err(SendError::HandlerError(error)) => Err(error),
            Err(_) => Err(InjectMonitorError::NotRunning),
        }
    }

    /// Waits until the watcher has ended, for whatever reason.
    pub(crate) async fn ended(&self) {
        self.0.wait_for_shutdown_with_result(|_| ()).await;
    }

    /// Ends the monitor, and waits until its process is gone, if it can be killed: at most half a
    /// second and `health.reap_deadline_ms`.
    pub async fn stop(self) {
        self.0.stop_gracefully().await.ok();
        // Without the result it would not wait for what the actor does as it stops.
        self.0.wait_for_shutdown_with_result(|_| ()).await;
    }
}

#[cfg(test)]
#[path = "watcher_tests.rs"]
mod tests;
