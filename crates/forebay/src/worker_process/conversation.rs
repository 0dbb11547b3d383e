//! What the reader's thread of one worker goes through: greet it, wait until it is ready, read its
//! answers to the end. It decides nothing about the process.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use forebay_protocol::{Hello, PROTOCOL_VERSION};
use forebay_stage::StageFailure;
use kameo::actor::ActorRef;
use rustix::net::{Shutdown, shutdown};

use super::actor::{End, Greeted, SocketEnded, WorkerArgs, WorkerProcess};
use super::deliver::Delivery;
use super::reader;
use crate::canary::CanaryJudge;
use crate::dispatch::lane::{InFlight, LaneSpec, WorkerLane};
use crate::supervisor::EndCause;

/// What the reader's thread goes through from the first packet to the last.
pub(super) struct Conversation {
    pub(super) args: WorkerArgs,
    pub(super) socket: OwnedFd,
    pub(super) arena: (forebay_arena::HostArena, forebay_arena::SlotTable<InFlight>),
    pub(super) me: ActorRef<WorkerProcess>,
}

impl Conversation {
    pub(super) fn run(self) -> Result<(), StageFailure> {
        let me = self.me.clone();
        let end = self.talk();
        // An actor that is gone has reported already.
        me.tell(SocketEnded(end)).blocking_send().ok();
        Ok(())
    }

    fn talk(self) -> Result<(), EndCause> {
        let Self { args, socket, arena, me } = self;
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: args.id.incarnation,
            arena: args.launch.arena,
            worker: args.launch.worker.clone(),
        };
        let deadline = Instant::now() + args.launch.config.start_deadline();
        let Some(ready) = reader::handshake(&socket, &hello, deadline)? else { return Ok(()) };
        let sending = socket
            .try_clone()
            .map_err(|error| EndCause::StartLost(format!("cannot share socket: {error}")))?;
        let ending = me.clone();
        let spec = LaneSpec {
            id: args.id,
            tier: args.launch.device.tier(),
            side_by_side: ready.side_by_side,
            timing: args.launch.config.clone(),
            canary: Arc::clone(&args.launch.canary),
            rung: Arc::clone(&args.rung),
        };
        let closing = socket
            .try_clone()
            .map_err(|error| EndCause::StartLost(format!("cannot share socket: {error}")))?;
        // An actor that has no room hears of the socket's end, which leads to the same.
        let end = Box::new(move |cause| {
            if ending.tell(End(cause)).try_send().is_err() {
                shutdown(closing.as_fd(), Shutdown::Both).ok();
            }
        });
        let lane = Arc::new(WorkerLane::new(spec, arena, sending, end));
        me.tell(Greeted(ready, Arc::clone(&lane))).blocking_send().ok();
        let judge = CanaryJudge::new(Arc::clone(&args.launch.canary), args.id.slot);
        let delivery = Delivery {
            lane,
            dispatch: args.dispatch,
            metrics: args.metrics,
            rung: args.rung,
            norm_tolerance: args.norm_tolerance,
            judge: RefCell::new(judge),
        };
        reader::answers(&socket, args.spin, &delivery)
    }
}
