//! New settings without a lost request: everything is read and checked first, a runtime that needs
//! other settings is started beside the one that answers, and only when all of that has gone well
//! anything changes. Whatever goes wrong before leaves everything as it was.

use std::sync::Arc;
use std::time::Duration;

use forebay::{Config, PinError, Runtime, StartError};
use tokio::task::JoinSet;

use crate::error::ServeError;
use crate::listen::ServerHandle;
use crate::service::{Operated, sole_owner};

/// Why the settings stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The settings could not be read or are wrong.
    #[error("{0}")]
    Settings(String),
    /// What they say of clients cannot be used.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The runtime that they ask for does not start.
    #[error("the new runtime does not start, the former goes on: {0}")]
    Start(#[from] StartError),
    /// The level was capped meanwhile, which leaves the new runtime nothing.
    #[error("the new runtime cannot take the cap on the level over, the former goes on: {0}")]
    Pin(PinError),
}

/// What a reload has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// The groups of settings that are different now.
    pub groups: Vec<&'static str>,
    /// Whether another runtime answers now.
    pub runtime_replaced: bool,
}

impl std::fmt::Display for Reloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.groups.as_slice(), self.runtime_replaced) {
            ([], _) => {
                f.write_str("nothing has changed, but keys and certificates were read again")
            }
            (groups, false) => write!(f, "changed: {}", groups.join(", ")),
            (groups, true) => write!(f, "changed, with a new runtime: {}", groups.join(", ")),
        }
    }
}

/// Where settings come from.
pub type LoadConfig = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;
/// Who is told of settings that are in effect from now on.
pub type OnConfig = Box<dyn Fn(&Config) + Send + Sync>;

/// Reloads the settings of one server.
pub struct Reloader {
    server: ServerHandle,
    load: LoadConfig,
    on_config: OnConfig,
    /// Former runtimes that answer what they have accepted.
    retiring: JoinSet<()>,
}

/// The groups in which two configurations differ, and whether a runtime reads any of them.
fn differences(old: &Config, new: &Config) -> (Vec<&'static str>, bool) {
    macro_rules! differing {
        ($($group:ident),+) => {
            [$((old.$group != new.$group).then_some(stringify!($group))),+]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
    }
    let of_runtime = differing!(
        model, devices, worker, cpu, cuda, lanes, admission, tokenize, batch, reply, hedge, canary,
        supervisor, health, shutdown, faults, events
    );
    let of_daemon = differing!(metrics, log, tracing, server, tls, auth, limits, cost);
    let is_runtimes = !of_runtime.is_empty();
    (of_runtime.into_iter().chain(of_daemon).collect(), is_runtimes)
}

impl Reloader {
    /// Will reload what `load` gives, and tell `on_config` of what is in effect then.
    #[must_use]
    pub fn new(server: ServerHandle, load: LoadConfig, on_config: OnConfig) -> Self {
        Self { server, load, on_config, retiring: JoinSet::new() }
    }

    /// Reads the settings again and has them take effect, or says why not and changes nothing.
    ///
    /// # Errors
    /// [`ReloadError`]; it is in the log and in the status, too.
    pub async fn reload(&mut self) -> Result<Reloaded, ReloadError> {
        let done = self.try_reload().await;
        let service = self.server.service();
        match &done {
            Ok(reloaded) => {
                tracing::info!("reload: {reloaded}");
                service.note_reload(Ok(reloaded.to_string()));
            }
            Err(error) => {
                tracing::error!("reload refused, nothing has changed: {error}");
                service.note_reload(Err(error.to_string()));
            }
        }
        // Those that have ended meanwhile.
        while self.retiring.try_join_next().is_some() {}
        done
    }

    async fn try_reload(&mut self) -> Result<Reloaded, ReloadError> {
        let config = (self.load)().map_err(ReloadError::Settings)?;
        let service = Arc::clone(self.server.service());
        let old = service.config();
        let (groups, needs_runtime) = differences(&old, &config);
        for (is_same, key) in [
            (config.metrics == old.metrics, "metrics"),
            (config.tracing == old.tracing, "tracing"),
            (config.log.format == old.log.format, "log.format"),
        ] {
            if !is_same {
                return Err(ServeError::NeedsRestart { key }.into());
            }
        }
        let prepared = self.server.prepare(&config)?;
        let runtime = match needs_runtime {
            true => {
                service.operate().await.released.clear();
                Some(service.runtime().start_beside(config.clone()).await?)
            }
            false => None,
        };
        // From here to the end the operator waits.
        let operated = service.operate().await;
        let runtime = match runtime {
            Some(new) => Some(caught_up(new, &service.runtime(), &operated).await?),
            None => None,
        };
        // Nothing can go wrong from here on.
        let runtime_replaced = runtime.is_some();
        self.server.adopt(prepared);
        (self.on_config)(&config);
        service.replace_config(config);
        if let Some(runtime) = runtime {
            let former = service.replace_runtime(runtime);
            let limit = old.server.drain_deadline();
            self.retiring.spawn(retire(former, limit));
        }
        Ok(Reloaded { groups, runtime_replaced })
    }

    /// Waits until every former runtime has ended.
    pub async fn finish(mut self) {
        while self.retiring.join_next().await.is_some() {}
    }
}

/// A new runtime that knows what the operator has asked of the former one while it started; it has
/// been ended if it cannot do that.
async fn caught_up(
    new: Runtime,
    former: &Runtime,
    operated: &Operated,
) -> Result<Runtime, ReloadError> {
    let cap = former.pinned_level();
    if new.pinned_level() != cap
        && let Err(error) = new.pin_level(cap).await
    {
        new.shutdown().await;
        return Err(ReloadError::Pin(error));
    }
    for device in &operated.released {
        new.release(*device).await;
    }
    Ok(new)
}

/// Ends a runtime once its last request has been answered.
async fn retire(former: Arc<Runtime>, limit: Duration) {
    match sole_owner(former, limit).await {
        Ok(former) => {
            former.shutdown().await;
            tracing::info!("the former runtime has ended");
        }
        // It ends with its last request.
        Err(_) => tracing::warn!("requests of the former runtime take longer than {limit:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_seen_to_differ_and_only_some_take_a_runtime() {
        let old = Config::default();
        assert_eq!(differences(&old, &old), (Vec::new(), false));
        let mut new = Config::default();
        new.limits.idle_ms += 1;
        new.auth.users_allowed.push("root".to_owned());
        assert_eq!(differences(&old, &new), (vec!["auth", "limits"], false));
        new.batch.rows_max += 1;
        assert_eq!(differences(&old, &new), (vec!["batch", "auth", "limits"], true));
    }

    #[test]
    fn no_group_is_forgotten() {
        let text = Config::default().describe();
        let groups = text.lines().filter(|line| line.starts_with('[')).count();
        let mut new = Config::default();
        new.model.path = "x".into();
        new.devices.fallback = forebay::config::Fallback::None;
        new.worker.slots += 1;
        new.cpu.sessions += 1;
        new.cuda.tokens_max += 1;
        new.lanes.spin_us += 1;
        new.admission.control_requests_max += 1;
        new.tokenize.threads += 1;
        new.batch.rows_max += 1;
        new.reply.deadline_slack_ms += 1;
        new.hedge.floor_ms += 1;
        new.canary.interval_ms += 1;
        new.supervisor.restarts_max += 1;
        new.health.interval_ms += 1;
        new.shutdown.drain_ms += 1;
        new.faults.enabled = true;
        new.events.flush_ms += 1;
        new.metrics.prometheus_interval_ms += 1;
        new.log.level = forebay::config::LogLevel::Trace;
        new.tracing.sample_ratio = 1.0;
        new.server.drain_notice_ms += 1;
        new.tls.handshake_ms += 1;
        new.auth.users_allowed.push("root".to_owned());
        new.limits.idle_ms += 1;
        new.cost.price_per_hour += 1.0;
        assert_eq!(differences(&Config::default(), &new).0.len(), groups);
    }
}
