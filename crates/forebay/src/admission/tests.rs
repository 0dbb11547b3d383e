//! The gate's room: refused, waited for, given back, and resized.

use super::*;

fn admission(requests: u32, bytes: u32) -> Arc<Admission> {
    Admission::new(&AdmissionConfig {
        interactive_requests_max: requests,
        interactive_text_bytes_queued_max: bytes,
        retry_after_min_ms: 7,
        ..AdmissionConfig::default()
    })
}

#[test]
fn a_full_class_refuses_at_once_with_a_hint_and_leaves_others_alone() {
    let admission = admission(2, 1 << 20);
    let held = admission.try_acquire(Priority::Interactive, &[1, 1]).expect("room");
    let refused = admission.try_acquire(Priority::Interactive, &[1]).err();
    let retry_after = Duration::from_millis(7);
    assert_eq!(
        refused,
        Some(EmbedError::Overloaded { priority: Priority::Interactive, retry_after })
    );
    admission.set_backlog(Duration::from_millis(30));
    let refused = admission.try_acquire(Priority::Interactive, &[1]).err();
    assert!(matches!(refused, Some(EmbedError::Overloaded { retry_after, .. })
        if retry_after == Duration::from_millis(30)));
    assert!(admission.try_acquire(Priority::Bulk, &[1]).is_ok());
    drop(held);
    assert!(admission.try_acquire(Priority::Interactive, &[1, 1]).is_ok());
}

#[test]
fn bytes_are_bounded_and_returned_exactly_even_when_capped() {
    let admission = admission(10, 4096);
    let class = |a: &Admission| a.class(Priority::Interactive).text_kib.available_permits();
    let held = admission.try_acquire(Priority::Interactive, &[3000]).expect("room");
    assert!(admission.try_acquire(Priority::Interactive, &[2000]).is_err());
    drop(held);
    let held = admission.try_acquire(Priority::Interactive, &[1 << 20, 5]).expect("capped");
    assert_eq!(class(&admission), 0);
    drop(held);
    assert_eq!(class(&admission), 4);
    assert_eq!(admission.under_way(Priority::Interactive), 0);
}

fn only_interactive(limit: usize) -> [Option<usize>; 3] {
    [None, Some(limit), None]
}

/// Room is neither lost nor made, whatever the limit does meanwhile, and nothing comes in
/// beyond the limit but a chunk that finds its class empty.
#[test]
fn room_is_conserved_while_the_limit_moves() {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};
    for seed in 0..500 {
        let mut random = SmallRng::seed_from_u64(seed);
        let admission = admission(40, 1 << 20);
        let class = admission.class(Priority::Interactive);
        let mut held: Vec<Permit> = Vec::new();
        for _ in 0..200 {
            match random.random_range(0..4) {
                0 => {
                    let count = random.random_range(1..12);
                    let before = held.len();
                    let room = admission.try_acquire(Priority::Interactive, &vec![1; count]);
                    let limit = class.limit();
                    match room {
                        Ok(permits) => {
                            assert!(before + count <= limit || before == 0, "seed {seed}");
                            held.extend(permits);
                        }
                        Err(_) => assert!(before + count > limit, "seed {seed}"),
                    }
                }
                1 => held.truncate(random.random_range(0..=held.len())),
                2 => {
                    let mut room = Room::default();
                    held.drain(random.random_range(0..=held.len())..).for_each(|p| room.add(p));
                    let under_way = admission.under_way(Priority::Interactive);
                    assert!(under_way >= held.len(), "seed {seed}: room came back too early");
                }
                _ => admission.set_limits(only_interactive(random.random_range(1..60))),
            }
            assert_eq!(admission.under_way(Priority::Interactive), held.len(), "seed {seed}");
            let debt = held.len().saturating_sub(class.limit());
            assert_eq!(class.debt.load(Ordering::Relaxed), debt, "seed {seed}");
        }
        held.clear();
        admission.set_limits([None; 3]);
        assert_eq!(class.requests.available_permits(), 40, "seed {seed}");
    }
}

#[test]
fn small_moves_of_the_limit_are_left_out() {
    let admission = admission(1_000, 1 << 20);
    admission.set_limits(only_interactive(500));
    admission.set_limits(only_interactive(480));
    assert_eq!(admission.limit(Priority::Interactive), 500);
    admission.set_limits(only_interactive(400));
    assert_eq!(admission.limit(Priority::Interactive), 400);
    admission.set_limits(only_interactive(5_000));
    assert_eq!(admission.limit(Priority::Interactive), 1_000);
    assert_eq!(admission.limit(Priority::Control), 256);
}

#[tokio::test]
async fn who_waits_sees_the_limit_move() {
    let admission = admission(100, 1 << 20);
    let mut held = admission.try_acquire(Priority::Interactive, &[1; 90]).expect("room");
    let wait = |count: usize| {
        let admission = Arc::clone(&admission);
        tokio::spawn(async move {
            admission.acquire(Priority::Interactive, &vec![1; count], None).await.expect("room")
        })
    };
    // More than fit, and soon more than are ever let in at once.
    let waiting = wait(30);
    tokio::task::yield_now().await;
    admission.set_limits(only_interactive(20));
    tokio::task::yield_now().await;
    held.truncate(1);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "another is under way");
    held.clear();
    let chunk = waiting.await.expect("no panic");
    assert_eq!(admission.under_way(Priority::Interactive), 30);
    assert!(admission.try_acquire(Priority::Interactive, &[1]).is_err());
    let waiting = wait(5);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    admission.set_limits(only_interactive(40));
    let more = waiting.await.expect("no panic");
    drop((chunk, more));
    assert_eq!(admission.under_way(Priority::Interactive), 0);
    assert_eq!(admission.class(Priority::Interactive).requests.available_permits(), 40);
}

#[tokio::test]
async fn waiting_ends_by_room_deadline_or_close() {
    let admission = admission(1, 4096);
    let held = admission.try_acquire(Priority::Interactive, &[1]).expect("room");
    let late = admission.acquire(Priority::Interactive, &[1], Some(Instant::now())).await;
    assert_eq!(late.err().map(|e| e.code()), Some("deadline_exceeded"));
    let waiting = {
        let admission = Arc::clone(&admission);
        tokio::spawn(async move {
            admission.acquire(Priority::Interactive, &[1], None).await.map(|_| ())
        })
    };
    drop(held);
    waiting.await.expect("no panic").expect("room");
    let held = admission.try_acquire(Priority::Interactive, &[1]).expect("room");
    let waiting = {
        let admission = Arc::clone(&admission);
        tokio::spawn(async move {
            admission.acquire(Priority::Interactive, &[1], None).await.map(|_| ())
        })
    };
    tokio::task::yield_now().await;
    admission.close(EmbedError::ShuttingDown);
    assert_eq!(waiting.await.expect("no panic"), Err(EmbedError::ShuttingDown));
    drop(held);
}
