//! The operator's cap on the service level: taken, checked, recorded. The ladder keeps to it.

use kameo::message::{Context, Message};

use super::Supervisor;
use super::ladder::{Event, Ladder};
use super::level::Level;
use crate::config::Device;
use crate::error::PinError;

/// Caps the level; `None` lifts the cap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pin(pub(crate) Option<Level>);

impl Message<Pin> for Supervisor {
    type Reply = Result<(), PinError>;

    async fn handle(
        &mut self,
        Pin(cap): Pin,
        context: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        if self.stopping {
            return Err(PinError::Ending);
        }
        let devices: Vec<Device> = self.rungs.iter().map(|rung| rung.launch.device).collect();
        if let Some(level) = cap.filter(|_| !Ladder::leaves_something(&devices, cap)) {
            return Err(PinError::NothingLeft { level });
        }
        // The same again says nothing new.
        if self.ladder.cap() != cap {
            self.pin(cap);
            let me = context.actor_ref().clone();
            self.happen(Event::Capped(cap), &me).await;
        }
        Ok(())
    }
}

impl Supervisor {
    /// Writes down and shows what the operator has said.
    pub(super) fn pin(&mut self, cap: Option<Level>) {
        match cap {
            Some(cap) => tracing::warn!(%cap, "the operator has capped the service level"),
            None => tracing::info!("the operator has lifted the cap on the service level"),
        }
        self.chronicle.pinned(cap);
        self.args.board.pin(cap);
    }
}
