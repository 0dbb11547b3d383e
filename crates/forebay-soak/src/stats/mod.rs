//! Figures: latencies, what came of requests, memory over time.

mod backlog;
mod latency;
mod leak;
mod series;
mod slope;
mod spread;
mod tally;

pub use latency::{Latencies, LatencySummary, QUANTILES};
pub use leak::{Drift, Growth, Scale, drift, drifts, growth};
pub use series::{HEAT_BUCKETS, Interval, heat_bounds_ms};
pub use slope::{Slope, slope};
pub use spread::Spread;
pub(crate) use tally::{Ended, Span, Tally};
pub use tally::{FaultTally, Tallied};
