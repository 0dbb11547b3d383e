//! The HTTP routes over a real runtime and worker process: what every client is promised, route by
//! route. Requests go straight into the router; sockets and guards have tests of their own.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

mod client;
mod health;
mod native;
mod openai;
mod refusals;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;
mod tei;
mod tei_errors;
