//! One accepted text on its way, before and after the tokenizer. Whoever holds it holds the
//! obligation to answer it and the room it takes.

use std::time::{Duration, Instant};

use forebay_model::CutFrom;

use crate::admission::Permit;
use crate::error::EmbedError;
use crate::options::{EmbedInput, EmbedOptions, Embedding, TextTimes};
use crate::owed::Owed;
use crate::priority::Priority;
use crate::reply::{EmbedResult, Replier};

/// What the texts of one submission have in common, defaults filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestSpec {
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    pub(crate) truncate: bool,
    pub(crate) cut_from: CutFrom,
    pub(crate) normalize: bool,
    pub(crate) dimensions: usize,
    pub(crate) accepted_at: Instant,
}

impl RequestSpec {
    /// The options with the runtime's defaults for what they leave open.
    pub(crate) fn new(
        options: &EmbedOptions,
        truncate: bool,
        normalize: bool,
        width: usize,
    ) -> Result<Self, EmbedError> {
        let dimensions = options.dimensions.unwrap_or(width);
        if dimensions == 0 || dimensions > width {
            let (option, value) = ("dimensions", dimensions);
            return Err(EmbedError::InvalidOption { option, value, min: 1, max: width });
        }
        Ok(Self {
            priority: options.priority,
            deadline: options.deadline,
            truncate: options.truncate.unwrap_or(truncate),
            cut_from: if options.truncate_left { CutFrom::Left } else { CutFrom::Right },
            normalize: options.normalize.unwrap_or(normalize),
            dimensions,
            accepted_at: Instant::now(),
        })
    }

    pub(crate) fn expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// An accepted text before the tokenizer.
pub(crate) struct AcceptedText {
    pub(crate) input: EmbedInput,
    pub(crate) replier: Replier,
    pub(crate) permit: Permit,
}

impl AcceptedText {
    /// Answers and gives the room back, the room first as in [`Pending::reply`].
    pub(crate) fn reply(self, result: EmbedResult) {
        drop(self.permit);
        self.replier.reply(result);
    }
}

/// The texts of one submission, or a part of them: the unit that goes through the tokenizer lane.
pub(crate) struct TokenizeJob {
    pub(crate) spec: RequestSpec,
    pub(crate) texts: Vec<AcceptedText>,
}

/// An accepted text after the tokenizer.
pub(crate) struct Pending {
    pub(crate) spec: RequestSpec,
    pub(crate) ids: Vec<u32>,
    pub(crate) tokens_before_cut: usize,
    /// What the tokenizer took for it.
    pub(crate) tokenize: Duration,
    pub(crate) queued_at: Instant,
    /// Its answer and its room.
    pub(crate) owed: Owed,
}

/// When the batch of some texts was in its worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InWorker {
    pub(crate) sent_at: Instant,
    pub(crate) answered_at: Instant,
    /// Texts of the batch, those included that were answered before.
    pub(crate) texts: usize,
    pub(crate) tokens: usize,
}

impl Pending {
    /// Answers and gives the room back, unless a twin has answered; says whether it did.
    pub(crate) fn reply(self, result: EmbedResult) -> bool {
        self.owed.reply(result)
    }

    /// Answers with an error, unless a twin has answered.
    pub(crate) fn refuse(self, error: EmbedError) {
        self.owed.reply(Err(error));
    }

    /// The same text for another worker. The first of the two that answers counts.
    pub(crate) fn twin(&mut self) -> Self {
        Self { owed: self.owed.twin(), ids: self.ids.clone(), ..*self }
    }

    /// Gives up a run that has failed: `None` if the text has been answered or a twin still may.
    pub(crate) fn give_up(self) -> Option<Self> {
        let owed = self.owed.give_up()?;
        Some(Self { owed, ..self })
    }

    /// The result for this text from its output row: the unit-length embedding, then the length
    /// that it had. The total of its times is known when it is answered.
    pub(crate) fn embedding(&self, row: &[f32], in_worker: InWorker) -> Embedding {
        let RequestSpec { normalize, dimensions, .. } = self.spec;
        let (unit, length) = row.split_at(row.len() - 1);
        let mut vector = unit[..dimensions].to_vec();
        match (normalize, dimensions < unit.len()) {
            (true, true) => {
                forebay_model::pooling::normalize(&mut vector);
            }
            (true, false) => {}
            (false, _) => vector.iter_mut().for_each(|value| *value *= length[0]),
        }
        let (tokens, tokens_before_cut) = (self.ids.len(), self.tokens_before_cut);
        Embedding { vector, tokens, tokens_before_cut, times: self.times(in_worker) }
    }

    fn times(&self, in_worker: InWorker) -> TextTimes {
        let InWorker { sent_at, answered_at, texts, tokens } = in_worker;
        let before = sent_at.saturating_duration_since(self.spec.accepted_at);
        TextTimes {
            tokenize: self.tokenize,
            queue: before.saturating_sub(self.tokenize),
            infer: answered_at.saturating_duration_since(sent_at),
            total: Duration::ZERO,
            until_tokenized: self.queued_at.saturating_duration_since(self.spec.accepted_at),
            batch_texts: texts,
            batch_tokens: tokens,
        }
    }
}
