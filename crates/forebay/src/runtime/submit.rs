//! What happens to texts between the caller's call and the tokenizer's lane.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use forebay_stage::{LaneSender, SendRefused};

use super::{JOB_BYTES, JOB_TEXTS_MAX, Runtime};
use crate::admission::Permit;
use crate::error::EmbedError;
use crate::metrics::{RefusedBy, Stage as MetricStage};
use crate::options::{EmbedInput, EmbedOptions};
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

    /// Refuses a text that is too long for any work to be spent on it, and ids that the model does
    /// not have or take.
    pub(super) fn check_input(&self, input: &EmbedInput) -> Result<(), EmbedError> {
        let ids = match input {
            EmbedInput::Text(text) => {
                let (bytes, bytes_max) = (text.len(), self.config.tokenize.text_bytes_max as usize);
                return match bytes > bytes_max {
                    true => Err(EmbedError::TextTooLong { bytes, bytes_max }),
                    false => Ok(()),
                };
            }
            EmbedInput::Ids(ids) => ids,
        };
        let (tokens, tokens_max) = (ids.len(), self.model.tokens_max);
        if tokens > tokens_max {
            return Err(EmbedError::TooManyTokens { tokens, tokens_max });
        }
        let largest = ids.iter().copied().max().ok_or(EmbedError::NoTokens)?;
        let vocab = self.model.vocab;
        if largest as usize >= vocab {
            return Err(EmbedError::TokenId { id: largest, vocab });
        }
        Ok(())
    }

    /// What is submitted alone is refused before anything is made for it.
    pub(super) fn check_one(
        &self,
        input: &EmbedInput,
        options: &EmbedOptions,
    ) -> Result<(), EmbedError> {
        let checked = self.check_input(input);
        checked.inspect_err(|error| self.refused(options.priority, error, 1))
    }

    /// Submits texts together if there is room for all of them now, and refuses them at once
    /// otherwise. No more than [`Runtime::chunk_texts_max`] at a time.
    ///
    /// # Errors
    /// [`EmbedError::Overloaded`] with a hint when to try again, or another [`EmbedError`] if they
    /// are not accepted; none of them is then. A text that is too long is accepted and answered with
    /// its own error.
    pub fn try_submit_batch(
        &self,
        inputs: Vec<impl Into<EmbedInput>>,
        options: &EmbedOptions,
    ) -> Result<BatchTicket, EmbedError> {
        let inputs: Vec<EmbedInput> = inputs.into_iter().map(Into::into).collect();
        let spec = self.check(inputs.len(), options)?;
        let sizes: Vec<usize> = inputs.iter().map(EmbedInput::bytes).collect();
        let acquired = self.admission.try_acquire(spec.priority, &sizes);
        let permits =
            acquired.inspect_err(|error| self.refused(spec.priority, error, sizes.len()))?;
        self.enqueue(spec, inputs, permits)
    }

    /// [`Runtime::submit_batch`] with the inputs converted.
    pub(super) async fn submit_inputs(
        &self,
        inputs: Vec<EmbedInput>,
        options: &EmbedOptions,
    ) -> Result<BatchTicket, EmbedError> {
        let count = inputs.len();
        let spec = self.check(count, options)?;
        let sizes: Vec<usize> = inputs.iter().map(EmbedInput::bytes).collect();
        let permits = match self.admission.try_acquire(spec.priority, &sizes) {
            Ok(permits) => permits,
            Err(EmbedError::Overloaded { .. }) => {
                let start = Instant::now();
                // The timer of the wait belongs to our own runtime, whoever polls it.
                let acquire = self.admission.acquire(spec.priority, &sizes, spec.deadline);
                let waited =
                    InContext { handle: self.timers.clone(), future: Box::pin(acquire) }.await;
                self.metrics.stage_blocked(MetricStage::Submit, start.elapsed());
                waited.inspect_err(|error| self.refused(spec.priority, error, count))?
            }
            Err(error) => {
                self.refused(spec.priority, &error, count);
                return Err(error);
            }
        };
        self.enqueue(spec, inputs, permits)
    }

    /// Sends accepted texts to the tokenizers, in jobs that keep one busy for a short time only.
    pub(super) fn enqueue(
        &self,
        spec: RequestSpec,
        inputs: Vec<EmbedInput>,
        permits: Vec<Permit>,
    ) -> Result<BatchTicket, EmbedError> {
        let Some(lanes) = &self.texts else { return Err(EmbedError::ShuttingDown) };
        let lane = &lanes[spec.priority.index()];
        let metrics = Arc::clone(&self.metrics);
        let (group, repliers) =
            ReplyGroup::new(inputs.len(), spec.priority, spec.accepted_at, metrics);
        self.metrics.accepted(spec.priority, inputs.len());
        let mut job = Vec::new();
        let mut job_bytes = 0;
        for ((input, replier), permit) in inputs.into_iter().zip(repliers).zip(permits) {
            let accepted = AcceptedText { input, replier, permit };
            if let Err(error) = self.check_input(&accepted.input) {
                accepted.reply(Err(error));
                continue;
            }
            job_bytes += accepted.input.bytes();
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
