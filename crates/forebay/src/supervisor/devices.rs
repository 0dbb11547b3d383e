//! What the watch on the devices means to the ladder.

use kameo::message::{Context, Message};

use super::actor::Supervisor;
use super::ladder::{DeviceNews, Event, QuarantineReason};
use crate::config::Device;
use crate::health::{DeviceVerdict, HealthReport};

/// What was heard of the devices.
pub(crate) struct DeviceReport(pub(crate) HealthReport);

/// Somebody says that a device may be used again, whatever put it into quarantine.
pub(crate) struct Release(pub(crate) Device);

impl Message<DeviceReport> for Supervisor {
    type Reply = ();

    async fn handle(
        &mut self,
        DeviceReport(report): DeviceReport,
        context: &mut Context<Self, ()>,
    ) {
        let me = context.actor_ref().clone();
        for (device, _, verdict) in report.devices {
            let slot = self.rungs.iter().position(|rung| rung.launch.device == device);
            let Some((slot, rung)) = slot.and_then(|slot| Some((slot, self.rungs.get_mut(slot)?)))
            else {
                continue;
            };
            // The same verdict again says nothing new.
            if rung.verdict.as_ref() == Some(&verdict) {
                continue;
            }
            let is_new = rung.verdict.as_ref().map(DeviceVerdict::name) != Some(verdict.name());
            rung.verdict = Some(verdict.clone());
            if is_new {
                let (name, reason) = (verdict.name(), verdict.reason());
                tracing::info!(%device, verdict = name, "device: {reason}");
                self.chronicle.health(slot, name, reason, !verdict.allows_use());
            }
            self.happen(Event::Device(slot, news_of(verdict)), &me).await;
        }
    }
}

impl Message<Release> for Supervisor {
    /// Whether there is such a rung; one that is in no quarantine is left as it is.
    type Reply = bool;

    async fn handle(
        &mut self,
        Release(device): Release,
        context: &mut Context<Self, Self::Reply>,
    ) -> Self::Reply {
        let slot = self.rungs.iter().position(|rung| rung.launch.device == device);
        let Some(slot) = slot else { return false };
        let me = context.actor_ref().clone();
        self.happen(Event::Released(slot), &me).await;
        true
    }
}

fn news_of(verdict: DeviceVerdict) -> DeviceNews {
    match verdict {
        DeviceVerdict::Fine => DeviceNews::Well,
        DeviceVerdict::Unknown(_) => DeviceNews::Unknown,
        DeviceVerdict::NoPromotion(why) => DeviceNews::Hold(why),
        DeviceVerdict::Restart(why) => DeviceNews::Shaken(why),
        DeviceVerdict::NeedsReset(why) => DeviceNews::Unfit(QuarantineReason::Reset, why),
        DeviceVerdict::NeedsReboot(why) => DeviceNews::Unfit(QuarantineReason::Reboot, why),
        DeviceVerdict::Lost(why) => DeviceNews::Unfit(QuarantineReason::Lost, why),
    }
}
