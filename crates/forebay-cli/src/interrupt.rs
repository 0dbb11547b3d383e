//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Exit, Failure};
use crate::output;

/// Knows whether the end was asked for.
#[derive(Clone)]
pub(crate) struct Interrupt {
    asked: watch::Receiver<Option<Exit>>,
}

impl Interrupt {
    /// Takes the two signals over from now on. Must run within the runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Unavailable, format!("cannot listen to signals: {error}"))
        };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (tell, asked) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let exit = tokio::select! {
                    _ = interrupt.recv() => Exit::Interrupted,
                    _ = terminate.recv() => Exit::Terminated,
                };
                if tell.send_replace(Some(exit)).is_some() {
                    end_now(exit);
                }
            }
        });
        Ok(Self { asked })
    }

    /// Waits until the end is asked for; gives the code to end with.
    pub(crate) async fn raised(&mut self) -> Exit {
        match self.asked.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(exit)) => *exit,
            // The listener never ends before the process does.
            _ => std::future::pending().await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a second signal asks for just that")]
fn end_now(exit: Exit) -> ! {
    output::remove_partial();
    std::process::exit(i32::from(exit.code()))
}
