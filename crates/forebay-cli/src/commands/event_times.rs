//! Times of events: how they are shown, and what may be asked for.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// How times of day are shown.
#[derive(Debug)]
pub(crate) struct Clock {
    zone: TimeZone,
    format: &'static str,
}

impl Clock {
    /// In the time zone of the system, with its offset.
    pub(crate) fn local() -> Self {
        Self { zone: TimeZone::system(), format: "%Y-%m-%d %H:%M:%S%.3f%:z" }
    }

    /// In UTC.
    pub(crate) fn utc() -> Self {
        Self { zone: TimeZone::UTC, format: "%Y-%m-%d %H:%M:%S%.3fZ" }
    }

    /// The time to the millisecond.
    pub(crate) fn shown(&self, time: SystemTime) -> String {
        match Timestamp::try_from(time) {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime(self.format).to_string(),
            Err(_) => "a time that cannot be".to_owned(),
        }
    }

    /// The time as in RFC 3339, to the nanosecond, in UTC.
    pub(crate) fn exact(&self, time: SystemTime) -> String {
        Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
    }
}

/// A length of time with about two digits that matter.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0 if time < Duration::from_millis(10) => format!("{:.1} ms", time.as_secs_f64() * 1_000.0),
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// From when on events are shown.
#[derive(Clone, Debug)]
pub(crate) struct Since(Timestamp);

impl Since {
    /// Whether a time is not before it.
    pub(crate) fn includes(&self, time: SystemTime) -> bool {
        Timestamp::try_from(time).is_ok_and(|time| time >= self.0)
    }
}

impl FromStr for Since {
    type Err = String;

    /// How long ago (`10m`), a time with an offset (RFC 3339), or a local time without one.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = text.parse::<Span>() {
            let then = Zoned::now().checked_sub(span.abs());
            return then.map(|then| Self(then.timestamp())).map_err(|error| error.to_string());
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self(time));
        }
        let local = text.parse::<DateTime>().and_then(|time| time.to_zoned(TimeZone::system()));
        local
            .map(|time| Self(time.timestamp()))
            .map_err(|_| format!("`{text}` is no time; write 10m, 1h, 2d or 2026-07-30T12:00:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (time, said) in [
            (Duration::ZERO, "0.0 ms"),
            (Duration::from_micros(1_234), "1.2 ms"),
            (Duration::from_millis(999), "999 ms"),
            (Duration::from_millis(1_934), "1.9 s"),
            (Duration::from_secs(200), "3 min 20 s"),
            (Duration::from_secs(7_500), "2 h 5 min"),
            (Duration::from_secs(200_000), "2 d 7 h"),
        ] {
            assert_eq!(span(time), said);
        }
    }

    #[test]
    fn times_are_shown_in_utc_or_with_their_offset() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        assert_eq!(Clock::utc().shown(time), "2023-11-14 22:13:20.123Z");
        assert_eq!(Clock::utc().exact(time), "2023-11-14T22:13:20.123456789Z");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let local = Clock { zone, ..Clock::local() };
        assert_eq!(local.shown(time), "2023-11-15 00:13:20.123+02:00");
    }

    #[test]
    fn since_takes_how_long_ago_and_when() {
        let since = |text: &str| text.parse::<Since>().unwrap_or_else(|error| panic!("{error}"));
        let now = SystemTime::now();
        for (ago, seconds) in [("10m", 600), ("1h", 3_600), ("90s", 90), ("1h 30m", 5_400)] {
            let (since, then) = (since(ago), now - Duration::from_secs(seconds));
            assert!(since.includes(now), "{ago}");
            assert!(!since.includes(then - Duration::from_secs(60)), "{ago}");
            assert!(since.includes(then + Duration::from_secs(60)), "{ago}");
        }
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for text in ["2023-11-14T22:13:20Z", "2023-11-15 00:13:20+02:00"] {
            assert!(since(text).includes(at), "{text}");
            assert!(!since(text).includes(at - Duration::from_nanos(1)), "{text}");
        }
        assert!(since("2023-11-13").includes(at));
        for wrong in ["", "yesterday", "10", "2023-13-01"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }
}
