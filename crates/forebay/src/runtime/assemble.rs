//! Puts a runtime together: the gate, the lanes, the stages and the supervisor over them.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use forebay_stage::{LaneStats, Stage, StageClock, WaitMode, lane};
use kameo::actor::{Spawn, WeakActorRef};
use kameo::error::SendError;
use kameo::mailbox;

use super::Runtime;
use super::opening::Opened;
use super::rates::Measured;
use super::tokenizer::Tokenizer;
use super::watch;
use crate::admission::Admission;
use crate::batch::BatchPolicy;
use crate::config::Config;
use crate::dispatch::WorkerNews;
use crate::dispatch::core::{Core, CoreSettings, VitalSigns};
use crate::dispatch::thread;
use crate::events::EventKind;
use crate::metrics::{Metrics, Stage as MetricStage};
use crate::priority::Priority;
use crate::request::{Pending, TokenizeJob};
use crate::supervisor::{self, Board, Supervisor, SupervisorArgs};
use crate::tokenize::{self, Tokenize, TokenizeLanes};

impl Runtime {
    pub(super) async fn assemble(
        config: Config,
        opened: Opened,
        timers: tokio::runtime::Handle,
        control: Option<tokio::runtime::Runtime>,
    ) -> Self {
        let Opened { plan, model, tokenizer, metrics, events, quarantines, pinned } = opened;
        let admission = Admission::new(&config.admission);
        let (dispatch, inbox) = thread::channel();
        let board = Arc::new(Board::new(&plan.devices));
        events.record(
            None,
            EventKind::RuntimeStarted {
                release: env!("CARGO_PKG_VERSION").to_owned(),
                model: model.name.clone(),
                fingerprint: model.fingerprint.clone(),
                devices: plan.devices.iter().map(ToString::to_string).collect(),
            },
        );
        let watcher = watch::Watcher::new(&config, &plan.devices);
        let watched = watch::WatchPlan::of(&plan);
        let spin = config.lanes.spin();
        let wait = if spin.is_zero() { WaitMode::Park } else { WaitMode::SpinThenPark(spin) };
        let args = SupervisorArgs {
            rungs: plan.rungs,
            restarts: config.supervisor.clone(),
            canary_interval: config.canary.interval(),
            reply: config.reply.clone(),
            spin,
            board: Arc::clone(&board),
            dispatch: dispatch.clone(),
            admission: Arc::clone(&admission),
            metrics: Arc::clone(&metrics),
            fault_hooks: watch::hooks(&watcher, &events, &config),
            events: events.clone(),
            quarantines,
            watched: watcher.is_wanted(),
            pinned,
        };
        let supervisor =
            Supervisor::spawn_with_mailbox(args, mailbox::bounded(supervisor::MAILBOX));
        watcher.start(&config, &watched, &metrics, &supervisor);
        let (to_batcher, batcher_lane) =
            lane::<Vec<Pending>>(config.lanes.batcher_batches as usize, wait);
        // The gate bounds what can be in these lanes: each has room for whatever its class lets
        // in, so that no caller ever blocks on one.
        let pairs = Priority::ALL
            .map(|priority| lane::<TokenizeJob>(admission.requests_max(priority), wait));
        let lanes = TokenizeLanes(pairs.each_ref().map(|(_, receiver)| receiver.clone()));
        let texts = pairs.map(|(sender, _)| sender);
        let core = Core::new(
            CoreSettings {
                batch: batch_policy(&config, plan.batch_max, admission.capacity()),
                hedge: config.hedge.clone(),
                waits_max: config.admission.waits_max(),
                down_grace: config.admission.down_grace(),
                deadline_slack: config.reply.deadline_slack(),
            },
            Arc::clone(&metrics),
            Instant::now(),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let (gate, stopping) = (Arc::clone(&admission), Arc::clone(&stop));
        let blocked = Blocked {
            metrics: Arc::clone(&metrics),
            lane: to_batcher.stats(),
            gate: Arc::clone(&admission),
            shown_us: Cell::new(0),
        };
        let listener = supervisor.downgrade();
        let beating = Arc::clone(board.heartbeat());
        let measured = Arc::new(Measured::default());
        let measuring = Arc::clone(&measured);
        let dispatcher = Stage::spawn_link(&supervisor, thread::NAME, move |clock| {
            let publish = |signs: &VitalSigns, now: Instant| {
                blocked.publish();
                measuring.set(signs);
                beating.beat(now, signs.capacity_tokens_per_s, signs.worst_age);
            };
            let tell = |news: &WorkerNews| told(&listener, news);
            thread::run(core, &inbox, &batcher_lane, &gate, &stopping, &publish, &tell, clock)
        })
        .await;
        let work = Tokenize {
            tokenizer: tokenizer.clone(),
            tokens_max: model.tokens_max,
            metrics: Arc::clone(&metrics),
        };
        let mut stages = vec![dispatcher];
        for _ in 0..config.tokenize.thread_count() {
            let (work, from, to) = (work.clone(), lanes.clone(), to_batcher.clone());
            let body = move |clock: &StageClock| work.run(&from, &to, clock);
            stages.push(Stage::spawn_link(&supervisor, tokenize::NAME, body).await);
        }
        Self {
            admission,
            dispatch,
            texts: Some(texts),
            metrics,
            model,
            tokenizer: Tokenizer(tokenizer),
            measured,
            config,
            board,
            events,
            watcher,
            supervisor,
            stop,
            stages,
            timers,
            control,
        }
    }
}

/// Tells the supervisor; `false` if its mailbox is full. One that has ended needs to know nothing.
fn told(supervisor: &WeakActorRef<Supervisor>, news: &WorkerNews) -> bool {
    let Some(supervisor) = supervisor.upgrade() else { return true };
    !matches!(supervisor.tell(news.clone()).try_send(), Err(SendError::MailboxFull(_)))
}

/// Shows how long the tokenizers have waited for the batcher, and how far the gate is open.
struct Blocked {
    metrics: Arc<Metrics>,
    lane: Arc<LaneStats>,
    gate: Arc<Admission>,
    /// Microseconds of the wait that have been shown: another runtime may have shown some of its own.
    shown_us: Cell<u64>,
}

impl Blocked {
    fn publish(&self) {
        let all_us = u64::try_from(self.lane.blocked_time().as_micros()).unwrap_or(u64::MAX);
        let more_us = all_us.saturating_sub(self.shown_us.replace(all_us));
        self.metrics.stage_blocked(MetricStage::Tokenize, Duration::from_micros(more_us));
        for priority in Priority::ALL {
            self.metrics.admission_limit(priority, self.gate.limit(priority));
        }
    }
}

/// `tokens_max` and `rows_max` are those of the largest slot; an offer says what its own slot
/// takes.
fn batch_policy(
    config: &Config,
    (tokens_max, rows_max): (u32, u32),
    entries_max: usize,
) -> BatchPolicy {
    let batch = &config.batch;
    BatchPolicy {
        tokens_max: tokens_max as usize,
        rows_max: rows_max as usize,
        max_wait: batch.max_wait(),
        interactive_ageing: batch.interactive_ageing(),
        bulk_ageing: batch.bulk_ageing(),
        entries_max,
        duration_target: batch.duration_target(),
        bulk_duration_target: batch.bulk_duration_target(),
        tokens_min: batch.tokens_min as usize,
    }
}
