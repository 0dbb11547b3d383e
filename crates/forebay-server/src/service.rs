//! The runtime that answers now, behind a swap, and what the daemon says of itself: whether it is
//! draining, and since when it runs. It never starts or ends a runtime.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use forebay::config::Device;
use forebay::{Config, Runtime};
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard, watch};

/// What every request handler shares.
pub struct Service {
    runtime: ArcSwap<Runtime>,
    config: ArcSwap<Config>,
    draining: watch::Sender<bool>,
    started: (Instant, SystemTime),
    /// How often the runtime was replaced.
    replaced: watch::Sender<u64>,
    last_reload: ArcSwapOption<LastReload>,
    operated: Mutex<Operated>,
}

/// What the operator has asked of the runtime that answers while another was about to take its
/// place. Who changes either holds this, so that nothing of it is lost on the way.
#[derive(Debug, Default)]
pub(crate) struct Operated {
    /// Rungs whose quarantine was ended.
    pub(crate) released: Vec<Device>,
}

/// How the last reload of the settings came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastReload {
    /// When it ended.
    pub at: SystemTime,
    /// Whether the new settings are in effect.
    pub ok: bool,
    /// What changed, or why nothing did.
    pub message: String,
}

impl Service {
    /// Serves with this runtime, whose configuration is the daemon's.
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        let config = runtime.config().clone();
        Self {
            runtime: ArcSwap::from_pointee(runtime),
            config: ArcSwap::from_pointee(config),
            draining: watch::Sender::new(false),
            started: (Instant::now(), SystemTime::now()),
            replaced: watch::Sender::new(0),
            last_reload: ArcSwapOption::empty(),
            operated: Mutex::default(),
        }
    }

    /// The runtime that answers now. Hold it until the answer is there: a runtime that has been
    /// replaced is shut down once nobody holds it.
    #[must_use]
    pub fn runtime(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// The settings in effect. After a reload they may be newer than those that the runtime was
    /// started with, in groups that it does not read.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Name of the model that is served.
    #[must_use]
    pub fn model_name(&self) -> String {
        self.runtime.load().model().name.clone()
    }

    /// From now on `runtime` answers; gives the one that did so before, which may still have
    /// requests under way.
    #[must_use = "the former runtime is to be shut down once nobody holds it"]
    pub fn replace_runtime(&self, runtime: Runtime) -> Arc<Runtime> {
        let former = self.runtime.swap(Arc::new(runtime));
        self.replaced.send_modify(|times| *times += 1);
        former
    }

    /// Tells when the runtime has been replaced.
    #[must_use]
    pub fn watch_runtime(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// For a change that another runtime has to know of, or for the moment in which one takes over.
    pub(crate) async fn operate(&self) -> MutexGuard<'_, Operated> {
        self.operated.lock().await
    }

    /// How the last reload came out, if there was one.
    #[must_use]
    pub fn last_reload(&self) -> Option<Arc<LastReload>> {
        self.last_reload.load_full()
    }

    /// Notes how a reload came out.
    pub(crate) fn note_reload(&self, outcome: Result<String, String>) {
        let ok = outcome.is_ok();
        let message = outcome.unwrap_or_else(|reason| reason);
        let noted = LastReload { at: SystemTime::now(), ok, message };
        self.last_reload.store(Some(Arc::new(noted)));
    }

    /// The runtime alone, once the service is over.
    #[must_use]
    pub fn into_runtime(self) -> Arc<Runtime> {
        self.runtime.into_inner()
    }

    /// From now on these settings are in effect.
    pub fn replace_config(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// Readiness says no from now on.
    pub fn begin_drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the daemon is about to end: not ready, whatever the runtime says.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until readiness says no because the daemon is about to end.
    pub async fn draining(&self) {
        // The sender is here: it cannot have gone.
        self.draining.subscribe().wait_for(|draining| *draining).await.ok();
    }

    /// Waits until streams that are open take nothing more: `server.drain_notice_ms` after the drain
    /// began, when listeners close.
    pub(crate) fn no_more_taken(self: &Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let service = Arc::clone(self);
        async move {
            service.draining().await;
            tokio::time::sleep(service.config().server.drain_notice()).await;
        }
    }

    /// Time since the service began.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.0.elapsed()
    }

    /// When the service began.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.started.1
    }
}

/// Waits until nobody else holds what is shared here, and gives it out.
///
/// # Errors
/// What is shared, if somebody else still holds it after `limit`.
pub async fn sole_owner<T>(mut shared: Arc<T>, limit: Duration) -> Result<T, Arc<T>> {
    // The last holder of an `Arc` tells nobody that it lets go; looking costs next to nothing.
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let until = Instant::now() + limit;
    loop {
        shared = match Arc::try_unwrap(shared) {
            Ok(owned) => return Ok(owned),
            Err(shared) if Instant::now() >= until => return Err(shared),
            Err(shared) => shared,
        };
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
