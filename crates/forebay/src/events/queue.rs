//! What recorders and the writer share: the next number, the newest events, and those that wait for
//! the disk. Everything is under one lock that nobody holds while touching a disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::format::SEQUENCE_MAX;
use super::kind::EventKind;
use super::record::{Event, EventId};
use crate::config::EventsConfig;
use crate::metrics::Metrics;

/// The queue between recorders and the writer of one log.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something was written or given up, or the writer ended.
    moved: Condvar,
    metrics: Arc<Metrics>,
    recent_max: usize,
    waiting_max: usize,
}

/// What is under the lock.
pub(super) struct State {
    /// The number of the next event.
    pub(super) next: u64,
    /// The newest events, whether written or not.
    pub(super) recent: VecDeque<Arc<Event>>,
    /// Events that are not on disk.
    pub(super) waiting: VecDeque<Arc<Event>>,
    /// How many of them, from the front, the writer has in hand.
    in_hand: usize,
    /// Every event with a lower number is on disk, or is accounted for there as lost.
    pub(super) written_next: u64,
    pub(super) is_closing: bool,
    pub(super) is_ended: bool,
}

impl Queue {
    pub(super) fn new(config: &EventsConfig, metrics: Arc<Metrics>, next: u64) -> Self {
        let state = State {
            next,
            recent: VecDeque::new(),
            waiting: VecDeque::new(),
            in_hand: 0,
            written_next: next,
            is_closing: false,
            is_ended: false,
        };
        Self {
            state: Mutex::new(state),
            moved: Condvar::new(),
            metrics,
            recent_max: config.recent_events_max as usize,
            waiting_max: config.queue_events_max as usize,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that change it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers an event and keeps it; with `is_written` it also waits for the disk.
    pub(super) fn record(
        &self,
        cause: Option<EventId>,
        kind: EventKind,
        boot: &str,
        is_written: bool,
    ) -> EventId {
        let kind = kind.bounded();
        let boot = boot.to_owned();
        let mut state = self.lock();
        let id = EventId(state.next);
        state.next = state.next.saturating_add(1).min(SEQUENCE_MAX);
        // Under the lock, so that times rise with the numbers.
        let (mono_ns, wall) = clock::now();
        let event = Arc::new(Event { id, cause, boot, mono_ns, wall, kind });
        if state.recent.len() >= self.recent_max {
            state.recent.pop_front();
        }
        state.recent.push_back(Arc::clone(&event));
        self.metrics.event_recorded();
        if is_written {
            // The newest say what the state of things is. What is in hand may be on disk already.
            let oldest = state.in_hand;
            while state.waiting.len().saturating_sub(oldest) >= self.waiting_max
                && state.waiting.remove(oldest).is_some()
            {
                self.metrics.events_lost(1);
            }
            state.waiting.push_back(event);
            self.metrics.events_waiting(state.waiting.len());
        }
        id
    }

    /// The writer takes the oldest events in hand, without taking them away.
    pub(super) fn take_in_hand(&self, events_max: usize) -> Vec<Arc<Event>> {
        let mut state = self.lock();
        state.in_hand = state.waiting.len().min(events_max);
        state.waiting.iter().take(state.in_hand).cloned().collect()
    }

    /// The first `events` of those in hand are on disk, and number `next` comes there next.
    pub(super) fn written(&self, events: usize, next: u64) {
        let mut state = self.lock();
        let events = events.min(state.in_hand);
        state.waiting.drain(..events);
        state.in_hand = 0;
        state.written_next = next;
        self.metrics.events_waiting(state.waiting.len());
        drop(state);
        self.moved.notify_all();
    }

    /// Nothing in hand is on disk.
    pub(super) fn not_written(&self) {
        self.lock().in_hand = 0;
        self.metrics.event_log_failed();
    }

    /// Asks the writer to end.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    /// The writer has ended; what waits will not be written.
    pub(super) fn ended(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        self.metrics.events_lost(state.waiting.len() as u64);
        drop(state);
        self.moved.notify_all();
    }

    /// Waits until `is_done`, at most this long; whether it is.
    pub(super) fn wait(&self, at_most: Duration, is_done: impl Fn(&State) -> bool) -> bool {
        let began = Instant::now();
        let mut state = self.lock();
        loop {
            if is_done(&state) || state.is_ended {
                return is_done(&state);
            }
            let left = at_most.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.moved.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
