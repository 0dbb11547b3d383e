//! The class of service of a request: how soon it is served when the runtime is busy. This module
//! only names the classes; what each of them is owed is decided by the batcher (`batch`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How urgent a request is, most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// A control loop waits for the answer: served first, and never held back to fill a batch.
    Control,
    /// A person or a service waits for the answer: small batches, short waits.
    #[default]
    Interactive,
    /// Nobody waits: served for throughput, in batches as large as the other classes allow.
    Bulk,
}

impl Priority {
    /// Every class, most urgent first; `ALL[p.index()] == p`.
    pub const ALL: [Self; 3] = [Self::Control, Self::Interactive, Self::Bulk];

    /// The place of this class in [`Priority::ALL`], always below its length.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Control => 0,
            Self::Interactive => 1,
            Self::Bulk => 2,
        }
    }

    /// The lowercase name used in configuration, metrics labels and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_ordered_by_index() {
        for (place, priority) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(priority.index(), place);
        }
    }

    #[test]
    fn the_name_shown_is_the_name_read() {
        for priority in Priority::ALL {
            let text = serde_json::to_string(&priority).unwrap();
            assert_eq!(text, format!("\"{priority}\""));
            assert_eq!(serde_json::from_str::<Priority>(&text).unwrap(), priority);
        }
        assert!(serde_json::from_str::<Priority>("\"Control\"").is_err());
    }
}
