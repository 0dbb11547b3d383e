//! The tokenize stage: N threads that turn accepted texts into token ids.
//!
//! Each class has a lane of its own and the more urgent lane goes first, so that a control text
//! waits for no more than the job that a thread is at. A text that cannot be encoded is answered
//! here; one whose caller has gone or whose deadline has
//! passed is answered before any work is spent on it. A panic in the tokenizer is that text's
//! failure alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::select_biased;
use forebay_model::{Scratch, TextTokenizer, TokenizeError};
use forebay_stage::{LaneClosed, LaneReceiver, LaneSender, StageClock, StageFailure, WaitMode};

use crate::error::EmbedError;
use crate::metrics::{Metrics, Stage, Unserved};
use crate::owed::Owed;
use crate::request::{AcceptedText, Pending, RequestSpec, TokenizeJob};

pub(crate) const NAME: &str = "fb-tokenize";

/// The lanes of the three classes, most urgent first.
#[derive(Clone)]
pub(crate) struct TokenizeLanes(pub(crate) [LaneReceiver<TokenizeJob>; 3]);

impl TokenizeLanes {
    /// The next job of the most urgent class that has one; `None` once all lanes are closed and
    /// empty. They are closed together.
    fn next(&self) -> Option<TokenizeJob> {
        let [control, interactive, bulk] = &self.0;
        let ready =
            || control.try_recv().or_else(|| interactive.try_recv()).or_else(|| bulk.try_recv());
        if let WaitMode::SpinThenPark(spin) = control.wait_mode() {
            let until = Instant::now() + spin;
            while Instant::now() < until {
                if let Some(job) = ready() {
                    return Some(job);
                }
                std::hint::spin_loop();
            }
        }
        let received = select_biased! {
            recv(control.channel()) -> job => job,
            recv(interactive.channel()) -> job => job,
            recv(bulk.channel()) -> job => job,
        };
        // A closed lane is always ready, also before one that still holds something.
        received.ok().or_else(ready)
    }
}

/// What each tokenizer thread works with.
#[derive(Clone)]
pub(crate) struct Tokenize {
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) tokens_max: usize,
    pub(crate) metrics: Arc<Metrics>,
}

impl Tokenize {
    /// The body of one tokenizer thread. It ends when the lanes are closed and empty; once the
    /// dispatcher has ended, what is still in them is answered without work.
    pub(crate) fn run(
        &self,
        lanes: &TokenizeLanes,
        next: &LaneSender<Vec<Pending>>,
        clock: &StageClock,
    ) -> Result<(), StageFailure> {
        let mut scratch = Scratch::default();
        let mut dispatcher_ended = false;
        while let Some(TokenizeJob { spec, texts }) = lanes.next() {
            if dispatcher_ended {
                texts.into_iter().for_each(|text| text.reply(Err(EmbedError::ShuttingDown)));
                continue;
            }
            let span = tracing::debug_span!("tokenize", texts = texts.len());
            let start = Instant::now();
            let encoded: Vec<Pending> = texts
                .into_iter()
                .filter_map(|text| self.encode(spec, text, &mut scratch))
                .collect();
            self.metrics.stage_took(Stage::Tokenize, start.elapsed());
            clock.add(start.elapsed());
            drop(span);
            if encoded.is_empty() {
                continue;
            }
            if let Err(LaneClosed(encoded)) = next.send(encoded) {
                encoded.into_iter().for_each(|text| text.refuse(EmbedError::ShuttingDown));
                dispatcher_ended = true;
            }
        }
        Ok(())
    }

    fn encode(
        &self,
        spec: RequestSpec,
        accepted: AcceptedText,
        scratch: &mut Scratch,
    ) -> Option<Pending> {
        let refuse = |accepted: AcceptedText, error| {
            accepted.reply(Err(error));
            None
        };
        if accepted.replier.is_cancelled() {
            self.metrics.unserved(Unserved::Cancelled);
            return refuse(accepted, EmbedError::Cancelled);
        }
        // Most texts have no deadline; looking at the clock for each would cost as much as a word.
        if spec.deadline.is_some() && spec.expired(Instant::now()) {
            self.metrics.unserved(Unserved::Expired);
            let waiting = "waiting for the tokenizer";
            return refuse(accepted, EmbedError::DeadlineExceeded { waiting });
        }
        let mut ids = Vec::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.tokenizer.encode(&accepted.text, self.tokens_max, scratch, &mut ids)
        }));
        let encoded = match outcome {
            Ok(Ok(encoded)) => encoded,
            Ok(Err(error)) => return refuse(accepted, tokenize_error(&error)),
            Err(panic) => {
                // What the panic left in the buffers is unknown.
                *scratch = Scratch::default();
                let message = StageFailure::from_panic(NAME, &*panic).message;
                let message = format!("panic: {message}");
                return refuse(accepted, EmbedError::Tokenize { message });
            }
        };
        if encoded.truncated() {
            if !spec.truncate {
                let (tokens, tokens_max) = (encoded.tokens_before_cut, self.tokens_max);
                return refuse(accepted, EmbedError::TooManyTokens { tokens, tokens_max });
            }
            self.metrics.truncated(1);
        }
        Some(Pending {
            spec,
            ids,
            tokens_before_cut: encoded.tokens_before_cut,
            queued_at: Instant::now(),
            owed: Owed::new(accepted.replier, accepted.permit),
        })
    }
}

fn tokenize_error(error: &TokenizeError) -> EmbedError {
    EmbedError::Tokenize { message: error.to_string() }
}
