//! gRPC as text-embeddings-inference speaks it (`tei.v1`): one text a call, several in a stream of calls.
//! Messages, their frames, and what a status means. Pure.

use std::time::Duration;

use bytes::{Buf, BufMut};
use http::HeaderMap;
use prost::Message;

use super::{Answer, Call};

/// What the body is.
pub(super) const CONTENT_TYPE: &str = "application/grpc";
/// The time that the server has, as digits and a unit.
pub(super) const TIMEOUT: &str = "grpc-timeout";
/// Where the status is: behind the body, or in the head of an answer without one.
const STATUS: &str = "grpc-status";
/// Before each message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;
/// A timeout has eight digits at most.
const TIMEOUT_MAX: u128 = 99_999_999;

/// Names of the statuses, by number.
const STATUSES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The one that says that too much is under way, before any work is done.
const RESOURCE_EXHAUSTED: usize = 8;

#[derive(Clone, PartialEq, prost::Message)]
struct EmbedRequest {
    #[prost(string, tag = "1")]
    inputs: String,
    #[prost(bool, tag = "2")]
    truncate: bool,
    #[prost(bool, tag = "3")]
    normalize: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EmbedResponse {
    #[prost(float, repeated, tag = "1")]
    embeddings: Vec<f32>,
}

/// The method that takes so many texts.
pub(super) fn path(texts: usize) -> &'static str {
    match texts {
        1 => "/tei.v1.Embed/Embed",
        _ => "/tei.v1.Embed/EmbedStream",
    }
}

/// A request's body.
pub(super) fn body(call: &Call) -> Vec<u8> {
    let request =
        |text: &String| EmbedRequest { inputs: text.clone(), truncate: true, normalize: true };
    let mut body = Vec::new();
    for message in call.texts.iter().map(request) {
        body.put_u8(0);
        // A text of four GiB is none.
        body.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
        body.extend(message.encode_to_vec());
    }
    body
}

/// What is left of a deadline, as the header says it.
pub(super) fn timeout(left: Duration) -> String {
    format!("{}m", left.as_millis().clamp(1, TIMEOUT_MAX))
}

/// Whether the status of an answer is that of success.
///
/// # Errors
/// What the answer means if not.
pub(super) fn status(head: &HeaderMap, trailers: Option<&HeaderMap>) -> Result<(), Answer> {
    let found = trailers.and_then(|trailers| trailers.get(STATUS)).or_else(|| head.get(STATUS));
    let status = found.and_then(|status| status.to_str().ok()?.parse::<usize>().ok());
    let status = status.ok_or_else(|| Answer::Unreadable(format!("an answer without {STATUS}")))?;
    let name = STATUSES.get(status).copied().unwrap_or("unknown").into();
    match status {
        0 => Ok(()),
        RESOURCE_EXHAUSTED => Err(Answer::Refused(name)),
        _ => Err(Answer::Error(name)),
    }
}

/// The vectors of a body; what is wrong with one that does not hold them whole.
pub(super) fn rows(mut body: &[u8]) -> Result<Vec<Vec<f32>>, String> {
    let mut rows = Vec::new();
    while !body.is_empty() {
        if body.len() < FRAME_BYTES {
            return Err(format!("{} bytes behind the last message", body.len()));
        }
        let (compressed, length) = (body.get_u8(), body.get_u32() as usize);
        if compressed != 0 {
            return Err(format!("message {} is compressed, which was not asked for", rows.len()));
        }
        let message = body.get(..length).ok_or_else(|| {
            format!("message {} has {} of {length} bytes", rows.len(), body.len())
        })?;
        let response = EmbedResponse::decode(message);
        rows.push(response.map_err(|error| format!("message {}: {error}", rows.len()))?.embeddings);
        body.advance(length);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use forebay::Priority;

    use super::*;

    fn headers(status: Option<&'static str>) -> HeaderMap {
        let status = status.map(|status| (STATUS, http::HeaderValue::from_static(status)));
        status
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value))
            .collect()
    }

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.put_u32(message.len() as u32);
        frame.extend(message);
        frame
    }

    #[test]
    fn each_text_is_a_message() {
        let call = |texts: &[&str]| Call {
            number: 0,
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
            priority: Priority::Bulk,
            deadline: None,
            connection_wait: Duration::from_secs(1),
            wait: Duration::from_secs(1),
        };
        // Field 1: text of length 1; fields 2 and 3: true.
        let message = |text: u8| frame(&[0x0a, 1, text, 0x10, 1, 0x18, 1]);
        assert_eq!(body(&call(&["a"])), message(b'a'));
        assert_eq!(body(&call(&["a", "b"])), [message(b'a'), message(b'b')].concat());
        assert_eq!([path(1), path(2)], ["/tei.v1.Embed/Embed", "/tei.v1.Embed/EmbedStream"]);
        let times = [Duration::ZERO, Duration::from_millis(70), Duration::MAX].map(timeout);
        assert_eq!(times, ["1m", "70m", "99999999m"]);
    }

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let vector = |values: &[f32]| {
            let embeddings = values.to_vec();
            frame(&EmbedResponse { embeddings }.encode_to_vec())
        };
        let two = [vector(&[1.0, -2.0]), vector(&[0.5])].concat();
        assert_eq!(rows(&two), Ok(vec![vec![1.0, -2.0], vec![0.5]]));
        assert_eq!(rows(b""), Ok(Vec::new()));
        let compressed = [&[1_u8], &two[1..]].concat();
        for body in [&two[..two.len() - 1], &two[..3], &compressed, &frame(&[0xff; 9])] {
            assert!(rows(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_status_has_the_protocols_name() {
        let said = |found| status(&headers(Some(found)), None);
        assert_eq!(said("0"), Ok(()));
        assert_eq!(said("8"), Err(Answer::Refused("resource_exhausted".into())));
        assert_eq!(said("4"), Err(Answer::Error("deadline_exceeded".into())));
        assert_eq!(said("16"), Err(Answer::Error("unauthenticated".into())));
        assert_eq!(said("99"), Err(Answer::Error("unknown".into())));
        let (ok, none) = (headers(Some("0")), headers(None));
        assert_eq!(status(&none, Some(&ok)), Ok(()));
        // Behind the body it counts, whatever the head said.
        assert_eq!(status(&ok, Some(&headers(Some("13")))), Err(Answer::Error("internal".into())));
        for unreadable in [said("x"), status(&none, None), status(&none, Some(&none))] {
            assert!(matches!(unreadable, Err(Answer::Unreadable(_))), "{unreadable:?}");
        }
    }
}
