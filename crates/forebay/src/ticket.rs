//! A submitted text as its caller holds it: await it, wait for it, or drop it to cancel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::dispatch::CancelNotice;
use crate::error::EmbedError;
use crate::reply::{EmbedResult, ReplyGroup};

/// The pending results of texts that were submitted together, in their order.
///
/// Dropping it cancels what has not been computed yet.
#[must_use = "dropping a ticket cancels its texts"]
pub struct BatchTicket {
    group: Arc<ReplyGroup>,
    cancel: CancelNotice,
    taken: bool,
}

impl BatchTicket {
    pub(crate) fn new(group: Arc<ReplyGroup>, cancel: CancelNotice) -> Self {
        Self { group, cancel, taken: false }
    }

    /// When the texts were submitted: what their times count from.
    #[must_use]
    pub fn submitted_at(&self) -> Instant {
        self.group.submitted_at()
    }

    /// Whether every text has been answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.group.is_complete()
    }

    /// Blocks this thread until every text is answered, or gives the ticket back after `limit`.
    ///
    /// # Errors
    /// The ticket itself if the time is over first; the texts are still under way then.
    pub fn wait(mut self, limit: Option<Duration>) -> Result<Vec<EmbedResult>, Self> {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        match self.group.wait(until) {
            Some(results) => {
                self.taken = true;
                Ok(results)
            }
            None => Err(self),
        }
    }
}

impl Future for BatchTicket {
    type Output = Vec<EmbedResult>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.group.poll(context);
        self.taken |= polled.is_ready();
        polled
    }
}

impl Drop for BatchTicket {
    fn drop(&mut self) {
        if !self.taken && !self.group.is_complete() {
            self.group.cancel();
            self.cancel.send();
        }
    }
}

impl std::fmt::Debug for BatchTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchTicket").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

/// The pending result of one text. Dropping it cancels the request.
#[must_use = "dropping a ticket cancels its text"]
#[derive(Debug)]
pub struct Ticket(pub(crate) BatchTicket);

impl Ticket {
    /// When the text was submitted: what its times count from.
    #[must_use]
    pub fn submitted_at(&self) -> Instant {
        self.0.submitted_at()
    }

    /// Whether the text has been answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Blocks this thread until the text is answered, or gives the ticket back after `limit`.
    ///
    /// # Errors
    /// The ticket itself if the time is over first; the text is still under way then.
    pub fn wait(self, limit: Option<Duration>) -> Result<EmbedResult, Self> {
        self.0.wait(limit).map(only).map_err(Self)
    }
}

impl Future for Ticket {
    type Output = EmbedResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(only)
    }
}

fn only(results: Vec<EmbedResult>) -> EmbedResult {
    let missing = || EmbedError::Internal { message: "result is missing".to_owned() };
    results.into_iter().next().unwrap_or_else(|| Err(missing()))
}
