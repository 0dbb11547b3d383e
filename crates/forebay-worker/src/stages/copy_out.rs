//! Copy-out: brings the rows into the slot and gives the slot back to the host.

use forebay_protocol::{Descriptor, DescriptorKind, ErrorClass, output_checksum};
use forebay_stage::{LaneReceiver, StageClock, StageFailure, run_lane};

use super::fatal_ends;
use crate::engine::{Step, StepError};
use crate::faults::Faults;
use crate::link::Link;
use crate::work::Work;

pub(crate) const NAME: &str = "copy-out";

pub(crate) fn run<Rows: 'static>(
    lane: &LaneReceiver<Work<Rows>>,
    mut step: Box<dyn Step<Rows, ()>>,
    link: &Link,
    faults: &Faults,
    clock: &StageClock,
) -> Result<(), StageFailure> {
    let send = |descriptor: &Descriptor| {
        link.send_descriptor(descriptor)
            .map_err(|error| StageFailure::new(NAME, format!("socket: {error}")))
    };
    run_lane(lane, clock, |work| {
        let mut work = work.advance(|slot, rows| fatal_ends(step.run(slot, rows)));
        let mut checksum = 0;
        if work.state.is_ok() {
            let row_values = work.request.row_values as usize;
            let rows = work.slot.output_mut();
            work.times = faults.after_computing(rows, row_values, step.times(work.times));
            checksum = output_checksum(rows);
            faults.after_checksum(rows);
        }
        let mut answer = Descriptor {
            kind: DescriptorKind::Done,
            padded_tokens: work.padded_tokens,
            times: work.times,
            output_checksum: checksum,
            ..work.request
        };
        if let Err(error) = &work.state {
            answer.kind = DescriptorKind::Failed;
            answer.error = Some(match error {
                StepError::Batch { class, .. } => *class,
                StepError::Fatal { .. } => ErrorClass::Internal,
            });
            answer.message_bytes = work.slot.write_message(&error.to_string());
        }
        // The claim ends before the host may write into the slot again.
        drop(work.slot);
        send(&answer)
    })?;
    step.finish();
    send(&Descriptor::new(DescriptorKind::Drained))
}
