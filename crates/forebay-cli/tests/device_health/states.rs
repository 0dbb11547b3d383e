//! States of devices, and what is made of them.

use forebay::MonitorFault;
use forebay::health::DeviceVerdict;

use crate::library::FakeNvml;
use crate::{config, of, watch};

#[test]
fn values_arrive_with_their_device_and_nothing_is_left_behind() {
    let fake = FakeNvml::new(&["devices - 2", "temperature 0 61", "temperature 1 42"]);
    let watched = watch(config(&fake.path()));
    let (health, verdict) = watched.verdict(0, "fine");
    assert_eq!(verdict, DeviceVerdict::Fine);
    // The fake numbers devices against the order of the bus, which is CUDA's here.
    assert_eq!((health.index, health.uuid.as_deref()), (1, Some("GPU-fa4e0000-1")));
    assert_eq!(health.pci.as_deref(), Some("00000000:7F:00.0"));
    assert_eq!(health.temperature_c, Some(42));
    assert_eq!((health.slowdown_c, health.shutdown_c), (Some(90), Some(95)));
    assert_eq!((health.power_mw, health.power_limit_mw), (Some(123_456), Some(700_000)));
    assert_eq!(
        (health.memory_used_bytes, health.memory_total_bytes),
        (Some(250_000), Some(1_000_000))
    );
    assert_eq!((health.utilisation_percent, health.pcie_replays), (Some(75), Some(3)));
    assert_eq!((health.processes, health.pids), (Some(2), Some(vec![1000, 1001])));
    assert_eq!((health.recovery_action, health.ecc_uncorrected), (Some(0), Some(0)));
    assert!(health.remapped_rows.is_some() && health.xids.is_some());
    assert_eq!(watched.verdict(1, "fine").0.temperature_c, Some(61));
    watched.stop();
}

#[test]
fn what_a_device_says_decides() {
    let fake = FakeNvml::new(&[]);
    let watched = watch(config(&fake.path()));
    // Only one device is there.
    let (_, verdict) = watched.verdict(1, "unknown");
    assert!(verdict.reason().contains("NVML sees 1 devices"), "{verdict}");
    for (setting, name) in [
        ("recovery_action 0 1", "needs_reset"),
        ("recovery_action 0 2", "needs_reboot"),
        ("recovery_action 0 4", "no_promotion"),
        ("temperature 0 86", "no_promotion"),
        ("margin 0 -1", "no_promotion"),
        ("clocks 0 0x44", "no_promotion"),
        ("clocks 0 0x4", "fine"),
        ("remapped_failure 0 1", "no_promotion"),
        ("power 0 reset_required", "needs_reset"),
        ("recovery_action 0 none", "unknown"),
        ("lost 0 1", "lost"),
    ] {
        fake.say(&[setting]);
        let (health, verdict) = watched.verdict(0, name);
        assert_eq!(health.uuid.as_deref(), Some("GPU-fa4e0000-0"), "{setting}: {verdict}");
        fake.say(&[]);
        watched.verdict(0, "fine");
    }
    watched.stop();
}

#[test]
fn an_xid_is_heard_soon_and_counts_where_nothing_better_is_known() {
    let silent = "recovery_action 0 none";
    let fake = FakeNvml::new(&[silent]);
    // Without the event, the next report would be a minute away.
    let mut settings = config(&fake.path());
    (settings.interval_ms, settings.report_deadline_ms) = (60_000, 120_000);
    let watched = watch(settings);
    watched.report_after(0, "the first", |report| of(report, 0).1.name() == "unknown");
    fake.say(&[silent, "xid 0 13"]);
    watched.report_after(0, "Xid 13", |report| of(report, 0).1.name() == "restart");
    fake.say(&[silent, "xid 0 13", "xid 0 79"]);
    let report = watched.report_after(0, "79", |report| of(report, 0).1.name() == "needs_reboot");
    let xids = of(&report, 0).0.xids.expect("heard");
    assert_eq!(xids.seen, 2);
    assert_eq!(xids.recent.iter().map(|xid| xid.xid).collect::<Vec<_>>(), [13, 79]);
    watched.stop();
}

#[test]
fn a_device_that_refuses_events_leaves_them_to_the_others() {
    let fake = FakeNvml::new(&["devices - 2", "refuses_events 0 1", "xid 1 31"]);
    let watched = watch(config(&fake.path()));
    // cuda:0 is the library's device 1.
    let (health, _) = watched.verdict(0, "restart");
    assert_eq!(health.xids.expect("heard").seen, 1);
    assert_eq!(watched.verdict(1, "fine").0.xids, None);
    watched.stop();
}

#[test]
fn a_platform_that_supports_nothing_is_unknown_and_not_fine() {
    let fake = FakeNvml::new(&["unsupported - 1"]);
    let watched = watch(config(&fake.path()));
    let (health, verdict) = watched.verdict(0, "unknown");
    assert!(verdict.reason().contains("recovery action"), "{verdict}");
    assert!(health.signals().iter().all(|(name, known)| !known || *name == "temperature"));
    assert_eq!((health.recovery_action, health.xids, health.lost), (None, None, false));
    watched.stop();
}

#[test]
fn a_missing_library_is_said_and_the_process_goes_on() {
    let fake = FakeNvml::new(&[]);
    let missing = fake.path().with_file_name("libnone.so");
    let watched = watch(config(&missing));
    let report = watched.report("a problem", |report| report.problem.is_some());
    let problem = report.problem.clone().expect("some");
    assert!(problem.contains("health.nvml") && problem.contains("libnone.so"), "{problem}");
    assert_eq!(of(&report, 0).1, DeviceVerdict::Unknown(problem));
    let pid = watched.monitor();
    // It is found once it is there, by the same process.
    std::fs::copy(fake.path(), &missing).expect("copies");
    watched.verdict(0, "fine");
    assert_eq!(watched.monitor(), pid);
    watched.stop();
}

#[test]
fn lies_that_cannot_be_make_a_device_unknown_for_a_while() {
    let fake = FakeNvml::new(&[]);
    let watched = watch(config(&fake.path()));
    watched.verdict(0, "fine");
    let before = watched.count();
    watched.inject(MonitorFault::Lies).expect("passed on");
    let unsound = |verdict: &DeviceVerdict| verdict.name() == "unknown";
    let lying = watched.report_after(before, "lies", |report| unsound(&of(report, 0).1));
    let (health, _) = of(&lying, 0);
    assert_eq!((health.temperature_c, health.memory_used_bytes), (None, None));
    watched.report_after(before, "the truth", |report| {
        report.at > lying.at && of(report, 0).1 == DeviceVerdict::Fine
    });
    watched.stop();
}
