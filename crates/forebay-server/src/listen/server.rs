//! The server as a whole: starting to listen, taking new settings over, and the drain.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay::Config;
use forebay::config::ServerConfig;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::Shared;
use super::accept::{AcceptLoop, Ping};
use super::held::BodyBytes;
use super::metrics::{ConnectionMetrics, Cut, Listener};
use super::registry::Registry;
use super::socket::Socket;
use crate::admin::{self, ReloadAsked};
use crate::error::ServeError;
use crate::guard::credentials;
use crate::policy::Policy;
use crate::service::Service;
use crate::trace::Exporting;

/// Modes of the two unix sockets.
const CLIENT_MODE: u32 = 0o660;
const ADMIN_MODE: u32 = 0o600;

/// How long connections that have been cut off may take to notice.
const CUT_DEADLINE: Duration = Duration::from_secs(5);

/// What a server is started with.
pub struct ServerArgs {
    /// What answers; its settings say where to listen and whom to let in.
    pub service: Arc<Service>,
    /// Who reloads the settings when the operator's socket is told to.
    pub reloads: mpsc::Sender<ReloadAsked>,
}

/// Starts servers.
pub struct Server;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The unix socket for clients.
    Unix(PathBuf),
    /// TCP, and whether it speaks TLS.
    Tcp(SocketAddr, bool),
    /// The operator's unix socket.
    Admin(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address, false) => write!(f, "http://{address}"),
            Self::Tcp(address, true) => write!(f, "https://{address}"),
            Self::Admin(path) => write!(f, "admin:{}", path.display()),
        }
    }
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because their requests took longer than
    /// `server.drain_deadline_ms`.
    pub cut: usize,
}

/// A server that listens. Dropping it closes its sockets; [`RunningServer::drain`] ends in order.
pub struct RunningServer {
    handle: ServerHandle,
    admin_registry: Arc<Registry>,
    stop: watch::Sender<bool>,
    loops: JoinSet<()>,
    alive: mpsc::Receiver<()>,
    exporting: Option<Exporting>,
}

/// A server as others than its owner see it. Clones are the same.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    addresses: Vec<Address>,
    pings: Vec<mpsc::Sender<Ping>>,
}

/// New settings that have been found good; see [`ServerHandle::prepare`].
pub struct Prepared(Policy);

impl Server {
    /// Listens and answers, from when this returns.
    ///
    /// # Errors
    /// [`ServeError`]; nothing listens then.
    pub fn start(args: ServerArgs) -> Result<RunningServer, ServeError> {
        let ServerArgs { service, reloads } = args;
        let config = service.config();
        let policy = Policy::load(&config)?;
        let sockets = sockets(&config)?;
        ConnectionMetrics::get();
        let (tracer, exporting) = Exporting::start(&config.tracing).unzip();
        let mut handle = ServerHandle {
            shared: Arc::new(Shared {
                service,
                policy: ArcSwap::from_pointee(policy),
                tracer,
                body_bytes: BodyBytes::default(),
            }),
            registry: Arc::default(),
            addresses: Vec::new(),
            pings: Vec::new(),
        };
        let mut pinged = Vec::new();
        for (_, _, address) in &sockets {
            handle.addresses.push(address.clone());
            let (ask, asked) = mpsc::channel(1);
            handle.pings.push(ask);
            pinged.push(asked);
        }
        let clients = crate::api::router(Arc::clone(&handle.shared.service));
        let operator = admin::router(handle.clone(), reloads);
        let admin_registry: Arc<Registry> = Arc::default();
        let (alive, last) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(false);
        let mut loops = JoinSet::new();
        for ((socket, listener, address), pings) in sockets.into_iter().zip(pinged) {
            let is_admin = listener == Listener::Admin;
            let registry = if is_admin { &admin_registry } else { &handle.registry };
            let accepting = AcceptLoop {
                shared: Arc::clone(&handle.shared),
                socket,
                listener,
                router: if is_admin { operator.clone() } else { clients.clone() },
                registry: Arc::clone(registry),
                alive: alive.clone(),
            };
            loops.spawn(accepting.run(pings, stopped.clone()));
            tracing::info!(%address, "listening");
        }
        Ok(RunningServer { handle, admin_registry, stop, loops, alive: last, exporting })
    }

    /// Whether these settings could be listened with: what they name can be read, and nobody is let
    /// in who should not be. Nothing is bound.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(config: &Config) -> Result<(), ServeError> {
        if config.server.socket.as_os_str().is_empty() && config.server.listen.is_none() {
            return Err(ServeError::Nowhere);
        }
        Policy::load(config).map(|_| ())
    }
}

/// Every socket of the settings, bound.
fn sockets(config: &Config) -> Result<Vec<(Socket, Listener, Address)>, ServeError> {
    let ServerConfig { socket, socket_group, listen, admin_socket, .. } = &config.server;
    let mut found = Vec::new();
    if !socket.as_os_str().is_empty() {
        let group = (!socket_group.is_empty()).then(|| credentials::group(socket_group));
        let bound = Socket::unix(socket, CLIENT_MODE, group.transpose()?)?;
        found.push((bound, Listener::Unix, Address::Unix(socket.clone())));
    }
    if let Some(address) = *listen {
        let bound = Socket::tcp(address)?;
        // A port that was left to the system is the one it gave.
        let place = bound.tcp_address().unwrap_or(address);
        found.push((bound, Listener::Tcp, Address::Tcp(place, config.tls.is_on())));
    }
    if found.is_empty() {
        return Err(ServeError::Nowhere);
    }
    if !admin_socket.as_os_str().is_empty() {
        let bound = Socket::unix(admin_socket, ADMIN_MODE, None)?;
        found.push((bound, Listener::Admin, Address::Admin(admin_socket.clone())));
    }
    Ok(found)
}

impl ServerHandle {
    /// Where it listens; a port that was left to the system is the one it got.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Connections of clients that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.registry.len()
    }

    /// Whether every accept loop goes round: each is asked, and has answered when this returns.
    /// `false` if one has ended.
    pub async fn ping(&self) -> bool {
        for loop_ in &self.pings {
            let (ask, answer) = oneshot::channel();
            if loop_.send(ask).await.is_err() || answer.await.is_err() {
                return false;
            }
        }
        true
    }

    /// Reads what new settings name: keys, certificates, users. Nothing changes yet.
    ///
    /// # Errors
    /// Something in them cannot be used, or takes a restart.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, ServeError> {
        let (new, old) = (&config.server, &self.shared.service.config().server);
        for (is_same, key) in [
            (new.socket == old.socket, "server.socket"),
            (new.socket_group == old.socket_group, "server.socket_group"),
            (new.listen == old.listen, "server.listen"),
            (new.admin_socket == old.admin_socket, "server.admin_socket"),
            (new.threads == old.threads, "server.threads"),
        ] {
            if !is_same {
                return Err(ServeError::NeedsRestart { key });
            }
        }
        Policy::load(config).map(Prepared)
    }

    /// From now on these hold: for the next request as to who may ask, for the next connection as to
    /// times and sizes.
    pub fn adopt(&self, prepared: Prepared) {
        self.shared.policy.store(Arc::new(prepared.0));
    }

    /// What answers.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.shared.service
    }
}

impl RunningServer {
    /// For whoever looks at it or changes its settings.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Waits until an accept loop ends, which none does before a drain unless it has failed.
    pub async fn ended(&mut self) {
        if self.loops.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends in order. Readiness says no at once; after `server.drain_notice_ms` nobody can connect
    /// any more, who has connected is answered, and what is still under way after
    /// `server.drain_deadline_ms` is cut off. Traces that wait are sent last.
    pub async fn drain(mut self) -> Drained {
        let exporting = self.exporting.take();
        let drained = self.drain_connections().await;
        if let Some(exporting) = exporting {
            exporting.end().await;
        }
        drained
    }

    async fn drain_connections(mut self) -> Drained {
        let config = self.handle.service().config();
        let (notice, deadline) = (config.server.drain_notice(), config.server.drain_deadline());
        self.handle.service().begin_drain();
        tokio::time::sleep(notice).await;
        self.stop.send_replace(true);
        // Each has taken in who was waiting, and closed its socket.
        while self.loops.join_next().await.is_some() {}
        let silent_until = std::time::Instant::now() + notice;
        for registry in [&self.handle.registry, &self.admin_registry] {
            registry.close_all(silent_until);
        }
        if tokio::time::timeout(deadline, self.alive.recv()).await.is_ok() {
            return Drained { cut: 0 };
        }
        let cut = self.handle.registry.len();
        for registry in [&self.handle.registry, &self.admin_registry] {
            registry.cut_all(Cut::Drain);
        }
        if tokio::time::timeout(CUT_DEADLINE, self.alive.recv()).await.is_err() {
            tracing::error!("connections that were cut off did not end within {CUT_DEADLINE:?}");
        }
        Drained { cut }
    }
}
