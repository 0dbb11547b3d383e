//! The engine on the real ONNX Runtime: against a plain reference, with itself under other
//! batching, on the real model, and on everything it has to refuse.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod exported;
mod independence;
mod real_model;
mod reference_match;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
