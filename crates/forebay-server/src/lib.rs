//! The daemon's HTTP: a [`Service`] holds the runtime that answers now, [`api`] speaks the dialects
//! of clients, `guard` decides who may ask, and `listen` owns sockets, connections and their limits.
//! It starts no process and reads no command line: `forebay serve` does.

pub mod api;
mod metrics;
mod service;

pub use metrics::METRICS;
pub use service::Service;
