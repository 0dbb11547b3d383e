//! The list against its documentation, against what is recorded, and the sums that must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::names::{ALL, Kind, LabelSet, Metric, Unit};
use super::prometheus::{PrometheusHandle, builder};
use super::*;
use crate::batch::SealReason;
use crate::priority::Priority;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");

const DOCS_HEAD: &str = "\
# Metrics

Every metric of the runtime, as declared in `crates/forebay/src/metrics/names.rs`; a test keeps
this page and the code equal. Programs without a recorder of their own call
`forebay::metrics::prometheus::install()` and get them in Prometheus text format; an application
that has a recorder for the `metrics` crate finds them there.

Counters start at 0 with the process. They are whole numbers, so times that add up are counted in
microseconds: `rate(forebay_stage_blocked_microseconds_total[1m]) / 1e6` is a share of time. The
label `rung` is the device, such as `cpu` or `cuda:0`. Requests that were let in have either ended
or are in flight; `forebay_requests_total` also counts those that were refused.

";

fn docs() -> String {
    let mut text = DOCS_HEAD.to_owned();
    text.push_str(
        "| name | kind | unit | labels | meaning | watch for |\n|---|---|---|---|---|---|\n",
    );
    for Metric { name, kind, unit, labels, help, watch } in ALL {
        let kind = format!("{kind:?}").to_lowercase();
        let unit = match unit {
            Unit::Count => "–".to_owned(),
            unit => format!("{unit:?}").to_lowercase(),
        };
        let names: Vec<String> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let labels = if names.is_empty() { "–".to_owned() } else { names.join(", ") };
        let watch = if watch.is_empty() { "–" } else { watch };
        text.push_str(&format!("| `{name}` | {kind} | {unit} | {labels} | {help} | {watch} |\n"));
    }
    text.push_str("\n## Label values\n\n| metric | label | values |\n|---|---|---|\n");
    for metric in ALL {
        for LabelSet { name, values } in metric.labels.iter().filter(|l| !l.values.is_empty()) {
            text.push_str(&format!("| `{}` | `{name}` | {} |\n", metric.name, values.join(", ")));
        }
    }
    text
}

#[test]
fn the_documentation_is_the_list() {
    let expected = docs();
    if std::env::var_os("FOREBAY_REGENERATE").is_some() {
        std::fs::write(DOCS, &expected).expect("docs/metrics.md is writable");
    }
    let text = std::fs::read_to_string(DOCS).expect("docs/metrics.md is readable");
    assert!(
        text == expected,
        "docs/metrics.md is not what the list says; \
         run this test with FOREBAY_REGENERATE=1 to rewrite it. Expected:\n{expected}"
    );
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for metric in ALL {
        let name = metric.name;
        assert!(seen.insert(name), "{name} is listed twice");
        assert!(name.starts_with("forebay_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        let base = name.trim_end_matches("_total");
        match metric.unit {
            Unit::Seconds => assert!(base.ends_with("_seconds"), "{name}"),
            Unit::Microseconds => assert!(base.ends_with("_microseconds"), "{name}"),
            Unit::Ratio => assert!(base.ends_with("_ratio"), "{name}"),
            Unit::Bytes => assert!(base.ends_with("_bytes"), "{name}"),
            Unit::Celsius => assert!(base.ends_with("_celsius"), "{name}"),
            Unit::Watts => assert!(base.ends_with("_watts"), "{name}"),
            Unit::Count | Unit::Tokens | Unit::Rows => {}
        }
        assert!(!metric.help.is_empty() && !metric.help.contains(['|', '\n']), "{name}");
        assert!(!metric.watch.contains(['|', '\n']), "{name}");
    }
}

/// Runs `report` against a recorder of its own and returns what that shows.
fn shown(report: impl FnOnce(&Metrics)) -> String {
    let recorder = builder().expect("the buckets are valid").build_recorder();
    metrics::with_local_recorder(&recorder, || report(&Metrics::new()));
    PrometheusHandle::of(&recorder).render()
}

/// The sample with exactly this name and these labels.
fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// Every event once.
fn every_event(metrics: &Metrics) {
    for priority in Priority::ALL {
        for outcome in Outcome::ALL {
            metrics.accepted(priority, 1);
            metrics.ended(priority, *outcome, Duration::from_millis(3), 1);
        }
        for by in RefusedBy::ALL {
            metrics.refused(priority, *by);
        }
        metrics.queue_depth(priority, 2, 30);
    }
    for stage in Stage::ALL {
        metrics.stage_took(*stage, Duration::from_micros(700));
        metrics.stage_blocked(*stage, Duration::from_millis(2));
    }
    for reason in Unserved::ALL {
        metrics.unserved(*reason);
    }
    for reason in SealReason::ALL {
        let oldest_wait = Duration::from_millis(1);
        metrics.batch_sealed(SealedShape {
            rows: 3,
            tokens: 96,
            tokens_target: 128,
            oldest_wait,
            reason,
        });
    }
    metrics.truncated(2);
    metrics.batch_computed(100, 7);
    metrics.level(1);
    metrics.batch_rerun(5);
    metrics.suspects(4);
    metrics.hedged(6);
    metrics.reruns_refused(3);
    Priority::ALL.into_iter().for_each(|priority| metrics.admission_limit(priority, 9));
    for reason in AnswerDropped::ALL {
        metrics.answer_dropped(*reason);
    }
    for check in ReplyCheck::ALL {
        metrics.reply_check_failed(*check);
    }
    metrics.event_recorded();
    metrics.events_waiting(2);
    metrics.events_lost(3);
    metrics.event_log_failed();
    let rung = metrics.rung("cpu");
    rung.started(Duration::from_millis(800));
    rung.slots(3, 1);
    rung.quarantined(true);
    [true, false].into_iter().for_each(|good| rung.canary(good));
    for cause in RestartCause::ALL {
        rung.restarted(*cause);
    }
    let health = forebay_protocol::DeviceHealth {
        recovery_action: Some(0),
        clocks_event_reasons: Some(4),
        temperature_c: Some(50),
        slowdown_margin_c: Some(30),
        power_mw: Some(300_500),
        power_limit_mw: Some(700_000),
        memory_used_bytes: Some(1 << 30),
        memory_total_bytes: Some(1 << 37),
        utilisation_percent: Some(25),
        ..Default::default()
    };
    metrics.device("cuda:0").report(&health, 0);
    let monitor = metrics.monitor();
    monitor.restarted();
    monitor.stuck(false);
    monitor.reported();
}

#[test]
fn every_listed_metric_is_recorded_as_its_kind_with_its_labels() {
    let text = shown(every_event);
    let mut kinds = BTreeMap::new();
    let mut help = BTreeSet::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').expect("a name and a kind");
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if let Some(line) = line.strip_prefix("# HELP ") {
            help.insert(line.to_owned());
        }
    }
    let listed: BTreeMap<String, String> = ALL
        .iter()
        .map(|metric| (metric.name.to_owned(), format!("{:?}", metric.kind).to_lowercase()))
        .collect();
    assert_eq!(kinds, listed);
    for metric in ALL {
        assert!(help.contains(&format!("{} {}", metric.name, metric.help)), "{}", metric.name);
        let found: BTreeSet<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#') && line.starts_with(metric.name))
            .flat_map(|line| {
                let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
                let names = labels.map_or("", |(labels, _)| labels).split(',');
                names.filter_map(|label| label.split_once('=')).map(|(name, _)| name)
            })
            .filter(|name| *name != "le")
            .collect();
        let expected: BTreeSet<&str> = metric.labels.iter().map(|label| label.name).collect();
        assert_eq!(found, expected, "{}", metric.name);
    }
}

#[test]
fn values_arrive_in_their_units() {
    let text = shown(every_event);
    for (series, value) in [
        ("forebay_stage_seconds_sum{stage=\"infer\"}", 0.0007),
        ("forebay_stage_seconds_bucket{stage=\"infer\",le=\"0.0005\"}", 0.0),
        ("forebay_stage_seconds_bucket{stage=\"infer\",le=\"0.00075\"}", 1.0),
        ("forebay_stage_blocked_microseconds_total{stage=\"queue\"}", 2_000.0),
        ("forebay_batch_fill_ratio_sum", 0.75 * 7.0),
        ("forebay_batch_rows_bucket{le=\"2\"}", 0.0),
        ("forebay_batch_rows_bucket{le=\"4\"}", 7.0),
        ("forebay_queue_tokens{priority=\"bulk\"}", 30.0),
        ("forebay_slots_free{rung=\"cpu\"}", 1.0),
        ("forebay_worker_restarts_total{rung=\"cpu\",cause=\"batch_deadline\"}", 1.0),
        ("forebay_requests_requeued_total", 5.0),
        ("forebay_padding_tokens_total", 7.0),
        ("forebay_level", 1.0),
        ("forebay_device_power_watts{rung=\"cuda:0\"}", 300.5),
        ("forebay_device_utilisation_ratio{rung=\"cuda:0\"}", 0.25),
    ] {
        assert_eq!(sample(&text, series), Some(value), "{series} in\n{text}");
    }
}

#[test]
fn accepted_requests_are_ended_or_in_flight() {
    let text = shown(|metrics| {
        for _ in 0..2 {
            metrics.accepted(Priority::Control, 3);
        }
        metrics.ended(Priority::Control, Outcome::Ok, Duration::ZERO, 2);
        metrics.ended(Priority::Control, Outcome::Deadline, Duration::ZERO, 1);
        metrics.refused(Priority::Control, RefusedBy::Full);
    });
    let of = |series: &str| sample(&text, series).expect("recorded");
    assert_eq!(of("forebay_requests_accepted_total{priority=\"control\"}"), 6.0);
    assert_eq!(of("forebay_requests_in_flight{priority=\"control\"}"), 3.0);
    assert_eq!(of("forebay_request_seconds_count{priority=\"control\"}"), 3.0);
    let outcome = "forebay_requests_total{priority=\"control\",outcome=";
    assert_eq!(of(&format!("{outcome}\"ok\"}}")), 2.0);
    assert_eq!(of(&format!("{outcome}\"overloaded\"}}")), 1.0);
    assert_eq!(of("forebay_requests_refused_total{priority=\"control\",limit=\"full\"}"), 1.0);
}

#[test]
fn of_two_runtimes_one_is_shown_and_both_count() {
    let text = shown(|old| {
        let new = old.beside();
        old.level(2);
        new.level(1);
        new.rung("cpu").slots(4, 4);
        old.rung("cpu").slots(2, 1);
        old.truncated(1);
        new.truncated(1);
    });
    assert_eq!(sample(&text, "forebay_level"), Some(2.0));
    assert_eq!(sample(&text, "forebay_slots_free{rung=\"cpu\"}"), Some(1.0));
    assert_eq!(sample(&text, "forebay_truncations_total"), Some(2.0));
    let text = shown(|old| {
        let new = old.beside();
        let rung = old.rung("cpu");
        new.take_over();
        new.level(1);
        // What the old one says while it ends is no longer how things are.
        old.level(0);
        rung.slots(0, 0);
        new.rung("cpu").slots(4, 4);
    });
    assert_eq!(sample(&text, "forebay_level"), Some(1.0));
    assert_eq!(sample(&text, "forebay_slots_free{rung=\"cpu\"}"), Some(4.0));
}

#[test]
fn the_file_is_replaced_as_a_whole_and_written_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("forebay.prom");
    let recorder = builder().expect("the buckets are valid").build_recorder();
    let handle = PrometheusHandle::of(&recorder);
    let metrics = metrics::with_local_recorder(&recorder, Metrics::new);
    let writer = handle.write_every(&path, Duration::from_secs(3_600)).expect("writable");
    let first = std::fs::read_to_string(&path).expect("written at once");
    metrics.truncated(41);
    drop(writer);
    let last = std::fs::read_to_string(&path).expect("still there");
    assert_eq!(sample(&first, "forebay_truncations_total"), Some(0.0));
    assert_eq!(sample(&last, "forebay_truncations_total"), Some(41.0));
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    let missing = folder.path().join("no/such/folder.prom");
    assert!(handle.write_every(&missing, Duration::from_secs(1)).is_err());
}

#[test]
fn a_process_has_one_recorder() {
    // The only test that touches the recorder of the process.
    let handle = prometheus::install().expect("the first one");
    Metrics::new().truncated(1);
    assert_eq!(sample(&handle.render(), "forebay_truncations_total"), Some(1.0));
    assert!(matches!(prometheus::install(), Err(prometheus::InstallError::Installed)));
}
