//! One accepted text on its way, before and after the tokenizer. Whoever holds it holds the
//! obligation to answer it and the room it takes.

use std::time::Instant;

use crate::admission::Permit;
use crate::error::EmbedError;
use crate::options::{EmbedOptions, Embedding};
use crate::owed::Owed;
use crate::priority::Priority;
use crate::reply::{EmbedResult, Replier};

/// What the texts of one submission have in common, defaults filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestSpec {
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Instant>,
    pub(crate) truncate: bool,
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
    pub(crate) text: String,
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
    pub(crate) queued_at: Instant,
    /// Its answer and its room.
    pub(crate) owed: Owed,
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
    /// that it had.
    pub(crate) fn embedding(&self, row: &[f32]) -> Embedding {
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
        Embedding { vector, tokens: self.ids.len(), tokens_before_cut: self.tokens_before_cut }
    }
}
