//! A query against the metrics that there are: it parses, every metric in it exists with the labels
//! and values that are asked for, and the labels that a text about its result names are left in it.

use std::collections::{BTreeMap, BTreeSet};

use forebay::metrics::names::{self, Kind, Metric};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Labels that Prometheus puts on whatever it collects.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// Every metric of the daemon by name.
pub(crate) fn metrics() -> BTreeMap<&'static str, Metric> {
    let all = names::ALL.iter().copied().chain(forebay_server::all_metrics());
    all.map(|metric| (metric.name, metric)).collect()
}

/// What is wrong with a query, and which labels its result has.
#[derive(Default)]
pub(crate) struct Looked {
    pub(crate) objections: Vec<String>,
    /// Names of the metrics in it.
    pub(crate) metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
    /// Labels of aggregations; `None` if there is none.
    kept: Option<BTreeSet<String>>,
}

/// Looks through a query.
pub(crate) fn look(query: &str) -> Looked {
    let mut looked = Looked::default();
    match parser::parse(query) {
        Ok(expression) => {
            walk_expr(&mut looked, &expression).expect("a visit never fails");
            if looked.metrics.is_empty() {
                looked.objections.push("it asks for no metric".to_owned());
            }
        }
        Err(error) => looked.objections.push(error),
    }
    looked
}

impl Looked {
    /// Whether a text about the result may name this label.
    pub(crate) fn has_label(&self, label: &str) -> bool {
        self.kept.as_ref().unwrap_or(&self.labels).contains(label)
    }

    fn object(&mut self, objection: String) {
        self.objections.push(objection);
    }

    fn selector(&mut self, selector: &VectorSelector) {
        let Some(name) = selector.name.clone() else {
            return self.object(format!("{selector} names no metric"));
        };
        let all = metrics();
        let of_histogram =
            ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end));
        let found = match (all.get(name.as_str()), of_histogram.and_then(|base| all.get(base))) {
            (Some(metric), _) if metric.kind != Kind::Histogram => *metric,
            (None, Some(metric)) if metric.kind == Kind::Histogram => *metric,
            _ => return self.object(format!("there is no series {name}")),
        };
        let mut labels: BTreeSet<String> = OF_PROMETHEUS.map(str::to_owned).into();
        labels.extend(found.labels.iter().map(|label| label.name.to_owned()));
        if name.ends_with("_bucket") {
            labels.insert("le".to_owned());
        }
        for matcher in &selector.matchers.matchers {
            if !labels.contains(&matcher.name) {
                self.object(format!("{name} has no label {}", matcher.name));
            }
            self.values(&found, matcher);
        }
        self.metrics.insert(found.name.to_owned());
        self.labels.extend(labels);
    }

    /// A label whose values are known has those that are asked for.
    fn values(&mut self, metric: &Metric, Matcher { op, name, value }: &Matcher) {
        let known = metric.labels.iter().find(|label| label.name == name);
        let Some(known) = known.filter(|label| !label.values.is_empty()) else { return };
        let asked: Vec<&str> = match op {
            MatchOp::Equal | MatchOp::NotEqual => vec![value],
            MatchOp::Re(_) | MatchOp::NotRe(_) => value.split('|').collect(),
        };
        for value in asked {
            if !known.values.contains(&value) {
                self.object(format!("label {name} of {} is never {value:?}", metric.name));
            }
        }
    }
}

impl ExprVisitor for Looked {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        match expression {
            Expr::VectorSelector(selector) => self.selector(selector),
            // Its own selector is no child for the walk.
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Aggregate(aggregate) => {
                let kept = match &aggregate.modifier {
                    Some(LabelModifier::Include(labels)) => labels.labels.clone(),
                    Some(LabelModifier::Exclude(_)) => {
                        self.object("`without` keeps labels that nobody has looked at".to_owned());
                        Vec::new()
                    }
                    None => Vec::new(),
                };
                self.kept.get_or_insert_default().extend(kept);
            }
            _ => {}
        }
        Ok(true)
    }

    fn post_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        if let Expr::Aggregate(aggregate) = expression
            && let Some(LabelModifier::Include(labels)) = &aggregate.modifier
        {
            for label in &labels.labels {
                if !self.labels.contains(label) {
                    self.object(format!("nothing in it has the label {label}"));
                }
            }
        }
        if let Expr::Call(call) = expression
            && ["rate", "increase"].contains(&call.func.name)
        {
            let counters = metrics();
            let inside = call.args.args.first().map(|inside| look(&inside.to_string()));
            for name in inside.into_iter().flat_map(|inside| inside.metrics) {
                if counters[name.as_str()].kind == Kind::Gauge {
                    self.object(format!("{}() of {name}, which is a gauge", call.func.name));
                }
            }
        }
        Ok(true)
    }
}

#[test]
fn a_wrong_query_is_found_out() {
    for (query, objection) in [
        ("rate(forebay_requests_total[5m)", "unexpected character"),
        ("forebay_nothing", "there is no series forebay_nothing"),
        ("forebay_request_seconds", "there is no series forebay_request_seconds"),
        ("forebay_level_sum", "there is no series forebay_level_sum"),
        ("forebay_level{rung=\"cpu\"}", "has no label rung"),
        ("forebay_requests_total{outcome=\"fine\"}", "is never \"fine\""),
        ("forebay_requests_total{outcome=~\"ok|fine\"}", "is never \"fine\""),
        ("sum by (rung) (forebay_level)", "nothing in it has the label rung"),
        ("rate(forebay_level[5m])", "rate() of forebay_level, which is a gauge"),
        ("vector(1)", "no metric"),
    ] {
        let objections = look(query).objections.join("; ");
        assert!(objections.contains(objection), "{query}: {objections}");
    }
    let looked = look("sum by (rung) (forebay_slots) > 0");
    assert!(looked.objections.is_empty() && looked.has_label("rung"));
    assert!(!looked.has_label("instance") && look("forebay_slots").has_label("instance"));
}
