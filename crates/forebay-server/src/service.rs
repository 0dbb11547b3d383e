//! The runtime that answers now, behind a swap, and what the daemon says of itself: whether it is
//! draining, and since when it runs. It never starts or ends a runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use forebay::{Config, Runtime};

/// What every request handler shares.
pub struct Service {
    runtime: ArcSwap<Runtime>,
    config: ArcSwap<Config>,
    draining: AtomicBool,
    started: (Instant, SystemTime),
}

impl Service {
    /// Serves with this runtime, whose configuration is the daemon's.
    #[must_use]
    pub fn new(runtime: Runtime) -> Self {
        let config = runtime.config().clone();
        Self {
            runtime: ArcSwap::from_pointee(runtime),
            config: ArcSwap::from_pointee(config),
            draining: AtomicBool::new(false),
            started: (Instant::now(), SystemTime::now()),
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
        self.runtime.swap(Arc::new(runtime))
    }

    /// From now on these settings are in effect.
    pub fn replace_config(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// Readiness says no from now on.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the daemon is about to end: not ready, whatever the runtime says.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
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
