//! Breaches of the protocol, committed over the bare socket.

use std::os::fd::{AsFd, BorrowedFd};

use forebay_arena::WorkerArena;
use forebay_protocol::{
    Descriptor, DescriptorKind, HANDSHAKE_BYTES_MAX, Hello, PROTOCOL_VERSION, Ready, StartReply,
    WORKER_FDS_ENV, output_checksum,
};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::engine;
use crate::script::Rogue;

/// The inherited descriptors: the socket and the memory.
fn inherited() -> Option<(BorrowedFd<'static>, BorrowedFd<'static>)> {
    let fds = std::env::var(WORKER_FDS_ENV).ok()?;
    let (socket, memory) = fds.split_once(',')?;
    let (socket, memory) = (socket.parse().ok()?, memory.parse().ok()?);
    // SAFETY: the host passes the numbers of two open descriptors in the variable; nothing in this
    // process closes them before it ends, or takes them over while they are borrowed here.
    unsafe { Some((BorrowedFd::borrow_raw(socket), BorrowedFd::borrow_raw(memory))) }
}

/// The host's greeting, left in the socket for whoever serves.
pub(crate) fn peek() -> Option<Hello> {
    receive(inherited()?.0, RecvFlags::PEEK).and_then(|packet| Hello::decode(&packet).ok())
}

/// Serves, and breaks the protocol in this way.
pub(crate) fn serve(hello: &Hello, breach: Rogue) {
    let (socket, memory) = inherited().expect("started as a worker");
    receive(socket, RecvFlags::empty()).expect("the greeting");
    let memory = memory.try_clone_to_owned().expect("a descriptor is free");
    let arena = WorkerArena::open(memory, hello.arena).expect("the arena is sound");
    let ready = StartReply::Ready(Ready {
        protocol: PROTOCOL_VERSION,
        engine: "rogue 1".to_owned(),
        device: hello.worker.device.clone(),
        precision: hello.worker.precision.clone(),
        width: engine::width(&hello.worker.model),
        side_by_side: match breach {
            Rogue::TooManySideBySide => hello.arena.slots + 1,
            _ => 1,
        },
        start_ms: 0,
        details: std::collections::BTreeMap::new(),
    });
    say(socket, &ready.encode().expect("short"));
    if breach == Rogue::Silent {
        engine::hang();
    }
    while let Some(packet) = receive(socket, RecvFlags::empty()) {
        let request = Descriptor::decode(&packet).expect("the host keeps to the protocol");
        match request.kind {
            DescriptorKind::Run | DescriptorKind::RunBeside => {}
            DescriptorKind::Fault => continue,
            DescriptorKind::Drain if breach == Rogue::IgnoreDrain => continue,
            _ => return,
        }
        let mut slot = arena.claim(request.slot, request.rows, request.tokens).expect("a slot");
        engine::write_rows(&mut slot, &[]);
        let done = Descriptor {
            kind: DescriptorKind::Done,
            padded_tokens: request.tokens,
            output_checksum: output_checksum(slot.output_mut()),
            ..request
        };
        drop(slot);
        match breach {
            Rogue::Garbage => say(socket, &[0xa5; 64]),
            Rogue::Half => say(socket, &done.encode()[..32]),
            Rogue::WrongGeneration => {
                let generation = done.generation + 1;
                say(socket, &Descriptor { generation, ..done }.encode());
                say(socket, &done.encode());
            }
            Rogue::Duplicate => {
                say(socket, &done.encode());
                say(socket, &done.encode());
            }
            Rogue::WrongShape => {
                say(socket, &Descriptor { rows: done.rows + 1, ..done }.encode());
            }
            Rogue::HostMessage => {
                say(socket, &Descriptor { kind: DescriptorKind::Run, ..done }.encode());
            }
            Rogue::WrongChecksum => {
                let output_checksum = !done.output_checksum;
                say(socket, &Descriptor { output_checksum, ..done }.encode());
            }
            Rogue::Silent | Rogue::TooManySideBySide => {}
            Rogue::IgnoreDrain => say(socket, &done.encode()),
        }
    }
}

fn receive(socket: impl AsFd, flags: RecvFlags) -> Option<Vec<u8>> {
    let mut packet = vec![0_u8; HANDSHAKE_BYTES_MAX];
    let (_, length) = recv(socket, &mut packet, flags).ok()?;
    packet.truncate(length);
    (length > 0).then_some(packet)
}

fn say(socket: impl AsFd, packet: &[u8]) {
    // A host that has gone is no concern of a rogue's.
    send(socket, packet, SendFlags::NOSIGNAL).ok();
}
