//! Why the daemon does not begin to listen, or does not take settings over. Nothing has changed then.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why listening or new settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is nowhere to listen.
    #[error("nowhere to listen: server.socket and server.listen are both empty; set one of them")]
    Nowhere,
    /// An address that others reach, without anything that tells friend from foe.
    #[error(
        "refusing to listen on {address}: others reach it, and neither keys (auth.key_hashes, \
         auth.key_hashes_file) nor client certificates (tls.client_ca) are configured; configure \
         one of them or listen on a loopback address"
    )]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {place}: {source}")]
    Bind {
        /// The address or path.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody serves at this path.
    #[error(
        "cannot listen on {path}: another process serves there; stop it or choose another path"
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// What is at this path is not a socket.
    #[error(
        "cannot listen on {path}: it is there and not a socket; remove it or choose another path"
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A file that is needed cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What should be the sum of a key is not.
    #[error(
        "{place} has something that is not a SHA-256 sum of 64 hexadecimal digits, or too much; \
         make one with `printf %s KEY | sha256sum`"
    )]
    Key {
        /// Where; what stands there is not shown, as it may be a key.
        place: String,
    },
    /// A user or group that the system does not know.
    #[error("there is no {kind} named {name}; check its spelling or give its number")]
    Name {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The TLS files do not go together.
    #[error("tls cannot be used: {reason}; check tls.certificate, tls.key and tls.client_ca")]
    Tls {
        /// What is wrong.
        reason: String,
    },
    /// More connections are allowed than the process may have files open.
    #[error(
        "limits.connections_max is {connections}, and this process may have {files} files open; \
         raise its limit (LimitNOFILE=) or lower limits.connections_max"
    )]
    Files {
        /// The setting.
        connections: u32,
        /// The limit of the process.
        files: u64,
    },
    /// A setting that only a restart changes.
    #[error("{key} cannot be changed by a reload; restart the daemon")]
    NeedsRestart {
        /// The setting.
        key: &'static str,
    },
}
