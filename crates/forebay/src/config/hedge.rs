//! Settings of second runs: when a batch counts as late, what runs elsewhere too, and how much of
//! it there may be.

use std::time::Duration;

use super::declare::Allowed::{Integer, Number, Switch};
use super::declare::group;

group! {
    /// Late batches are computed by another worker too, and what was in a worker that died runs
    /// once more, alone; the first good answer counts.
    HedgeConfig as "hedge" {
        /// Let another worker compute a late batch too, long before worker.batch_deadline_ms ends
        /// its worker.
        enabled: bool = true, "", Switch;
        /// No batch is late sooner than this; a busy machine delays honest ones by as much.
        floor_ms: u32 = 20, "ms", Integer(1, 60_000);
        /// A batch is late after this many times the time that 99.9 % of its size take on this kind
        /// of device.
        factor: f64 = 4.0, "", Number(1.5, 100.0);
        /// Batches of a size that must have been seen before it has a usual time of its own; until
        /// then it goes by the next size that has one.
        samples_min: u32 = 64, "batches", Integer(1, 1_000);
        /// Texts that are to run alone while a GPU serves go to the CPU if it gets to all of them
        /// within this; otherwise they go to a GPU. The first one goes there to show what it takes. 0
        /// always takes a GPU.
        suspect_cpu_wait_ms: u32 = 20, "ms", Integer(0, 60_000);
        /// Second runs within the window may be this share of the texts answered in it.
        rerun_share_max: f64 = 0.1, "", Number(0.0, 1.0);
        /// The window in which second runs are counted.
        rerun_window_ms: u32 = 10_000, "ms", Integer(100, 3_600_000);
        /// So many second runs in a window are always allowed: what a worker held when it died.
        rerun_min: u32 = 4_096, "texts", Integer(0, 1_048_576);
        /// Share of the batches that a worker on probation gets while another serves, of texts that
        /// can be run again in time. 0 gives it canaries only.
        probation_share: f64 = 0.05, "", Number(0.0, 0.5);
        /// While only the CPU serves and would not get to all that waits within this, a GPU on
        /// probation gets more than its share: a batch whenever it has none. 0 never gives it more.
        probation_wait_ms: u32 = 20, "ms", Integer(0, 60_000);
    }
}

impl HedgeConfig {
    /// `floor_ms` as a duration.
    #[must_use]
    pub const fn floor(&self) -> Duration {
        Duration::from_millis(self.floor_ms as u64)
    }

    /// `probation_wait_ms` as a duration; `None` if a worker on probation never gets more than its
    /// share.
    #[must_use]
    pub fn probation_wait(&self) -> Option<Duration> {
        let is_given = self.probation_share > 0.0 && self.probation_wait_ms > 0;
        is_given.then(|| Duration::from_millis(u64::from(self.probation_wait_ms)))
    }

    /// `suspect_cpu_wait_ms` as a duration.
    #[must_use]
    pub const fn suspect_cpu_wait(&self) -> Duration {
        Duration::from_millis(self.suspect_cpu_wait_ms as u64)
    }

    /// `rerun_window_ms` as a duration.
    #[must_use]
    pub const fn rerun_window(&self) -> Duration {
        Duration::from_millis(self.rerun_window_ms as u64)
    }
}
