//! What happens in a drill, as the client sees it: the lines of its history. Times are microseconds
//! since the drill's own zero; nothing here reads a clock.

use std::fmt;

use forebay::Fault;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// A client is about to submit a text.
    Invoke { request: u64, client: u32, text: u32, scheduled_us: u64, at_us: u64 },
    /// The runtime did not accept it; `kind` is the code of the error.
    Refused { request: u64, at_us: u64, kind: &'static str },
    /// A reply to an accepted text: the digest of a vector, or the code of an error.
    Reply { request: u64, at_us: u64, outcome: Result<u64, &'static str> },
    /// A fault is about to be injected.
    Fault { at_us: u64, on: String, fault: Fault },
    /// Nothing more will come: every reply is there, or was waited for long enough.
    End { at_us: u64 },
}

/// First line of a history.
pub(super) const HEADER: &str = "forebay-history,1";

impl fmt::Display for Event {
    /// One line of the history, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invoke { request, client, text, scheduled_us, at_us } => {
                write!(f, "invoke,{request},{client},{text},{scheduled_us},{at_us}")
            }
            Self::Refused { request, at_us, kind } => write!(f, "refused,{request},{at_us},{kind}"),
            Self::Reply { request, at_us, outcome: Ok(digest) } => {
                write!(f, "ok,{request},{at_us},{digest:016x}")
            }
            Self::Reply { request, at_us, outcome: Err(kind) } => {
                write!(f, "err,{request},{at_us},{kind}")
            }
            Self::Fault { at_us, on, fault } => write!(f, "fault,{at_us},{on},{fault}"),
            Self::End { at_us } => write!(f, "end,{at_us}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_line() {
        let lines = [
            Event::Invoke { request: 1, client: 2, text: 3, scheduled_us: 4, at_us: 5 },
            Event::Refused { request: 1, at_us: 6, kind: "overloaded" },
            Event::Reply { request: 1, at_us: 7, outcome: Ok(0xab) },
            Event::Reply { request: 1, at_us: 7, outcome: Err("unavailable") },
            Event::Fault { at_us: 8, on: "cuda:0".to_owned(), fault: Fault::Slow(3) },
            Event::End { at_us: 9 },
        ];
        let expected = [
            "invoke,1,2,3,4,5",
            "refused,1,6,overloaded",
            "ok,1,7,00000000000000ab",
            "err,1,7,unavailable",
            "fault,8,cuda:0,slow=3",
            "end,9",
        ];
        assert_eq!(lines.map(|event| event.to_string()), expected);
    }
}
