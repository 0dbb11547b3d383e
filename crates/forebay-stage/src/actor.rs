//! The actor that owns a stage's life: it starts the thread and reports its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use kameo::actor::{ActorRef, Spawn, WeakActorRef};
use kameo::error::{ActorStopReason, PanicError};
use kameo::message::{Context, Message};
use kameo::{Actor, mailbox};

use crate::{StageClock, StageFailure};

/// Control messages that may wait for a stage's actor.
const MAILBOX: usize = 8;
/// Linux shows no more of a thread's name.
const THREAD_NAME_BYTES: usize = 15;

type Body = Box<dyn FnOnce(&StageClock) -> Result<(), StageFailure> + Send>;

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StageEnd {
    /// Its lane was closed and it finished everything.
    Finished,
    /// It could not go on.
    Failed(StageFailure),
}

struct ThreadEnded(StageEnd);

/// What [`StageActor`] is started with.
pub struct StageArgs {
    stage: &'static str,
    clock: Arc<StageClock>,
    body: Body,
}

/// The life of one stage. A failed stage stops its actor with the failure as the reason, which
/// every linked actor is told of.
pub struct StageActor;

/// A running stage as its owner holds it.
#[derive(Debug, Clone)]
pub struct Stage {
    name: &'static str,
    actor: ActorRef<StageActor>,
    clock: Arc<StageClock>,
}

impl Stage {
    /// Starts a stage whose end is reported to `parent` by its link. `body` runs on a thread
    /// named after the stage (cut to 15 bytes) until it returns; it must return when its lane is
    /// closed. Must be called within a tokio runtime.
    pub async fn spawn_link<P: Actor>(
        parent: &ActorRef<P>,
        stage: &'static str,
        body: impl FnOnce(&StageClock) -> Result<(), StageFailure> + Send + 'static,
    ) -> Self {
        let clock = Arc::new(StageClock::default());
        let args = StageArgs { stage, clock: Arc::clone(&clock), body: Box::new(body) };
        let mailbox = mailbox::bounded(MAILBOX);
        let actor = StageActor::spawn_link_with_mailbox(parent, args, mailbox).await;
        Self { name: stage, actor, clock }
    }

    /// Name of the stage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The stage's actor.
    #[must_use]
    pub fn actor(&self) -> &ActorRef<StageActor> {
        &self.actor
    }

    /// What the stage has done so far.
    #[must_use]
    pub fn clock(&self) -> &StageClock {
        &self.clock
    }

    /// Waits until the stage has ended, at most for `limit`; `false` if it has not by then.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        let ended = self.actor.wait_for_shutdown();
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

impl Actor for StageActor {
    type Args = StageArgs;
    type Error = StageFailure;

    fn name() -> &'static str {
        "stage"
    }

    async fn on_start(args: Self::Args, me: ActorRef<Self>) -> Result<Self, Self::Error> {
        let StageArgs { stage, clock, body } = args;
        let name = &stage[..stage.floor_char_boundary(THREAD_NAME_BYTES)];
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let end = match catch_unwind(AssertUnwindSafe(|| body(&clock))) {
                    Ok(Ok(())) => StageEnd::Finished,
                    Ok(Err(failure)) => StageEnd::Failed(failure),
                    Err(panic) => StageEnd::Failed(StageFailure::from_panic(stage, &*panic)),
                };
                // An actor that is gone already has nobody left to tell.
                me.tell(ThreadEnded(end)).blocking_send().ok();
            })
            .map_err(|error| StageFailure::new(stage, format!("cannot start thread: {error}")))?;
        Ok(Self)
    }

    async fn on_panic(
        &mut self,
        _me: WeakActorRef<Self>,
        error: PanicError,
    ) -> Result<std::ops::ControlFlow<ActorStopReason>, Self::Error> {
        Ok(std::ops::ControlFlow::Break(ActorStopReason::Panicked(error)))
    }
}

impl Message<ThreadEnded> for StageActor {
    type Reply = Result<(), StageFailure>;

    async fn handle(
        &mut self,
        ThreadEnded(end): ThreadEnded,
        context: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        match end {
            StageEnd::Finished => {
                context.stop();
                Ok(())
            }
            StageEnd::Failed(failure) => Err(failure),
        }
    }
}
