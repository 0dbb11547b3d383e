//! Of several runtimes in one process, whose gauges are shown: a gauge has one value, and while one
//! runtime takes another's place both would set it. Counters add up and need no turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One runtime's place among those that take each other's.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    shown: Arc<AtomicU64>,
    mine: u64,
}

impl Turn {
    /// That of a runtime by itself: it is shown.
    pub(super) fn first() -> Self {
        let mine = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { shown: Arc::new(AtomicU64::new(mine)), mine }
    }

    /// That of a runtime beside it: it is not shown before it takes its turn.
    pub(super) fn next(&self) -> Self {
        let mine = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { shown: Arc::clone(&self.shown), mine }
    }

    pub(super) fn take(&self) {
        self.shown.store(self.mine, Ordering::Relaxed);
    }

    pub(super) fn is_mine(&self) -> bool {
        self.shown.load(Ordering::Relaxed) == self.mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_is_shown() {
        let old = Turn::first();
        let (failed, new) = (old.next(), old.next());
        let shown = || [&old, &failed, &new].map(Turn::is_mine);
        assert_eq!(shown(), [true, false, false]);
        new.take();
        assert_eq!(shown(), [false, false, true]);
        assert!(Turn::first().is_mine(), "a runtime of its own");
    }
}
