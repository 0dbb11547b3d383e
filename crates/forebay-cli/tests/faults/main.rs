//! Every fault that can be asked for, under load: two GPU rungs and a CPU of fake workers, several
//! threads that submit, and then nothing lost, nothing wrong, no slot and no process left behind,
//! and the level back where it was.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[path = "../device_health/library.rs"]
mod library;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

mod devices;
mod each;
mod history;
mod late;
mod load;
mod numbers;
mod refused;
mod several;
mod starts;
mod stuck;
mod survival;
