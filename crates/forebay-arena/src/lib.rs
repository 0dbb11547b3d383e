//! The memory that one host process and one worker process share.
//!
//! An arena is a sealed memfd cut into equal slots. The host writes token ids and row boundaries
//! into a slot, hands the slot over by a descriptor, and the worker writes the pooled rows into
//! the same slot before it hands it back. There is no lock in shared memory and no free list
//! either: who owns a slot is known from the messages, and the host keeps the books in its own
//! memory ([`SlotTable`]).
//!
//! An arena belongs to one worker incarnation. When the worker dies the arena is dropped with
//! it, so that a late store of a dying process can never touch its successor's data.
//!
//! This crate holds every `mmap` of the project and the only `unsafe` code that touches shared
//! memory; it knows nothing of sockets, processes or engines.

mod error;
mod host;
mod layout;
mod mapping;
mod slot_table;
mod worker;

pub use error::ArenaError;
pub use host::HostArena;
pub use layout::ArenaLayout;
pub use slot_table::{SlotLease, SlotTable, StaleAnswer};
pub use worker::{ClaimedSlot, WorkerArena};
