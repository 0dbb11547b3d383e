//! Settings of the daemon: where it listens, who may ask, and how much one client may take. The
//! library itself reads none of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::declare::Allowed::{Address, HashList, Integer, Name, NameList, Number, Path};
use super::declare::group;
use super::value::thread_count;

group! {
    /// Where the daemon listens and how it ends. The library listens nowhere.
    ServerConfig as "server" {
        /// Unix socket for clients, mode 0660. A stale one is replaced; one that somebody serves, or
        /// any other kind of file, is not.
        #[serde(with = "super::value::path_text")]
        socket: PathBuf = PathBuf::from("/run/forebay/forebay.sock"), "", Path("none");
        /// Group of that socket: its members may connect.
        socket_group: String = String::new(), "", Name("the group of the process");
        /// TCP address and port, such as 127.0.0.1:8080. Any other than a loopback address needs
        /// keys or client certificates.
        #[serde(with = "super::value::optional_text")]
        listen: Option<SocketAddr> = None, "", Address("none");
        /// Unix socket for the operator, mode 0600: reload, pin a level, release, faults, status.
        #[serde(with = "super::value::path_text")]
        admin_socket: PathBuf = PathBuf::from("/run/forebay/admin.sock"), "", Path("none");
        /// Names that the Host header may have on TCP, besides loopback ones; with names or addresses
        /// under which clients reach `listen`. Others are refused, which stops web pages that point a
        /// name of theirs at this machine.
        hosts_allowed: Vec<String> = Vec::new(), "", NameList(64);
        /// From the moment that readiness says no until the listeners close: balancers look away
        /// meanwhile. A connection that has said nothing by then gets as long again.
        drain_notice_ms: u32 = 1_000, "ms", Integer(0, 600_000);
        /// From then until requests that are still under way are given up.
        drain_deadline_ms: u32 = 30_000, "ms", Integer(0, 3_600_000);
        /// Greatest age of the dispatcher's heartbeat, and longest answer of the accept loop to its
        /// own ping, with which the service manager's watchdog is still told that all is well.
        watchdog_age_ms_max: u32 = 5_000, "ms", Integer(1_000, 600_000);
        /// Threads that serve connections; 0 for half of the cores, at most 16. A change takes a restart.
        threads: u32 = 0, "threads", Integer(0, 256);
        /// How often it is looked whether there is room, for those who watch the health over gRPC;
        /// of a change of the level they hear at once.
        health_watch_ms: u32 = 500, "ms", Integer(10, 60_000);
    }
}

group! {
    /// TLS on the TCP listener; the unix socket has none. Files are PEM and read again by a reload.
    TlsConfig as "tls" {
        /// Certificate chain of the server, its own certificate first.
        #[serde(with = "super::value::path_text")]
        certificate: PathBuf = PathBuf::new(), "", Path("no TLS");
        /// Private key of that certificate.
        #[serde(with = "super::value::path_text")]
        key: PathBuf = PathBuf::new(), "", Path("no TLS");
        /// Authorities of client certificates; with it, who has none from them is not let in.
        #[serde(with = "super::value::path_text")]
        client_ca: PathBuf = PathBuf::new(), "", Path("asking no client for a certificate");
        /// From the connection to the end of the handshake.
        handshake_ms: u32 = 5_000, "ms", Integer(10, 600_000);
    }
}

group! {
    /// Who may ask. Without keys everybody may who reaches a listener.
    AuthConfig as "auth" {
        /// SHA-256 of each bearer key, in hexadecimal; several, so that keys can be replaced one by
        /// one. `printf %s KEY | sha256sum` makes one; a key should be random and long.
        key_hashes: Vec<String> = Vec::new(), "", HashList(64);
        /// File with more of them, one per line; # begins a comment. Read again by a reload.
        #[serde(with = "super::value::path_text")]
        key_hashes_file: PathBuf = PathBuf::new(), "", Path("none");
        /// Users (names or numbers) who may use the unix socket; empty for all that its mode and
        /// group let in. Whoever is in either of the two lists may.
        users_allowed: Vec<String> = Vec::new(), "", NameList(64);
        /// The same for the primary groups of clients.
        groups_allowed: Vec<String> = Vec::new(), "", NameList(64);
    }
}

group! {
    /// How much a client may take. Who goes beyond is answered with an error or cut off, and counted.
    LimitsConfig as "limits" {
        /// Connections at once. Beyond it the one is closed that has had no request for longest; a
        /// new one is refused only if requests are under way on all of them.
        connections_max: u32 = 1_024, "connections", Integer(1, 1_000_000);
        /// The same for one peer: an address on TCP, a user on the unix socket.
        connections_per_peer_max: u32 = 512, "connections", Integer(1, 1_000_000);
        /// Line and headers of a request.
        header_bytes_max: u32 = 16_384, "bytes", Integer(8_192, 1_048_576);
        /// Headers of a request.
        headers_max: u32 = 100, "headers", Integer(8, 1_024);
        /// Body of a request.
        body_bytes_max: u32 = 8_388_608, "bytes", Integer(1_024, 1_073_741_824);
        /// Texts of a request.
        texts_per_request_max: u32 = 2_048, "texts", Integer(1, 65_536);
        /// Bodies in memory, of all requests that have no answer yet and of all answers that have
        /// not been sent yet. Answers count, but are never refused.
        body_bytes_under_way_max: u32 = 268_435_456, "bytes", Integer(1_048_576, 4_294_967_295);
        /// Text that one request may have made into tokens for it to read: each byte may become a
        /// token, and each token takes a hundred bytes of the answer.
        tokenize_bytes_max: u32 = 262_144, "bytes", Integer(1, 1_073_741_824);
        /// From the connection, or the end of its TLS handshake, to the first byte.
        first_byte_ms: u32 = 5_000, "ms", Integer(10, 600_000);
        /// From the first byte of a request to the end of its headers.
        header_ms: u32 = 5_000, "ms", Integer(10, 600_000);
        /// For the body of a request, and for a client that reads nothing of an answer: each may
        /// stand still for this long; what arrives earns more time at transfer_bytes_per_s_min.
        transfer_stall_ms: u32 = 10_000, "ms", Integer(10, 600_000);
        /// Slowest transfer that is put up with.
        transfer_bytes_per_s_min: u32 = 16_384, "bytes per second", Integer(1, 1_000_000_000);
        /// What the kernel keeps of the answers to a client that has not read them yet; a client that
        /// reads nothing is computed for until this is full. The kernel takes about twice as much, and
        /// no more than its own limit (net.core.wmem_max). A connection gets at most this much in the
        /// time that a packet takes there and back: more is of use where large answers go far.
        send_buffer_bytes: u32 = 65_536, "bytes", Integer(4_096, 16_777_216);
        /// Between requests on one connection.
        idle_ms: u32 = 60_000, "ms", Integer(10, 86_400_000);
        /// From the end of a request's headers to the beginning of its answer.
        request_ms: u32 = 120_000, "ms", Integer(10, 86_400_000);
        /// Requests that one HTTP/2 connection has under way.
        h2_streams_max: u32 = 64, "streams", Integer(1, 10_000);
        /// What a client may send of one HTTP/2 request before it is read.
        h2_stream_bytes_unread_max: u32 = 32_768, "bytes", Integer(16_384, 16_777_216);
        /// The same for a connection. Half of it is also what the small frames that are not read
        /// yet may cost at 256 bytes each less their content: beyond that the connection is closed.
        h2_bytes_unread_max: u32 = 8_388_608, "bytes", Integer(65_536, 1_073_741_824);
        /// Requests that one connection may give up before their answers, over what it has had
        /// answered.
        resets_max: u32 = 128, "requests", Integer(1, 1_000_000);
        /// Texts of one gRPC stream that are under way at once; what comes behind them is not read.
        grpc_stream_texts_max: u32 = 256, "texts", Integer(1, 65_536);
        /// HTTP/2: how often a quiet client is asked whether it is still there.
        h2_ping_ms: u32 = 20_000, "ms", Integer(100, 3_600_000);
    }
}

group! {
    /// What the machine costs, for the cost of a request.
    CostConfig as "cost" {
        /// Price of the machine.
        price_per_hour: f64 = 0.0, "per hour", Number(0.0, 1_000_000.0);
        /// Price of energy, for devices that report their power.
        price_per_kwh: f64 = 0.0, "per kWh", Number(0.0, 1_000_000.0);
        /// Currency of both.
        currency: String = "EUR".to_owned(), "", Name("no currency");
    }
}

impl ServerConfig {
    /// Threads that there are: [`ServerConfig::threads`], or what 0 takes.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        thread_count(self.threads, threads_for)
    }

    /// [`ServerConfig::drain_notice_ms`] as a duration.
    #[must_use]
    pub const fn drain_notice(&self) -> Duration {
        Duration::from_millis(self.drain_notice_ms as u64)
    }

    /// [`ServerConfig::drain_deadline_ms`] as a duration.
    #[must_use]
    pub const fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.drain_deadline_ms as u64)
    }

    /// [`ServerConfig::watchdog_age_ms_max`] as a duration.
    #[must_use]
    pub const fn watchdog_age_max(&self) -> Duration {
        Duration::from_millis(self.watchdog_age_ms_max as u64)
    }

    /// [`ServerConfig::health_watch_ms`] as a duration.
    #[must_use]
    pub const fn health_watch(&self) -> Duration {
        Duration::from_millis(self.health_watch_ms as u64)
    }
}

/// Threads of connections for a machine of `cores`. One serves some 40,000 short requests a second and
/// a GPU five times as many; where the CPU computes, two threads interrupt it more than one does.
fn threads_for(cores: usize) -> usize {
    (cores / 2).clamp(1, 16)
}

impl TlsConfig {
    /// Whether the TCP listener speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.is_on() && !self.client_ca.as_os_str().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_those_of_the_settings_or_half_of_the_cores() {
        let counts = [1, 2, 3, 4, 14, 32, 256].map(threads_for);
        assert_eq!(counts, [1, 1, 1, 2, 7, 16, 16]);
        let chosen = ServerConfig { threads: 5, ..ServerConfig::default() };
        assert_eq!(chosen.thread_count(), 5);
        assert!(ServerConfig::default().thread_count() >= 1);
    }
}
