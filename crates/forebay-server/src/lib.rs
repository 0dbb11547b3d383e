//! The daemon's HTTP and gRPC: a [`Service`] holds the runtime that answers now, [`api`] speaks the
//! dialects of HTTP and [`grpc`] the calls of clients, `guard` decides who may ask, and `listen` owns
//! sockets, connections and their limits. It starts no process and reads no command line:
//! `forebay serve` does.

mod admin;
pub mod api;
mod error;
pub mod grpc;
mod guard;
mod listen;
mod metrics;
mod policy;
mod reload;
mod service;
mod trace;

pub use admin::ReloadAsked;
pub use error::ServeError;
pub use guard::request_id::RequestId;
pub use listen::{
    Address, BodyError, Drained, Prepared, RunningServer, Server, ServerArgs, ServerHandle,
};
pub use metrics::all_metrics;
pub use reload::{LoadConfig, OnConfig, ReloadError, Reloaded, Reloader};
pub use service::{LastReload, Service, sole_owner};
