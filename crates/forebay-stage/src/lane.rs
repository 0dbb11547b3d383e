//! The bounded lane between two stages, with a clock on the wait for room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError};

/// How a receiver waits for its next item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitMode {
    /// Sleep at once. Burns nothing; each item on an empty lane costs a wake-up.
    Park,
    /// Look for an item this long before sleeping. Burns a core while it looks and saves the
    /// wake-up when the next item comes soon.
    SpinThenPark(Duration),
}

/// A lane for at most `capacity` items. Both ends can be cloned; an item goes to one receiver.
///
/// A capacity of zero would make each send wait for a receiver and is raised to one.
#[must_use]
pub fn lane<T>(capacity: usize, wait: WaitMode) -> (LaneSender<T>, LaneReceiver<T>) {
    let (sender, receiver) = channel::bounded(capacity.max(1));
    let stats = Arc::new(LaneStats::default());
    (LaneSender { sender, stats: Arc::clone(&stats) }, LaneReceiver { receiver, wait, stats })
}

/// What passed through a lane and how long its senders waited for room.
#[derive(Debug, Default)]
pub struct LaneStats {
    sent: AtomicU64,
    blocked: AtomicU64,
    blocked_ns: AtomicU64,
}

impl LaneStats {
    /// Items sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends that found the lane full.
    #[must_use]
    pub fn blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Time that senders waited for room.
    #[must_use]
    pub fn blocked_time(&self) -> Duration {
        Duration::from_nanos(self.blocked_ns.load(Ordering::Relaxed))
    }
}

/// The other end of the lane is gone; for a send, with the item that could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lane is closed")]
pub struct LaneClosed<T = ()>(pub T);

/// Why a send that does not wait gave its item back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendRefused<T> {
    /// No room.
    Full(T),
    /// No receiver is left.
    Closed(T),
}

/// Why a bounded wait for an item ended without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvTimeout {
    /// The time is over.
    TimedOut,
    /// The lane is closed and empty.
    Closed,
}

/// The sending end.
#[derive(Debug)]
pub struct LaneSender<T> {
    sender: Sender<T>,
    stats: Arc<LaneStats>,
}

impl<T> Clone for LaneSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), stats: Arc::clone(&self.stats) }
    }
}

impl<T> LaneSender<T> {
    /// Sends, waiting for room if there is none; only that wait is timed.
    ///
    /// # Errors
    /// [`LaneClosed`] with the item if no receiver is left.
    pub fn send(&self, item: T) -> Result<(), LaneClosed<T>> {
        let item = match self.try_send(item) {
            Ok(()) => return Ok(()),
            Err(SendRefused::Closed(item)) => return Err(LaneClosed(item)),
            Err(SendRefused::Full(item)) => item,
        };
        self.wait_for_room(item)
    }

    fn wait_for_room(&self, item: T) -> Result<(), LaneClosed<T>> {
        let start = Instant::now();
        let sent = self.sender.send(item).map_err(|error| LaneClosed(error.into_inner()));
        let waited_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.stats.blocked_ns.fetch_add(waited_ns, Ordering::Relaxed);
        self.stats.blocked.fetch_add(1, Ordering::Relaxed);
        if sent.is_ok() {
            self.stats.sent.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Sends only if there is room.
    ///
    /// # Errors
    /// [`SendRefused`] with the item.
    pub fn try_send(&self, item: T) -> Result<(), SendRefused<T>> {
        match self.sender.try_send(item) {
            Ok(()) => {
                self.stats.sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Full(item)) => Err(SendRefused::Full(item)),
            Err(TrySendError::Disconnected(item)) => Err(SendRefused::Closed(item)),
        }
    }

    /// Items waiting in the lane.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.sender.len()
    }

    /// What passed through and how long senders waited.
    #[must_use]
    pub fn stats(&self) -> Arc<LaneStats> {
        Arc::clone(&self.stats)
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct LaneReceiver<T> {
    receiver: Receiver<T>,
    wait: WaitMode,
    stats: Arc<LaneStats>,
}

impl<T> Clone for LaneReceiver<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), wait: self.wait, stats: Arc::clone(&self.stats) }
    }
}

impl<T> LaneReceiver<T> {
    /// Waits for the next item as the lane's [`WaitMode`] says.
    ///
    /// # Errors
    /// [`LaneClosed`] when every sender is gone and the lane is empty.
    pub fn recv(&self) -> Result<T, LaneClosed> {
        match self.spin(None) {
            Some(found) => found,
            None => self.receiver.recv().map_err(|_| LaneClosed(())),
        }
    }

    /// Waits for the next item until `deadline` at most.
    ///
    /// # Errors
    /// [`RecvTimeout`] if the time is over or the lane is closed and empty.
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeout> {
        if let Some(found) = self.spin(Some(deadline)) {
            return found.map_err(|_| RecvTimeout::Closed);
        }
        self.receiver.recv_deadline(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => RecvTimeout::TimedOut,
            RecvTimeoutError::Disconnected => RecvTimeout::Closed,
        })
    }

    /// The next item if one is there.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Items waiting in the lane.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.receiver.len()
    }

    /// The channel beneath, to wait on several lanes at once.
    #[must_use]
    pub fn channel(&self) -> &Receiver<T> {
        &self.receiver
    }

    /// How this end waits.
    #[must_use]
    pub fn wait_mode(&self) -> WaitMode {
        self.wait
    }

    /// What passed through and how long senders waited.
    #[must_use]
    pub fn stats(&self) -> Arc<LaneStats> {
        Arc::clone(&self.stats)
    }

    /// Looks for an item as long as the wait mode says; `None` if it is time to sleep.
    fn spin(&self, deadline: Option<Instant>) -> Option<Result<T, LaneClosed>> {
        let WaitMode::SpinThenPark(spin) = self.wait else {
            return None;
        };
        let until = Instant::now() + spin;
        let until = deadline.map_or(until, |deadline| deadline.min(until));
        loop {
            match self.receiver.try_recv() {
                Ok(item) => return Some(Ok(item)),
                Err(TryRecvError::Disconnected) => return Some(Err(LaneClosed(()))),
                Err(TryRecvError::Empty) if Instant::now() >= until => return None,
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_refuses_at_once() {
        let (sender, receiver) = lane(1, WaitMode::Park);
        sender.send(1).expect("room");
        assert_eq!(sender.try_send(2), Err(SendRefused::Full(2)));
        assert_eq!(sender.stats().blocked(), 0);
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.stats().sent(), 2);
    }

    #[test]
    fn the_wait_for_room_is_counted() {
        let (sender, receiver) = lane(1, WaitMode::Park);
        sender.send(0).expect("room");
        let stats = sender.stats();
        let sending = std::thread::spawn(move || sender.wait_for_room(1));
        assert_eq!(receiver.recv(), Ok(0));
        assert_eq!(receiver.recv(), Ok(1));
        sending.join().expect("no panic").expect("sent");
        assert_eq!((stats.sent(), stats.blocked()), (2, 1));
        assert!(stats.blocked_time() > Duration::ZERO);
    }

    #[test]
    fn closing_lets_the_lane_run_empty_in_both_modes() {
        for wait in [WaitMode::Park, WaitMode::SpinThenPark(Duration::from_micros(50))] {
            let (sender, receiver) = lane(4, wait);
            for item in 0..3 {
                sender.send(item).expect("room");
            }
            drop(sender);
            assert_eq!((0..3).map(|_| receiver.recv()).collect::<Vec<_>>(), [Ok(0), Ok(1), Ok(2)]);
            assert_eq!(receiver.recv(), Err(LaneClosed(())));
            assert_eq!(receiver.recv_deadline(Instant::now()), Err(RecvTimeout::Closed));
        }
    }

    #[test]
    fn a_send_to_nobody_gives_the_item_back() {
        let (sender, receiver) = lane(1, WaitMode::Park);
        drop(receiver);
        assert_eq!(sender.send(7), Err(LaneClosed(7)));
        assert_eq!(sender.try_send(8), Err(SendRefused::Closed(8)));
    }
}
