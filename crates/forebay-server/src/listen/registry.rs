//! Who is connected: bounded in all and per peer. Where there is no room, the connection is given up
//! that has been of least use; only if requests are under way on all of them the newcomer is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use forebay::config::LimitsConfig;

use super::metrics::{Cut, Turned};
use super::standing::Standing;

/// Whom connections are counted against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// The address at the other end.
    Address(IpAddr),
    /// The user at the other end of the unix socket.
    User(u32),
}

#[derive(Default)]
struct Table {
    next_id: u64,
    entries: HashMap<u64, (Peer, Arc<Standing>)>,
}

/// Every connection of the client listeners.
#[derive(Default)]
pub(crate) struct Registry {
    table: Mutex<Table>,
}

/// The place of one connection; free again when this is dropped.
pub(crate) struct Place {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is complete before anything can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place.
    ///
    /// # Errors
    /// The limit that leaves none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        peer: Peer,
        standing: &Arc<Standing>,
        limits: &LimitsConfig,
    ) -> Result<Place, Turned> {
        let mut table = self.table();
        let of_peer = table.entries.values().filter(|(other, _)| *other == peer).count();
        if of_peer >= limits.connections_per_peer_max as usize {
            table.evict(|other| other == peer).ok_or(Turned::PerPeer)?;
        }
        if table.entries.len() >= limits.connections_max as usize {
            table.evict(|_| true).ok_or(Turned::Total)?;
        }
        let id = table.next_id;
        table.next_id += 1;
        table.entries.insert(id, (peer, Arc::clone(standing)));
        Ok(Place { registry: Arc::clone(self), id })
    }

    /// Gives up the connection that is of least use, if any can be.
    pub(crate) fn evict_one(&self) -> bool {
        self.table().evict(|_| true).is_some()
    }

    /// Connections that have a place.
    pub(crate) fn len(&self) -> usize {
        self.table().entries.len()
    }

    /// Ends every connection after what it has under way.
    pub(crate) fn close_all(&self, silent_until: Instant) {
        self.table().entries.values().for_each(|(_, standing)| standing.close(silent_until));
    }

    /// Cuts every connection.
    pub(crate) fn cut_all(&self, reason: Cut) {
        self.table().entries.values().for_each(|(_, standing)| standing.cut(reason));
    }
}

impl Table {
    fn evict(&mut self, concerns: impl Fn(Peer) -> bool) -> Option<()> {
        let candidates = self.entries.iter().filter(|(_, (peer, _))| concerns(*peer));
        let worths = candidates.filter_map(|(id, (_, standing))| Some((standing.worth()?, *id)));
        let (_, id) = worths.min()?;
        let (_, standing) = self.entries.remove(&id)?;
        standing.cut(Cut::Evicted);
        Some(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // An evicted one has gone already.
        self.registry.table().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::{Duration, Instant};

    use super::super::standing::Claim;
    use super::*;

    fn limits(total: u32, per_peer: u32) -> LimitsConfig {
        LimitsConfig {
            connections_max: total,
            connections_per_peer_max: per_peer,
            ..LimitsConfig::default()
        }
    }

    fn standing(start: Instant, nth: u64) -> Arc<Standing> {
        Arc::new(Standing::new(start + Duration::from_millis(nth)))
    }

    #[test]
    fn the_oldest_idle_one_makes_room_and_busy_ones_stay() {
        let (registry, start) = (Arc::new(Registry::default()), Instant::now());
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|nth| standing(start, nth));
        let admit = |standing| registry.admit(Peer::User(7), standing, &limits(2, 2));
        let places = [admit(&first), admit(&second)];
        assert!(places.iter().all(Result::is_ok));
        first.begin(Claim::Answer);
        let place = admit(&third);
        assert!(place.is_ok());
        assert_eq!(second.poll_cut(Waker::noop()), Some(Cut::Evicted));
        assert_eq!(registry.len(), 2);
        third.begin(Claim::Answer);
        assert_eq!(admit(&fourth).err(), Some(Turned::PerPeer));
        assert_eq!(first.poll_cut(Waker::noop()), None);
        drop((places, place));
        assert_eq!(registry.len(), 0);
    }

    #[test]
    fn a_peer_makes_room_for_itself_and_not_at_the_cost_of_others() {
        let (registry, start) = (Arc::new(Registry::default()), Instant::now());
        let [old, mine, again] = [0, 1, 2].map(|nth| standing(start, nth));
        let limits = limits(10, 1);
        let other = registry.admit(Peer::User(1), &old, &limits);
        let first = registry.admit(Peer::User(2), &mine, &limits);
        let second = registry.admit(Peer::User(2), &again, &limits);
        assert!(other.is_ok() && first.is_ok() && second.is_ok());
        assert_eq!(mine.poll_cut(Waker::noop()), Some(Cut::Evicted));
        assert_eq!(old.poll_cut(Waker::noop()), None);
    }
}
