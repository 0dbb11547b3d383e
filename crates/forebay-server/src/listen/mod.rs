//! Sockets, connections, and everything that bounds them. `axum::serve` is not used: it has no timers
//! and no limits, so a client that sends one byte a minute would keep its connection for ever.
//!
//! A connection is one task; `standing` is what is known of it, `registry` makes room, `stream` and
//! `body` hold transfers to a pace, as `taking` does where HTTP/2 holds an answer back, `dialogue` lets
//! calls last, `handler` takes a request through the guards.

mod accept;
mod alarm;
mod body;
mod connection;
mod dialogue;
pub(crate) mod handler;
mod held;
pub(crate) mod metrics;
mod pace;
mod registry;
mod server;
mod socket;
mod standing;
mod stream;
mod taking;
pub(crate) mod tls;

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::policy::Policy;
use crate::service::Service;
use crate::trace::Tracer;
use held::BodyBytes;

pub use body::BodyError;
pub use server::{Address, Drained, Prepared, RunningServer, Server, ServerArgs, ServerHandle};

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) service: Arc<Service>,
    pub(crate) policy: ArcSwap<Policy>,
    /// What the bodies of all requests and answers take.
    pub(crate) body_bytes: BodyBytes,
    /// `None` if nothing is traced.
    pub(crate) tracer: Option<Arc<Tracer>>,
}
