//! One serving worker from the host's side: its arena, the books about its slots, its socket.
//!
//! Two threads use it. The dispatcher writes batches in, the worker's reader takes answers out;
//! who takes a batch out of the books answers it, so each text is answered once. The lock guards
//! the books only and is held for no copy, no system call and no reply.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_arena::{HostArena, SlotLease, SlotTable, StaleAnswer};
use forebay_protocol::{Descriptor, DescriptorKind, Fault};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::port::{Batch, EndedBatch, Load, WorkerId, WorkerPort};
use crate::config::{Tier, WorkerConfig};
use crate::metrics::RungMetrics;
use crate::request::Pending;
use crate::supervisor::EndCause;

/// A batch that its worker has.
pub(crate) struct InFlight {
    /// The texts; `None` where one has been answered early because its deadline passed.
    pub(crate) rows: Vec<Option<Pending>>,
    pub(crate) tokens: u32,
    pub(crate) sent_at: Instant,
    pub(crate) span: tracing::Span,
    exclusive: bool,
    late: Late,
    next_expiry: Option<Instant>,
}

/// When a batch counts as late.
///
/// A worker takes its batches one after the other, so each may take its time from when the one
/// before it must have been answered. That is the latest that can be said when it is sent: with every
/// answer the worker shows where it is, and the rest is due sooner. Otherwise what batches leave
/// unused would add up, and a hang in a long run would go unnoticed for as long.
#[derive(Debug, Clone, Copy)]
struct Late {
    at: Instant,
    allowance: Duration,
}

impl Late {
    /// Of a batch behind those that are late at `before`.
    fn behind(before: impl Iterator<Item = Instant>, now: Instant, allowance: Duration) -> Self {
        let begins = before.max().unwrap_or(now).max(now);
        Self { at: begins + allowance, allowance }
    }

    /// The batch before these has just been answered.
    fn advance<'a>(rest: impl Iterator<Item = &'a mut Self>, now: Instant) {
        let mut rest: Vec<&mut Self> = rest.collect();
        rest.sort_unstable_by_key(|late| late.at);
        let mut begins = now;
        for late in rest {
            late.at = late.at.min(begins + late.allowance);
            begins = late.at;
        }
    }
}

struct Books {
    slots: SlotTable<InFlight>,
    /// When the worker can have begun with the batch that completes next.
    free_since: Instant,
    ended: bool,
}

/// Ends the worker that this lane belongs to; must not block.
type End = Box<dyn Fn(EndCause) + Send + Sync>;

/// An answer that is of no use.
pub(crate) enum Unusable {
    /// It names no batch in flight. The worker may be sound: it has answered twice.
    Stale(StaleAnswer),
    /// It does not fit its batch, which stays in the books until the worker has ended.
    Shape(String),
}

pub(crate) struct WorkerLane {
    id: WorkerId,
    tier: Tier,
    arena: HostArena,
    books: Mutex<Books>,
    socket: OwnedFd,
    timing: WorkerConfig,
    rung: Arc<RungMetrics>,
    end: End,
}

impl WorkerLane {
    pub(crate) fn new(
        id: WorkerId,
        tier: Tier,
        (arena, slots): (HostArena, SlotTable<InFlight>),
        socket: OwnedFd,
        timing: WorkerConfig,
        rung: Arc<RungMetrics>,
        end: End,
    ) -> Self {
        let books = Mutex::new(Books { slots, free_since: Instant::now(), ended: false });
        Self { id, tier, arena, books, socket, timing, rung, end }
    }

    pub(crate) fn arena(&self) -> &HostArena {
        &self.arena
    }

    /// Takes the batch that an answer names out of the books, with the time it took the worker.
    pub(crate) fn complete(
        &self,
        answer: &Descriptor,
        now: Instant,
    ) -> Result<(SlotLease, InFlight, Duration), Unusable> {
        let mut books = self.lock();
        if let Some(batch) = books.slots.find(answer.slot, answer.generation) {
            let expected = (batch.rows.len() as u32, batch.tokens);
            let found = (answer.rows, answer.tokens);
            if found != expected {
                let message = format!("answer of {found:?} rows and tokens, expected {expected:?}");
                return Err(Unusable::Shape(message));
            }
        }
        let (lease, batch) =
            books.slots.complete(answer.slot, answer.generation).map_err(Unusable::Stale)?;
        let service = now.saturating_duration_since(batch.sent_at.max(books.free_since));
        books.free_since = now;
        Late::advance(books.slots.in_flight_mut().map(|batch| &mut batch.late), now);
        Ok((lease, batch, service))
    }

    /// Gives a slot back that has been read.
    pub(crate) fn release(&self, lease: SlotLease) {
        self.lock().slots.release(lease);
    }

    /// Takes everything out of the books; the worker is gone.
    pub(crate) fn abandon(&self) -> Vec<EndedBatch> {
        let mut books = self.lock();
        books.ended = true;
        self.rung.slots(0, 0);
        books
            .slots
            .abandon()
            .into_iter()
            .map(|batch| EndedBatch {
                exclusive: batch.exclusive,
                rows: batch.rows.into_iter().flatten().collect(),
            })
            .collect()
    }

    /// Asks the worker to finish and exit.
    pub(crate) fn drain(&self) -> Result<(), Errno> {
        self.send(&Descriptor::new(DescriptorKind::Drain))
    }

    /// Asks the worker to bring a fault about.
    pub(crate) fn inject(&self, fault: Fault) -> Result<(), Errno> {
        self.send(&Descriptor::of_fault(fault))
    }

    fn send(&self, descriptor: &Descriptor) -> Result<(), Errno> {
        // The socket holds far more descriptors than there are slots: it is never full unless the
        // worker is beyond help.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        send(self.socket.as_fd(), &descriptor.encode(), flags).map(|_| ())
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // The books are changed by single steps that do not panic half-way.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerPort for Arc<WorkerLane> {
    fn id(&self) -> WorkerId {
        self.id
    }

    fn tier(&self) -> Tier {
        self.tier
    }

    fn slot_limits(&self) -> (usize, usize) {
        let spec = self.arena.layout().spec();
        (spec.tokens_max as usize, spec.rows_max as usize)
    }

    fn load(&self) -> Load {
        let books = self.lock();
        let mut load = Load { free: books.slots.free(), batches: 0, tokens: 0, exclusive: false };
        for batch in books.slots.in_flight() {
            load.batches += 1;
            load.tokens += batch.tokens as usize;
            load.exclusive |= batch.exclusive;
        }
        if books.ended {
            load.free = 0;
        }
        load
    }

    fn run(&self, batch: Batch, now: Instant) -> Result<(), EndedBatch> {
        let Batch { batch_id, rows, exclusive } = batch;
        let lease = {
            let mut books = self.lock();
            if books.ended { None } else { books.slots.lease() }
        };
        let Some(mut lease) = lease else { return Err(EndedBatch { rows, exclusive }) };
        let ids = rows.iter().map(|pending| pending.ids.as_slice());
        let (count, tokens) = match self.arena.write_rows(&mut lease, ids) {
            Ok(written) => written,
            Err(error) => {
                self.release(lease);
                self.end(EndCause::Protocol(format!("batch cannot be written: {error}")));
                return Err(EndedBatch { rows, exclusive });
            }
        };
        let descriptor = Descriptor {
            slot: lease.slot(),
            generation: lease.generation(),
            batch_id,
            rows: count,
            tokens,
            row_values: self.arena.layout().spec().row_values,
            ..Descriptor::new(DescriptorKind::Run)
        };
        let next_expiry = rows.iter().filter_map(|pending| pending.spec.deadline).min();
        {
            let mut books = self.lock();
            if books.ended {
                return Err(EndedBatch { rows, exclusive });
            }
            let allowance = self.timing.batch_deadline(u64::from(tokens));
            let before = books.slots.in_flight().map(|batch| batch.late.at);
            let late = Late::behind(before, now, allowance);
            let waited = |row: &Pending| now.saturating_duration_since(row.queued_at);
            let span = tracing::debug_span!(
                "batch",
                batch_id,
                worker = self.id.slot,
                incarnation = self.id.incarnation,
                rows = count,
                tokens,
                exclusive,
                waited_us = rows.iter().map(waited).max().unwrap_or_default().as_micros() as u64
            );
            let rows = rows.into_iter().map(Some).collect();
            let in_flight =
                InFlight { rows, tokens, sent_at: now, span, exclusive, late, next_expiry };
            books.slots.sent(lease, in_flight);
        }
        // In the books before it is sent: the answer may be there before this call returns.
        let Err(errno) = self.send(&descriptor) else { return Ok(()) };
        // A worker that is gone is seen by its reader, and its exit status says why. Any other
        // failure leaves one behind that must be ended.
        if !matches!(errno, Errno::PIPE | Errno::CONNRESET) {
            self.end(EndCause::Protocol(format!("descriptor cannot be sent: {errno}")));
        }
        // It never reached the worker, so it is under no suspicion; unless the worker's end has
        // taken it out of the books already.
        match self.lock().slots.complete(descriptor.slot, descriptor.generation) {
            Ok((_, batch)) => {
                let rows = batch.rows.into_iter().flatten().collect();
                Err(EndedBatch { rows, exclusive })
            }
            Err(_) => Ok(()),
        }
    }

    fn take_expired(&self, now: Instant) -> Vec<Pending> {
        let mut expired = Vec::new();
        for batch in self.lock().slots.in_flight_mut() {
            if batch.next_expiry.is_none_or(|expiry| expiry > now) {
                continue;
            }
            for row in &mut batch.rows {
                expired.extend(row.take_if(|pending| pending.spec.expired(now)));
            }
            batch.next_expiry =
                batch.rows.iter().flatten().filter_map(|pending| pending.spec.deadline).min();
        }
        expired
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.lock().slots.in_flight().filter_map(|batch| batch.next_expiry).min()
    }

    fn next_late(&self) -> Option<Instant> {
        self.lock().slots.in_flight().map(|batch| batch.late.at).min()
    }

    fn is_late(&self, now: Instant) -> bool {
        self.lock().slots.in_flight().any(|batch| batch.late.at <= now)
    }

    fn publish(&self) {
        let books = self.lock();
        if !books.ended {
            let all = self.arena.layout().spec().slots as usize;
            self.rung.slots(all, books.slots.free());
        }
    }

    fn end(&self, cause: EndCause) {
        (self.end)(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn send(in_flight: &mut Vec<Late>, now: Instant, allowance: Duration) {
        let late = Late::behind(in_flight.iter().map(|late| late.at), now, allowance);
        in_flight.push(late);
    }

    #[test]
    fn batches_wait_for_those_before_them() {
        let now = Instant::now();
        let mut in_flight = Vec::new();
        send(&mut in_flight, now, SECOND);
        send(&mut in_flight, now, 2 * SECOND);
        assert_eq!([in_flight[0].at, in_flight[1].at], [now + SECOND, now + 3 * SECOND]);
        // The first one is answered at once: the second has no longer anything to wait for.
        in_flight.remove(0);
        Late::advance(in_flight.iter_mut(), now + SECOND / 10);
        assert_eq!(in_flight[0].at, now + 2 * SECOND + SECOND / 10);
    }

    #[test]
    fn unused_time_does_not_add_up_in_a_worker_that_is_never_idle() {
        let start = Instant::now();
        let mut in_flight = Vec::new();
        let mut now = start;
        for _ in 0..3 {
            send(&mut in_flight, now, SECOND);
        }
        for _ in 0..10_000 {
            now += SECOND / 100;
            in_flight.remove(0);
            Late::advance(in_flight.iter_mut(), now);
            send(&mut in_flight, now, SECOND);
            assert_eq!(in_flight[0].at, now + SECOND, "after {:?}", now - start);
            assert_eq!(in_flight[2].at, now + 3 * SECOND, "after {:?}", now - start);
        }
    }

    #[test]
    fn answers_of_other_batches_give_a_hung_one_no_more_time() {
        let start = Instant::now();
        let mut in_flight = Vec::new();
        send(&mut in_flight, start, SECOND);
        let mut now = start;
        while now < start + SECOND {
            assert_eq!(in_flight[0].at, start + SECOND);
            send(&mut in_flight, now, SECOND);
            now += SECOND / 10;
            in_flight.remove(1);
            Late::advance(in_flight.iter_mut(), now);
        }
        assert!(in_flight[0].at <= now);
    }
}
