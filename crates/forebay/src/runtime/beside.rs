//! A second runtime that takes the first one's place: another model or other settings, without a
//! moment in which nothing serves.

use std::time::Duration;

use super::opening::Shared;
use super::submit::InContext;
use super::{Runtime, StartError};
use crate::config::Config;
use crate::supervisor::{Level, WorkerState};

impl Runtime {
    /// Starts a second runtime by `config` beside this one, which goes on serving. When it returns
    /// every worker of the new one has had its time to start (`worker.start_deadline_ms`), the new
    /// one serves at no lower level than this one, as far as its devices make that level at all, and
    /// each worker that serves has given the known answers. The caller then gives new texts to the
    /// new one and ends this one with [`Runtime::shutdown`], which answers what it has accepted.
    ///
    /// The two share the event log, and the tokenizer if the model's files are the same. The
    /// quarantines of devices and the cap on the level pass on. Until this one has ended both hold
    /// memory on the devices. From the return on, the metrics that say how things are (level, queues,
    /// slots) are those of the new one.
    ///
    /// # Errors
    /// [`StartError`]: the new one has been ended then, and nothing has changed for this one.
    /// [`StartError::Fixed`] if `[events]` is not what this one runs by.
    pub async fn start_beside(&self, config: Config) -> Result<Self, StartError> {
        if config.events != self.config.events {
            return Err(StartError::Fixed { section: "events" });
        }
        let limit = config.worker.start_deadline();
        let shared = Shared {
            events: self.events.clone(),
            tokenizer: (self.model.fingerprint.clone(), self.tokenizer.0.clone()),
            metrics: self.metrics.beside(),
            pinned: self.board.pinned(),
        };
        let new = Self::start_with(config, Some(shared)).await?;
        // A rung may be held back by its device for ever; that is no reason to wait for it.
        let settled = async { tokio::time::timeout(limit, new.settled()).await.is_ok() };
        let settled = InContext { handle: self.timers.clone(), future: Box::pin(settled) }.await;
        let (level, wanted) = (new.level(), self.level().min(new.highest_level()));
        if level == Level::Down || level < wanted {
            let ends = new.board.last_ends();
            let time = if settled { "" } else { " within worker.start_deadline_ms" };
            new.end(Duration::ZERO).await;
            let reason = format!("it serves at {level} and not at {wanted}{time}: {ends}");
            return Err(StartError::Worker { reason });
        }
        self.hand_over_metrics(&new);
        Ok(new)
    }

    /// The level that its rungs make if all of them serve and the operator's cap lets them.
    fn highest_level(&self) -> Level {
        let devices = self.board.workers().into_iter().filter_map(|w| w.device.parse().ok());
        let level = Level::of(devices);
        self.board.pinned().map_or(level, |cap| level.min(cap))
    }

    /// Shows how things are with `new` instead of with this one.
    fn hand_over_metrics(&self, new: &Self) {
        let metrics = &new.metrics;
        metrics.take_over();
        metrics.level(new.level().gauge());
        let workers = new.board.workers();
        for gone in self.board.workers() {
            if !workers.iter().any(|worker| worker.device == gone.device) {
                let rung = metrics.rung(&gone.device);
                rung.slots(0, 0);
                rung.quarantined(false);
            }
        }
        for worker in workers {
            metrics.rung(&worker.device).quarantined(worker.state == WorkerState::Quarantined);
        }
        // Queues and slots follow with the dispatcher's next turn.
        new.dispatch.wake();
    }
}
