//! Slots that go from the host's threads to the worker's and back, in many orders.
#![allow(clippy::expect_used, reason = "a test states what must hold")]

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use shuttle::Runner;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::{Mutex, mpsc};
use shuttle::thread;

use super::*;
use crate::{HostArena, SlotTable};

const SPEC: ArenaSpec = ArenaSpec { slots: 2, tokens_max: 4, rows_max: 2, row_values: 2 };
const BATCHES: u32 = 5;

fn random_orders(orders: usize, history: impl Fn() + Send + Sync + 'static) {
    let scheduler = RandomScheduler::new_from_seed(1, orders);
    Runner::new(scheduler, shuttle::Config::default()).run(history);
}

fn both() -> (HostArena, SlotTable<u32>, WorkerArena) {
    let (host, table) = HostArena::create(SPEC).expect("creates");
    let fd = host.fd().try_clone_to_owned().expect("duplicates");
    (host, table, WorkerArena::open(fd, SPEC).expect("opens"))
}

/// Another thread may run.
fn step(steps: &shuttle::sync::atomic::AtomicUsize) {
    steps.fetch_add(1, SeqCst);
}

#[test]
fn a_slot_has_one_owner_at_a_time_and_every_batch_its_own_rows() {
    random_orders(3_000, || {
        let (host, table, worker) = both();
        let host = Arc::new(host);
        let table = Arc::new(Mutex::new(table));
        let (run, runs) = mpsc::channel::<(u32, u64)>();
        let (done, answers) = mpsc::channel::<(u32, u64)>();
        let (claimed, claims) = mpsc::sync_channel::<(ClaimedSlot, u64)>(1);
        let (freed, free) = mpsc::channel::<()>();
        let dispatcher = {
            let (host, table) = (Arc::clone(&host), Arc::clone(&table));
            thread::spawn(move || {
                for batch in 1..=BATCHES {
                    let mut lease = loop {
                        if let Some(lease) = table.lock().expect("whole").lease() {
                            break lease;
                        }
                        free.recv().expect("a slot comes back");
                    };
                    let ids = [batch, batch + 100];
                    host.write_rows(&mut lease, [ids.as_slice()].into_iter()).expect("fits");
                    let descriptor = (lease.slot(), lease.generation());
                    table.lock().expect("whole").sent(lease, batch);
                    run.send(descriptor).expect("worker lives");
                }
            })
        };
        let copy_in = thread::spawn(move || {
            while let Ok((slot, generation)) = runs.recv() {
                let claim = worker.claim(slot, 1, 2).expect("the host owns no such slot");
                assert!(matches!(worker.claim(slot, 1, 2), Err(ArenaError::InUse { .. })));
                claimed.send((claim, generation)).expect("next stage lives");
            }
        });
        let compute = thread::spawn(move || {
            let steps = shuttle::sync::atomic::AtomicUsize::new(0);
            while let Ok((mut claim, generation)) = claims.recv() {
                let ids = [claim.ids()[0], claim.ids()[1]];
                for (place, id) in ids.iter().enumerate() {
                    step(&steps);
                    claim.output_mut()[place] = *id as f32;
                }
                let slot = claim.slot();
                drop(claim);
                done.send((slot, generation)).expect("host lives");
            }
        });
        for _ in 0..BATCHES {
            let (slot, generation) = answers.recv().expect("worker lives");
            let completed = table.lock().expect("whole").complete(slot, generation);
            let (lease, batch) = completed.expect("is in flight");
            let output = host.read_output(&lease, 2).expect("reads");
            assert_eq!(output, [batch as f32, (batch + 100) as f32]);
            let mut table = table.lock().expect("whole");
            table.release(lease);
            drop(table);
            // The dispatcher may have all that it needs.
            freed.send(()).ok();
        }
        for thread in [dispatcher, copy_in, compute] {
            thread.join().expect("no panic");
        }
        assert_eq!(table.lock().expect("whole").free(), SPEC.slots as usize);
    });
}

#[test]
fn of_claims_of_one_slot_at_the_same_time_one_is_granted() {
    random_orders(5_000, || {
        let (_host, _table, worker) = both();
        let owners = Arc::new(shuttle::sync::atomic::AtomicUsize::new(0));
        let claims = [(); 3].map(|()| {
            let (worker, owners) = (worker.clone(), Arc::clone(&owners));
            thread::spawn(move || match worker.rehearse(0, &[7], &[0, 1]) {
                Ok(claim) => {
                    assert_eq!(owners.fetch_add(1, SeqCst), 0, "two owners of one slot");
                    owners.fetch_sub(1, SeqCst);
                    drop(claim);
                    1
                }
                Err(ArenaError::InUse { slot: 0 }) => 0,
                Err(error) => panic!("{error}"),
            })
        });
        let granted: u32 = claims.map(|claim| claim.join().expect("no panic")).iter().sum();
        assert!(granted >= 1);
        // What was claimed can be claimed again.
        assert!(worker.rehearse(0, &[7], &[0, 1]).is_ok());
    });
}
