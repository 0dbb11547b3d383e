//! The worker's end of the socket pair: one packet, one message.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use forebay_protocol::{Descriptor, HANDSHAKE_BYTES_MAX};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// One end of the socket; clones share it. Receiving and sending may go on in two threads.
#[derive(Clone)]
pub(crate) struct Link {
    socket: Arc<OwnedFd>,
}

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket) }
    }

    /// Waits for one packet; `None` when the host has closed its end or is gone.
    pub(crate) fn receive(&self) -> std::io::Result<Option<Vec<u8>>> {
        let mut packet = vec![0_u8; HANDSHAKE_BYTES_MAX];
        let length = loop {
            match recv(self.socket.as_fd(), &mut packet, RecvFlags::empty()) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        packet.truncate(length);
        Ok((length > 0).then_some(packet))
    }

    /// Sends one packet. A host that is gone is not an error here: the receiving side ends the
    /// process then.
    pub(crate) fn send(&self, packet: &[u8]) -> std::io::Result<()> {
        loop {
            match send(self.socket.as_fd(), packet, SendFlags::NOSIGNAL) {
                Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub(crate) fn send_descriptor(&self, descriptor: &Descriptor) -> std::io::Result<()> {
        self.send(&descriptor.encode())
    }
}
