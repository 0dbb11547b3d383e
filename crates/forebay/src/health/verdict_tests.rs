//! The verdict's table, and that nothing makes a device look better than it is known to be.

use forebay_protocol::{RemappedRows, Xids};
use proptest::prelude::*;

use super::*;

const LIMITS: VerdictLimits = VerdictLimits { temperature_margin_c: 5, xid_recent_ms: 10_000 };

fn healthy() -> DeviceHealth {
    DeviceHealth {
        recovery_action: Some(0),
        xids: Some(Xids::default()),
        clocks_event_reasons: Some(0x4),
        temperature_c: Some(60),
        slowdown_c: Some(90),
        ..DeviceHealth::default()
    }
}

fn judged(change: impl FnOnce(&mut DeviceHealth)) -> DeviceVerdict {
    let mut health = healthy();
    change(&mut health);
    verdict(&health, &LIMITS)
}

fn with_xid(action: Option<u32>, xid: u64, age_ms: u64) -> &'static str {
    let verdict = judged(|health| {
        health.recovery_action = action;
        health.xids = Some(Xids { seen: 1, recent: vec![XidSeen { xid, age_ms }] });
    });
    verdict.name()
}

#[test]
fn a_device_is_fine_only_if_what_decides_is_known() {
    assert_eq!(verdict(&healthy(), &LIMITS), DeviceVerdict::Fine);
    assert_eq!(judged(|health| health.slowdown_margin_c = Some(30)), DeviceVerdict::Fine);
    assert_eq!(judged(|health| health.recovery_action = None).name(), "unknown");
    assert_eq!(judged(|health| health.clocks_event_reasons = None).name(), "unknown");
    assert_eq!(judged(|health| health.slowdown_c = None).name(), "unknown");
    let nothing = verdict(&DeviceHealth::default(), &LIMITS);
    assert!(nothing.reason().contains("recovery action, clocks-event reasons"), "{nothing}");
    assert_eq!(nothing.name(), "unknown");
}

#[test]
fn the_recovery_action_decides() {
    for (action, name) in [
        (0, "fine"),
        (1, "needs_reset"),
        (2, "needs_reboot"),
        (3, "no_promotion"),
        (4, "no_promotion"),
        (5, "no_promotion"),
        (6, "needs_reset"),
        (7, "needs_reboot"),
        (8, "no_promotion"),
    ] {
        let verdict = judged(|health| health.recovery_action = Some(action));
        assert_eq!(verdict.name(), name, "{action}");
        assert_eq!(verdict.name() == "fine", action == 0, "{action}");
    }
}

#[test]
fn an_xid_decides_where_the_action_is_unknown_and_is_evidence_where_it_is_not() {
    for (xid, alone, alone_later, beside, beside_later) in [
        (13, "restart", "unknown", "restart", "fine"),
        (94, "restart", "unknown", "restart", "fine"),
        (48, "needs_reset", "needs_reset", "no_promotion", "fine"),
        (119, "needs_reset", "needs_reset", "no_promotion", "fine"),
        (79, "needs_reboot", "needs_reboot", "no_promotion", "fine"),
        (74, "no_promotion", "unknown", "no_promotion", "fine"),
        (45, "unknown", "unknown", "fine", "fine"),
        (63, "unknown", "unknown", "fine", "fine"),
        (154, "unknown", "unknown", "fine", "fine"),
    ] {
        assert_eq!(with_xid(None, xid, 0), alone, "{xid}");
        assert_eq!(with_xid(None, xid, 10_001), alone_later, "{xid}");
        assert_eq!(with_xid(Some(0), xid, 10_000), beside, "{xid}");
        assert_eq!(with_xid(Some(0), xid, 10_001), beside_later, "{xid}");
        assert_eq!(with_xid(Some(1), xid, 0), "needs_reset", "{xid}");
    }
}

#[test]
fn the_worst_xid_counts_whatever_came_after() {
    let recent = [79, 13, 45].map(|xid| XidSeen { xid, age_ms: 1 }).to_vec();
    let verdict = judged(|health| {
        health.recovery_action = None;
        health.xids = Some(Xids { seen: 3, recent });
    });
    assert_eq!(verdict, DeviceVerdict::NeedsReboot("Xid 79 (3 so far)".into()));
}

#[test]
fn what_calls_say_counts() {
    assert_eq!(judged(|health| health.reset_required = true).name(), "needs_reset");
    let lost = judged(|health| (health.lost, health.recovery_action) = (true, Some(2)));
    assert_eq!(lost.name(), "lost");
    assert!(!lost.allows_use());
}

#[test]
fn each_veto_is_one() {
    let rows =
        |pending, failure| Some(RemappedRows { corrected: 1, uncorrected: 1, pending, failure });
    assert_eq!(judged(|health| health.remapped_rows = rows(false, true)).name(), "no_promotion");
    assert_eq!(judged(|health| health.remapped_rows = rows(true, false)).name(), "fine");
    let unsure = judged(|health| {
        (health.remapped_rows, health.recovery_action) = (rows(true, false), None);
    });
    assert_eq!(unsure.name(), "no_promotion");
    assert_eq!(judged(|health| health.ecc_uncorrected = Some(3)).name(), "fine");
    let unsure =
        judged(|health| (health.ecc_uncorrected, health.recovery_action) = (Some(3), None));
    assert_eq!(unsure.name(), "no_promotion");
    for (bits, name) in [(0x4, "fine"), (0x40, "no_promotion"), (0x80, "no_promotion")] {
        assert_eq!(judged(|health| health.clocks_event_reasons = Some(bits)).name(), name);
    }
    for (temperature, name) in [(84, "fine"), (85, "no_promotion"), (95, "no_promotion")] {
        assert_eq!(judged(|health| health.temperature_c = Some(temperature)).name(), name);
    }
    for (margin, name) in [(6, "fine"), (5, "no_promotion"), (-3, "no_promotion")] {
        assert_eq!(judged(|health| health.slowdown_margin_c = Some(margin)).name(), name);
    }
    let both = judged(|health| {
        (health.temperature_c, health.clocks_event_reasons) = (Some(89), Some(0x40));
    });
    assert!(both.reason().contains("thermal") && both.reason().contains("1 degrees"), "{both}");
}

fn any_health() -> impl Strategy<Value = DeviceHealth> {
    let xid = (prop_oneof![Just(13u64), Just(48), Just(79), 0u64..200], 0u64..30_000);
    let xids = prop::collection::vec(xid, 0..4).prop_map(|xids| Xids {
        seen: xids.len() as u64,
        recent: xids.into_iter().map(|(xid, age_ms)| XidSeen { xid, age_ms }).collect(),
    });
    (
        (any::<bool>(), any::<bool>(), prop::option::of(0u32..10), prop::option::of(xids)),
        (prop::option::of(0u64..3), prop::option::of(0u64..0x200)),
        (prop::option::of(20u32..110), prop::option::of(80u32..100)),
    )
        .prop_map(
            |((lost, reset_required, recovery_action, xids), (ecc, clocks), (now, slow))| {
                DeviceHealth {
                    lost,
                    reset_required,
                    recovery_action,
                    xids,
                    ecc_uncorrected: ecc,
                    clocks_event_reasons: clocks,
                    temperature_c: now,
                    slowdown_c: slow,
                    ..DeviceHealth::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn forgetting_the_action_never_makes_a_device_fine(mut health in any_health()) {
        let known = verdict(&health, &LIMITS);
        if health.recovery_action != Some(0) {
            prop_assert_ne!(&known, &DeviceVerdict::Fine);
        }
        health.recovery_action = None;
        prop_assert_ne!(verdict(&health, &LIMITS), DeviceVerdict::Fine);
    }

    #[test]
    fn every_verdict_but_fine_has_a_reason(health in any_health()) {
        let verdict = verdict(&health, &LIMITS);
        prop_assert_eq!(verdict.reason().is_empty(), verdict == DeviceVerdict::Fine);
        if health.lost {
            prop_assert_eq!(verdict.name(), "lost");
        }
    }

    #[test]
    fn an_action_is_never_promoted(mut health in any_health(), action in 1u32..300) {
        health.recovery_action = Some(action);
        let verdict = verdict(&health, &LIMITS);
        prop_assert!(!matches!(verdict.name(), "fine" | "unknown" | "restart"), "{verdict}");
    }
}
