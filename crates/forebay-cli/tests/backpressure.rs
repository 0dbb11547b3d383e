//! More work than fits: refused at once or let in one by one, never lost, in bounded memory, and
//! visible in the metrics.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use forebay::metrics::prometheus::{self, PrometheusHandle};
use forebay::{EmbedError, EmbedOptions, Priority};
use support::tiny::{TinyModel, text};
use support::{GENEROUS, assert_right, fake_config, start};

const LIMIT: u32 = 256;
const SUBMISSIONS: usize = 100_000;
/// What the process may grow by: far below what the texts and rows of one hundred thousand
/// submissions would take (their rows alone are 13 MB, with their books more than 60 MB).
const GROWTH_MAX: u64 = 24 << 20;

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// The value of a metric with these labels.
fn metric(metrics: &PrometheusHandle, name: &str, labels: &[&str]) -> f64 {
    let text = metrics.render();
    let found = text.lines().find(|line| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    });
    found.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// One test, since the recorder of the metrics belongs to the whole process.
#[test]
fn a_full_class_refuses_at_once_or_lets_wait_and_loses_nothing() {
    let metrics = prometheus::install().expect("the only recorder");
    let model = TinyModel::new();
    let mut config = fake_config(model.path());
    config.admission.bulk_requests_max = LIMIT;
    config.admission.interactive_requests_max = LIMIT;
    config.admission.retry_after_min_ms = 7;
    let runtime = start(config);

    // Nothing is computed: exactly the limit gets in, everything else is refused at once.
    let hold = model.hold();
    let interactive = EmbedOptions::default();
    let mut tickets = BTreeMap::new();
    let mut refused = 0;
    for number in 0..SUBMISSIONS {
        match runtime.try_submit(text(number), &interactive) {
            Ok(ticket) => drop(tickets.insert(number, ticket)),
            Err(EmbedError::Overloaded { priority, retry_after }) => {
                assert_eq!(priority, Priority::Interactive);
                assert!(retry_after >= Duration::from_millis(7), "{retry_after:?}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((tickets.len(), refused), (LIMIT as usize, SUBMISSIONS - LIMIT as usize));
    let labels = ["priority=\"interactive\"", "limit=\"full\""];
    let counted = metric(&metrics, "forebay_requests_refused_total", &labels);
    assert_eq!(counted, refused as f64);
    drop(hold);
    for (number, ticket) in tickets {
        assert_right(&text(number), &ticket.wait(Some(GENEROUS)).expect("answered"));
    }

    // Callers that wait: all of them get in, in bounded memory, while results are taken away.
    let before = resident();
    let (pass_on, taken) = sync_channel(LIMIT as usize);
    let growth = std::thread::scope(|scope| {
        scope.spawn(|| {
            let bulk = EmbedOptions::bulk();
            for number in 0..SUBMISSIONS {
                let ticket = runtime.submit(text(number), &bulk).expect("room, sooner or later");
                pass_on.send((number, ticket)).expect("the other thread takes them");
            }
            drop(pass_on);
        });
        let mut growth = 0;
        let mut answered = 0;
        for (number, ticket) in taken {
            assert_right(&text(number), &ticket.wait(Some(GENEROUS)).expect("answered"));
            answered += 1;
            if number % 5_000 == 0 {
                growth = growth.max(resident().saturating_sub(before));
            }
        }
        assert_eq!(answered, SUBMISSIONS);
        growth
    });
    assert!(growth < GROWTH_MAX, "memory grew by {growth} bytes");
    let blocked =
        metric(&metrics, "forebay_stage_blocked_microseconds_total", &["stage=\"submit\""]);
    assert!(blocked > 0.0, "callers have waited, the metric says {blocked}");
    let ended = ["priority=\"bulk\"", "outcome=\"ok\""];
    assert_eq!(metric(&metrics, "forebay_requests_total", &ended), SUBMISSIONS as f64);
    assert!(runtime.shutdown().drained);
}
