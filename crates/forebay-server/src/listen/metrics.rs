//! What is counted of connections and of who was not let in. Nothing here knows what a request says.

use std::sync::OnceLock;

use forebay::metrics::LabelValue;
use forebay::metrics::handles::{ByLabel, describe, plain};
use forebay::{metric_label, metric_list};
use metrics::{Counter, Gauge};

metric_label! {
    /// Where a connection came in.
    pub(crate) enum Listener as "listener" {
        /// The unix socket.
        Unix = "unix",
        /// TCP, with TLS or without.
        Tcp = "tcp",
        /// The operator's socket.
        Admin = "admin",
    }
}

metric_label! {
    /// Why a connection was not let in.
    pub(crate) enum Turned as "reason" {
        /// `limits.connections_max`, with a request under way on each of them.
        Total = "total",
        /// `limits.connections_per_peer_max`, likewise.
        PerPeer = "per_peer",
        /// The user of the other end may not use the unix socket.
        Credentials = "credentials",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The TLS handshake took longer than `tls.handshake_ms`.
        TlsTime = "tls_time",
        /// The system refused to accept it: most often no file descriptor was left.
        System = "system",
    }
}

metric_label! {
    /// Why a connection was cut off.
    pub(crate) enum Cut as "reason" {
        /// `limits.first_byte_ms`.
        FirstByte = "first_byte",
        /// `limits.header_ms`.
        Header = "header",
        /// The body of a request stood still or was too slow.
        Body = "body",
        /// The client did not read its answer, or too slowly.
        Write = "write",
        /// `limits.idle_ms`.
        Idle = "idle",
        /// `limits.resets_max`.
        Resets = "resets",
        /// Its place was needed for another.
        Evicted = "evicted",
        /// What came is not HTTP, or breaks its rules or a limit of it.
        Protocol = "protocol",
        /// The daemon ended before its request did.
        Drain = "drain",
    }
}

metric_label! {
    /// Why a request was refused before any handler saw it.
    pub(crate) enum Refused as "reason" {
        /// No key, or none that is known.
        Key = "key",
        /// The Host header names none of the daemon's names.
        Host = "host",
        /// A page of another origin sent it.
        Origin = "origin",
        /// The user of the other end may not use the unix socket since the settings changed.
        User = "user",
        /// More than `limits.body_bytes_max`.
        BodySize = "body_size",
        /// `limits.body_bytes_under_way_max`.
        NoRoom = "no_room",
    }
}

metric_list! {
    /// Every metric of this module.
    pub(crate) const CONNECTION_METRICS;
    OPEN = "forebay_connections_open", Gauge, Count, [Listener::SET],
        "Connections that are open", watch "near `limits.connections_max`";
    ACCEPTED = "forebay_connections_total", Counter, Count, [Listener::SET],
        "Connections that were let in", watch "";
    TURNED = "forebay_connections_refused_total", Counter, Count, [Turned::SET],
        "Connections that were not let in, by why", watch "any rise";
    CUT = "forebay_connections_cut_total", Counter, Count, [Cut::SET],
        "Connections that were cut off, by why", watch "a rise of anything but `idle`";
    BODY_BYTES = "forebay_http_bodies_under_way_bytes", Gauge, Bytes, [],
        "Bytes of bodies in memory: of requests that have no answer yet, and of answers not sent yet",
        watch "near `limits.body_bytes_under_way_max`";
    REFUSED = "forebay_http_refused_total", Counter, Count, [Refused::SET],
        "Requests that were refused before they were looked at, by why",
        watch "a rise of `key`: somebody tries, or a client has an old key";
}

/// The handles.
pub(crate) struct ConnectionMetrics {
    open: ByLabel<Listener, Gauge>,
    accepted: ByLabel<Listener, Counter>,
    turned: ByLabel<Turned, Counter>,
    cut: ByLabel<Cut, Counter>,
    refused: ByLabel<Refused, Counter>,
    body_bytes: Gauge,
}

impl ConnectionMetrics {
    /// The handles of the recorder that is installed when this is first called.
    pub(crate) fn get() -> &'static Self {
        static METRICS: OnceLock<ConnectionMetrics> = OnceLock::new();
        METRICS.get_or_init(Self::new)
    }

    fn new() -> Self {
        describe(CONNECTION_METRICS);
        Self {
            open: ByLabel::new(&OPEN),
            accepted: ByLabel::new(&ACCEPTED),
            turned: ByLabel::new(&TURNED),
            cut: ByLabel::new(&CUT),
            refused: ByLabel::new(&REFUSED),
            body_bytes: plain(&BODY_BYTES),
        }
    }

    /// A connection was let in.
    pub(crate) fn opened(&self, listener: Listener) {
        self.accepted.of(listener).increment(1);
        self.open.of(listener).increment(1.0);
    }

    /// That connection has gone.
    pub(crate) fn closed(&self, listener: Listener) {
        self.open.of(listener).decrement(1.0);
    }

    /// A connection was not let in.
    pub(crate) fn turned(&self, reason: Turned) {
        self.turned.of(reason).increment(1);
    }

    /// A connection was cut off.
    pub(crate) fn cut(&self, reason: Cut) {
        self.cut.of(reason).increment(1);
    }

    /// Bodies take so many bytes more.
    pub(crate) fn body_bytes(&self, bytes: f64) {
        self.body_bytes.increment(bytes);
    }

    /// A request was refused.
    pub(crate) fn refused(&self, reason: Refused) {
        self.refused.of(reason).increment(1);
    }
}
