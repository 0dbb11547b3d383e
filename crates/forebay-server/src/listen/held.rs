//! Memory that bodies take: what has come of requests and what is still to be sent of answers, of all
//! connections together. Who would read more than there is room for is refused instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::ConnectionMetrics;

/// Bytes of bodies in memory, of all requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyBytes(Arc<AtomicU64>);

/// The share of one request, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    all: BodyBytes,
    bytes: AtomicU64,
}

impl BodyBytes {
    /// A request that holds nothing yet.
    pub(crate) fn hold(&self) -> Arc<Held> {
        Arc::new(Held { all: self.clone(), bytes: AtomicU64::new(0) })
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Held {
    /// Takes so many more bytes, if no more than `bytes_max` are held by all then.
    pub(crate) fn try_take(&self, bytes: u64, bytes_max: u64) -> bool {
        let before = self.all.0.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) > bytes_max {
            self.all.0.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        self.note(bytes);
        true
    }

    /// Takes so many more bytes that are there already.
    pub(crate) fn take(&self, bytes: u64) {
        self.all.0.fetch_add(bytes, Ordering::AcqRel);
        self.note(bytes);
    }

    fn note(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        ConnectionMetrics::get().body_bytes(bytes as f64);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.all.0.fetch_sub(bytes, Ordering::AcqRel);
        ConnectionMetrics::get().body_bytes(-(bytes as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_room_for_and_all_of_it_comes_back() {
        let all = BodyBytes::default();
        let (one, other) = (all.hold(), all.hold());
        assert!(one.try_take(60, 100) && other.try_take(40, 100));
        assert!(!one.try_take(1, 100));
        // An answer is there, whether or not there is room.
        other.take(50);
        assert_eq!(all.bytes(), 150);
        drop(other);
        assert_eq!(all.bytes(), 60);
        assert!(one.try_take(40, 100));
        drop(one);
        assert_eq!(all.bytes(), 0);
    }
}
