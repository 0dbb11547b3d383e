//! A stage drains, fails and panics as its owner is told it does; and the facts about the actor
//! library that this rests on, so that an upgrade which changes one is seen.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::ops::ControlFlow;
use std::time::Duration;

use forebay_stage::{Stage, StageFailure, WaitMode, lane, run_lane};
use kameo::actor::{ActorId, ActorRef, Spawn, WeakActorRef};
use kameo::error::ActorStopReason;
use kameo::message::{Context, Message};
use kameo::{Actor, mailbox};
use tokio::sync::mpsc;

/// A parent that outlives its children and passes on what it hears of their ends.
struct Parent {
    heard: mpsc::Sender<(ActorId, ActorStopReason)>,
}

impl Actor for Parent {
    type Args = mpsc::Sender<(ActorId, ActorStopReason)>;
    type Error = StageFailure;

    async fn on_start(heard: Self::Args, _: ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(Self { heard })
    }

    async fn on_link_died(
        &mut self,
        _: WeakActorRef<Self>,
        id: ActorId,
        reason: ActorStopReason,
    ) -> Result<ControlFlow<ActorStopReason>, Self::Error> {
        self.heard.send((id, reason)).await.ok();
        Ok(ControlFlow::Continue(()))
    }
}

struct Ping;
impl Message<Ping> for Parent {
    type Reply = bool;
    async fn handle(&mut self, _: Ping, _: &mut Context<Self, bool>) -> bool {
        true
    }
}

async fn parent() -> (ActorRef<Parent>, mpsc::Receiver<(ActorId, ActorStopReason)>) {
    let (heard, hears) = mpsc::channel(4);
    (Parent::spawn_with_mailbox(heard, mailbox::bounded(8)), hears)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn closing_the_lane_finishes_what_is_queued() {
    let (parent, mut hears) = parent().await;
    let (sender, receiver) = lane(4, WaitMode::Park);
    let (results, collected) = lane(16, WaitMode::Park);
    let stage = Stage::spawn_link(&parent, "double", move |clock| {
        run_lane(&receiver, clock, |item: u32| {
            results.send(item * 2).map_err(|_| StageFailure::new("double", "no receiver"))
        })
    })
    .await;
    for item in 0..10 {
        tokio::task::block_in_place(|| sender.send(item)).expect("open");
    }
    drop(sender);
    assert!(stage.ended_within(Duration::from_secs(20)).await);
    let all: Vec<_> = std::iter::from_fn(|| collected.try_recv()).collect();
    assert_eq!(all, (0..10).map(|item| item * 2).collect::<Vec<_>>());
    assert_eq!(stage.clock().items(), 10);
    let (id, reason) = hears.recv().await.expect("told");
    assert_eq!(id, stage.actor().id());
    assert!(reason.is_normal(), "{reason:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_panic_becomes_a_typed_failure_and_the_parent_lives() {
    let (parent, mut hears) = parent().await;
    let (sender, receiver) = lane(4, WaitMode::Park);
    let stage = Stage::spawn_link(&parent, "fragile", move |clock| {
        run_lane(&receiver, clock, |item: u32| {
            assert!(item != 3, "three is too much");
            Ok(())
        })
    })
    .await;
    tokio::task::block_in_place(|| sender.send(3)).expect("open");
    let (_, reason) = hears.recv().await.expect("told");
    let ActorStopReason::Panicked(error) = reason else { panic!("unexpected end {reason:?}") };
    let failure: StageFailure = error.downcast().expect("typed");
    assert!(failure.panicked && failure.message.contains("three is too much"), "{failure}");
    assert!(stage.ended_within(Duration::from_secs(20)).await);
    assert_eq!((stage.name(), stage.clock().items()), ("fragile", 0));
    assert!(parent.ask(Ping).send().await.expect("the parent lives"));
}
