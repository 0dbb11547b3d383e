//! What is known of one connection, and by when it has to get on: written by its own task and by the
//! handlers of its requests, read by whoever needs room for another.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use forebay::config::LimitsConfig;
use futures::task::AtomicWaker;

use super::metrics::Cut;

/// The times of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    first_byte: Duration,
    header: Duration,
    idle: Duration,
}

impl Times {
    pub(crate) fn of(limits: &LimitsConfig) -> Self {
        Self {
            first_byte: Duration::from_millis(limits.first_byte_ms.into()),
            header: Duration::from_millis(limits.header_ms.into()),
            idle: Duration::from_millis(limits.idle_ms.into()),
        }
    }
}

/// How HTTP/2 begins. No method of HTTP/1 does; that the rest is right, hyper checks.
const PREFACE: &[u8] = b"PRI";

/// What a connection is doing, as far as its deadline depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing has arrived yet.
    Silent {
        /// When it was opened.
        since: Instant,
    },
    /// Part of a request's head has arrived (HTTP/1; HTTP/2 has frames for other purposes).
    Head {
        /// When its first byte did.
        since: Instant,
    },
    /// A request is under way or its answer on its way out, whose own limits hold.
    Request,
    /// Nothing is under way but calls that listen until something changes.
    Listening {
        /// Since when.
        since: Instant,
    },
    /// Between requests.
    Idle {
        /// Since when.
        since: Instant,
    },
}

impl Phase {
    /// When the connection is cut off if nothing changes, and what for.
    pub(crate) fn deadline(self, times: &Times) -> Option<(Instant, Cut)> {
        match self {
            Self::Silent { since } => Some((since + times.first_byte, Cut::FirstByte)),
            Self::Head { since } => Some((since + times.header, Cut::Header)),
            Self::Request | Self::Listening { .. } => None,
            Self::Idle { since } => Some((since + times.idle, Cut::Idle)),
        }
    }
}

/// What a request means for the place of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is to be answered: the connection stays until it is.
    Answer,
    /// It listens until something changes: the connection stays unless its place is needed.
    Listen,
    /// It listens, and nobody knows for whom: as if it were not.
    Nothing,
}

/// One connection.
pub(crate) struct Standing {
    opened: Instant,
    has_read: AtomicBool,
    /// Bytes of the preface of HTTP/2 that have arrived; `u8::MAX` once something else has.
    preface_bytes: AtomicU8,
    is_h2: AtomicBool,
    under_way: AtomicU32,
    listening: AtomicU32,
    /// Whether an answer has been handed over that is not written yet.
    unwritten: AtomicBool,
    /// When a part of an answer was last taken, over HTTP/2, as `quiet_us`; 0 for never.
    taken_us: AtomicU64,
    answered: AtomicU64,
    given_up: AtomicU64,
    /// Since when no request is under way and all is written, in microseconds after `opened`.
    quiet_us: AtomicU64,
    /// When a byte first came since then; 0 for not yet.
    head_us: AtomicU64,
    /// Why it is to be closed at once.
    cut: OnceLock<Cut>,
    /// While the daemon drains, until when one that has said nothing is kept, as `quiet_us`; 0 before.
    closing_us: AtomicU64,
    waker: AtomicWaker,
}

impl Standing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            has_read: AtomicBool::new(false),
            preface_bytes: AtomicU8::new(0),
            is_h2: AtomicBool::new(false),
            under_way: AtomicU32::new(0),
            listening: AtomicU32::new(0),
            unwritten: AtomicBool::new(false),
            taken_us: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            quiet_us: AtomicU64::new(0),
            head_us: AtomicU64::new(0),
            cut: OnceLock::new(),
            closing_us: AtomicU64::new(0),
            waker: AtomicWaker::new(),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.opened).as_micros();
        // 0 means never.
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }

    /// Bytes have arrived.
    pub(crate) fn read(&self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.has_read.store(true, Ordering::Release);
        self.match_preface(bytes);
        let at = self.micros(now);
        self.head_us.compare_exchange(0, at, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// Looks whether it is HTTP/2, which may arrive byte by byte. Only its own task does so.
    fn match_preface(&self, bytes: &[u8]) {
        let matched = self.preface_bytes.load(Ordering::Acquire);
        let Some(rest) = PREFACE.get(matched.into()..).filter(|rest| !rest.is_empty()) else {
            return;
        };
        let count = rest.len().min(bytes.len());
        let matched = match rest[..count] == bytes[..count] {
            true => usize::from(matched) + count,
            false => usize::from(u8::MAX),
        };
        self.is_h2.store(matched == PREFACE.len(), Ordering::Release);
        self.preface_bytes.store(u8::try_from(matched).unwrap_or(u8::MAX), Ordering::Release);
    }

    fn counter(&self, claim: Claim) -> Option<&AtomicU32> {
        match claim {
            Claim::Answer => Some(&self.under_way),
            Claim::Listen => Some(&self.listening),
            Claim::Nothing => None,
        }
    }

    /// A request has begun.
    pub(crate) fn begin(&self, claim: Claim) {
        if let Some(counter) = self.counter(claim) {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// A request is over: its answer handed over to its end, or given up by the client.
    pub(crate) fn end(&self, claim: Claim, answered: bool, now: Instant, resets_max: u32) {
        let counter = if answered { &self.answered } else { &self.given_up };
        counter.fetch_add(1, Ordering::AcqRel);
        self.head_us.store(0, Ordering::Release);
        self.quiet_us.store(self.micros(now), Ordering::Release);
        if answered {
            // Whoever serves the connection flushes it next.
            self.unwritten.store(true, Ordering::Release);
        }
        if let Some(counter) = self.counter(claim) {
            counter.fetch_sub(1, Ordering::AcqRel);
        }
        let given_up = self.given_up.load(Ordering::Acquire);
        let allowed = self.answered.load(Ordering::Acquire).saturating_add(resets_max.into());
        if given_up > allowed {
            self.cut(Cut::Resets);
        }
        // Handlers of HTTP/2 have tasks of their own: the connection's has its deadline to set.
        if self.is_h2.load(Ordering::Acquire) {
            self.waker.wake();
        }
    }

    /// All that was handed over is written.
    pub(crate) fn written(&self, now: Instant) {
        if self.unwritten.swap(false, Ordering::AcqRel) {
            self.quiet_us.store(self.micros(now), Ordering::Release);
        }
    }

    /// A part of an answer has been taken.
    pub(crate) fn taken(&self, now: Instant) {
        self.taken_us.fetch_max(self.micros(now), Ordering::AcqRel);
    }

    /// Whether a part of any answer has been taken since then.
    pub(crate) fn has_taken_since(&self, since: Instant) -> bool {
        self.taken_us.load(Ordering::Acquire) > self.micros(since)
    }

    /// Whether anything has ever arrived.
    pub(crate) fn has_read(&self) -> bool {
        self.has_read.load(Ordering::Acquire)
    }

    /// What it is doing.
    pub(crate) fn phase(&self) -> Phase {
        let at = |us: &AtomicU64| self.opened + Duration::from_micros(us.load(Ordering::Acquire));
        if self.under_way.load(Ordering::Acquire) > 0 || self.unwritten.load(Ordering::Acquire) {
            Phase::Request
        } else if self.listening.load(Ordering::Acquire) > 0 {
            Phase::Listening { since: at(&self.quiet_us) }
        } else if !self.has_read() {
            Phase::Silent { since: at(&self.quiet_us) }
        } else if self.head_us.load(Ordering::Acquire) > 0 && !self.is_h2.load(Ordering::Acquire) {
            // What came while the answer before was written has its time from then on.
            Phase::Head { since: at(&self.head_us).max(at(&self.quiet_us)) }
        } else {
            Phase::Idle { since: at(&self.quiet_us) }
        }
    }

    /// The time to the first byte counts from now on.
    pub(crate) fn begin_silence(&self, now: Instant) {
        self.quiet_us.store(self.micros(now), Ordering::Release);
    }

    /// By when it has to get on, and why it is cut off otherwise.
    pub(crate) fn deadline(&self, times: &Times) -> Option<(Instant, Cut)> {
        let phase = self.phase();
        let closing = self.closing_us.load(Ordering::Acquire);
        if closing > 0 && matches!(phase, Phase::Silent { .. }) {
            return Some((self.opened + Duration::from_micros(closing), Cut::Drain));
        }
        phase.deadline(times)
    }

    /// Ends it after what is under way. One that has said nothing yet is kept until then, for what
    /// may be on its way.
    pub(crate) fn close(&self, silent_until: Instant) {
        self.closing_us.store(self.micros(silent_until), Ordering::Release);
        self.waker.wake();
    }

    /// Whether it is to end after what is under way.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing_us.load(Ordering::Acquire) > 0
    }

    /// How readily it is given up for another: lower first; `None` while a request is under way. Who
    /// never had a request answered and listens to nothing goes before everybody else.
    pub(crate) fn worth(&self) -> Option<(bool, Instant)> {
        let since = match self.phase() {
            Phase::Request => return None,
            Phase::Listening { since } => return Some((true, since)),
            Phase::Silent { since } | Phase::Idle { since } | Phase::Head { since } => since,
        };
        Some((self.answered.load(Ordering::Acquire) > 0, since))
    }

    /// Has its task close it; the first reason counts.
    pub(crate) fn cut(&self, reason: Cut) {
        self.cut.set(reason).ok();
        self.waker.wake();
    }

    /// Why it is to be closed, if it is; otherwise `waker` is woken when that changes.
    pub(crate) fn poll_cut(&self, waker: &Waker) -> Option<Cut> {
        self.waker.register(waker);
        self.cut.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn times() -> Times {
        Times { first_byte: 10 * MS, header: 20 * MS, idle: 30 * MS }
    }

    #[test]
    fn each_phase_has_its_own_deadline() {
        let start = Instant::now();
        let standing = Standing::new(start);
        let deadline = || standing.phase().deadline(&times());
        assert_eq!(deadline(), Some((start + 10 * MS, Cut::FirstByte)));
        standing.read(b"G", start + 5 * MS);
        standing.read(b"ET", start + 7 * MS);
        assert_eq!(deadline(), Some((start + 25 * MS, Cut::Header)));
        standing.begin(Claim::Answer);
        standing.read(b"body", start + 8 * MS);
        assert_eq!(deadline(), None);
        standing.end(Claim::Answer, true, start + 30 * MS, 1);
        assert_eq!((deadline(), standing.worth()), (None, None), "it is not written yet");
        standing.written(start + 40 * MS);
        standing.written(start + 45 * MS);
        assert_eq!(deadline(), Some((start + 70 * MS, Cut::Idle)));
        standing.read(b"G", start + 50 * MS);
        assert_eq!(deadline(), Some((start + 70 * MS, Cut::Header)));
    }

    #[test]
    fn frames_between_requests_do_not_prolong_an_http2_connection() {
        let start = Instant::now();
        let standing = Standing::new(start);
        standing.read(b"PRI * HTTP/2.0", start + MS);
        standing.read(b"ping", start + 29 * MS);
        assert_eq!(standing.phase().deadline(&times()), Some((start + 30 * MS, Cut::Idle)));
    }

    #[test]
    fn the_preface_is_known_however_it_is_split() {
        let start = Instant::now();
        let is_h2 = |parts: &[&str]| {
            let standing = Standing::new(start);
            parts.iter().for_each(|part| standing.read(part.as_bytes(), start));
            !matches!(standing.phase(), Phase::Head { .. })
        };
        for parts in [&["PRI * HTTP"][..], &["PR", "I * HTTP"], &["P", "RI"], &["P", "R", "I", " "]]
        {
            assert!(is_h2(parts), "{parts:?}");
        }
        for parts in
            [&["P"][..], &["PR"], &["PRO", "PRI"], &["P", "OST"], &["PR", "", "O"], &["GPRI"]]
        {
            assert!(!is_h2(parts), "{parts:?}");
        }
    }

    #[test]
    fn resets_are_counted_against_answers() {
        let start = Instant::now();
        let standing = Standing::new(start);
        let request = |answered| {
            standing.begin(Claim::Answer);
            standing.end(Claim::Answer, answered, start, 2);
            standing.poll_cut(Waker::noop())
        };
        assert_eq!([true, false, false, false].map(request), [None; 4]);
        assert_eq!(request(false), Some(Cut::Resets));
        standing.cut(Cut::Idle);
        assert_eq!(standing.poll_cut(Waker::noop()), Some(Cut::Resets), "the first reason counts");
    }

    #[test]
    fn who_never_asked_anything_goes_first_and_who_waits_for_an_answer_never() {
        let start = Instant::now();
        let [silent, served, busy] = [0, 1, 2].map(|nth| Standing::new(start + nth * MS));
        served.begin(Claim::Answer);
        served.end(Claim::Answer, true, start + 2 * MS, 0);
        served.written(start + 2 * MS);
        busy.begin(Claim::Answer);
        assert!(silent.worth() < served.worth());
        assert_eq!(busy.worth(), None);
    }

    #[test]
    fn who_listens_makes_room_and_has_no_deadline_unless_nobody_knows_them() {
        let start = Instant::now();
        let [known, unknown] = [0, 1].map(|_| Standing::new(start));
        for (standing, claim) in [(&known, Claim::Listen), (&unknown, Claim::Nothing)] {
            standing.read(b"PRI * HTTP/2.0", start + MS);
            standing.begin(claim);
        }
        assert_eq!(known.deadline(&times()), None);
        assert_eq!(unknown.deadline(&times()), Some((start + 30 * MS, Cut::Idle)));
        assert!(unknown.worth().is_some() && unknown.worth() < known.worth());
        known.begin(Claim::Answer);
        assert_eq!(known.worth(), None);
        known.end(Claim::Answer, true, start + 2 * MS, 0);
        known.written(start + 3 * MS);
        assert_eq!(known.phase(), Phase::Listening { since: start + 3 * MS });
        known.end(Claim::Listen, false, start + 4 * MS, 0);
        assert_eq!(known.deadline(&times()), Some((start + 34 * MS, Cut::Idle)));
    }
}
