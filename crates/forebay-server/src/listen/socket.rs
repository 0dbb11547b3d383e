//! Listening sockets. The file of a unix socket is made so that nobody connects before it has its
//! mode and group, a stale one is told from one that is served, and what is not a socket stays.

use std::fs::{File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::error::ServeError;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1_024;

/// Connections that may wait when nobody more can connect: the kernel compares before it adds one.
pub(crate) const WAITING_MAX: u32 = BACKLOG + 1;

/// A socket that listens.
pub(crate) enum Socket {
    /// With the file that it is reached by.
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when it goes")] SocketFile),
    /// With the address it got.
    Tcp(TcpListener),
}

/// A connection as it was accepted.
pub(crate) enum Accepted {
    /// From a unix socket.
    Unix(UnixStream),
    /// From TCP, with the other end.
    Tcp(TcpStream, SocketAddr),
}

impl Accepted {
    /// Bounds what the kernel keeps of unread answers. By itself it takes megabytes where segments are
    /// large, as on loopback, so that a client that never reads is computed for all the same.
    pub(crate) fn bound_send_buffer(&self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let bounded = match self {
            Self::Unix(stream) => set_socket_send_buffer_size(stream, bytes),
            Self::Tcp(stream, _) => set_socket_send_buffer_size(stream, bytes),
        };
        if let Err(error) = bounded {
            tracing::warn!(%error, bytes, "limits.send_buffer_bytes cannot be set on a connection");
        }
    }
}

impl Socket {
    /// Listens on TCP.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn tcp(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Bind { place: address.to_string(), source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(failed)?;
        // A daemon that starts again must not wait for connections of the one before.
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        Ok(Self::Tcp(socket.listen(BACKLOG).map_err(failed)?))
    }

    /// Listens on a unix socket with this mode and group.
    ///
    /// # Errors
    /// The path is in use or not to be used, or the system refuses.
    pub(crate) fn unix(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, ServeError> {
        let (listener, file) = SocketFile::bind(path, mode, group)?;
        let failed = |source| ServeError::Bind { place: path.display().to_string(), source };
        let listener = std::os::unix::net::UnixListener::from(listener);
        Ok(Self::Unix(UnixListener::from_std(listener).map_err(failed)?, file))
    }

    /// The next connection.
    pub(crate) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Unix(listener, _) => {
                listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Unix(stream))
            }
            Self::Tcp(listener) => {
                listener.poll_accept(context).map_ok(|(stream, peer)| Accepted::Tcp(stream, peer))
            }
        }
    }

    /// Somebody who waits now, if anybody does. The kernel alone is asked: tokio says that nobody
    /// waits when a task has had its share of turns.
    pub(crate) fn accept_now(&self) -> io::Result<Option<Accepted>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = match self {
            Self::Unix(listener, _) => accept_with(listener, flags),
            Self::Tcp(listener) => accept_with(listener, flags),
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(match self {
            Self::Unix(..) => Accepted::Unix(UnixStream::from_std(accepted.into())?),
            Self::Tcp(_) => {
                let stream = TcpStream::from_std(accepted.into())?;
                let peer = stream.peer_addr()?;
                Accepted::Tcp(stream, peer)
            }
        }))
    }

    /// From now on nobody can connect, but who has may still be accepted. TCP has no such state.
    pub(crate) fn refuse_more(&self) {
        if let Self::Unix(listener, _) = self {
            // A socket that refuses this is about to be closed all the same.
            rustix::net::shutdown(listener, rustix::net::Shutdown::Read).ok();
        }
    }

    /// The address of a TCP socket.
    pub(crate) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Unix(..) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }
}

/// The file of a unix socket, removed when this is dropped.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Held for as long as the path is ours.
    _lock: File,
}

impl SocketFile {
    fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<(OwnedFd, Self), ServeError> {
        let failed = |source| ServeError::Bind { place: path.display().to_string(), source };
        let lock = lock(path)?;
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.map_err(|error| failed(error.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
        rustix::net::bind(&socket, &address).map_err(|error| failed(error.into()))?;
        let found = std::fs::symlink_metadata(path).map_err(failed)?;
        let file =
            Self { path: path.to_owned(), identity: (found.dev(), found.ino()), _lock: lock };
        // Nobody can connect before the socket listens, which it does last.
        std::os::unix::fs::chown(path, None, group).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        let backlog = i32::try_from(BACKLOG).unwrap_or(i32::MAX);
        rustix::net::listen(&socket, backlog).map_err(|error| failed(error.into()))?;
        Ok((socket, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Keeps every other daemon from this path. The file of the lock stays: whoever removed it could
/// leave two daemons with a lock each.
fn lock(path: &Path) -> Result<File, ServeError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let failed = |source| ServeError::Bind { place: path.display().to_string(), source };
    let open = rustix::fs::open(
        &beside,
        rustix::fs::OFlags::CREATE
            | rustix::fs::OFlags::RDWR
            | rustix::fs::OFlags::CLOEXEC
            | rustix::fs::OFlags::NOFOLLOW,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    );
    let file = File::from(open.map_err(|error| failed(error.into()))?);
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Removes a socket that nobody serves.
fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let failed = |source| ServeError::Bind { place: path.display().to_string(), source };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match Probe::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, has no room, or is of another kind: in any case it is somebody's.
        Ok(_) | Err(_) => Err(ServeError::InUse { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::socket_send_buffer_size;

    use super::*;

    fn bind(path: &Path) -> Result<(OwnedFd, SocketFile), ServeError> {
        SocketFile::bind(path, 0o660, None)
    }

    #[test]
    fn a_stale_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sock");
        // Left behind, as after a kill.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        let bound = bind(&path).expect("the stale one is replaced");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(bind(&path), Err(ServeError::InUse { .. })));
        drop(bound);
        assert!(!path.exists(), "it goes with its listener");
        let foreign = std::os::unix::net::UnixListener::bind(&path).expect("binds");
        assert!(matches!(bind(&path), Err(ServeError::InUse { .. })), "another program's");
        drop(foreign);
        drop(bind(&path).expect("stale now"));
    }

    #[test]
    fn what_is_not_a_socket_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "precious").expect("writes");
        assert!(matches!(bind(&path), Err(ServeError::NotASocket { .. })));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("links");
        assert!(matches!(bind(&link), Err(ServeError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "precious");
    }

    #[test]
    fn a_socket_that_took_its_place_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sock");
        let bound = bind(&path).expect("binds");
        std::fs::rename(&path, folder.path().join("old")).expect("renames");
        std::fs::write(&path, "another").expect("writes");
        drop(bound);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn little_is_kept_for_a_client_that_reads_nothing() {
        const BYTES: u32 = 16_384;
        let (one, _other) = UnixStream::pair().expect("a pair");
        let tcp = Socket::tcp("127.0.0.1:0".parse().expect("an address")).expect("listens");
        let _client = TcpStream::connect(tcp.tcp_address().expect("TCP")).await.expect("connects");
        let accepted = std::future::poll_fn(|context| tcp.poll_accept(context)).await;
        for accepted in [Accepted::Unix(one), accepted.expect("accepted")] {
            let kept = || match &accepted {
                Accepted::Unix(stream) => socket_send_buffer_size(stream),
                Accepted::Tcp(stream, _) => socket_send_buffer_size(stream),
            };
            let before = kept().expect("a size");
            accepted.bound_send_buffer(BYTES);
            let after = kept().expect("a size");
            // The kernel's own books are counted in.
            assert!(before > 2 * BYTES as usize && after <= 2 * BYTES as usize, "{before} {after}");
        }
    }
}
