//! The root actor of a worker process: linked to every stage, it decides how the process ends.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use forebay_arena::WorkerArena;
use forebay_protocol::{WaitSpec, WorkerExit};
use forebay_stage::{Stage, StageFailure, WaitMode, lane};
use kameo::Actor;
use kameo::actor::{ActorId, ActorRef, WeakActorRef};
use kameo::error::ActorStopReason;

use crate::engine::Engine;
use crate::faults::Faults;
use crate::link::Link;
use crate::stages::{copy_in, copy_out, infer, pool};

/// What the root is started with.
pub(crate) struct RootArgs<Staged, States, Rows> {
    pub(crate) engine: Engine<Staged, States, Rows>,
    pub(crate) link: Link,
    pub(crate) arena: WorkerArena,
    pub(crate) wait: WaitSpec,
    pub(crate) faults: Arc<Faults>,
}

/// Ends normally once every stage has finished; ends the process when one fails.
pub(crate) struct Root<Staged, States, Rows> {
    running: usize,
    _types: std::marker::PhantomData<fn(Staged, States, Rows)>,
}

impl<Staged, States, Rows> Actor for Root<Staged, States, Rows>
where
    Staged: Send + 'static,
    States: Send + 'static,
    Rows: Send + 'static,
{
    type Args = RootArgs<Staged, States, Rows>;
    type Error = StageFailure;

    fn name() -> &'static str {
        "worker"
    }

    /// Starts the stages from the last to the first, each with the lane into its successor.
    async fn on_start(args: Self::Args, me: ActorRef<Self>) -> Result<Self, Self::Error> {
        let RootArgs { engine, link, arena, wait, faults } = args;
        let (wait, spin) = match wait {
            WaitSpec::Park => (WaitMode::Park, Duration::ZERO),
            WaitSpec::SpinThenPark { spin_us } => {
                let spin = Duration::from_micros(spin_us);
                (WaitMode::SpinThenPark(spin), spin)
            }
        };
        // No more batches than slots can be under way, so no lane of this length is ever full.
        let capacity = arena.layout().spec().slots as usize;
        let (to_infer, infer_lane) = lane(capacity, wait);
        let (to_pool, pool_lane) = lane(capacity, wait);
        let (to_copy_out, copy_out_lane) = lane(capacity, wait);
        let Engine { copy_in: copy_in_step, infer: encoders, pool: pool_step, .. } = engine;
        let (copy_out_step, out_link) = (engine.copy_out, link.clone());
        let out_faults = Arc::clone(&faults);
        Stage::spawn_link(&me, copy_out::NAME, move |clock| {
            copy_out::run(&copy_out_lane, copy_out_step, &out_link, &out_faults, clock)
        })
        .await;
        Stage::spawn_link(&me, pool::NAME, move |clock| {
            pool::run(&pool_lane, pool_step, &to_copy_out, clock)
        })
        .await;
        let running = 3 + encoders.len();
        for encoder in encoders {
            let (lane, next) = (infer_lane.clone(), to_pool.clone());
            let faults = Arc::clone(&faults);
            Stage::spawn_link(&me, infer::NAME, move |clock| {
                infer::run(&lane, encoder, &next, &faults, clock)
            })
            .await;
        }
        Stage::spawn_link(&me, copy_in::NAME, move |clock| {
            copy_in::run(&link, &arena, &faults, copy_in_step, &to_infer, spin, clock)
        })
        .await;
        Ok(Self { running, _types: std::marker::PhantomData })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        _: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Self::Error> {
        if !reason.is_normal() {
            let failure = match &reason {
                ActorStopReason::Panicked(error) => error.downcast::<StageFailure>(),
                _ => None,
            };
            let message = failure.map_or_else(|| reason.to_string(), |f| f.to_string());
            tracing::error!(exit = WorkerExit::Panic.name(), "{message}");
            crate::os::exit_now(WorkerExit::Panic);
        }
        self.running -= 1;
        Ok(if self.running == 0 {
            ControlFlow::Break(ActorStopReason::Normal)
        } else {
            ControlFlow::Continue(())
        })
    }
}
