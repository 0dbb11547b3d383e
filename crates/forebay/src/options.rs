//! What a caller may ask for with a text, and what it gets back.

use std::time::{Duration, Instant};

use crate::priority::Priority;

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

/// One text's embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The vector, as many values as the model's width or [`EmbedOptions::dimensions`].
    pub vector: Vec<f32>,
    /// Tokens that the encoder saw, special tokens included.
    pub tokens: usize,
    /// Tokens that the text has; more than `tokens` if it was cut.
    pub tokens_before_cut: usize,
}

impl Embedding {
    /// Whether the text was cut to the model's limit.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.tokens_before_cut > self.tokens
    }
}
