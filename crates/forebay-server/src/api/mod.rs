//! The routes.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use crate::service::Service;

/// Every route for clients. The guards are put around it where it is served.
pub fn router(service: Arc<Service>) -> Router {
    // The process answers: that is all that liveness says.
    Router::new().route("/livez", get(|| async { "ok" })).with_state(service)
}
