//! The typed end of a stage that could not go on.

use std::any::Any;

/// Why a stage ended before its lane was closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stage {stage} failed: {message}")]
pub struct StageFailure {
    /// Name of the stage.
    pub stage: &'static str,
    /// What went wrong.
    pub message: String,
    /// Whether it was a panic, which points to a fault in the program.
    pub panicked: bool,
}

impl StageFailure {
    /// A failure that the stage found itself.
    #[must_use]
    pub fn new(stage: &'static str, message: impl Into<String>) -> Self {
        Self { stage, message: message.into(), panicked: false }
    }

    /// The failure that a caught panic becomes.
    #[must_use]
    pub fn from_panic(stage: &'static str, payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("panic without a message");
        Self { stage, message: text.to_owned(), panicked: true }
    }
}
