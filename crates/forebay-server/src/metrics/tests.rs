//! The list against its page and against what is recorded.

use forebay::metrics::names::{Kind as MetricKind, Unit};

use super::*;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/http-metrics.md");

const DOCS_HEAD: &str = "\
# Metrics of the daemon

What `forebay serve` measures of its clients, beside the runtime's own [metrics](metrics.md), as
declared in `crates/forebay-server/src`, `metrics.rs`, `listen/metrics.rs` and
`trace/metrics.rs`; a test keeps this page and the code equal. `GET /metrics` shows all of them. No
label holds anything of a client or of a text.

";

fn docs() -> String {
    let mut text = DOCS_HEAD.to_owned();
    text.push_str(
        "| name | kind | unit | labels | meaning | watch for |\n|---|---|---|---|---|---|\n",
    );
    for Metric { name, kind, unit, labels, help, watch } in all_metrics() {
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
    for metric in all_metrics() {
        for LabelSet { name, values } in metric.labels {
            let values = if *name == ROUTE.name {
                format!("{}, {}, other", ROUTES.join(", "), METHODS.join(", "))
            } else {
                values.join(", ")
            };
            text.push_str(&format!("| `{}` | `{name}` | {values} |\n", metric.name));
        }
    }
    text
}

#[test]
fn the_page_is_the_list() {
    let expected = docs();
    if std::env::var_os("FOREBAY_REGENERATE").is_some() {
        std::fs::write(DOCS, &expected).expect("docs/http-metrics.md is writable");
    }
    let text = std::fs::read_to_string(DOCS).expect("docs/http-metrics.md is readable");
    assert!(
        text == expected,
        "docs/http-metrics.md is not what the list says; run this test with FOREBAY_REGENERATE=1 \
         to rewrite it. Expected:\n{expected}"
    );
}

#[test]
fn names_follow_the_conventions() {
    for Metric { name, kind, unit, help, watch, .. } in all_metrics() {
        assert!(name.starts_with("forebay_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == MetricKind::Counter, "{name}");
        let base = name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_seconds"), unit == Unit::Seconds, "{name}");
        assert_eq!(base.ends_with("_bytes"), unit == Unit::Bytes, "{name}");
        assert!(!help.is_empty() && !help.contains(['|', '\n']) && !watch.contains('|'), "{name}");
    }
}

#[test]
fn words_are_where_their_values_are() {
    for kind in Kind::ALL {
        assert_eq!(kind.code(), Kind::SET.values[kind.index()]);
    }
    for code in 0..17 {
        let code = Code::from(code);
        let words = GrpcStatus::of(code).as_str().replace('_', "");
        assert!(words.eq_ignore_ascii_case(&format!("{code:?}")), "{code:?}");
    }
    let class = |status: u16| Class::of(StatusCode::from_u16(status).expect("a status"));
    for (status, word) in
        [(200, "2xx"), (404, "4xx"), (429, "429"), (500, "5xx"), (503, "503"), (504, "504")]
    {
        assert_eq!(class(status).as_str(), word);
    }
}
