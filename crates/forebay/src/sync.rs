//! Where shared state gets its types from: the standard library and tokio.
//!
//! In the build of `cargo xtask interleavings` it gets types of the same names from shuttle, whose
//! every step is ordered by a scheduler: the tests named `interleavings` go through the orders in
//! which threads could run. No other test runs in that build, and no other build has these types.

#[cfg(all(test, feature = "interleavings"))]
pub(crate) use self::scheduled::*;
#[cfg(not(all(test, feature = "interleavings")))]
pub(crate) use self::standard::*;

#[cfg(not(all(test, feature = "interleavings")))]
mod standard {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

    pub(crate) use tokio::sync::{Semaphore, SemaphorePermit};
}

#[cfg(all(test, feature = "interleavings"))]
mod scheduled {
    use std::sync::Arc;

    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
    use tokio::sync::AcquireError;
    pub(crate) use tokio::sync::SemaphorePermit;

    use self::atomic::{AtomicBool, Ordering};

    /// Tokio's semaphore, each call of which is one step here: what is inside it is tokio's.
    pub(crate) struct Semaphore {
        inner: tokio::sync::Semaphore,
        step: AtomicBool,
    }

    impl Semaphore {
        pub(crate) fn new(permits: usize) -> Self {
            let inner = tokio::sync::Semaphore::new(permits);
            Self { inner, step: AtomicBool::new(false) }
        }

        /// Another thread may run before what follows.
        fn step(&self) -> &tokio::sync::Semaphore {
            self.step.load(Ordering::SeqCst);
            &self.inner
        }

        pub(crate) fn available_permits(&self) -> usize {
            self.step().available_permits()
        }

        pub(crate) fn add_permits(&self, permits: usize) {
            self.step().add_permits(permits);
        }

        pub(crate) fn forget_permits(&self, permits: usize) -> usize {
            self.step().forget_permits(permits)
        }

        pub(crate) fn close(&self) {
            self.step().close();
        }

        pub(crate) fn try_acquire_many(
            &self,
            permits: u32,
        ) -> Result<SemaphorePermit<'_>, tokio::sync::TryAcquireError> {
            self.step().try_acquire_many(permits)
        }

        pub(crate) async fn acquire_many(
            &self,
            permits: u32,
        ) -> Result<SemaphorePermit<'_>, AcquireError> {
            self.step().acquire_many(permits).await
        }
    }

    /// Goes through `orders` random orders of the steps of `history`, the same ones each time, half
    /// of them with few changes of thread. A failure prints the schedule that shows it again.
    pub(crate) fn random_orders(orders: usize, history: impl Fn() + Send + Sync + 'static) {
        use shuttle::Runner;
        use shuttle::scheduler::{PctScheduler, RandomScheduler};

        let history = Arc::new(history);
        let again = Arc::clone(&history);
        let even = RandomScheduler::new_from_seed(1, orders / 2);
        Runner::new(even, shuttle::Config::default()).run(move || again());
        let few_changes = PctScheduler::new_from_seed(2, 3, orders / 2);
        Runner::new(few_changes, shuttle::Config::default()).run(move || history());
    }

    /// Goes through every order of the steps of `history`; says how many there are.
    pub(crate) fn every_order(history: impl Fn() + Send + Sync + 'static) -> usize {
        let every = shuttle::scheduler::DfsScheduler::new(None, false);
        shuttle::Runner::new(every, shuttle::Config::default()).run(history)
    }
}
