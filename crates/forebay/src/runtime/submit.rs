//! What happens to texts between the caller's call and the tokenizer's lane.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use forebay_stage::{LaneSender, SendRefused};

use super::{JOB_BYTES, JOB_TEXTS_MAX, Runtime};
use crate::admission::Permit;
use crate::error::EmbedError;
use crate::metrics::RefusedBy;
use crate::options::EmbedOptions;
use crate::priority::Priority;
use crate::reply::ReplyGroup;
use crate::request::{AcceptedText, RequestSpec, TokenizeJob};
use crate::ticket::BatchTicket;

impl Runtime {
    /// Checks the options and the number of texts, before anything is spent on them.
    pub(super) fn check(
        &self,
        texts: usize,
        options: &EmbedOptions,
    ) -> Result<RequestSpec, EmbedError> {
        let checked = self.checked(texts, options);
        checked.inspect_err(|error| self.refused(options.priority, error, texts))
    }

    fn checked(&self, texts: usize, options: &EmbedOptions) -> Result<RequestSpec, EmbedError> {
        let (truncate, normalize) = (self.config.tokenize.truncate, self.model.normalize);
        let spec = RequestSpec::new(options, truncate, normalize, self.model.width)?;
        let max = self.chunk_texts_max(spec.priority);
        if texts == 0 || texts > max {
            let option = "number of texts";
            return Err(EmbedError::InvalidOption { option, value: texts, min: 1, max });
        }
        if spec.expired(spec.accepted_at) {
            return Err(EmbedError::DeadlineExceeded { waiting: "being submitted" });
        }
        Ok(spec)
    }

    /// Refuses a text that is too long for any work to be spent on it.
    pub(super) fn check_length(&self, text: &str) -> Result<(), EmbedError> {
        let (bytes, bytes_max) = (text.len(), self.config.tokenize.text_bytes_max as usize);
        if bytes > bytes_max {
            return Err(EmbedError::TextTooLong { bytes, bytes_max });
        }
        Ok(())
    }

    /// Sends accepted texts to the tokenizers, in jobs that keep one busy for a short time only.
    pub(super) fn enqueue(
        &self,
        spec: RequestSpec,
        texts: Vec<String>,
        permits: Vec<Permit>,
    ) -> Result<BatchTicket, EmbedError> {
        let Some(lanes) = &self.texts else { return Err(EmbedError::ShuttingDown) };
        let lane = &lanes[spec.priority.index()];
        let metrics = Arc::clone(&self.metrics);
        let (group, repliers) =
            ReplyGroup::new(texts.len(), spec.priority, spec.accepted_at, metrics);
        self.metrics.accepted(spec.priority, texts.len());
        let mut job = Vec::new();
        let mut job_bytes = 0;
        for ((text, replier), permit) in texts.into_iter().zip(repliers).zip(permits) {
            let accepted = AcceptedText { text, replier, permit };
            if let Err(error) = self.check_length(&accepted.text) {
                accepted.reply(Err(error));
                continue;
            }
            job_bytes += accepted.text.len();
            job.push(accepted);
            if job.len() == JOB_TEXTS_MAX || job_bytes >= JOB_BYTES {
                send(lane, spec, std::mem::take(&mut job));
                job_bytes = 0;
            }
        }
        send(lane, spec, job);
        Ok(BatchTicket::new(group, self.dispatch.cancel_notice()))
    }

    pub(super) fn refused(&self, priority: Priority, error: &EmbedError, texts: usize) {
        let by = match error {
            EmbedError::Overloaded { .. } => RefusedBy::Full,
            EmbedError::DeadlineExceeded { .. } => RefusedBy::Deadline,
            EmbedError::Unavailable { .. }
            | EmbedError::ShuttingDown
            | EmbedError::Internal { .. } => RefusedBy::Unavailable,
            _ => RefusedBy::Invalid,
        };
        for _ in 0..texts {
            self.metrics.refused(priority, by);
        }
    }
}

fn send(lane: &LaneSender<TokenizeJob>, spec: RequestSpec, texts: Vec<AcceptedText>) {
    if texts.is_empty() {
        return;
    }
    // The lane has room for whatever the gate lets in, so it is never full; one without
    // tokenizers belongs to a runtime that is ending.
    if let Err(SendRefused::Full(job) | SendRefused::Closed(job)) =
        lane.try_send(TokenizeJob { spec, texts })
    {
        job.texts.into_iter().for_each(|text| text.reply(Err(EmbedError::ShuttingDown)));
    }
}

/// Polls a future within a tokio runtime's context, so that its timers work in any executor.
pub(super) struct InContext<F> {
    pub(super) handle: tokio::runtime::Handle,
    pub(super) future: Pin<Box<F>>,
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let handle = self.handle.clone();
        let _entered = handle.enter();
        self.future.as_mut().poll(context)
    }
}
