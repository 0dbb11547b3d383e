//! gRPC as clients see it: a daemon as a process, over its real socket, and tonic's own client.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../serve/client.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod client;
#[path = "../serve/daemon.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod daemon;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

mod calls;
mod channel;
mod guards;
mod health;
mod real;
mod reflection;
mod streams;
