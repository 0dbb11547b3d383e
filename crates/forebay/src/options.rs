//! What a caller may ask for with a text, and what it gets back.

use std::time::{Duration, Instant};

use crate::priority::Priority;

/// What is to be embedded. Made from a `String`, a `&str` or a `Vec<u32>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// A text, which the model's tokenizer turns into token ids.
    Text(String),
    /// Token ids of the model's vocabulary as the encoder is to see them, special tokens included.
    /// Nothing is added and nothing cut: an id beyond the vocabulary
    /// ([`EmbedError::TokenId`](crate::EmbedError::TokenId)), more ids than the model takes
    /// ([`EmbedError::TooManyTokens`](crate::EmbedError::TooManyTokens)) and none at all
    /// ([`EmbedError::NoTokens`](crate::EmbedError::NoTokens)) are refused.
    Ids(Vec<u32>),
}

impl EmbedInput {
    /// Bytes that it takes while it waits, which is what the limits on text count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ids(ids) => size_of_val(ids.as_slice()),
        }
    }
}

impl From<String> for EmbedInput {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for EmbedInput {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&str> for EmbedInput {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u32>> for EmbedInput {
    fn from(ids: Vec<u32>) -> Self {
        Self::Ids(ids)
    }
}

/// Options of one request. The default is an interactive request without a deadline, truncated,
/// normalised and cut as the configuration and the model say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Class in which the request queues.
    pub priority: Priority,
    /// When the caller no longer wants the result. The reply, result or error, comes by then plus
    /// `reply.deadline_slack_ms`.
    pub deadline: Option<Instant>,
    /// Whether a text beyond the model's limit is cut (and reported) or refused; `None` takes
    /// `tokenize.truncate`.
    pub truncate: Option<bool>,
    /// Whether a text that is cut loses its start instead of its end.
    pub truncate_left: bool,
    /// Whether the embedding is scaled to length 1; `None` does as the model folder says.
    pub normalize: Option<bool>,
    /// Keep only this many leading values (Matryoshka models), scaled to length 1 again if the
    /// result is normalised. From 1 to the model's width.
    pub dimensions: Option<usize>,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            priority: Priority::Interactive,
            deadline: None,
            truncate: None,
            truncate_left: false,
            normalize: None,
            dimensions: None,
        }
    }
}

impl EmbedOptions {
    /// The default options in class bulk.
    #[must_use]
    pub fn bulk() -> Self {
        Self { priority: Priority::Bulk, ..Self::default() }
    }

    /// The default options in class control with a deadline this far from now.
    #[must_use]
    pub fn control(within: Duration) -> Self {
        Self { priority: Priority::Control, ..Self::default() }.within(within)
    }

    /// These options with a deadline this far from now.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(within), ..self }
    }
}

/// One text's embedding. Two are equal if vector and counts are; their times are not compared.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// The vector, as many values as the model's width or [`EmbedOptions::dimensions`].
    pub vector: Vec<f32>,
    /// Tokens that the encoder saw, special tokens included.
    pub tokens: usize,
    /// Tokens that the text has; more than `tokens` if it was cut.
    pub tokens_before_cut: usize,
    /// Where its time went.
    pub times: TextTimes,
}

impl PartialEq for Embedding {
    fn eq(&self, other: &Self) -> bool {
        let Self { vector, tokens, tokens_before_cut, times: _ } = self;
        (vector, tokens, tokens_before_cut)
            == (&other.vector, &other.tokens, &other.tokens_before_cut)
    }
}

/// Where the time of one text went, measured for this text. What `tokenize`, `queue` and `infer`
/// leave of `total` is the copy out of the worker, its checks, and the answers before this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextTimes {
    /// The tokenizer's work on this text alone; next to nothing for token ids.
    pub tokenize: Duration,
    /// Waiting, from being accepted to being sent to the worker that answered it: for the
    /// tokenizer, for a batch, and for a run that failed before.
    pub queue: Duration,
    /// In the worker that answered it, with the texts of its batch, from being sent to the arrival
    /// of the answer.
    pub infer: Duration,
    /// From being accepted to being answered.
    pub total: Duration,
    /// From being accepted to the end of the tokenizer's work on it.
    pub until_tokenized: Duration,
    /// Texts that were in the worker together with it, itself included.
    pub batch_texts: usize,
    /// Their tokens.
    pub batch_tokens: usize,
}

impl Embedding {
    /// Whether the text was cut to the model's limit.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.tokens_before_cut > self.tokens
    }
}
