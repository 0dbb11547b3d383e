//! Settings of the traces of requests, which the daemon sends to a collector. The library itself
//! reads none of them.

use std::time::Duration;

use super::declare::Allowed::{Choice, Integer, Name, Number, Url};
use super::declare::group;
use super::value::OtlpProtocol;

group! {
    /// Traces of the daemon's requests, sent to an OpenTelemetry collector. Without an endpoint there
    /// are none. What the queue has no room for, and what the collector does not take, is dropped and
    /// counted; no request ever waits for it.
    TracingConfig as "tracing" {
        /// Where the collector listens. For "http/protobuf" /v1/traces follows if no path is given. To
        /// reach one over TLS, let a collector on this machine pass the spans on.
        otlp_endpoint: String = String::new(), "", Url("no traces");
        /// How it is spoken to.
        otlp_protocol: OtlpProtocol = OtlpProtocol::HttpProtobuf, "", Choice(OtlpProtocol::WORDS);
        /// Share of the requests without a `traceparent` that are traced. A request with one is traced
        /// if its sampled flag says so.
        sample_ratio: f64 = 0.1, "", Number(0.0, 1.0);
        /// Attribute `service.name` of every span.
        service_name: String = "forebay".to_owned(), "", Name("\"forebay\"");
        /// Traced requests that wait to be sent, each with 34 spans at most.
        queue_requests_max: u32 = 2_048, "requests", Integer(1, 1_000_000);
        /// Requests that are sent together, at most.
        batch_requests_max: u32 = 128, "requests", Integer(1, 10_000);
        /// How long the first of them waits for others.
        batch_wait_ms: u32 = 1_000, "ms", Integer(1, 60_000);
        /// From the beginning of sending until the collector's answer; at the end of the daemon, for
        /// everything that still waits. A batch that takes longer is dropped.
        export_deadline_ms: u32 = 5_000, "ms", Integer(1, 120_000);
    }
}

impl TracingConfig {
    /// Whether there are traces.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.otlp_endpoint.is_empty()
    }

    /// [`TracingConfig::batch_wait_ms`] as a duration.
    #[must_use]
    pub const fn batch_wait(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms as u64)
    }

    /// [`TracingConfig::export_deadline_ms`] as a duration.
    #[must_use]
    pub const fn export_deadline(&self) -> Duration {
        Duration::from_millis(self.export_deadline_ms as u64)
    }
}
