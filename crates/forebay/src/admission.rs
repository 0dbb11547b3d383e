//! The gate: a bounded number of requests and bytes per class, refused at once or waited for.
//!
//! Every accepted text holds a [`Permit`] until it is answered, wherever it is: in a lane, in the
//! batcher or in a worker. The bound of all queues together is therefore the bound of this gate,
//! and one class never waits for another's room.
//!
//! The bound on requests moves with what the workers can compute in time ([`Admission::set_limits`]).
//! Where it shrinks below what is under way, the difference is a *debt*: room that comes back pays
//! it before anybody gets it. Room is thus neither lost nor made: what is under way and what is free
//! are always the limit and the debt together.

use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use tokio::sync::{AcquireError, watch};

use crate::config::AdmissionConfig;
use crate::error::EmbedError;
use crate::priority::Priority;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Mutex, Semaphore, SemaphorePermit};

/// A limit moves only by more than this part of it: it follows a measurement that never rests.
const MOVE_PART: usize = 16;

struct Class {
    requests: Semaphore,
    text_kib: Semaphore,
    requests_max: u32,
    text_kib_max: u32,
    /// Requests that may be under way now; what waits for room looks again when it changes.
    limit: watch::Sender<usize>,
    /// The same number, for a look without a lock.
    limit_now: AtomicUsize,
    /// Requests under way beyond the limit.
    debt: AtomicUsize,
}

impl Class {
    fn limit(&self) -> usize {
        self.limit_now.load(Ordering::Acquire)
    }

    fn replace_limit(&self, limit: usize) {
        self.limit_now.store(limit, Ordering::Release);
        self.limit.send_replace(limit);
    }

    /// Gives room back.
    fn give_back(&self, requests: usize, text_kib: usize) {
        self.text_kib.add_permits(text_kib);
        let paid = self.pay(requests);
        if paid < requests {
            self.requests.add_permits(requests - paid);
        }
    }

    /// Changes the limit. Only one thread does. Each order of steps is such that another thread may
    /// see more under way than there is, and never less.
    fn set_limit(&self, limit: usize) {
        let current = self.limit();
        if limit < current {
            if mutated!(ForgetsDebt) {
                self.requests.forget_permits(current - limit);
                self.limit.send_replace(limit);
                return;
            }
            self.debt.fetch_add(current - limit, Ordering::AcqRel);
            self.replace_limit(limit);
        } else if limit > current {
            self.replace_limit(limit);
            let paid = self.pay(limit - current);
            self.requests.add_permits(limit - current - paid);
        }
        let debt = self.debt.load(Ordering::Acquire);
        if debt > 0 {
            let forgotten = self.requests.forget_permits(debt);
            let paid = self.pay(forgotten);
            // Room that came back meanwhile has paid too.
            self.requests.add_permits(forgotten - paid);
        }
    }

    /// Takes up to `room` off the debt: how much.
    fn pay(&self, room: usize) -> usize {
        // As a rule there is no debt, and nothing to write.
        let less = |debt: usize| (debt > 0).then(|| debt.saturating_sub(room));
        let before = self.debt.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        before.unwrap_or_else(|debt| debt).min(room)
    }

    /// Room for so many requests together. More than the limit come in once nothing else of their
    /// class is under way; what they are too many is debt then.
    async fn requests(&self, count: usize) -> Result<(SemaphorePermit<'_>, usize), AcquireError> {
        let mut limits = self.limit.subscribe();
        loop {
            let wanted = count.min(*limits.borrow_and_update());
            let acquire = pin!(self.requests.acquire_many(wanted as u32));
            // With less room than that it would wait for ever.
            let shrunk = pin!(limits.wait_for(|limit| *limit < wanted));
            match select(acquire, shrunk).await {
                Either::Left((acquired, _)) => return Ok((acquired?, count - wanted)),
                Either::Right(_) => {}
            }
        }
    }

    /// Takes over what was acquired, with the requests beyond the limit.
    fn keep(&self, requests: SemaphorePermit<'_>, beyond: usize) {
        requests.forget();
        self.debt.fetch_add(beyond, Ordering::AcqRel);
    }
}

/// The gate of one runtime.
pub(crate) struct Admission {
    classes: [Class; 3],
    closed: Mutex<Option<EmbedError>>,
    retry_after_min: Duration,
    retry_after_us: AtomicU64,
}

/// Room for one text; dropping it gives the room back.
pub(crate) struct Permit {
    /// `None` once its room is in a [`Room`].
    admission: Option<Arc<Admission>>,
    priority: Priority,
    text_kib: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            admission.class(self.priority).give_back(1, self.text_kib as usize);
        }
    }
}

/// The room of many texts of one runtime; dropping it gives all of it back at once.
#[derive(Default)]
pub(crate) struct Room {
    admission: Option<Arc<Admission>>,
    /// Requests and KiB of text of each class.
    classes: [(usize, usize); 3],
}

impl Room {
    /// Takes over the room of one more text.
    pub(crate) fn add(&mut self, mut permit: Permit) {
        let (requests, text_kib) = &mut self.classes[permit.priority.index()];
        *requests += 1;
        *text_kib += permit.text_kib as usize;
        let admission = permit.admission.take();
        self.admission = self.admission.take().or(admission);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(admission) = &self.admission else { return };
        for (class, (requests, text_kib)) in admission.classes.iter().zip(self.classes) {
            if requests > 0 {
                class.give_back(requests, text_kib);
            }
        }
    }
}

impl Admission {
    pub(crate) fn new(config: &AdmissionConfig) -> Arc<Self> {
        let class = |priority| {
            let limits = config.limits(priority);
            let (requests_max, text_kib_max) = (limits.requests_max, limits.text_kib_queued_max());
            Class {
                requests: Semaphore::new(requests_max as usize),
                text_kib: Semaphore::new(text_kib_max as usize),
                requests_max,
                text_kib_max,
                limit: watch::Sender::new(requests_max as usize),
                limit_now: AtomicUsize::new(requests_max as usize),
                debt: AtomicUsize::new(0),
            }
        };
        Arc::new(Self {
            classes: Priority::ALL.map(class),
            closed: Mutex::new(None),
            retry_after_min: config.retry_after_min(),
            retry_after_us: AtomicU64::new(0),
        })
    }

    /// Most texts of this class that can be under way: nothing larger is ever acquired at once.
    pub(crate) fn requests_max(&self, priority: Priority) -> usize {
        self.class(priority).requests_max as usize
    }

    /// Texts of this class that are under way: permits that exist less those that are free. A limit
    /// that fell owes permits until texts give them back.
    pub(crate) fn under_way(&self, priority: Priority) -> usize {
        let class = self.class(priority);
        let all = class.limit() + class.debt.load(Ordering::Acquire);
        all.saturating_sub(class.requests.available_permits())
    }

    /// Texts of each class that are under way.
    pub(crate) fn all_under_way(&self) -> [usize; 3] {
        Priority::ALL.map(|priority| self.under_way(priority))
    }

    /// Texts of this class that may be under way now.
    pub(crate) fn limit(&self, priority: Priority) -> usize {
        self.class(priority).limit()
    }

    /// How many texts of each class may be under way from now on, within the configured numbers;
    /// `None` for as many as those. What waits for room sees it at once. To be called by one thread.
    pub(crate) fn set_limits(&self, allowed: [Option<usize>; 3]) {
        for (class, allowed) in self.classes.iter().zip(allowed) {
            let max = class.requests_max as usize;
            let limit = allowed.unwrap_or(max).clamp(1, max);
            let current = class.limit();
            let near = limit.abs_diff(current) <= current / MOVE_PART && limit < max;
            class.set_limit(if near { current } else { limit });
        }
    }

    /// Whether everything is refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.check_open().is_err()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        Priority::ALL.into_iter().all(|priority| self.under_way(priority) == 0)
    }

    /// Texts of all classes that may be under way.
    pub(crate) fn capacity(&self) -> usize {
        self.classes.iter().map(|class| class.requests_max as usize).sum()
    }

    /// From now on everything is refused with `error`, waiting callers included.
    pub(crate) fn close(&self, error: EmbedError) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        for class in &self.classes {
            class.requests.close();
            class.text_kib.close();
        }
    }

    /// Tells callers that are refused how long the work already accepted will take.
    pub(crate) fn set_backlog(&self, backlog: Duration) {
        let micros = u64::try_from(backlog.as_micros()).unwrap_or(u64::MAX);
        self.retry_after_us.store(micros, Ordering::Relaxed);
    }

    /// Room for texts of these sizes in bytes, or a refusal at once.
    pub(crate) fn try_acquire(
        self: &Arc<Self>,
        priority: Priority,
        text_bytes: &[usize],
    ) -> Result<Vec<Permit>, EmbedError> {
        self.check_open()?;
        let class = self.class(priority);
        let kib = self.text_kib(priority, text_bytes);
        let total_kib = total(&kib, class.text_kib_max);
        let wanted = text_bytes.len().min(class.limit());
        let requests = class.requests.try_acquire_many(wanted as u32);
        let text = class.text_kib.try_acquire_many(total_kib);
        match (requests, text) {
            (Ok(requests), Ok(text)) => {
                class.keep(requests, text_bytes.len() - wanted);
                text.forget();
                Ok(self.permits(priority, &kib, total_kib))
            }
            _ => Err(self.overloaded(priority)),
        }
    }

    /// Room for texts of these sizes in bytes, waited for until `deadline`.
    ///
    /// Must run where a timer can be made: within the runtime's own context.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        priority: Priority,
        text_bytes: &[usize],
        deadline: Option<Instant>,
    ) -> Result<Vec<Permit>, EmbedError> {
        self.check_open()?;
        let class = self.class(priority);
        let kib = self.text_kib(priority, text_bytes);
        let total_kib = total(&kib, class.text_kib_max);
        let both = async {
            let (requests, beyond) = class.requests(text_bytes.len()).await?;
            let text = class.text_kib.acquire_many(total_kib).await?;
            class.keep(requests, beyond);
            text.forget();
            Ok::<_, AcquireError>(())
        };
        let acquired = match deadline {
            None => both.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), both)
                .await
                .map_err(|_| EmbedError::DeadlineExceeded { waiting: "waiting for room" })?,
        };
        match acquired {
            Ok(()) => Ok(self.permits(priority, &kib, total_kib)),
            Err(_) => Err(self.check_open().err().unwrap_or(EmbedError::ShuttingDown)),
        }
    }

    fn class(&self, priority: Priority) -> &Class {
        &self.classes[priority.index()]
    }

    fn check_open(&self) -> Result<(), EmbedError> {
        match &*self.closed.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn overloaded(&self, priority: Priority) -> EmbedError {
        let backlog = Duration::from_micros(self.retry_after_us.load(Ordering::Relaxed));
        EmbedError::Overloaded { priority, retry_after: backlog.max(self.retry_after_min) }
    }

    /// Whole KiB of each text, at least one; a text larger than the class counts as all of it.
    fn text_kib(&self, priority: Priority, text_bytes: &[usize]) -> Vec<u32> {
        let max = self.class(priority).text_kib_max;
        let kib = |bytes: &usize| u32::try_from(bytes.div_ceil(1024)).unwrap_or(max).clamp(1, max);
        text_bytes.iter().map(kib).collect()
    }

    /// One permit per text. `total_kib` was taken; if it was capped, so are the last texts' shares.
    fn permits(self: &Arc<Self>, priority: Priority, kib: &[u32], total_kib: u32) -> Vec<Permit> {
        let mut left = total_kib;
        let permit = |&kib: &u32| {
            let text_kib = kib.min(left);
            left -= text_kib;
            Permit { admission: Some(Arc::clone(self)), priority, text_kib }
        };
        kib.iter().map(permit).collect()
    }
}

fn total(kib: &[u32], max: u32) -> u32 {
    kib.iter().fold(0_u32, |sum, kib| sum.saturating_add(*kib)).min(max)
}

#[cfg(all(test, feature = "interleavings"))]
mod interleavings;
#[cfg(test)]
mod tests;
