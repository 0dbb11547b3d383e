//! One file per command; each has its options and what it does.

pub(crate) mod bench;
pub(crate) mod bundle;
pub(crate) mod config;
mod cuda;
pub(crate) mod demo;
pub(crate) mod doctor;
mod doctor_bundle;
mod doctor_devices;
mod doctor_machine;
mod doctor_report;
pub(crate) mod drill;
pub(crate) mod embed;
pub(crate) mod eval;
mod event_times;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod ready;
pub(crate) mod selftest;
pub(crate) mod serve;
pub(crate) mod soak;
mod timing;
pub(crate) mod top;
