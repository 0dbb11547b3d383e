//! The tokenize stage: N threads that turn accepted texts into token ids.
//!
//! A text that cannot be encoded is answered here; one whose caller has gone or whose deadline has
//! passed is answered before any work is spent on it. A panic in the tokenizer is that text's
//! failure alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use forebay_model::{Scratch, TextTokenizer, TokenizeError};
use forebay_stage::{LaneReceiver, LaneSender, StageClock, StageFailure, run_lane};

use crate::error::EmbedError;
use crate::metrics::{Metrics, Stage, Unserved};
use crate::request::{AcceptedText, Pending, RequestSpec, TokenizeJob};

pub(crate) const NAME: &str = "fb-tokenize";

/// What each tokenizer thread works with.
#[derive(Clone)]
pub(crate) struct Tokenize {
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) tokens_max: usize,
    pub(crate) metrics: Arc<Metrics>,
}

impl Tokenize {
    /// The body of one tokenizer thread.
    pub(crate) fn run(
        &self,
        lane: &LaneReceiver<TokenizeJob>,
        next: &LaneSender<Vec<Pending>>,
        clock: &StageClock,
    ) -> Result<(), StageFailure> {
        let mut scratch = Scratch::default();
        run_lane(lane, clock, |job| {
            let start = Instant::now();
            let TokenizeJob { spec, texts } = job;
            let encoded: Vec<Pending> = texts
                .into_iter()
                .filter_map(|text| self.encode(spec, text, &mut scratch, start))
                .collect();
            self.metrics.stage_took(Stage::Tokenize, start.elapsed());
            if encoded.is_empty() {
                return Ok(());
            }
            next.send(encoded).map_err(|_| StageFailure::new(NAME, "the dispatcher has ended"))
        })
    }

    fn encode(
        &self,
        spec: RequestSpec,
        accepted: AcceptedText,
        scratch: &mut Scratch,
        now: Instant,
    ) -> Option<Pending> {
        let refuse = |accepted: AcceptedText, error| {
            drop(accepted.permit);
            accepted.replier.reply(Err(error));
            None
        };
        if accepted.replier.is_cancelled() {
            self.metrics.unserved(Unserved::Cancelled);
            return refuse(accepted, EmbedError::Cancelled);
        }
        if spec.expired(now) {
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
            queued_at: now,
            executions: 0,
            replier: accepted.replier,
            permit: accepted.permit,
        })
    }
}

fn tokenize_error(error: &TokenizeError) -> EmbedError {
    EmbedError::Tokenize { message: error.to_string() }
}
