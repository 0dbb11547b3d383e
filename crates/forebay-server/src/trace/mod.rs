//! Traces of requests for an OpenTelemetry collector: `context` reads what the client says of its
//! trace, `request` notes what happens to a request, `tracer` takes the notes into a bounded queue,
//! `exporter` sends them on, `otlp` and `client` say how. No text and nothing that a client sent but
//! its ids is in a span, and no request ever waits for a collector.

mod client;
mod context;
mod exporter;
pub(crate) mod metrics;
mod otlp;
mod request;
mod tracer;

pub(crate) use exporter::Exporting;
pub(crate) use request::{RequestTrace, Route, current, scoped};
pub(crate) use tracer::{Ending, Tracer};
