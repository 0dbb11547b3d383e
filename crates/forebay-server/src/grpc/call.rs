//! The time that a call may take: what its client allows, and no more than is allowed anyway.

use std::time::{Duration, Instant};

use http::HeaderMap;
use tonic::metadata::MetadataMap;

use crate::api::{Api, Kind, Problem};

const TIMEOUT: &str = "grpc-timeout";

/// Digits of a timeout at most, as the protocol has it.
const DIGITS_MAX: usize = 8;

/// When the client gives the call up, if it said so.
///
/// # Errors
/// The header is no time.
pub(super) fn until(metadata: &MetadataMap, now: Instant) -> Result<Option<Instant>, Problem> {
    let Some(value) = metadata.get(TIMEOUT) else { return Ok(None) };
    let time = value.to_str().ok().and_then(time).ok_or_else(|| {
        let message = "grpc-timeout is not up to 8 digits and one of H, M, S, m, u, n";
        Problem::new(Kind::Validation, message)
    })?;
    Ok(now.checked_add(time))
}

/// The same by the headers of a request, for whoever has no say in whether it is a time.
pub(crate) fn given_up_at(headers: &HeaderMap, now: Instant) -> Option<Instant> {
    if !super::is_grpc(headers) {
        return None;
    }
    now.checked_add(time(headers.get(TIMEOUT)?.to_str().ok()?)?)
}

/// By when a text that came `now` is to be answered.
pub(super) fn deadline(api: &Api, until: Option<Instant>, now: Instant) -> Instant {
    let longest = now + api.time_max();
    until.map_or(longest, |until| until.min(longest))
}

/// A time as the protocol writes it.
fn time(text: &str) -> Option<Duration> {
    let (unit, digits) = text.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, expected) in [
            ("0n", Duration::ZERO),
            ("15S", Duration::from_secs(15)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
            ("2M", Duration::from_secs(120)),
            ("250m", Duration::from_millis(250)),
            ("7u", Duration::from_micros(7)),
        ] {
            assert_eq!(time(text), Some(expected), "{text}");
        }
        for text in ["", "S", "5", "5s", "-1S", "1.5S", "123456789S", "5 S", "é"] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
