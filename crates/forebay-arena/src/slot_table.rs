//! The host's books about the slots: which is free, which is written, which is with the worker.
//!
//! A pure state machine in the host's private memory. Each slot goes `Free → Writing → InFlight
//! → Reading → Free`; each lease raises the slot's generation, and an answer that does not carry
//! the current generation of a slot in flight is stale.

use std::sync::atomic::{AtomicU64, Ordering};

/// The right to touch one slot. It exists once per slot and cannot be copied.
#[derive(Debug, PartialEq, Eq)]
pub struct SlotLease {
    table_id: u64,
    slot: u32,
    generation: u64,
}

impl SlotLease {
    /// Number of the slot.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Generation of the slot under this lease.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn table_id(&self) -> u64 {
        self.table_id
    }
}

/// An answer for a slot that is not in flight under that generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("answer for slot {slot} generation {generation}, which is not in flight")]
pub struct StaleAnswer {
    /// The slot named by the answer.
    pub slot: u32,
    /// The generation named by the answer.
    pub generation: u64,
}

#[derive(Debug)]
enum State<T> {
    Free,
    Writing,
    InFlight(T),
    Reading,
}

#[derive(Debug)]
struct Slot<T> {
    state: State<T>,
    generation: u64,
}

/// All slots of one arena, with what is in flight in each.
#[derive(Debug)]
pub struct SlotTable<T> {
    id: u64,
    slots: Vec<Slot<T>>,
}

impl<T> SlotTable<T> {
    /// A table of `slots` free slots.
    #[must_use]
    pub fn new(slots: u32) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            slots: (0..slots).map(|_| Slot { state: State::Free, generation: 0 }).collect(),
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes a free slot for writing, or `None` if there is none.
    pub fn lease(&mut self) -> Option<SlotLease> {
        let index = self.slots.iter().position(|slot| matches!(slot.state, State::Free))?;
        let slot = &mut self.slots[index];
        slot.state = State::Writing;
        slot.generation += 1;
        Some(SlotLease { table_id: self.id, slot: index as u32, generation: slot.generation })
    }

    /// Notes that the leased slot is with the worker now, carrying `batch`.
    pub fn sent(&mut self, lease: SlotLease, batch: T) {
        let slot = self.own(&lease);
        debug_assert!(matches!(slot.state, State::Writing), "only a written slot is sent");
        slot.state = State::InFlight(batch);
    }

    /// Takes a slot back from the worker for reading.
    ///
    /// # Errors
    /// [`StaleAnswer`] if that slot is not in flight under that generation; nothing changes then.
    pub fn complete(&mut self, slot: u32, generation: u64) -> Result<(SlotLease, T), StaleAnswer> {
        let stale = StaleAnswer { slot, generation };
        let entry = self.slots.get_mut(slot as usize).ok_or(stale)?;
        if entry.generation != generation || !matches!(entry.state, State::InFlight(_)) {
            return Err(stale);
        }
        match std::mem::replace(&mut entry.state, State::Reading) {
            State::InFlight(batch) => {
                Ok((SlotLease { table_id: self.id, slot, generation }, batch))
            }
            other => {
                entry.state = other;
                Err(stale)
            }
        }
    }

    /// What is in flight in this slot under this generation.
    #[must_use]
    pub fn find(&self, slot: u32, generation: u64) -> Option<&T> {
        match self.slots.get(slot as usize)? {
            Slot { state: State::InFlight(batch), generation: current } => {
                (*current == generation).then_some(batch)
            }
            _ => None,
        }
    }

    /// Gives a leased slot back.
    pub fn release(&mut self, lease: SlotLease) {
        let slot = self.own(&lease);
        debug_assert!(!matches!(slot.state, State::InFlight(_)), "a slot in flight has no lease");
        slot.state = State::Free;
    }

    /// Takes everything that is in flight, in the order of the slots. The slots stay unusable: their worker is gone and its arena goes with it.
    pub fn abandon(&mut self) -> Vec<T> {
        let take = |slot: &mut Slot<T>| match std::mem::replace(&mut slot.state, State::Reading) {
            State::InFlight(batch) => Some(batch),
            _ => None,
        };
        self.slots.iter_mut().filter_map(take).collect()
    }

    /// What is in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match &slot.state {
            State::InFlight(batch) => Some(batch),
            _ => None,
        })
    }

    /// What is in flight, to be changed in place.
    pub fn in_flight_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| match &mut slot.state {
            State::InFlight(batch) => Some(batch),
            _ => None,
        })
    }

    /// Number of free slots.
    #[must_use]
    pub fn free(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.state, State::Free)).count()
    }

    fn own(&mut self, lease: &SlotLease) -> &mut Slot<T> {
        let slot = &mut self.slots[lease.slot as usize];
        assert!(
            lease.table_id == self.id && lease.generation == slot.generation,
            "a lease belongs to the table that gave it and to the slot's current generation"
        );
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Lease,
        Send,
        Answer { slot: u32, generation_back: u64 },
        Release,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Lease),
            Just(Step::Send),
            (0..5_u32, 0..2_u64)
                .prop_map(|(slot, generation_back)| Step::Answer { slot, generation_back }),
            Just(Step::Release),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Free + leased + in flight is always the number of slots, and an answer is accepted
        /// exactly when a model says that this generation of this slot is in flight.
        #[test]
        fn slots_are_conserved_and_only_current_answers_count(steps in steps()) {
            let mut table = SlotTable::new(4);
            let mut written = Vec::new();
            let mut read = Vec::new();
            let mut in_flight = BTreeMap::new();
            let mut generations = BTreeMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Lease => {
                        let lease = table.lease();
                        prop_assert_eq!(
                            lease.is_none(),
                            written.len() + read.len() + in_flight.len() == 4
                        );
                        if let Some(lease) = lease {
                            generations.insert(lease.slot(), lease.generation());
                            written.push(lease);
                        }
                    }
                    Step::Send => if let Some(lease) = written.pop() {
                        in_flight.insert(lease.slot(), (lease.generation(), number));
                        table.sent(lease, number);
                    },
                    Step::Answer { slot, generation_back } => {
                        let current = generations.get(&slot).copied().unwrap_or(0);
                        let generation = current.saturating_sub(generation_back);
                        let expected = in_flight.get(&slot).filter(|(g, _)| *g == generation).copied();
                        match table.complete(slot, generation) {
                            Ok((lease, batch)) => {
                                prop_assert_eq!(expected, Some((generation, batch)));
                                in_flight.remove(&slot);
                                read.push(lease);
                            }
                            Err(_) => prop_assert_eq!(expected, None),
                        }
                    }
                    Step::Release => if let Some(lease) = read.pop() {
                        table.release(lease);
                    },
                }
                prop_assert_eq!(
                    table.free() + written.len() + read.len() + table.in_flight().count(), 4
                );
            }
            let mut left: Vec<_> = in_flight.into_values().map(|(_, batch)| batch).collect();
            let mut abandoned = table.abandon();
            left.sort_unstable();
            abandoned.sort_unstable();
            prop_assert_eq!(left, abandoned);
        }
    }
}
