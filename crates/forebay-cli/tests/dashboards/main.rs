//! The dashboard and the alert rules in `config/` against the metrics that there are.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

mod query;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use query::{look, metrics};

fn config(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn assert_none(objections: &[String]) {
    assert!(objections.is_empty(), "\n  {}\n", objections.join("\n  "));
}

/// Names between `open` and `close`, such as `{{` and `}}`.
fn named<'a>(text: &'a str, open: &str, close: char) -> Vec<&'a str> {
    let starts = text.split(open).skip(1);
    starts.filter_map(|rest| rest.split(close).next()).map(str::trim).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&config("grafana/forebay.json")).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {value}"))
}

#[test]
fn every_query_of_the_dashboard_asks_for_what_there_is() {
    let dashboard = dashboard();
    let mut objections = Vec::new();
    let mut shown = BTreeSet::new();
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        let title = text(panel, "title");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title} shows nothing");
        for target in targets {
            // Grafana puts in what fits the zoom.
            let query = text(target, "expr").replace("$__rate_interval", "5m");
            let looked = look(&query);
            let about = |what: String| format!("{title}: {query}: {what}");
            let legend = named(text(target, "legendFormat"), "{{", '}');
            let missing = legend.iter().filter(|label| !looked.has_label(label));
            objections.extend(missing.map(|label| about(format!("{label} is not in the result"))));
            objections.extend(looked.objections.iter().cloned().map(about));
            shown.extend(looked.metrics);
        }
    }
    assert_none(&objections);
    // What is only counted beside others need not be seen; most should.
    let unseen: Vec<_> = metrics().into_keys().filter(|name| !shown.contains(*name)).collect();
    assert!(unseen.len() * 5 < shown.len(), "the dashboard leaves out {unseen:?}");
}

#[test]
fn panels_have_their_own_ids_and_places() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} does not fit");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} overlaps another at {cell:?}");
        }
    }
    assert!(ids.len() > 30, "only {} panels", ids.len());
}

#[test]
fn the_dashboard_works_with_any_data_source_and_has_the_variables_it_uses() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let source = variables.iter().find(|variable| variable["type"] == "datasource");
    let source = text(source.expect("a variable for the data source"), "name");
    let known: BTreeSet<&str> = variables.iter().map(|variable| text(variable, "name")).collect();
    for panel in panels(&dashboard).iter().filter(|panel| panel["type"] != "row") {
        let of_targets = panel["targets"].as_array().expect("targets").iter();
        for place in of_targets.chain([panel]) {
            assert_eq!(text(&place["datasource"], "uid"), format!("${{{source}}}"));
            let query = place["expr"].as_str().unwrap_or_default();
            for variable in query.split('$').skip(1) {
                let name = variable.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let name = name.unwrap_or_default();
                assert!(name == "__rate_interval" || known.contains(name), "{query}");
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(rename = "for")]
    held: Option<String>,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    severity: Severity,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Critical,
    Warning,
    Info,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    summary: String,
    description: String,
}

#[test]
fn every_alert_asks_for_what_there_is_and_says_what_it_means() {
    let rules: Rules =
        serde_saphyr::from_str(&config("prometheus/forebay.rules.yml")).expect("rules");
    let mut objections = Vec::new();
    let (mut names, mut groups, mut severities) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for Group { name, rules } in rules.groups {
        assert!(!rules.is_empty() && groups.insert(name.clone()), "{name}");
        for Rule { alert, expr, held, labels, annotations } in rules {
            let Annotations { summary, description } = annotations;
            assert!(names.insert(alert.clone()) && alert.starts_with("Forebay"), "{alert}");
            assert!(held.is_none_or(|held| held.ends_with(['s', 'm', 'h'])), "{alert}");
            assert!(!summary.is_empty() && description.len() > summary.len() / 2, "{alert}");
            severities.insert(labels.severity);
            let looked = look(&expr);
            for text in [&summary, &description] {
                for label in named(text, "$labels.", ' ') {
                    if !looked.has_label(label) {
                        objections.push(format!("{alert}: {label} is not in the result"));
                    }
                }
            }
            objections.extend(looked.objections.iter().map(|what| format!("{alert}: {what}")));
        }
    }
    assert_none(&objections);
    assert!(names.len() > 20 && severities.len() == 3, "{names:?}");
}
