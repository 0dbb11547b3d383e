//! What a run must reach.

use serde::{Deserialize, Serialize};

/// What must be reached in the measured time; what is left out need not be. Latencies count from
/// when a request was due.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objectives {
    /// Highest median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// Highest 95th percentile in milliseconds.
    pub p95_ms: Option<f64>,
    /// Highest 99th percentile in milliseconds.
    pub p99_ms: Option<f64>,
    /// Highest 99.9th percentile in milliseconds.
    pub p999_ms: Option<f64>,
    /// Highest latency in milliseconds.
    pub max_ms: Option<f64>,
    /// Highest 99th percentile outside of the windows of faults, in milliseconds.
    pub calm_p99_ms: Option<f64>,
    /// Highest 99.9th percentile of these: short stalls that come again and again show here first.
    pub calm_p999_ms: Option<f64>,
    /// Highest latency of these.
    pub calm_max_ms: Option<f64>,
    /// Highest latency within the windows of faults, in milliseconds; what healing may cost a request.
    pub disturbed_max_ms: Option<f64>,
    /// Lowest share of the offered requests that were answered rightly within their deadline.
    pub good_share_min: Option<f64>,
    /// The same of the requests that were due and over in no window of a fault.
    pub calm_good_share_min: Option<f64>,
    /// Highest share of the offered requests that ended in an error or were lost.
    pub errors_share_max: Option<f64>,
    /// Names of errors that may come while a fault lasts. Any other error, and any error while none
    /// lasts, misses the objective. Left out, errors are not judged by their names.
    pub errors_with_faults: Option<Vec<String>>,
    /// Highest share of the offered requests that were refused.
    pub refused_share_max: Option<f64>,
    /// Lowest number of right answers per second.
    pub good_per_s_min: Option<f64>,
}

impl Objectives {
    /// Each latency objective with its name and quantile (1 is the maximum).
    #[must_use]
    pub fn quantiles(&self) -> [(&'static str, f64, Option<f64>); 5] {
        [
            ("p50_ms", 0.50, self.p50_ms),
            ("p95_ms", 0.95, self.p95_ms),
            ("p99_ms", 0.99, self.p99_ms),
            ("p999_ms", 0.999, self.p999_ms),
            ("max_ms", 1.0, self.max_ms),
        ]
    }
}
