//! The gate: a bounded number of requests and bytes per class, refused at once or waited for.
//!
//! Every accepted text holds a [`Permit`] until it is answered, wherever it is: in a lane, in the
//! batcher or in a worker. The bound of all queues together is therefore the bound of this gate,
//! and one class never waits for another's room.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::config::AdmissionConfig;
use crate::error::EmbedError;
use crate::priority::Priority;

struct Class {
    requests: Semaphore,
    text_kib: Semaphore,
    requests_max: u32,
    text_kib_max: u32,
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
    admission: Arc<Admission>,
    priority: Priority,
    text_kib: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let class = self.admission.class(self.priority);
        class.text_kib.add_permits(self.text_kib as usize);
        class.requests.add_permits(1);
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

    /// Texts of this class that are under way.
    pub(crate) fn under_way(&self, priority: Priority) -> usize {
        let class = self.class(priority);
        (class.requests_max as usize).saturating_sub(class.requests.available_permits())
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
        let requests = class.requests.try_acquire_many(text_bytes.len() as u32);
        let text = class.text_kib.try_acquire_many(total_kib);
        match (requests, text) {
            (Ok(requests), Ok(text)) => {
                requests.forget();
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
            let requests = class.requests.acquire_many(text_bytes.len() as u32).await?;
            let text = class.text_kib.acquire_many(total_kib).await?;
            requests.forget();
            text.forget();
            Ok::<_, tokio::sync::AcquireError>(())
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
            Permit { admission: Arc::clone(self), priority, text_kib }
        };
        kib.iter().map(permit).collect()
    }
}

fn total(kib: &[u32], max: u32) -> u32 {
    kib.iter().fold(0_u32, |sum, kib| sum.saturating_add(*kib)).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(requests: u32, bytes: u32) -> Arc<Admission> {
        Admission::new(&AdmissionConfig {
            interactive_requests_max: requests,
            interactive_text_bytes_queued_max: bytes,
            retry_after_min_ms: 7,
            ..AdmissionConfig::default()
        })
    }

    #[test]
    fn a_full_class_refuses_at_once_with_a_hint_and_leaves_others_alone() {
        let admission = admission(2, 1 << 20);
        let held = admission.try_acquire(Priority::Interactive, &[1, 1]).expect("room");
        let refused = admission.try_acquire(Priority::Interactive, &[1]).err();
        let retry_after = Duration::from_millis(7);
        assert_eq!(
            refused,
            Some(EmbedError::Overloaded { priority: Priority::Interactive, retry_after })
        );
        admission.set_backlog(Duration::from_millis(30));
        let refused = admission.try_acquire(Priority::Interactive, &[1]).err();
        assert!(matches!(refused, Some(EmbedError::Overloaded { retry_after, .. })
            if retry_after == Duration::from_millis(30)));
        assert!(admission.try_acquire(Priority::Bulk, &[1]).is_ok());
        drop(held);
        assert!(admission.try_acquire(Priority::Interactive, &[1, 1]).is_ok());
    }

    #[test]
    fn bytes_are_bounded_and_returned_exactly_even_when_capped() {
        let admission = admission(10, 4096);
        let class = |a: &Admission| a.class(Priority::Interactive).text_kib.available_permits();
        let held = admission.try_acquire(Priority::Interactive, &[3000]).expect("room");
        assert!(admission.try_acquire(Priority::Interactive, &[2000]).is_err());
        drop(held);
        let held = admission.try_acquire(Priority::Interactive, &[1 << 20, 5]).expect("capped");
        assert_eq!(class(&admission), 0);
        drop(held);
        assert_eq!(class(&admission), 4);
        assert_eq!(admission.under_way(Priority::Interactive), 0);
    }

    #[tokio::test]
    async fn waiting_ends_by_room_deadline_or_close() {
        let admission = admission(1, 4096);
        let held = admission.try_acquire(Priority::Interactive, &[1]).expect("room");
        let late = admission.acquire(Priority::Interactive, &[1], Some(Instant::now())).await;
        assert_eq!(late.err().map(|e| e.code()), Some("deadline_exceeded"));
        let waiting = {
            let admission = Arc::clone(&admission);
            tokio::spawn(async move {
                admission.acquire(Priority::Interactive, &[1], None).await.map(|_| ())
            })
        };
        drop(held);
        waiting.await.expect("no panic").expect("room");
        let held = admission.try_acquire(Priority::Interactive, &[1]).expect("room");
        let waiting = {
            let admission = Arc::clone(&admission);
            tokio::spawn(async move {
                admission.acquire(Priority::Interactive, &[1], None).await.map(|_| ())
            })
        };
        tokio::task::yield_now().await;
        admission.close(EmbedError::ShuttingDown);
        assert_eq!(waiting.await.expect("no panic"), Err(EmbedError::ShuttingDown));
        drop(held);
    }
}
