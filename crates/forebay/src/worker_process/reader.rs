//! The thread that reads what a worker says: first its handshake, then its answers.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use forebay_protocol::{
    Descriptor, DescriptorKind, HANDSHAKE_BYTES_MAX, Hello, PROTOCOL_VERSION, Ready, StartReply,
    WorkerExit,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::deliver::Delivery;
use crate::supervisor::EndCause;

pub(crate) const NAME: &str = "fb-reply";
/// A deadline that is noticed so much too late says more of the host than of the worker.
const HELD_UP: Duration = Duration::from_secs(1);

/// Greets a worker and waits until it is ready, at most until `deadline`. `None` if it ends without
/// a word: its exit status says more.
pub(crate) fn handshake(
    socket: &OwnedFd,
    hello: &Hello,
    deadline: Instant,
) -> Result<Option<Ready>, EndCause> {
    let packet = hello.encode().map_err(|error| EndCause::Protocol(error.to_string()))?;
    // A worker that is gone already shows as the socket's end below.
    send(socket.as_fd(), &packet, SendFlags::NOSIGNAL).ok();
    if !readable(socket, deadline)? {
        return Err(EndCause::StartLate);
    }
    let mut packet = vec![0_u8; HANDSHAKE_BYTES_MAX];
    let length = receive(socket, &mut packet)?;
    if length == 0 {
        return Ok(None);
    }
    let reply = StartReply::decode(&packet[..length])
        .map_err(|error| EndCause::Protocol(error.to_string()))?;
    match reply {
        StartReply::Failed(failure) => Err(match WorkerExit::from_code(failure.exit_code.into()) {
            Some(exit) if exit.may_pass() => EndCause::StartLost(failure.message),
            Some(WorkerExit::DeviceMissing) => EndCause::StartMissing(failure.message),
            _ => EndCause::StartFailed(failure.message),
        }),
        StartReply::Ready(ready) if ready.protocol != PROTOCOL_VERSION => {
            Err(EndCause::StartFailed(format!(
                "worker speaks protocol {}, this host speaks {PROTOCOL_VERSION}; install both \
                 from one release",
                ready.protocol
            )))
        }
        StartReply::Ready(ready) if ready.width != hello.arena.width() => {
            Err(EndCause::StartFailed(format!(
                "worker gives embeddings of {} values, the model folder says {}",
                ready.width,
                hello.arena.width()
            )))
        }
        StartReply::Ready(ready) if !(1..=hello.arena.slots).contains(&ready.side_by_side) => {
            Err(EndCause::StartFailed(format!(
                "worker says that it computes {} batches side by side, of the {} slots that it was \
                 given; install both from one release",
                ready.side_by_side, hello.arena.slots
            )))
        }
        StartReply::Ready(ready) => Ok(Some(ready)),
    }
}

/// Reads answers until the socket ends: `Ok` for an end after a drain or without a word, `Err` for
/// a worker that must be ended because of what it said.
pub(crate) fn answers(
    socket: &OwnedFd,
    spin: Duration,
    delivery: &Delivery,
) -> Result<(), EndCause> {
    // One byte more than a descriptor, so that a longer packet is seen as such.
    let mut packet = [0_u8; forebay_protocol::DESCRIPTOR_BYTES + 1];
    let mut rows = Vec::new();
    loop {
        let length = match look(socket, &mut packet, spin)? {
            Some(length) => length,
            None => receive(socket, &mut packet)?,
        };
        if length == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let answer = Descriptor::decode(&packet[..length])
            .map_err(|error| EndCause::Protocol(error.to_string()))?;
        match answer.kind {
            DescriptorKind::Done | DescriptorKind::Failed => {
                delivery.answer(&answer, now, &mut rows).map_err(EndCause::Protocol)?;
            }
            // The end of the socket follows.
            DescriptorKind::Drained => {}
            kind => return Err(EndCause::Protocol(format!("{kind:?} from a worker"))),
        }
    }
}

/// Looks for a packet for up to `spin` without sleeping.
fn look(socket: &OwnedFd, packet: &mut [u8], spin: Duration) -> Result<Option<usize>, EndCause> {
    if spin.is_zero() {
        return Ok(None);
    }
    let until = Instant::now() + spin;
    while Instant::now() < until {
        match recv(socket.as_fd(), &mut *packet, RecvFlags::DONTWAIT) {
            Ok((_, length)) => return Ok(Some(length)),
            Err(Errno::AGAIN | Errno::INTR) => std::hint::spin_loop(),
            Err(Errno::CONNRESET) => return Ok(Some(0)),
            Err(errno) => return Err(EndCause::Protocol(format!("socket: {errno}"))),
        }
    }
    Ok(None)
}

fn receive(socket: &OwnedFd, packet: &mut [u8]) -> Result<usize, EndCause> {
    loop {
        match recv(socket.as_fd(), &mut *packet, RecvFlags::empty()) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(0),
            Err(errno) => return Err(EndCause::Protocol(format!("socket: {errno}"))),
        }
    }
}

/// Waits until there is something to read; `false` if `deadline` passes first. It is moved once if the
/// host stood still meanwhile.
fn readable(socket: &OwnedFd, deadline: Instant) -> Result<bool, EndCause> {
    let began = Instant::now();
    let (mut deadline, mut may_move) = (deadline, true);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => match moved(deadline, began, Instant::now()).filter(|_| may_move) {
                Some(later) => (deadline, may_move) = (later, false),
                None => return Ok(false),
            },
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(EndCause::Protocol(format!("socket: {errno}"))),
        }
    }
}

/// Where a deadline of something that began at `began` is moved to if it was noticed so late, at
/// `now`, that the host must have stood still, and perhaps the worker with it.
fn moved(deadline: Instant, began: Instant, now: Instant) -> Option<Instant> {
    let stood_still = now > deadline + HELD_UP;
    stood_still.then(|| now + deadline.saturating_duration_since(began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_if_the_host_stood_still_and_not_for_a_late_thread() {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(20);
        assert_eq!(moved(deadline, began, deadline + HELD_UP), None);
        let awake = deadline + Duration::from_secs(7_200);
        assert_eq!(moved(deadline, began, awake), Some(awake + Duration::from_secs(20)));
    }
}
