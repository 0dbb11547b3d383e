//! What a device says as the daemon shows it to Prometheus: what is known with its value, what is
//! not left out, and what is not known any more as no number.

use crate::daemon::Daemon;
use crate::library::FakeNvml;
use crate::support::eventually;

/// The value of a metric of the GPU; `None` if it is not there.
fn value(daemon: &Daemon, name: &str) -> Option<f64> {
    let text = daemon.connect().get("/metrics").expect("answers").text();
    let line = format!("forebay_device_{name}{{rung=\"cuda:0\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok())
}

#[test]
fn what_is_known_of_a_device_is_among_the_metrics_and_nothing_else() {
    let fake = FakeNvml::new(&["power 0 none", "clocks 0 0x4"]);
    let settings = format!("[health]\nnvml = '{}'\ninterval_ms = 20\n", fake.path().display());
    let rungs = [("FOREBAY_DEVICES__RUNGS", "cuda:0,cpu")];
    let daemon = Daemon::start_with(&settings, "", &rungs);
    eventually("the first report", || value(&daemon, "utilisation_ratio"));
    for (name, expected) in [
        ("utilisation_ratio", 0.75),
        ("memory_used_bytes", 250_000.0),
        ("memory_total_bytes", 1_000_000.0),
        ("power_limit_watts", 700.0),
        ("clocks_event_reasons", 4.0),
        ("recovery_action", 0.0),
        ("xids_total", 0.0),
    ] {
        assert_eq!(value(&daemon, name), Some(expected), "{name}");
    }
    let temperature = value(&daemon, "temperature_celsius").expect("known");
    assert_eq!(value(&daemon, "slowdown_margin_celsius"), Some(90.0 - temperature));
    assert_eq!(value(&daemon, "power_watts"), None);
    fake.say(&["temperature 0 none", "power 0 none"]);
    let is_unknown = || value(&daemon, "temperature_celsius")?.is_nan().then_some(());
    eventually("that it is not known any more", is_unknown);
    assert!(value(&daemon, "slowdown_margin_celsius").expect("was known").is_nan());
    assert!(value(&daemon, "power_limit_watts").is_some_and(|watts| watts == 700.0));
    daemon.stop();
}
