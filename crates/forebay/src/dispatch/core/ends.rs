//! What becomes of texts whose batch did not come back with results, and of the worker that failed
//! it: the part of the core that decides about second runs.

use std::time::Instant;

use forebay_protocol::ErrorClass;

use super::Core;
use crate::dispatch::WorkerNews;
use crate::dispatch::port::{EndedBatch, EndedWorker, WorkerId, WorkerPort};
use crate::error::EmbedError;
use crate::request::Pending;
use crate::supervisor::EndCause;

/// A text that may be to blame runs at most this often: once with others, once alone. Twins of what
/// is late are within it.
pub(super) const EXECUTIONS_MAX: u32 = 2;
/// And one whose worker was ended for something else this often: two devices that compute wrongly
/// may be found out one after the other.
const EXECUTIONS_BLAMELESS_MAX: u32 = 3;

/// A worker that fails so many batches in a row is ended: whatever it fails at, the texts are not to
/// blame, and while it serves it is given all the work. A bad text alone gets to two, as it runs
/// twice.
pub(super) const FAILURES_MAX: u32 = 3;

/// Rows that a worker answered as failed, each of which may run once more, alone. There may be none
/// left that wait for an answer.
pub(crate) struct FailedRows {
    pub(crate) worker: WorkerId,
    pub(crate) class: ErrorClass,
    pub(crate) message: String,
    /// The batch had one row. Otherwise `rows` may still be one: the rest has been answered.
    pub(crate) alone: bool,
    pub(crate) rows: Vec<Pending>,
}

/// What is known about why a worker was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// One of its texts may have done it.
    Unknown,
    /// It was ended for something that its texts cannot have brought about.
    Elsewhere,
    /// It was told to end, with everything else.
    Shutdown,
}

/// How many batches each worker has failed since its last success, or since its start.
#[derive(Default)]
pub(super) struct FailuresInARow(Vec<(WorkerId, u32)>);

impl FailuresInARow {
    /// Counts a failure of `worker`; says whether it was one too many. What is the texts' fault does
    /// not count.
    fn add(&mut self, worker: WorkerId, class: ErrorClass) -> bool {
        match class {
            ErrorClass::Input | ErrorClass::NonFinite => return false,
            ErrorClass::Retry
            | ErrorClass::OutOfMemory
            | ErrorClass::Internal
            | ErrorClass::Corrupt => {}
        }
        let known = self.0.iter_mut().find(|(known, _)| *known == worker);
        let failures = match known {
            Some((_, failures)) => {
                *failures += 1;
                *failures
            }
            None => {
                self.0.push((worker, 1));
                1
            }
        };
        failures >= FAILURES_MAX
    }

    /// The worker has succeeded or is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.0.retain(|(known, _)| *known != worker);
    }
}

impl<W: WorkerPort> Core<W> {
    /// A worker is gone, and this is what it had in flight.
    pub(crate) fn worker_ended(&mut self, ended: EndedWorker, now: Instant) {
        let EndedWorker { id, mut batches, requested } = ended;
        self.worker_leaving(id, now);
        // Usually that is nothing: an actor that failed has handed nothing back.
        batches.extend(self.workers.gone(id));
        self.failures.forget(id);
        let fault = if requested { Fault::Shutdown } else { Fault::Unknown };
        self.given_up(batches, fault, now);
    }

    /// No more answers can come from a worker, and this is what it had in flight. Its process may
    /// still be there. `blameless`: it was ended for something else than its texts.
    pub(crate) fn worker_lost(
        &mut self,
        id: WorkerId,
        batches: Vec<EndedBatch>,
        blameless: bool,
        now: Instant,
    ) {
        self.worker_leaving(id, now);
        if mutated!(LosesBatches) {
            return;
        }
        let fault = if blameless { Fault::Elsewhere } else { Fault::Unknown };
        self.given_up(batches, fault, now);
    }

    fn given_up(&mut self, batches: Vec<EndedBatch>, fault: Fault, now: Instant) {
        for EndedBatch { rows, exclusive } in batches {
            // What a twin has answered, or may yet answer, is no longer here.
            let rows: Vec<Pending> = rows.into_iter().filter_map(Pending::give_up).collect();
            if rows.is_empty() {
                continue;
            }
            if fault == Fault::Shutdown {
                // We ended it; its texts are under no suspicion, and there is no next worker.
                for pending in rows {
                    pending.refuse(EmbedError::ShuttingDown);
                }
                continue;
            }
            self.metrics.suspects(rows.len());
            let blamed = exclusive && fault == Fault::Unknown;
            let executions_max = match fault {
                Fault::Elsewhere => EXECUTIONS_BLAMELESS_MAX,
                _ => EXECUTIONS_MAX,
            };
            let (over, again): (Vec<_>, Vec<_>) = rows
                .into_iter()
                .partition(|pending| blamed || pending.owed.executions() >= executions_max);
            for pending in over {
                let executions = pending.owed.executions();
                pending.refuse(match fault {
                    Fault::Elsewhere => EmbedError::WorkerLost,
                    _ => EmbedError::PoisonInput { executions },
                });
            }
            self.run_again(again, now);
        }
    }

    /// A batch failed, or some of its rows, while its worker lives on.
    pub(crate) fn rows_failed(&mut self, failed: FailedRows, now: Instant) {
        let FailedRows { worker, class, message, alone, rows } = failed;
        self.count_failure(worker, class, &message, now);
        if matches!(class, ErrorClass::NonFinite | ErrorClass::Corrupt) {
            // Either the text is odd or the device is: known answers tell which.
            self.run_canary(worker);
        }
        // Alone and refused as input: running it again gives the same answer.
        let hopeless = alone && class == ErrorClass::Input;
        let rows = rows.into_iter().filter_map(Pending::give_up);
        let (over, again): (Vec<_>, Vec<_>) =
            rows.partition(|row| hopeless || row.owed.executions() >= EXECUTIONS_MAX);
        for pending in over {
            let message = message.clone();
            pending.refuse(match class {
                ErrorClass::NonFinite | ErrorClass::Corrupt => {
                    EmbedError::InvalidResult { message }
                }
                class => EmbedError::Inference { class: class.name(), message },
            });
        }
        self.run_again(again, now);
    }

    /// Queues texts for a run of their own each, as many as the budget allows; the others are told.
    fn run_again(&mut self, rows: Vec<Pending>, now: Instant) {
        if rows.is_empty() {
            return;
        }
        let allowed = self.reruns.take(rows.len(), now);
        let refused = rows.len() - allowed;
        if allowed > 0 {
            self.metrics.batch_rerun(allowed);
        }
        if refused > 0 {
            self.refused_reruns(refused);
        }
        for (place, pending) in rows.into_iter().enumerate() {
            if place < allowed {
                self.suspect(pending);
            } else {
                pending.refuse(EmbedError::WorkerLost);
            }
        }
    }

    /// Counts texts that were not run again, and tells the supervisor.
    pub(super) fn refused_reruns(&mut self, texts: usize) {
        self.metrics.reruns_refused(texts);
        self.news.push(WorkerNews::RerunsRefused { texts });
    }

    /// Counts a failure of a worker that serves, and ends one that fails everything.
    fn count_failure(&mut self, id: WorkerId, class: ErrorClass, message: &str, now: Instant) {
        let known = self.workers.members().iter().find(|member| member.worker.id() == id);
        let Some(member) = known.filter(|_| self.failures.add(id, class)) else { return };
        let worker = &member.worker;
        worker.end(EndCause::BatchesFailed(message.to_owned()));
        self.worker_leaving(id, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_in_a_row_that_are_the_workers_own_add_up() {
        let worker = |incarnation| WorkerId { slot: 0, incarnation };
        let mut failures = FailuresInARow::default();
        for _ in 0..10 {
            assert!(!failures.add(worker(1), ErrorClass::Input));
            assert!(!failures.add(worker(1), ErrorClass::NonFinite));
            assert!(!failures.add(worker(1), ErrorClass::Retry));
            assert!(!failures.add(worker(2), ErrorClass::Internal));
            assert!(!failures.add(worker(1), ErrorClass::OutOfMemory));
            assert!(!failures.add(worker(2), ErrorClass::Corrupt));
            failures.forget(worker(1));
            failures.forget(worker(2));
        }
        assert!(failures.0.is_empty(), "nothing is kept of workers that are well or gone");
        for enough in [false, false, true, true] {
            assert_eq!(failures.add(worker(1), ErrorClass::Retry), enough);
        }
    }
}
