//! What happens to texts between the caller's call and the tokenizer's lane.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use forebay_stage::SendRefused;

use super::{JOB_TEXTS_MAX, Runtime};
use crate::admission::Permit;
use crate::error::EmbedError;
use crate::metrics::RefusedBy;
use crate::options::EmbedOptions;
use crate::priority::Priority;
use crate::reply::ReplyGroup;
use crate::request::{AcceptedText, RequestSpec, TokenizeJob};
use crate::ticket::BatchTicket;

impl Runtime {
    /// Checks the options and the sizes of the texts, before anything is spent on them.
    pub(super) fn check(
        &self,
        texts: &[String],
        options: &EmbedOptions,
    ) -> Result<(RequestSpec, Vec<usize>), EmbedError> {
        let checked = self.checked(texts, options);
        checked.inspect_err(|error| self.refused(options.priority, error, texts.len()))
    }

    fn checked(
        &self,
        texts: &[String],
        options: &EmbedOptions,
    ) -> Result<(RequestSpec, Vec<usize>), EmbedError> {
        let (truncate, normalize) = (self.config.tokenize.truncate, self.model.normalize);
        let spec = RequestSpec::new(options, truncate, normalize, self.model.width)?;
        let max = self.chunk_texts_max(spec.priority);
        if texts.is_empty() || texts.len() > max {
            let (option, value) = ("number of texts", texts.len());
            return Err(EmbedError::InvalidOption { option, value, min: 1, max });
        }
        let bytes_max = self.config.tokenize.text_bytes_max as usize;
        let sizes: Vec<usize> = texts.iter().map(String::len).collect();
        if let Some(&bytes) = sizes.iter().find(|&&bytes| bytes > bytes_max) {
            return Err(EmbedError::TextTooLong { bytes, bytes_max });
        }
        if spec.expired(spec.accepted_at) {
            return Err(EmbedError::DeadlineExceeded { waiting: "being submitted" });
        }
        Ok((spec, sizes))
    }

    pub(super) fn enqueue(
        &self,
        spec: RequestSpec,
        texts: Vec<String>,
        permits: Vec<Permit>,
    ) -> Result<BatchTicket, EmbedError> {
        let Some(lane) = &self.texts else { return Err(EmbedError::ShuttingDown) };
        let metrics = Arc::clone(&self.metrics);
        let (group, repliers) =
            ReplyGroup::new(texts.len(), spec.priority, spec.accepted_at, metrics);
        let accepted = texts.into_iter().zip(repliers).zip(permits);
        let mut accepted = accepted
            .map(|((text, replier), permit)| AcceptedText { text, replier, permit })
            .inspect(|_| self.metrics.accepted(spec.priority));
        loop {
            let texts: Vec<AcceptedText> = accepted.by_ref().take(JOB_TEXTS_MAX).collect();
            if texts.is_empty() {
                break;
            }
            match lane.try_send(TokenizeJob { spec, texts }) {
                Ok(()) => {}
                // Cannot be full (the gate); a lane without tokenizers is a runtime that is ending.
                // Dropping the texts answers them.
                Err(SendRefused::Full(job) | SendRefused::Closed(job)) => {
                    for text in job.texts {
                        text.replier.reply(Err(EmbedError::ShuttingDown));
                    }
                }
            }
        }
        Ok(BatchTicket::new(group, self.dispatch.clone()))
    }

    pub(super) fn refused(&self, priority: Priority, error: &EmbedError, texts: usize) {
        let by = match error {
            EmbedError::Overloaded { .. } | EmbedError::DeadlineExceeded { .. } => {
                RefusedBy::Requests
            }
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

/// Polls a future within a tokio runtime's context, so that its timers work in any executor.
pub(super) struct InContext<F> {
    pub(super) handle: Option<tokio::runtime::Handle>,
    pub(super) future: Pin<Box<F>>,
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let handle = self.handle.clone();
        let _entered = handle.as_ref().map(tokio::runtime::Handle::enter);
        self.future.as_mut().poll(context)
    }
}
