//! The books of a lane: which batches its worker has, and until when it may keep each.

use std::time::{Duration, Instant};

use forebay_arena::{SlotLease, SlotTable, StaleAnswer};
use forebay_protocol::Descriptor;

use crate::dispatch::due::Due;
use crate::dispatch::port::{LateBatch, Load, View};
use crate::request::Pending;

/// A batch that its worker has.
pub(crate) struct InFlight {
    /// The texts; `None` where one has been answered early because its deadline passed.
    pub(crate) rows: Vec<Option<Pending>>,
    pub(crate) tokens: u32,
    pub(crate) sent_at: Instant,
    pub(crate) span: tracing::Span,
    /// Known answers, and no text of anybody: `rows` is empty.
    pub(crate) canary: bool,
    pub(crate) exclusive: bool,
    /// It has its share of the cores only, and began when it was sent.
    pub(super) beside: bool,
    /// Rows in the slot, answered early or not.
    pub(super) count: u32,
    /// When its worker counts as hung.
    pub(super) hung: Due,
    /// When it is later than others of its size.
    pub(super) late: Due,
    pub(super) next_expiry: Option<Instant>,
    pub(super) oldest_queued_at: Option<Instant>,
}

impl InFlight {
    /// A batch without texts of anybody: rows and tokens written at this moment.
    pub(super) fn empty((count, tokens): (u32, u32), now: Instant) -> Self {
        let due = Due::behind(std::iter::empty(), now, Duration::ZERO);
        Self {
            rows: Vec::new(),
            tokens,
            sent_at: now,
            span: tracing::Span::none(),
            canary: true,
            exclusive: false,
            beside: false,
            count,
            hung: due,
            late: due,
            next_expiry: None,
            oldest_queued_at: None,
        }
    }

    /// Takes out the texts whose deadline is `now` or earlier; they are answered early.
    pub(super) fn take_expired(&mut self, now: Instant, expired: &mut Vec<Pending>) {
        if self.next_expiry.is_none_or(|expiry| expiry > now) {
            return;
        }
        for row in &mut self.rows {
            expired.extend(row.take_if(|pending| pending.spec.expired(now)));
        }
        self.next_expiry =
            self.rows.iter().flatten().filter_map(|pending| pending.spec.deadline).min();
    }
}

/// How long a worker may keep a batch that has all its cores.
pub(super) struct Allowed {
    /// Until it counts as hung.
    pub(super) hung_after: Duration,
    /// Until it is later than others of its size; without it when it counts as hung.
    pub(super) late_after: Option<Duration>,
}

pub(super) struct Books {
    pub(super) slots: SlotTable<InFlight>,
    /// When the last batch was done that had all the cores: the next of those cannot have begun
    /// before.
    free_since: Instant,
    /// Batches that the worker computes side by side.
    side_by_side: u32,
    pub(super) ended: bool,
}

impl Books {
    pub(super) fn new(slots: SlotTable<InFlight>, side_by_side: u32) -> Self {
        Self { slots, free_since: Instant::now(), side_by_side, ended: false }
    }

    /// A batch goes to the worker.
    pub(super) fn sent(&mut self, lease: SlotLease, mut batch: InFlight, allowed: &Allowed) {
        let Allowed { hung_after, late_after } = *allowed;
        let (beside, now) = (batch.beside, batch.sent_at);
        // With a part of the cores it may take so many times as long.
        let share = if beside { self.side_by_side } else { 1 };
        let late_after = late_after.unwrap_or(hung_after).min(hung_after).saturating_mul(share);
        let hung_after = hung_after.saturating_mul(share);
        let due = |of: fn(&InFlight) -> Due, after| match beside {
            true => Due::beside(now, after),
            false => Due::behind(self.slots.in_flight().map(of), now, after),
        };
        (batch.hung, batch.late) = (due(|b| b.hung, hung_after), due(|b| b.late, late_after));
        self.slots.sent(lease, batch);
    }

    /// Takes the batch that an answer names out, with the time it took the worker.
    pub(super) fn complete(
        &mut self,
        answer: &Descriptor,
        now: Instant,
    ) -> Result<(SlotLease, InFlight, Duration), StaleAnswer> {
        let (lease, batch) = self.slots.complete(answer.slot, answer.generation)?;
        let service = if batch.beside {
            // Of the worker's time it had its share, whether or not the others have been in use.
            now.saturating_duration_since(batch.sent_at) / self.side_by_side
        } else {
            let since = std::mem::replace(&mut self.free_since, now);
            now.saturating_duration_since(batch.sent_at.max(since))
        };
        Due::advance(self.slots.in_flight_mut().map(|batch| &mut batch.hung), now);
        Due::advance(self.slots.in_flight_mut().map(|batch| &mut batch.late), now);
        Ok((lease, batch, service))
    }

    pub(super) fn load(&self) -> Load {
        let free = if self.ended { 0 } else { self.slots.free() };
        let mut load =
            Load { free, batches: 0, tokens: 0, rows: 0, exclusive: false, whole: false };
        for batch in self.slots.in_flight() {
            load.batches += 1;
            load.tokens += batch.tokens as usize;
            load.rows += batch.count as usize;
            load.exclusive |= batch.exclusive;
            load.whole |= !batch.beside;
        }
        load
    }

    pub(super) fn view(&self) -> View {
        let batches = || self.slots.in_flight();
        let late = batches().min_by_key(|batch| batch.late.at).map(|batch| {
            let Due { at, allowance, .. } = batch.late;
            LateBatch { at, allowance, tokens: batch.tokens as usize }
        });
        View {
            load: self.load(),
            next_expiry: batches().filter_map(|batch| batch.next_expiry).min(),
            next_hung: batches().map(|batch| batch.hung.at).min(),
            next_late: late,
            oldest_queued_at: batches().filter_map(|batch| batch.oldest_queued_at).min(),
        }
    }
}
