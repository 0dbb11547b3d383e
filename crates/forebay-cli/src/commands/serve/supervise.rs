//! What goes on beside the requests: reloads, one at a time; the status line; and the watchdog, which
//! is told that all is well only if it is.

use std::sync::Arc;
use std::time::Duration;

use forebay_server::{ReloadAsked, Reloader, ServerHandle, Service};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::notify::{Notifier, describe};

/// The status line now.
pub(super) fn status_line(service: &Service) -> String {
    describe(&service.runtime().health(), service.last_reload().as_deref())
}

/// Tells of each change of the level, whichever runtime's it is.
pub(super) async fn tell_level(service: Arc<Service>, notifier: Arc<Notifier>) {
    let mut replaced = service.watch_runtime();
    loop {
        // Not held on to: a former runtime ends when nobody holds it.
        let mut health = service.runtime().watch_health();
        notifier.status(&status_line(&service));
        loop {
            tokio::select! {
                changed = health.changed() => match changed {
                    Some(health) => {
                        notifier.status(&describe(&health, service.last_reload().as_deref()));
                    }
                    // Another takes its place, or the daemon ends.
                    None => match replaced.changed().await {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                },
                changed = replaced.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

/// Tells the watchdog that all is well, as often as it wants to hear it, while the dispatcher goes
/// round its loop and every accept loop answers.
pub(super) async fn feed_watchdog(server: ServerHandle, notifier: Arc<Notifier>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let age_max = server.service().config().server.watchdog_age_max();
        let beat_age = server.service().runtime().health().beat_age;
        let answers = in_time(age_max, server.ping()).await;
        if beat_age <= age_max && answers {
            notifier.watchdog();
        } else {
            tracing::error!(?beat_age, answers, "not well, so the watchdog is not told otherwise");
        }
    }
}

/// Whether all accept loops answer, and do so in time: one that hangs or has ended does not.
async fn in_time(limit: Duration, ping: impl Future<Output = bool>) -> bool {
    tokio::time::timeout(limit, ping).await.unwrap_or(false)
}

/// Who may ask for a reload, and who ends that.
pub(super) struct Reloads {
    pub(super) hangup: Signal,
    pub(super) asked: mpsc::Receiver<ReloadAsked>,
    pub(super) stop: oneshot::Receiver<()>,
}

/// Reloads whenever it is asked for, until `stop`; returns when former runtimes have ended.
pub(super) async fn reload_when_asked(
    mut reloader: Reloader,
    mut reloads: Reloads,
    service: Arc<Service>,
    notifier: Arc<Notifier>,
) {
    loop {
        let reply = tokio::select! {
            biased;
            _ = &mut reloads.stop => break,
            Some(()) = reloads.hangup.recv() => None,
            Some(reply) = reloads.asked.recv() => Some(reply),
        };
        notifier.reloading();
        let done = tokio::select! {
            biased;
            // A runtime that is being started is dropped with this.
            _ = &mut reloads.stop => break,
            done = reloader.reload() => done,
        };
        notifier.ready(&status_line(&service));
        if let Some(reply) = reply {
            // Who asked may have gone.
            reply.send(done).ok();
        }
    }
    drop(service);
    reloader.finish().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_accept_loop_that_hangs_or_has_ended_is_not_well() {
        let limit = Duration::from_millis(1);
        assert!(in_time(Duration::from_secs(60), std::future::ready(true)).await);
        assert!(!in_time(Duration::from_secs(60), std::future::ready(false)).await);
        assert!(!in_time(limit, std::future::pending()).await);
    }
}
