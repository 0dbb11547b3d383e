//! Faults on a target of two devices, of which one refuses and the other gives back late. The clock goes
//! on when nothing else does.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;
use crate::targets::{Call, Reading, Sent, Stray, WorkerLook};

/// Two devices that always serve. The second refuses every fault; the first refuses to end one so many
/// times, and refuses to be killed.
#[derive(Default)]
struct Two {
    refuses_end: Mutex<u32>,
    panics: bool,
    asked: Mutex<Vec<String>>,
}

impl Target for Two {
    fn name(&self) -> String {
        "two".to_owned()
    }

    fn send(&self, _: Call) -> BoxFuture<'static, Sent> {
        futures::future::pending().boxed()
    }

    fn knows_deadlines(&self) -> bool {
        true
    }

    fn tells(&self) -> bool {
        true
    }

    fn look(&self) -> BoxFuture<'_, Option<Look>> {
        std::future::ready(None).boxed()
    }

    fn look_interval(&self) -> Duration {
        LOOK
    }

    fn readings(&self) -> BoxFuture<'_, Vec<Reading>> {
        std::future::ready(Vec::new()).boxed()
    }

    fn counted<'t>(&'t self, _: &'t str) -> BoxFuture<'t, Option<u64>> {
        assert!(!self.panics, "as it was asked to");
        // Nothing ever shows in its metrics.
        std::future::ready(Some(5)).boxed()
    }

    fn inject<'t>(
        &'t self,
        device: Option<&'t str>,
        fault: Fault,
    ) -> BoxFuture<'t, Result<(), String>> {
        let mut left = lock(&self.refuses_end);
        let answer = match (device, fault) {
            (Some("cuda:1"), _) => Err("it is not itself".to_owned()),
            (_, Fault::Kill) => Err("it is on its way back".to_owned()),
            (_, Fault::Slow(1)) if *left > 0 => {
                *left -= 1;
                Err("not now".to_owned())
            }
            _ => Ok(()),
        };
        if answer.is_ok() {
            lock(&self.asked).push(fault.to_string());
        }
        std::future::ready(answer).boxed()
    }

    fn root_pid(&self) -> Option<u32> {
        None
    }

    fn stray(&self) -> Option<Stray> {
        None
    }

    fn rest(&self) {}
}

/// An injector, and where its events arrive.
fn injector(target: &Arc<Two>) -> (Injector, mpsc::Receiver<Event>) {
    let worker = |device: &str| WorkerLook {
        device: device.to_owned(),
        state: "serving".to_owned(),
        pid: None,
        incarnation: 1,
    };
    let look = Look {
        level: "gpu(2)".to_owned(),
        workers: vec![worker("cuda:0"), worker("cuda:1")],
        under_way: 0,
    };
    let (events, arrived) = mpsc::channel(16);
    let (_tell, looks) = watch::channel(Some(look.clone()));
    let now = Instant::now();
    let injector = Injector {
        target: Arc::clone(target) as Arc<dyn Target>,
        events,
        looks,
        zero: now,
        start: now,
        until: now + Duration::from_secs(60),
        best: Best::of(&look, look.level()),
        heal_within: Duration::from_millis(300),
        lasts: Duration::from_millis(20),
        pause: None,
        stop: Stop::default(),
        ongoing: Arc::default(),
    };
    (injector, arrived)
}

async fn one(fault: Fault, refuses_end: u32) -> (FaultSeen, Vec<String>) {
    let target = Arc::new(Two { refuses_end: Mutex::new(refuses_end), ..Two::default() });
    let (injector, _arrived) = injector(&target);
    let devices = ["cuda:0".to_owned(), "cuda:1".to_owned()];
    let seen = injector.one(0, fault, &devices).await;
    let asked = lock(&target.asked).clone();
    (seen, asked)
}

#[tokio::test(start_paused = true)]
async fn what_was_struck_is_followed_and_its_end_is_asked_for_until_it_is_taken() {
    let (seen, asked) = one(Fault::Slow(5), 3).await;
    assert_eq!((seen.refused.as_deref(), seen.on.as_str()), (None, "cuda:0"));
    assert!(seen.refused_on[0].contains("cuda:1: it is not itself"), "{:?}", seen.refused_on);
    // It lasts 20 ms, and is taken back at the fourth look after that; what heals is from then.
    assert!(seen.ended_ms > Some(20.0) && seen.not_undone.is_none(), "{seen:?}");
    assert!(seen.healed_ms < seen.ended_ms, "{seen:?}");
    assert_eq!(asked, ["slow=5", "slow=1"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_back_has_not_healed() {
    let (seen, asked) = one(Fault::Slow(5), u32::MAX).await;
    assert_eq!((seen.healed_ms, seen.ended_ms), (None, None));
    assert_eq!((seen.not_undone.as_deref(), asked.len()), (Some("not now"), 1));
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_no_metric_shows_is_not_proved() {
    let (seen, _) = one(Fault::FlipOutputBit, 0).await;
    assert_eq!((seen.proved, seen.refused), (Some(false), None));
}

#[tokio::test(start_paused = true)]
async fn starts_that_are_to_fail_are_taken_back_if_none_comes() {
    let (seen, asked) = one(Fault::FailStarts(2), 0).await;
    assert!(seen.refused.is_some_and(|why| why.contains("on its way back")));
    assert_eq!(asked, ["fail_starts=2", "fail_starts=0"]);
}

fn planned(fault: Fault) -> Vec<PlannedFault> {
    vec![PlannedFault { at: Duration::ZERO, fault, place: Place::Nth(0) }]
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_does_not_heal_is_over_when_its_time_has_passed() {
    let target = Arc::new(Two { refuses_end: Mutex::new(u32::MAX), ..Two::default() });
    let (injector, mut arrived) = injector(&target);
    let seen = injector.run(planned(Fault::Slow(5))).await.unwrap();
    assert_eq!((seen.len(), seen[0].number, seen[0].healed_ms), (1, Some(0), None));
    assert!(matches!(arrived.recv().await, Some(Event::Fault { .. })));
    let Some(Event::FaultOver { at_us, index: 0 }) = arrived.recv().await else { panic!() };
    assert!((320_000..400_000).contains(&at_us), "{at_us}");
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_fault_does_not_fail_unseen() {
    let target = Arc::new(Two { panics: true, ..Two::default() });
    let (injector, _arrived) = injector(&target);
    let failed = injector.run(planned(Fault::FlipOutputBit)).await;
    assert!(failed.unwrap_err().to_string().contains("as it was asked to"));
}
