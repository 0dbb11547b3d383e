//! The worker's end of the socket pair: one packet, one message.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_protocol::{DESCRIPTOR_BYTES, Descriptor, HANDSHAKE_BYTES_MAX};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// One end of the socket; clones share it. Receiving and sending may go on in two threads.
#[derive(Clone)]
pub(crate) struct Link {
    socket: Arc<OwnedFd>,
}

/// A packet that is no longer than a descriptor, or one byte longer if the host sent more.
pub(crate) type SmallPacket = [u8; DESCRIPTOR_BYTES + 1];

impl Link {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket) }
    }

    /// Waits for the first packet; `None` when the host has closed its end or is gone.
    pub(crate) fn receive_handshake(&self) -> std::io::Result<Option<Vec<u8>>> {
        let mut packet = vec![0_u8; HANDSHAKE_BYTES_MAX];
        let length = self.receive(&mut packet)?;
        packet.truncate(length);
        Ok((length > 0).then_some(packet))
    }

    /// Waits for a packet of the size of a descriptor, looking for it without sleeping for up to
    /// `spin`; empty when the host has closed its end or is gone.
    pub(crate) fn receive_descriptor<'p>(
        &self,
        packet: &'p mut SmallPacket,
        spin: Duration,
    ) -> std::io::Result<&'p [u8]> {
        let length = match self.look(packet, spin)? {
            Some(length) => length,
            None => self.receive(packet)?,
        };
        Ok(&packet[..length])
    }

    fn look(&self, packet: &mut [u8], spin: Duration) -> std::io::Result<Option<usize>> {
        if spin.is_zero() {
            return Ok(None);
        }
        let until = Instant::now() + spin;
        while Instant::now() < until {
            match recv(self.socket.as_fd(), &mut *packet, RecvFlags::DONTWAIT) {
                Ok((_, length)) => return Ok(Some(length)),
                Err(Errno::AGAIN | Errno::INTR) => std::hint::spin_loop(),
                Err(Errno::CONNRESET) => return Ok(Some(0)),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }

    fn receive(&self, packet: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match recv(self.socket.as_fd(), &mut *packet, RecvFlags::empty()) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(0),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether the host closes its end or is gone within `limit`.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut fds = [PollFd::new(&*self.socket, PollFlags::RDHUP)];
        let ended = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR | PollFlags::NVAL;
        matches!(poll(&mut fds, limit.as_ref()), Ok(1)) && fds[0].revents().intersects(ended)
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
