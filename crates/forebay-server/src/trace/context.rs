//! The trace that a request belongs to: W3C Trace Context (Recommendation, headers `traceparent` and
//! `tracestate`), which gRPC clients send as metadata of the same names.

use std::fmt;

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bit of the flags: the caller records its spans.
const SAMPLED: u8 = 0x01;

/// Bytes of a `traceparent` of version 0; later versions may have more behind a dash.
const VERSION_0_BYTES: usize = 55;

/// Bytes of a `tracestate` that is kept. The Recommendation asks for at least 512; a longer one is
/// left out as a whole.
const STATE_BYTES_MAX: usize = 512;

/// Id of a trace; never all zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(pub(super) [u8; 16]);

/// Id of a span; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanId(pub(super) [u8; 8]);

impl TraceId {
    pub(super) fn random() -> Self {
        // A request in 2^128 gets the one that is not valid, which collectors drop.
        Self(rand::random())
    }
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a client says of its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteParent {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    /// Whether the client records its spans.
    pub(super) sampled: bool,
    /// `tracestate`, as it came.
    pub(super) state: String,
}

impl RemoteParent {
    /// The parent that the headers name, if they name one validly.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (parent, None) = (parents.next()?, parents.next()) else { return None };
        let (trace_id, span_id, flags) = parse(parent.as_bytes())?;
        Some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0, state: state(headers) })
    }
}

/// Trace, parent and flags of a `traceparent`.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let fields = text.get(..VERSION_0_BYTES)?;
    let [version, flags] = [&fields[..2], &fields[53..]].map(hex::<1>);
    let (version, flags) = (version?[0], flags?[0]);
    let dashes = [2, 35, 52].iter().all(|place| fields[*place] == b'-');
    let is_whole = match version {
        0 => text.len() == VERSION_0_BYTES,
        0xff => false,
        _ => text.get(VERSION_0_BYTES).is_none_or(|next| *next == b'-'),
    };
    let trace_id = hex::<16>(&fields[3..35])?;
    let span_id = hex::<8>(&fields[36..52])?;
    let is_valid = dashes && is_whole && trace_id != [0; 16] && span_id != [0; 8];
    is_valid.then_some((TraceId(trace_id), SpanId(span_id), flags))
}

/// Bytes written as lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The `tracestate` of a request whose `traceparent` is valid; several count as one list.
fn state(headers: &HeaderMap) -> String {
    let mut state = String::new();
    for part in headers.get_all(TRACESTATE) {
        // What is no visible ASCII makes the whole list invalid.
        let Ok(part) = part.to_str() else { return String::new() };
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(part);
        if state.len() > STATE_BYTES_MAX {
            return String::new();
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(parents: &[&str], states: &[&str]) -> Option<RemoteParent> {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, parent.parse().expect("a header"));
        }
        for state in states {
            headers.append(TRACESTATE, state.parse().expect("a header"));
        }
        RemoteParent::of(&headers)
    }

    #[test]
    fn a_valid_parent_is_taken_with_its_state() {
        let parent = of(&[GOOD], &["a=1", "b=2"]).expect("valid");
        assert_eq!(parent.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span_id.0, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert!(parent.sampled);
        assert_eq!(parent.state, "a=1,b=2");
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(of(&[&text], &[]).expect("valid").sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn later_versions_are_read_as_the_first() {
        for text in [format!("01{}", &GOOD[2..]), format!("cc{}-what-comes", &GOOD[2..])] {
            assert!(of(&[&text], &[]).is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_not_valid_is_no_parent() {
        let changed = |place: usize, with: &str| {
            let mut text = GOOD.to_owned();
            text.replace_range(place..place + with.len(), with);
            text
        };
        for text in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-more"),
            format!("01{}.more", &GOOD[2..]),
            format!("ff{}", &GOOD[2..]),
            GOOD.to_uppercase(),
            changed(3, &"0".repeat(32)),
            changed(36, &"0".repeat(16)),
            changed(2, "_"),
            changed(35, "_"),
            changed(52, "_"),
            changed(10, "g"),
        ] {
            assert_eq!(of(&[&text], &["a=1"]), None, "{text}");
        }
        assert_eq!(of(&[GOOD, GOOD], &[]), None, "two are none");
        assert_eq!(of(&[], &["a=1"]), None);
    }

    #[test]
    fn a_state_that_is_too_long_or_no_text_is_left_out() {
        let long = format!("a={}", "x".repeat(STATE_BYTES_MAX));
        assert_eq!(of(&[GOOD], &[&long]).expect("valid").state, "");
        assert_eq!(of(&[GOOD], &["a=ü"]).expect("valid").state, "");
    }
}
