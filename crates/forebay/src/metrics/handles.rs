//! Registration with the recorder of the process, and the handles that come of it. A handle is made
//! once; using it neither hashes a name nor takes a lock. Crates with metrics of their own use it too.

use std::marker::PhantomData;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, with_recorder};

use super::labels::LabelValue;
use super::names::{Kind, Metric, Unit};

/// A kind of handle that a recorder gives out.
pub trait Handle: Sized {
    /// The handle of the metric with exactly these labels.
    fn register(metric: &Metric, labels: Vec<Label>) -> Self;
}

macro_rules! handle {
    ($Handle:ident, $register:ident) => {
        impl Handle for $Handle {
            fn register(metric: &Metric, labels: Vec<Label>) -> Self {
                debug_assert!(metric.kind == Kind::$Handle, "{} is no such kind", metric.name);
                let key = Key::from_parts(metric.name, labels);
                let metadata = Metadata::new("forebay", Level::INFO, None);
                with_recorder(|recorder| recorder.$register(&key, &metadata))
            }
        }
    };
}

handle!(Counter, register_counter);
handle!(Gauge, register_gauge);
handle!(Histogram, register_histogram);

/// The handle of a metric without labels.
#[must_use]
pub fn plain<H: Handle>(metric: &Metric) -> H {
    H::register(metric, Vec::new())
}

/// The handle of a metric whose label is a rung.
#[must_use]
pub fn of_rung<H: Handle>(metric: &Metric, rung: &str) -> H {
    H::register(metric, vec![rung_label(rung)])
}

fn rung_label(rung: &str) -> Label {
    Label::new(super::names::RUNG.name, rung.to_owned())
}

/// One handle for every value of a label.
pub struct ByLabel<L, H> {
    handles: Vec<H>,
    label: PhantomData<L>,
}

impl<L: LabelValue, H: Handle> ByLabel<L, H> {
    /// The handles of a metric whose only label is `L`.
    #[must_use]
    pub fn new(metric: &Metric) -> Self {
        Self::beside(metric, &[])
    }

    /// The handles of a metric that has `L` beside the label of a rung.
    #[must_use]
    pub fn of_rung(metric: &Metric, rung: &str) -> Self {
        Self::beside(metric, &[rung_label(rung)])
    }

    /// The handles of a metric that has `L` after labels whose values are `fixed`.
    #[must_use]
    pub fn beside(metric: &Metric, fixed: &[Label]) -> Self {
        let register = |value: &&'static str| {
            let mut labels = fixed.to_vec();
            labels.push(Label::from_static_parts(L::SET.name, value));
            H::register(metric, labels)
        };
        Self { handles: L::SET.values.iter().map(register).collect(), label: PhantomData }
    }

    /// The handle for `value`.
    pub fn of(&self, value: L) -> &H {
        // There is one handle per value, and `LabelValue::index` is a place among the values.
        &self.handles[value.index()]
    }
}

/// One handle for every pair of values of two labels.
pub struct ByLabels<L, M, H> {
    rows: Vec<ByLabel<M, H>>,
    label: PhantomData<L>,
}

impl<L: LabelValue, M: LabelValue, H: Handle> ByLabels<L, M, H> {
    /// The handles of a metric whose labels are `L` and `M`.
    #[must_use]
    pub fn new(metric: &Metric) -> Self {
        let row = |value: &&'static str| {
            ByLabel::beside(metric, &[Label::from_static_parts(L::SET.name, value)])
        };
        Self { rows: L::SET.values.iter().map(row).collect(), label: PhantomData }
    }

    /// The handle for the pair.
    pub fn of(&self, value: L, other: M) -> &H {
        // One row per value, as in `ByLabel::of`.
        self.rows[value.index()].of(other)
    }
}

/// Tells the recorder the unit and meaning of these metrics.
pub fn describe(metrics: &[Metric]) {
    with_recorder(|recorder| {
        for metric in metrics {
            let (name, help) = (KeyName::from_const_str(metric.name), metric.help.into());
            let unit = Some(match metric.unit {
                Unit::Seconds => metrics::Unit::Seconds,
                Unit::Microseconds => metrics::Unit::Microseconds,
                Unit::Bytes => metrics::Unit::Bytes,
                Unit::Count
                | Unit::Tokens
                | Unit::Rows
                | Unit::Ratio
                | Unit::Celsius
                | Unit::Watts => metrics::Unit::Count,
            });
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
    });
}
