//! What the settings say about clients, in the form in which requests and connections are checked.
//! A reload makes a new one and puts it in the place of the old; nothing is kept of the old one but
//! the times of connections that are open.

use std::time::Duration;

use forebay::Config;
use forebay::config::LimitsConfig;
use tokio_rustls::TlsAcceptor;

use crate::error::ServeError;
use crate::guard::credentials::Credentials;
use crate::guard::host::{self, Hosts};
use crate::guard::keys::Keys;
use crate::listen::tls;

/// File descriptors for everything that is not a connection: workers, log, listeners.
const FILES_RESERVED: u64 = 256;

/// Who may ask, and how much.
pub(crate) struct Policy {
    pub(crate) keys: Keys,
    pub(crate) credentials: Credentials,
    pub(crate) hosts: Hosts,
    pub(crate) tls: Option<TlsAcceptor>,
    /// How long a TLS handshake may take.
    pub(crate) tls_time: Duration,
    pub(crate) limits: LimitsConfig,
}

impl Policy {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// A file, name or certificate that cannot be used, or an address that would be open to all.
    pub(crate) fn load(config: &Config) -> Result<Self, ServeError> {
        let Config { server, auth, limits, .. } = config;
        let keys = Keys::load(auth)?;
        if let Some(address) = server.listen {
            let is_guarded = keys.are_required() || config.tls.asks_clients();
            if !host::is_local(address) && !is_guarded {
                return Err(ServeError::Open { address });
            }
            if !host::is_local(address) && !config.tls.is_on() {
                tracing::warn!(%address, "keys and texts cross the network readable; set up [tls]");
            }
        }
        ensure_files(limits.connections_max)?;
        Ok(Self {
            keys,
            credentials: Credentials::load(auth)?,
            hosts: Hosts::new(server),
            tls: tls::acceptor(&config.tls)?,
            tls_time: Duration::from_millis(config.tls.handshake_ms.into()),
            limits: limits.clone(),
        })
    }
}

/// Raises the limit of open files as far as it may be, and checks that it is enough.
fn ensure_files(connections: u32) -> Result<(), ServeError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::from(connections) + FILES_RESERVED;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let limit = Rlimit { current: Some(raised), maximum };
    // What could not be raised is found too low below.
    let files = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => raised,
        Err(_) => current.unwrap_or(raised),
    };
    if files < wanted { Err(ServeError::Files { connections, files }) } else { Ok(()) }
}
