//! What the runtime measures about itself.
//!
//! [`names`] lists every metric; [`Metrics`] is what the stages call; [`prometheus`] shows the
//! result to programs that have no recorder of their own. Everything goes through the `metrics`
//! crate, so an application with a recorder finds Forebay's metrics in it. This module never opens
//! a port. A crate with metrics of its own declares them with [`metric_list!`](crate::metric_list)
//! and [`metric_label!`](crate::metric_label) and records them through [`handles`].

mod devices;
pub mod handles;
mod labels;
pub mod names;
pub mod prometheus;
mod recorder;
mod turn;

#[cfg(test)]
mod tests;

pub use devices::{DeviceMetrics, MonitorMetrics};
pub use labels::{
    AnswerDropped, CanaryVerdict, LabelValue, Outcome, RefusedBy, ReplyCheck, RestartCause, Stage,
    Unserved,
};
pub use recorder::{Metrics, RungMetrics, SealedShape};
