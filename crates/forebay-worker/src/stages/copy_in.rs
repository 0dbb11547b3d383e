//! Copy-in: receives descriptors, claims the slots they name, brings the ids to the encoder.
//!
//! It is also the watch on the socket: the lane behind it holds as many batches as there are
//! slots, so it never waits for room and hears of the socket's end as soon as its step returns. A
//! step that never does is seen to by the watch that `process` keeps.

use std::time::{Duration, Instant};

use forebay_arena::WorkerArena;
use forebay_protocol::{BatchTimes, DESCRIPTOR_BYTES, Descriptor, DescriptorKind, WorkerExit};
use forebay_stage::{LaneSender, StageClock, StageFailure};

use super::{fatal_ends, protocol_violation, successor_gone};
use crate::engine::Step;
use crate::faults::Faults;
use crate::link::Link;
use crate::work::Work;

pub(crate) const NAME: &str = "copy-in";

pub(crate) fn run<Staged: 'static>(
    link: &Link,
    arena: &WorkerArena,
    faults: &Faults,
    mut step: Box<dyn Step<(), Staged>>,
    next: &LaneSender<Work<Staged>>,
    spin: Duration,
    clock: &StageClock,
) -> Result<(), StageFailure> {
    let mut packet = [0_u8; DESCRIPTOR_BYTES + 1];
    loop {
        let packet = match link.receive_descriptor(&mut packet, spin) {
            // The host is gone or has let go: nobody is left to answer.
            Ok([]) => crate::os::exit_now(WorkerExit::Clean),
            Ok(packet) => packet,
            Err(error) => return Err(StageFailure::new(NAME, format!("socket: {error}"))),
        };
        let received_at = Instant::now();
        let request = Descriptor::decode(packet).unwrap_or_else(|e| protocol_violation(&e));
        match request.kind {
            DescriptorKind::Run | DescriptorKind::RunBeside => {}
            // Dropping the lane lets the stages behind finish what they have.
            DescriptorKind::Drain => return Ok(()),
            DescriptorKind::Fault => {
                request.fault().into_iter().for_each(|fault| faults.ask(fault));
                continue;
            }
            kind => protocol_violation(&format!("descriptor kind {kind:?} from the host")),
        }
        let slot = arena
            .claim(request.slot, request.rows, request.tokens)
            .unwrap_or_else(|error| protocol_violation(&error));
        let work = Work {
            slot,
            request,
            received_at,
            padded_tokens: request.tokens,
            times: BatchTimes::default(),
            state: Ok(()),
        };
        let staged = work.advance(|slot, ()| fatal_ends(step.run(slot, ())));
        clock.add(received_at.elapsed());
        next.send(staged).map_err(|_| successor_gone(NAME))?;
    }
}
