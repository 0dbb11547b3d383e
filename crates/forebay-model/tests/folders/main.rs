//! Small synthetic model folders: every layout that is accepted and every way to be refused.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod layouts;
mod properties;
mod refusals;
mod synthetic;
