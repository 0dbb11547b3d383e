//! A lane and its reader's work with the worker's end of socket and arena in the same process: how
//! twins, canaries and rows that are not to be believed come out.

use std::os::fd::OwnedFd;

use forebay_arena::{HostArena, WorkerArena};
use forebay_protocol::{ArenaSpec, DESCRIPTOR_BYTES, output_checksum};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use super::*;
use crate::admission::Admission;
use crate::canary::Canary;
use crate::config::{AdmissionConfig, Tier, WorkerConfig};
use crate::dispatch::WorkerId;
use crate::dispatch::answer::check;
use crate::dispatch::lane::LaneSpec;
use crate::dispatch::port::Batch;
use crate::dispatch::thread::{self, DispatchInbox};
use crate::error::EmbedError;
use crate::owed::Owed;
use crate::priority::Priority;
use crate::reply::{EmbedResult, ReplyGroup};
use crate::request::RequestSpec;

const SPEC: ArenaSpec = ArenaSpec { slots: 3, tokens_max: 64, rows_max: 8, row_values: 4 };

/// Both ends of one worker.
struct Both {
    delivery: Delivery,
    inbox: DispatchInbox,
    socket: OwnedFd,
    arena: WorkerArena,
    admission: Arc<Admission>,
}

fn both() -> Both {
    both_with(1)
}

/// Of a worker that computes so many batches side by side.
fn both_with(side_by_side: u32) -> Both {
    let (host, table) = HostArena::create(SPEC).expect("creates");
    let fd = host.fd().try_clone_to_owned().expect("duplicates");
    let arena = WorkerArena::open(fd, SPEC).expect("opens");
    let (ours, socket) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a pair");
    let metrics = Arc::new(Metrics::new());
    let canary = Arc::new(Canary::of(vec![vec![7, 8], vec![9]], 0.98));
    let rung = Arc::new(metrics.rung("cpu"));
    let spec = LaneSpec {
        id: WorkerId { slot: 0, incarnation: 1 },
        tier: Tier::Cpu,
        side_by_side,
        timing: WorkerConfig::default(),
        canary: Arc::clone(&canary),
        rung: Arc::clone(&rung),
    };
    let lane = Arc::new(WorkerLane::new(spec, (host, table), ours, Box::new(|_| ())));
    let (dispatch, inbox) = thread::channel();
    let judge = RefCell::new(CanaryJudge::new(canary, 0));
    let delivery = Delivery { lane, dispatch, metrics, rung, norm_tolerance: 1e-3, judge };
    let admission = Admission::new(&AdmissionConfig::default());
    Both { delivery, inbox, socket, arena, admission }
}

impl Both {
    /// A text of these token ids, with the place of its answer.
    fn text(&self, ids: &[u32]) -> (Pending, Arc<ReplyGroup>) {
        let now = Instant::now();
        let metrics = Arc::clone(&self.delivery.metrics);
        let (group, mut repliers) = ReplyGroup::new(1, Priority::Bulk, now, metrics);
        let mut permits = self.admission.try_acquire(Priority::Bulk, &[1]).expect("room");
        let spec = RequestSpec {
            priority: Priority::Bulk,
            deadline: None,
            truncate: true,
            cut_from: forebay_model::CutFrom::Right,
            normalize: true,
            dimensions: 3,
            accepted_at: now,
        };
        let pending = Pending {
            spec,
            ids: ids.to_vec(),
            tokens_before_cut: ids.len(),
            tokenize: Duration::ZERO,
            queued_at: now,
            owed: Owed::new(repliers.remove(0), permits.remove(0)),
        };
        (pending, group)
    }

    fn run(&self, rows: Vec<Pending>) {
        self.run_at(Instant::now(), rows, false);
    }

    fn run_at(&self, now: Instant, mut rows: Vec<Pending>, beside: bool) {
        rows.iter_mut().for_each(|pending| pending.owed.begin_run());
        let batch = Batch { batch_id: 1, rows, exclusive: false, beside, late_after: None };
        assert!(self.delivery.lane.run(batch, now).is_ok());
    }

    fn run_canary(&self) {
        assert!(self.delivery.lane.run_canary(2, None, Instant::now()));
    }

    /// The worker computes the next batch, with these bits flipped in its first value, and its
    /// answer is handled. What it was asked for.
    fn compute(&self, flipped: u32) -> DescriptorKind {
        self.compute_until(Instant::now(), flipped)
    }

    fn compute_until(&self, now: Instant, flipped: u32) -> DescriptorKind {
        let mut packet = [0; DESCRIPTOR_BYTES];
        recv(&self.socket, &mut packet, RecvFlags::empty()).expect("a batch");
        let asked = Descriptor::decode(&packet).expect("a descriptor");
        let mut slot = self.arena.claim(asked.slot, asked.rows, asked.tokens).expect("claims");
        let firsts: Vec<u32> =
            slot.cu_seqlens()[..slot.rows()].iter().map(|at| slot.ids()[*at as usize]).collect();
        for (row, first) in slot.output_mut().chunks_exact_mut(4).zip(firsts) {
            let (sine, cosine) = (first as f32).sin_cos();
            row.copy_from_slice(&[sine, cosine, 0.0, 2.0]);
        }
        let first = &mut slot.output_mut()[0];
        *first = f32::from_bits(first.to_bits() ^ flipped);
        let output_checksum = output_checksum(slot.output_mut());
        drop(slot);
        let answer = Descriptor { kind: DescriptorKind::Done, output_checksum, ..asked };
        let answered = self.delivery.answer(&answer, now, &mut Vec::new());
        answered.expect("within the protocol");
        asked.kind
    }

    fn canary_done(&self) -> (Result<(), String>, u64) {
        match self.inbox.try_next() {
            Some(DispatchEvent::CanaryDone(done)) => {
                assert_eq!(done.tokens, 3);
                (done.verdict, done.replies)
            }
            _ => panic!("no canary came back"),
        }
    }

    fn done(&self) -> BatchDone {
        match self.inbox.try_next() {
            Some(DispatchEvent::Completed(done)) => done,
            _ => panic!("no batch came back"),
        }
    }
}

fn result(group: &ReplyGroup) -> EmbedResult {
    group.wait(Some(Instant::now())).expect("answered").remove(0)
}

#[test]
fn answers_count_from_canary_to_canary_and_a_wrong_one_ends_all_belief() {
    let both = both();
    both.run_canary();
    both.compute(0);
    assert_eq!(both.canary_done(), (Ok(()), 0));
    let ((one, first), (other, second)) = (both.text(&[1, 2]), both.text(&[5]));
    both.run(vec![one, other]);
    assert_eq!(both.delivery.lane.load().tokens, 3);
    both.compute(0);
    let done = both.done();
    assert!((done.texts, done.tokens, done.good) == (2, 3, true));
    assert_eq!(result(&first).expect("embedded").vector, [1_f32.sin(), 1_f32.cos(), 0.0]);
    assert!(result(&second).is_ok());
    both.run_canary();
    both.compute(1);
    let (verdict, replies) = both.canary_done();
    assert!(verdict.is_err_and(|reason| reason.contains("canary text 0")));
    assert_eq!(replies, 2);
    // A row that looks well is not believed any more.
    let (text, group) = both.text(&[1, 2]);
    both.run(vec![text]);
    both.compute(0);
    let Some(DispatchEvent::Failed(failed)) = both.inbox.try_next() else { panic!("believed") };
    assert!((failed.class, failed.rows.len()) == (ErrorClass::NonFinite, 1));
    assert!(!group.is_complete());
    drop(failed);
    assert_eq!(both.admission.under_way(Priority::Bulk), 0);
}

#[test]
fn batches_side_by_side_have_their_share_and_each_its_own_time() {
    let both = both_with(2);
    assert_eq!(both.delivery.lane.side_by_side(), 2);
    let (start, ms) = (Instant::now(), Duration::from_millis);
    let hung = |both: &Both| both.delivery.lane.next_hung().expect("in flight") - start;
    both.run_at(start, vec![both.text(&[1, 2]).0], false);
    let whole = hung(&both);
    assert!(both.delivery.lane.load().whole);
    assert_eq!(both.compute_until(start + ms(8), 0), DescriptorKind::Run);
    assert_eq!(both.done().service, ms(8));
    both.run_at(start, vec![both.text(&[1, 2]).0], true);
    both.run_at(start + ms(10), vec![both.text(&[3]).0, both.text(&[4]).0], true);
    assert_eq!(hung(&both), whole * 2, "with half of the cores");
    let load = both.delivery.lane.load();
    assert_eq!((load.batches, load.rows, load.whole), (2, 3, false));
    assert_eq!(both.compute_until(start + ms(20), 0), DescriptorKind::RunBeside);
    assert_eq!(both.compute_until(start + ms(40), 0), DescriptorKind::RunBeside);
    // Neither waited for the other, and each had half of the worker.
    assert_eq!([both.done().service, both.done().service], [ms(10), ms(15)]);
    both.run_at(start, vec![both.text(&[1]).0], true);
    both.run_canary();
    assert!(both.delivery.lane.load().whole);
}

#[test]
fn what_a_twin_has_answered_is_dropped() {
    let both = both();
    let ((one, first), (other, second)) = (both.text(&[1, 2]), both.text(&[5]));
    both.run(vec![one, other]);
    let lane = &both.delivery.lane;
    assert!(lane.oldest_queued_at().is_some());
    assert!(lane.twins(1, 9).is_empty(), "they have run once");
    let mut twins = lane.twins(2, 1);
    assert_eq!(twins.len(), 1);
    twins.extend(lane.twins(2, 9));
    assert_eq!(twins.len(), 2, "nobody has two twins");
    let error = EmbedError::Inference { class: "test", message: String::new() };
    twins.remove(0).refuse(error.clone());
    both.compute(0);
    assert_eq!(both.done().texts, 2);
    assert_eq!(result(&first), Err(error), "the first answer counts");
    assert!(result(&second).is_ok());
    assert!(twins.iter().all(|twin| twin.owed.is_answered()));
    drop(twins);
    assert_eq!(both.admission.under_way(Priority::Bulk), 0);
    both.run_canary();
    both.compute(0);
    assert_eq!(both.canary_done(), (Ok(()), 1), "one embedding was handed out");
}

#[test]
fn what_a_lane_gives_up_has_no_canary_in_it() {
    let both = both();
    let (text, _group) = both.text(&[1]);
    both.run_canary();
    both.run(vec![text]);
    let lane = &both.delivery.lane;
    assert_eq!((lane.load().batches, lane.canary_tokens()), (2, 3));
    let batches = lane.abandon();
    let texts: usize = batches.iter().map(|batch| batch.rows.len()).sum();
    assert_eq!(texts, 1);
    assert!(!lane.run_canary(3, None, Instant::now()), "nobody is there to take it");
}

#[test]
fn rows_that_changed_on_the_way_are_corrupt() {
    let rows = [0.6, 0.8, 12.0];
    let done = Descriptor::new(DescriptorKind::Done);
    let answer = Descriptor { output_checksum: output_checksum(&rows), ..done };
    assert_eq!(corrupt(&answer, output_checksum(&rows)), None);
    // A change that no check of the values could see.
    let changed = [0.6, 0.8, 12.5];
    assert!(check(&changed, 1e-3).is_ok());
    assert!(corrupt(&answer, output_checksum(&changed)).is_some());
}
