//! A timer for something that is polled anyway and whose deadline moves.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// Rings at a moment that may be another at each poll. It costs nothing before the first.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether it is `deadline`; if not, whoever polls is woken then.
    pub(crate) fn poll(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let deadline = deadline.into();
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context)
    }

    /// There is no deadline now.
    pub(crate) fn silence(&mut self) {
        self.0 = None;
    }
}
