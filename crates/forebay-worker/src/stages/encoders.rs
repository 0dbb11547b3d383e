//! The lanes into the encoders, one each, and which of them gets a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_stage::{LaneClosed, LaneReceiver, LaneSender, WaitMode, lane};

/// The encoders as the stage before them sees them.
pub(crate) struct Encoders<T>(Vec<(LaneSender<T>, UnderWay)>);

/// Batches that an encoder has or that wait for it.
pub(crate) type UnderWay = Arc<AtomicUsize>;

impl<T> Encoders<T> {
    /// Lanes into so many encoders, each with room for `capacity` batches, and their other ends.
    pub(crate) fn new(
        encoders: usize,
        capacity: usize,
        wait: WaitMode,
    ) -> (Self, Vec<(LaneReceiver<T>, UnderWay)>) {
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..encoders {
            let ((sender, receiver), under_way) = (lane(capacity, wait), UnderWay::default());
            senders.push((sender, Arc::clone(&under_way)));
            receivers.push((receiver, under_way));
        }
        (Self(senders), receivers)
    }

    /// Hands a batch to the first of the encoders that have the fewest. With one batch at a time that
    /// is always the same thread: one after the other, each would find the other's caches.
    pub(crate) fn send(&self, work: T) -> Result<(), LaneClosed<T>> {
        let load = |(_, under_way): &&(_, UnderWay)| under_way.load(Ordering::Relaxed);
        let Some((lane, under_way)) = self.0.iter().min_by_key(load) else {
            return Err(LaneClosed(work));
        };
        under_way.fetch_add(1, Ordering::Relaxed);
        lane.send(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_least_loaded_gets_it() {
        let (encoders, lanes) = Encoders::new(2, 3, WaitMode::Park);
        let takes = |expected: usize| {
            encoders.send(7).expect("there is room");
            let taken: Vec<usize> = lanes.iter().map(|(lane, _)| lane.depth()).collect();
            assert_eq!(taken[expected], 1, "{taken:?}");
            assert_eq!(lanes[expected].0.recv(), Ok(7));
        };
        takes(0);
        takes(1);
        takes(0);
        takes(1);
        // The first has done one of its two, then the second has.
        lanes[0].1.fetch_sub(1, Ordering::Relaxed);
        takes(0);
        lanes[1].1.fetch_sub(1, Ordering::Relaxed);
        takes(1);
    }
}
