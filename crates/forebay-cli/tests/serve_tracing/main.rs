//! Traces of the daemon as a collector gets them: the program as it is, with fake workers, and a
//! collector over real sockets that takes them, hangs, refuses or is away.

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

mod away;
mod calls;
#[path = "../serve_grpc/channel.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod channel;
mod collector;
mod guards;
mod spans;
