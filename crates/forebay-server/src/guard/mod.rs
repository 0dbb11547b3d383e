//! Who may ask: keys, users of the unix socket, names on TCP. Nothing here reads a body or knows a
//! runtime.

pub(crate) mod credentials;
pub(crate) mod host;
pub(crate) mod keys;
pub(crate) mod refusal;
pub(crate) mod request_id;

use http::Method;
use http::request::Parts;

use crate::listen::handler::Came;
use crate::listen::metrics::{Listener, Refused};
use crate::policy::Policy;

/// What anybody may ask, also without a key: it says nothing but yes or no.
const PUBLIC: [&str; 4] = ["/livez", "/readyz", "/health", "/ping"];

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody with a key, where keys are configured.
    Known,
    /// Anybody, about what anybody may ask.
    Anybody,
}

/// Who asks in a request of a connection that came in so.
///
/// # Errors
/// Why it may not be answered.
pub(crate) fn check(policy: &Policy, came: Came, parts: &Parts) -> Result<Asker, Refused> {
    let Came { listener, user } = came;
    if listener == Listener::Tcp {
        policy.hosts.check(&parts.uri, &parts.headers)?;
    }
    // Again at each request: settings may have changed since the connection was let in.
    if let (Listener::Unix, Some((user, group))) = (listener, user)
        && !policy.credentials.admit(user, group)
    {
        return Err(Refused::User);
    }
    let is_public =
        PUBLIC.contains(&parts.uri.path()) && matches!(parts.method, Method::GET | Method::HEAD);
    let is_public = is_public || crate::grpc::is_public(parts.uri.path(), &parts.headers);
    if listener == Listener::Admin || policy.keys.admit(&parts.headers) {
        return Ok(Asker::Known);
    }
    if is_public { Ok(Asker::Anybody) } else { Err(Refused::Key) }
}
