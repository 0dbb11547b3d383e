//! The loop that accepts the connections of one socket. It never waits for a connection it has
//! accepted, answers a ping whenever it is asked whether it still goes round, and at the end takes
//! in everybody who had connected before it closes.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::Shared;
use super::connection::Visit;
use super::handler::Came;
use super::metrics::{ConnectionMetrics, Listener, Turned};
use super::registry::{Peer, Registry};
use super::socket::{Accepted, Socket, WAITING_MAX};
use super::standing::Standing;
use crate::policy::Policy;

/// Rest after the system could not give a connection: it has no more to give at once.
const REST: Duration = Duration::from_millis(20);

/// A question whether the loop still goes round.
pub(crate) type Ping = oneshot::Sender<()>;

/// The loop of one socket.
pub(crate) struct AcceptLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: Socket,
    pub(crate) listener: Listener,
    pub(crate) router: Router,
    pub(crate) registry: Arc<Registry>,
    /// Its connections hold a copy each, for whoever waits for the last of them.
    pub(crate) alive: mpsc::Sender<()>,
}

impl AcceptLoop {
    /// Accepts until `stop` changes or its other end has gone.
    pub(crate) async fn run(
        self,
        mut pings: mpsc::Receiver<Ping>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                // Who has stopped asking is about to stop the loop.
                Some(ping) = pings.recv() => { ping.send(()).ok(); }
                accepted = poll_fn(|context| self.socket.poll_accept(context)) => match accepted {
                    Ok(accepted) => self.welcome(accepted),
                    Err(error) => self.rest(&error).await,
                },
            }
        }
        self.socket.refuse_more();
        self.take_in_everybody().await;
    }

    /// Accepts until nobody waits any more.
    async fn take_in_everybody(&self) {
        // Who connects to TCP meanwhile is not to keep it going for ever.
        for _ in 0..WAITING_MAX {
            match self.socket.accept_now() {
                Ok(Some(accepted)) => self.welcome(accepted),
                Ok(None) => return,
                Err(error) => self.rest(&error).await,
            }
        }
    }

    /// A connection could not be accepted. One that broke off in the queue is no matter.
    async fn rest(&self, error: &io::Error) {
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
                | io::ErrorKind::NotConnected
        ) {
            return;
        }
        tracing::warn!(%error, "cannot accept a connection");
        ConnectionMetrics::get().turned(Turned::System);
        self.registry.evict_one();
        tokio::time::sleep(REST).await;
    }

    fn welcome(&self, accepted: Accepted) {
        let policy = self.shared.policy.load_full();
        if let Err(reason) = self.admit(accepted, policy) {
            tracing::debug!(?reason, "connection refused");
            ConnectionMetrics::get().turned(reason);
        }
    }

    /// Starts the task of a connection that is let in.
    fn admit(&self, accepted: Accepted, policy: Arc<Policy>) -> Result<(), Turned> {
        let (peer, user) = match &accepted {
            Accepted::Unix(stream) => {
                let user = self.user(stream, &policy)?;
                (Peer::User(user.0), Some(user))
            }
            Accepted::Tcp(_, address) => (Peer::Address(of_network(address.ip())), None),
        };
        let standing = Arc::new(Standing::new(Instant::now()));
        let place = self.registry.admit(peer, &standing, &policy.limits)?;
        let visit = Visit {
            shared: Arc::clone(&self.shared),
            policy: Arc::clone(&policy),
            standing,
            came: Came { listener: self.listener, user },
            router: self.router.clone(),
        };
        let alive = self.alive.clone();
        accepted.bound_send_buffer(policy.limits.send_buffer_bytes);
        tokio::spawn(async move {
            match (accepted, &policy.tls) {
                (Accepted::Unix(stream), _) => visit.serve(stream).await,
                (Accepted::Tcp(stream, _), tls) => {
                    // Without it an answer may wait for the client to confirm the one before.
                    stream.set_nodelay(true).ok();
                    match tls {
                        None => visit.serve(stream).await,
                        Some(tls) => {
                            visit.serve_tls(tls.clone(), stream, policy.tls_time).await;
                        }
                    }
                }
            }
            drop((place, alive));
        });
        Ok(())
    }

    /// User and primary group of the other end, if they are let in.
    fn user(&self, stream: &UnixStream, policy: &Policy) -> Result<(u32, u32), Turned> {
        let peer = stream.peer_cred().map_err(|_| Turned::Credentials)?;
        let may = match self.listener {
            Listener::Admin => peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw(),
            _ => policy.credentials.admit(peer.uid(), peer.gid()),
        };
        if may { Ok((peer.uid(), peer.gid())) } else { Err(Turned::Credentials) }
    }
}

/// What one client can be told from another by: in IPv6 each has a whole network of addresses.
fn of_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            if address.is_loopback() { address.into() } else { IpAddr::V6(network.into()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_is_one_client() {
        let of = |text: &str| of_network(text.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(of("::1"), "::1");
    }
}
