//! One worker from the host's side: its arena, the books about its slots, its socket.
//!
//! Two threads use it. The dispatcher writes batches in, the worker's reader takes answers out;
//! who takes a batch out of the books answers it, so each text is answered once. The lock guards
//! the books only and is held for no copy, no system call and no reply.

mod books;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_arena::{HostArena, SlotLease, SlotTable, StaleAnswer};
use forebay_protocol::{Descriptor, DescriptorKind, Fault};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

pub(crate) use self::books::InFlight;
use self::books::{Allowed, Books};
use super::port::{Batch, EndedBatch, LateBatch, Load, View, WorkerId, WorkerPort};
use crate::canary::Canary;
use crate::config::{Tier, WorkerConfig};
use crate::metrics::RungMetrics;
use crate::request::Pending;
use crate::supervisor::EndCause;

/// Ends the worker that this lane belongs to; must not block.
type End = Box<dyn Fn(EndCause) + Send + Sync>;

/// An answer that is of no use.
pub(crate) enum Unusable {
    /// It names no batch in flight. The worker may be sound: it has answered twice.
    Stale(StaleAnswer),
    /// It does not fit its batch, which stays in the books until the worker has ended.
    Shape(String),
}

/// What a lane must know of its worker.
pub(crate) struct LaneSpec {
    pub(crate) id: WorkerId,
    pub(crate) tier: Tier,
    /// Batches that it computes side by side, from 1 to as many as there are slots.
    pub(crate) side_by_side: u32,
    pub(crate) timing: WorkerConfig,
    pub(crate) canary: Arc<Canary>,
    pub(crate) rung: Arc<RungMetrics>,
}

pub(crate) struct WorkerLane {
    id: WorkerId,
    tier: Tier,
    side_by_side: u32,
    arena: HostArena,
    canary: Arc<Canary>,
    books: Mutex<Books>,
    socket: OwnedFd,
    timing: WorkerConfig,
    rung: Arc<RungMetrics>,
    end: End,
}

impl WorkerLane {
    pub(crate) fn new(
        spec: LaneSpec,
        (arena, slots): (HostArena, SlotTable<InFlight>),
        socket: OwnedFd,
        end: End,
    ) -> Self {
        let LaneSpec { id, tier, side_by_side, timing, canary, rung } = spec;
        let books = Mutex::new(Books::new(slots, side_by_side));
        Self { id, tier, side_by_side, arena, canary, books, socket, timing, rung, end }
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
            let expected = (batch.count, batch.tokens);
            let found = (answer.rows, answer.tokens);
            if found != expected {
                let message = format!("answer of {found:?} rows and tokens, expected {expected:?}");
                return Err(Unusable::Shape(message));
            }
        }
        books.complete(answer, now).map_err(Unusable::Stale)
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

    /// The known texts that fit into a slot.
    fn canary_rows(&self) -> &[Vec<u32>] {
        let spec = self.arena.layout().spec();
        let (tokens_max, rows_max) = (spec.tokens_max as usize, spec.rows_max as usize);
        self.canary.rows_within(tokens_max, rows_max)
    }

    /// A free slot to write into, unless the worker is gone.
    fn lease(&self) -> Option<SlotLease> {
        let mut books = self.lock();
        if books.ended { None } else { books.slots.lease() }
    }

    /// Writes token ids into a slot: how many rows and tokens. A worker whose slot cannot hold what
    /// was meant for it is ended.
    fn write<'a>(
        &self,
        lease: &mut SlotLease,
        ids: impl Iterator<Item = &'a [u32]> + Clone,
    ) -> Option<(u32, u32)> {
        let written = self.arena.write_rows(lease, ids);
        written
            .inspect_err(|error| {
                (self.end)(EndCause::Protocol(format!("batch cannot be written: {error}")));
            })
            .ok()
    }

    /// Hands a written slot over. The batch comes back if the worker never gets it.
    fn send_batch(
        &self,
        lease: SlotLease,
        batch: InFlight,
        batch_id: u64,
        late_after: Option<Duration>,
    ) -> Result<(), Box<InFlight>> {
        let descriptor = Descriptor {
            slot: lease.slot(),
            generation: lease.generation(),
            batch_id,
            rows: batch.count,
            tokens: batch.tokens,
            row_values: self.arena.layout().spec().row_values,
            ..Descriptor::new(match batch.beside {
                true => DescriptorKind::RunBeside,
                false => DescriptorKind::Run,
            })
        };
        {
            let mut books = self.lock();
            if books.ended {
                return Err(Box::new(batch));
            }
            let hung_after = self.timing.batch_deadline(u64::from(batch.tokens));
            books.sent(lease, batch, &Allowed { hung_after, late_after });
        }
        // In the books before it is sent: the answer may be there before this call returns.
        let Err(errno) = self.send(&descriptor) else { return Ok(()) };
        // A worker that is gone is seen by its reader, and its exit status says why. Any other
        // failure leaves one behind that must be ended.
        if !matches!(errno, Errno::PIPE | Errno::CONNRESET) {
            (self.end)(EndCause::Protocol(format!("descriptor cannot be sent: {errno}")));
        }
        // Unless the worker's end has taken it out of the books already.
        match self.lock().slots.complete(descriptor.slot, descriptor.generation) {
            Ok((_, batch)) => Err(Box::new(batch)),
            Err(_) => Ok(()),
        }
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

    fn side_by_side(&self) -> usize {
        self.side_by_side as usize
    }

    fn load(&self) -> Load {
        self.lock().load()
    }

    fn run(&self, batch: Batch, now: Instant) -> Result<(), EndedBatch> {
        let Batch { batch_id, rows, exclusive, beside, late_after } = batch;
        let Some(mut lease) = self.lease() else { return Err(EndedBatch { rows, exclusive }) };
        let ids = rows.iter().map(|pending| pending.ids.as_slice());
        let Some(written) = self.write(&mut lease, ids) else {
            self.release(lease);
            return Err(EndedBatch { rows, exclusive });
        };
        let waited = |row: &Pending| now.saturating_duration_since(row.queued_at);
        let span = tracing::debug_span!(
            "batch",
            batch_id,
            worker = self.id.slot,
            incarnation = self.id.incarnation,
            rows = written.0,
            tokens = written.1,
            exclusive,
            beside,
            waited_us = rows.iter().map(waited).max().unwrap_or_default().as_micros() as u64
        );
        let in_flight = InFlight {
            next_expiry: rows.iter().filter_map(|pending| pending.spec.deadline).min(),
            oldest_queued_at: rows.iter().map(|pending| pending.queued_at).min(),
            rows: rows.into_iter().map(Some).collect(),
            canary: false,
            exclusive,
            beside,
            span,
            ..InFlight::empty(written, now)
        };
        // It never reached the worker, so it is under no suspicion.
        self.send_batch(lease, in_flight, batch_id, late_after).map_err(|batch| EndedBatch {
            rows: batch.rows.into_iter().flatten().collect(),
            exclusive,
        })
    }

    fn canary_tokens(&self) -> usize {
        self.canary_rows().iter().map(Vec::len).sum()
    }

    fn run_canary(&self, batch_id: u64, late_after: Option<Duration>, now: Instant) -> bool {
        let Some(mut lease) = self.lease() else { return false };
        let ids = self.canary_rows().iter().map(Vec::as_slice);
        let Some(written) = self.write(&mut lease, ids) else {
            self.release(lease);
            return false;
        };
        self.send_batch(lease, InFlight::empty(written, now), batch_id, late_after).is_ok()
    }

    fn take_expired(&self, now: Instant) -> Vec<Pending> {
        let mut expired = Vec::new();
        for batch in self.lock().slots.in_flight_mut() {
            batch.take_expired(now, &mut expired);
        }
        expired
    }

    fn next_expiry(&self) -> Option<Instant> {
        self.view().next_expiry
    }

    fn next_hung(&self) -> Option<Instant> {
        self.view().next_hung
    }

    fn next_late(&self) -> Option<LateBatch> {
        self.view().next_late
    }

    fn postpone(&self, by: Duration) {
        for batch in self.lock().slots.in_flight_mut() {
            batch.hung.postpone(by);
            batch.late.postpone(by);
        }
    }

    fn twins(&self, executions_max: u32, texts_max: usize) -> Vec<Pending> {
        let mut books = self.lock();
        let rows = books.slots.in_flight_mut().flat_map(|batch| &mut batch.rows).flatten();
        let once =
            rows.filter(|row| !row.owed.is_shared() && row.owed.executions() < executions_max);
        once.take(texts_max).map(Pending::twin).collect()
    }

    fn oldest_queued_at(&self) -> Option<Instant> {
        self.view().oldest_queued_at
    }

    fn view(&self) -> View {
        self.lock().view()
    }

    fn abandon(&self) -> Vec<EndedBatch> {
        WorkerLane::abandon(self)
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
