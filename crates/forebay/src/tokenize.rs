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
use crate::options::EmbedInput;
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
        let begun = Instant::now();
        let AcceptedText { input, replier, permit } = accepted;
        let owed = Owed::new(replier, permit);
        let encoded = match self.unserved(spec, &owed, begun) {
            Some(error) => Err(error),
            None => self.ids(spec, input, scratch),
        };
        let (ids, tokens_before_cut) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                owed.reply(Err(error));
                return None;
            }
        };
        let queued_at = Instant::now();
        let tokenize = queued_at.saturating_duration_since(begun);
        Some(Pending { spec, ids, tokens_before_cut, tokenize, queued_at, owed })
    }

    /// Why no work is to be spent on a text, if none is.
    fn unserved(&self, spec: RequestSpec, owed: &Owed, now: Instant) -> Option<EmbedError> {
        if owed.is_cancelled() {
            self.metrics.unserved(Unserved::Cancelled);
            return Some(EmbedError::Cancelled);
        }
        spec.expired(now).then(|| {
            self.metrics.unserved(Unserved::Expired);
            EmbedError::DeadlineExceeded { waiting: "waiting for the tokenizer" }
        })
    }

    /// The ids of a text, and how many there were before it was cut.
    fn ids(
        &self,
        spec: RequestSpec,
        input: EmbedInput,
        scratch: &mut Scratch,
    ) -> Result<(Vec<u32>, usize), EmbedError> {
        let text = match input {
            EmbedInput::Text(text) => text,
            // Checked before they were accepted.
            EmbedInput::Ids(ids) => {
                let tokens = ids.len();
                return Ok((ids, tokens));
            }
        };
        let mut ids = Vec::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            self.tokenizer.encode_cut(&text, self.tokens_max, spec.cut_from, scratch, &mut ids)
        }));
        let encoded = match outcome {
            Ok(encoded) => encoded.map_err(|error| tokenize_error(&error))?,
            Err(panic) => {
                // What the panic left in the buffers is unknown.
                *scratch = Scratch::default();
                let message = StageFailure::from_panic(NAME, &*panic).message;
                return Err(EmbedError::Tokenize { message: format!("panic: {message}") });
            }
        };
        if encoded.truncated() {
            if !spec.truncate {
                let (tokens, tokens_max) = (encoded.tokens_before_cut, self.tokens_max);
                return Err(EmbedError::TooManyTokens { tokens, tokens_max });
            }
            self.metrics.truncated(1);
        }
        Ok((ids, encoded.tokens_before_cut))
    }
}

pub(crate) fn tokenize_error(error: &TokenizeError) -> EmbedError {
    EmbedError::Tokenize { message: error.to_string() }
}
