//! The labels of the metrics as enums, so that a label value is never a free text.

use super::names::LabelSet;
use crate::batch::SealReason;
use crate::priority::Priority;

/// An enum that is a label.
pub trait LabelValue: Copy + 'static {
    /// The label's name with every value.
    const SET: LabelSet;

    /// The place of this value in [`LabelValue::SET`].
    fn index(self) -> usize;
}

/// Declares an enum that is a label: its name, the label's name, and a word for each value.
///
/// For a crate beside this one that has metrics of its own.
#[macro_export]
macro_rules! metric_label {
    (
        $(#[doc = $doc:literal])+
        $vis:vis enum $Name:ident as $label:literal {
            $( $(#[doc = $value_doc:literal])+ $Value:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $Name {
            $( $(#[doc = $value_doc])+ $Value, )+
        }

        // Not every label is listed or spelled out where it is declared.
        #[allow(dead_code)]
        impl $Name {
            /// Every value, in the order of the label's words.
            $vis const ALL: &'static [Self] = &[$(Self::$Value),+];

            /// The word in the metrics.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self { $( Self::$Value => $word, )+ }
            }
        }

        impl $crate::metrics::LabelValue for $Name {
            const SET: $crate::metrics::names::LabelSet =
                $crate::metrics::names::LabelSet { name: $label, values: &[$($word),+] };

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

metric_label! {
    /// How a request ended.
    pub enum Outcome as "outcome" {
        /// With an embedding.
        Ok = "ok",
        /// Its text or options cannot be served.
        Invalid = "invalid",
        /// Refused: too much is waiting already.
        Overloaded = "overloaded",
        /// Its deadline passed.
        Deadline = "deadline",
        /// Nobody waits for it any more.
        Cancelled = "cancelled",
        /// Its text ended a worker, twice.
        Poison = "poison",
        /// Nothing serves, or the runtime is shutting down.
        Unavailable = "unavailable",
        /// Its worker was lost and it could not be computed again.
        WorkerLost = "worker_lost",
        /// A fault of the runtime.
        Internal = "internal",
    }
}

metric_label! {
    /// What refused a request.
    pub enum RefusedBy as "limit" {
        /// The class is full: of requests, or of waiting text.
        Full = "full",
        /// The deadline passed before there was room.
        Deadline = "deadline",
        /// The text or the options, checked before anything else.
        Invalid = "invalid",
        /// The runtime is shutting down, or nothing has served for too long.
        Unavailable = "unavailable",
    }
}

impl RefusedBy {
    /// How the refused request ended.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Full => Outcome::Overloaded,
            Self::Deadline => Outcome::Deadline,
            Self::Invalid => Outcome::Invalid,
            Self::Unavailable => Outcome::Unavailable,
        }
    }
}

metric_label! {
    /// A part of the way of a request.
    pub enum Stage as "stage" {
        /// Waiting to be let in (only callers that asked to wait).
        Submit = "submit",
        /// Text to token ids, with the wait for a thread.
        Tokenize = "tokenize",
        /// In the batcher, until the batch was sealed.
        Queue = "queue",
        /// Packing the batch into a slot and sending its descriptor.
        Dispatch = "dispatch",
        /// From the descriptor sent to the descriptor back.
        Infer = "infer",
        /// Checking the answer and handing it to the callers.
        Reply = "reply",
    }
}

metric_label! {
    /// Why an accepted request was dropped before model work.
    pub enum Unserved as "reason" {
        /// Nobody waits for it any more.
        Cancelled = "cancelled",
        /// Its deadline passed in the queue.
        Expired = "expired",
    }
}

metric_label! {
    /// Why a worker was replaced.
    pub enum RestartCause as "cause" {
        /// It ended with an exit code.
        Exit = "exit",
        /// A signal ended it.
        Signal = "signal",
        /// A batch took longer than its deadline.
        BatchDeadline = "batch_deadline",
        /// It failed several batches in a row.
        BatchesFailed = "batches_failed",
        /// It was not ready within its deadline.
        StartDeadline = "start_deadline",
        /// It said that it cannot start, or could not be started.
        StartFailed = "start_failed",
        /// It sent something that the protocol does not allow.
        Protocol = "protocol",
        /// It gave wrong numbers.
        Canary = "canary",
        /// Its device could not be used any more.
        Device = "device",
    }
}

metric_label! {
    /// Why an answer of a worker was not used.
    pub enum AnswerDropped as "reason" {
        /// The batch was given up before.
        Late = "late",
        /// It names no batch in flight: answered before, or an earlier use of its slot.
        Stale = "stale",
        /// Another worker computed the same text sooner.
        Twin = "twin",
    }
}

metric_label! {
    /// What a batch of known answers showed.
    pub enum CanaryVerdict as "verdict" {
        /// The rows are what they must be.
        Good = "good",
        /// They are not, or were not computed.
        Wrong = "wrong",
    }
}

metric_label! {
    /// The check that an answer failed.
    pub enum ReplyCheck as "check" {
        /// Rows or width are not those of the batch.
        Shape = "shape",
        /// A value is infinite or not a number.
        Finite = "finite",
        /// A normalised embedding does not have length 1.
        Norm = "norm",
        /// What the host read is not what the worker wrote.
        Checksum = "checksum",
    }
}

impl LabelValue for Priority {
    const SET: LabelSet = LabelSet {
        name: "priority",
        values: &[Self::ALL[0].as_str(), Self::ALL[1].as_str(), Self::ALL[2].as_str()],
    };

    fn index(self) -> usize {
        Self::index(self)
    }
}

impl LabelValue for SealReason {
    const SET: LabelSet = LabelSet {
        name: "reason",
        values: &{
            let mut words = [""; Self::ALL.len()];
            let mut nth = 0;
            while nth < words.len() {
                words[nth] = Self::ALL[nth].as_str();
                nth += 1;
            }
            words
        },
    };

    fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<L: LabelValue>(all: &[L], word: impl Fn(L) -> &'static str) {
        assert_eq!(all.len(), L::SET.values.len(), "{}", L::SET.name);
        for (nth, value) in all.iter().enumerate() {
            assert_eq!(value.index(), nth);
            assert_eq!(word(*value), L::SET.values[nth]);
        }
    }

    #[test]
    fn values_stand_at_their_index() {
        check(Outcome::ALL, Outcome::as_str);
        check(RefusedBy::ALL, RefusedBy::as_str);
        check(Stage::ALL, Stage::as_str);
        check(Unserved::ALL, Unserved::as_str);
        check(RestartCause::ALL, RestartCause::as_str);
        check(AnswerDropped::ALL, AnswerDropped::as_str);
        check(CanaryVerdict::ALL, CanaryVerdict::as_str);
        check(ReplyCheck::ALL, ReplyCheck::as_str);
        check(&Priority::ALL, Priority::as_str);
        check(&SealReason::ALL, SealReason::as_str);
    }
}
