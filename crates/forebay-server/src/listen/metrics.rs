//! What is counted of connections and of who was not let in. Nothing here knows what a request says.

use std::sync::OnceLock;

use forebay::metrics::LabelValue;
use forebay::metrics::names::{Kind, LabelSet, Metric, Unit};
use metrics::{Counter, Gauge, Key, Label, Level, Metadata, with_recorder};

/// Declares a label whose values are the variants of an enum.
macro_rules! label {
    (
        $(#[doc = $doc:literal])+
        $Name:ident as $label:literal {
            $( $(#[doc = $value_doc:literal])+ $Value:ident = $word:literal, )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $Name { $( $(#[doc = $value_doc])+ $Value, )+ }

        impl LabelValue for $Name {
            const SET: LabelSet = LabelSet { name: $label, values: &[$($word),+] };

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Where a connection came in.
    Listener as "listener" {
        /// The unix socket.
        Unix = "unix",
        /// TCP, with TLS or without.
        Tcp = "tcp",
        /// The operator's socket.
        Admin = "admin",
    }
}

label! {
    /// Why a connection was not let in.
    Turned as "reason" {
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

label! {
    /// Why a connection was cut off.
    Cut as "reason" {
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

label! {
    /// Why a request was refused before any handler saw it.
    Refused as "reason" {
        /// No key, or none that is known.
        Key = "key",
        /// The Host header names none of the daemon's names.
        Host = "host",
        /// A page of another origin sent it.
        Origin = "origin",
        /// More than `limits.body_bytes_max`.
        BodySize = "body_size",
        /// Longer than `limits.request_ms`.
        Time = "time",
    }
}

impl Refused {
    /// The word that the metrics have for it.
    pub(crate) fn word(self) -> &'static str {
        Self::SET.values[self.index()]
    }
}

const OPEN: Metric = Metric {
    name: "forebay_connections_open",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[Listener::SET],
    help: "Connections that are open",
    watch: "near `limits.connections_max`",
};
const ACCEPTED: Metric = Metric {
    name: "forebay_connections_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[Listener::SET],
    help: "Connections that were let in",
    watch: "",
};
const TURNED: Metric = Metric {
    name: "forebay_connections_refused_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[Turned::SET],
    help: "Connections that were not let in, by why",
    watch: "any rise",
};
const CUT: Metric = Metric {
    name: "forebay_connections_cut_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[Cut::SET],
    help: "Connections that were cut off, by why",
    watch: "a rise of anything but `idle`",
};
const REFUSED: Metric = Metric {
    name: "forebay_http_refused_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[Refused::SET],
    help: "Requests that were refused before they were looked at, by why",
    watch: "a rise of `key`: somebody tries, or a client has an old key",
};

/// Every metric of this module.
pub(crate) const CONNECTION_METRICS: &[Metric] = &[OPEN, ACCEPTED, TURNED, CUT, REFUSED];

/// The handles, one for each value of each label.
pub(crate) struct ConnectionMetrics {
    open: Vec<Gauge>,
    accepted: Vec<Counter>,
    turned: Vec<Counter>,
    cut: Vec<Counter>,
    refused: Vec<Counter>,
}

fn register<L: LabelValue, H>(metric: &Metric, make: impl Fn(&Key, &Metadata<'_>) -> H) -> Vec<H> {
    let metadata = Metadata::new("forebay", Level::INFO, None);
    let handle = |word: &&'static str| {
        let label = Label::from_static_parts(L::SET.name, word);
        make(&Key::from_parts(metric.name, vec![label]), &metadata)
    };
    L::SET.values.iter().map(handle).collect()
}

impl ConnectionMetrics {
    /// The handles of the recorder that is installed when this is first called.
    pub(crate) fn get() -> &'static Self {
        static METRICS: OnceLock<ConnectionMetrics> = OnceLock::new();
        METRICS.get_or_init(Self::new)
    }

    fn new() -> Self {
        let counter =
            |key: &Key, data: &Metadata<'_>| with_recorder(|r| r.register_counter(key, data));
        let gauge = |key: &Key, data: &Metadata<'_>| with_recorder(|r| r.register_gauge(key, data));
        for metric in CONNECTION_METRICS {
            let unit = Some(metrics::Unit::Count);
            with_recorder(|recorder| match metric.kind {
                Kind::Gauge => {
                    recorder.describe_gauge(metric.name.into(), unit, metric.help.into());
                }
                _ => recorder.describe_counter(metric.name.into(), unit, metric.help.into()),
            });
        }
        Self {
            open: register::<Listener, _>(&OPEN, gauge),
            accepted: register::<Listener, _>(&ACCEPTED, counter),
            turned: register::<Turned, _>(&TURNED, counter),
            cut: register::<Cut, _>(&CUT, counter),
            refused: register::<Refused, _>(&REFUSED, counter),
        }
    }

    /// A connection was let in.
    pub(crate) fn opened(&self, listener: Listener) {
        // One handle per value here and below, and the index is a place among the values.
        self.accepted[listener.index()].increment(1);
        self.open[listener.index()].increment(1.0);
    }

    /// That connection has gone.
    pub(crate) fn closed(&self, listener: Listener) {
        self.open[listener.index()].decrement(1.0);
    }

    /// A connection was not let in.
    pub(crate) fn turned(&self, reason: Turned) {
        self.turned[reason.index()].increment(1);
    }

    /// A connection was cut off.
    pub(crate) fn cut(&self, reason: Cut) {
        self.cut[reason.index()].increment(1);
    }

    /// A request was refused.
    pub(crate) fn refused(&self, reason: Refused) {
        self.refused[reason.index()].increment(1);
    }
}
