//! The daemon as a process, over real sockets, with fake workers: what clients see while it starts,
//! reloads, is attacked and ends.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

mod bodies;
mod client;
mod daemon;
mod ending;
mod guards;
mod h2;
mod hostile;
mod load;
mod notify;
mod operating;
mod reading;
mod reloading;
mod tls;
mod unit;
