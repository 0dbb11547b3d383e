//! Metrics as Prometheus's text format has them, and what two readings of them say: rates and
//! quantiles of the time between.

use std::collections::HashMap;

/// One reading.
#[derive(Debug, Default)]
pub(super) struct Exposition(HashMap<String, Vec<Series>>);

#[derive(Debug, PartialEq)]
struct Series {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Series {
    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    fn fits(&self, wanted: &[(&str, &str)]) -> bool {
        wanted.iter().all(|(name, value)| self.label(name) == Some(value))
    }
}

impl Exposition {
    /// Reads text; a line that is none of this format is left out.
    pub(super) fn read(text: &str) -> Self {
        let mut all: HashMap<String, Vec<Series>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, series)) = series(line) {
                all.entry(name.to_owned()).or_default().push(series);
            }
        }
        Self(all)
    }

    fn all(&self, name: &str) -> &[Series] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum of the series with these labels; `None` if there is none, or it is no number.
    pub(super) fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.all(name).iter().filter(|series| series.fits(wanted)).peekable();
        found.peek()?;
        Some(found.map(|series| series.value).sum::<f64>()).filter(|sum| !sum.is_nan())
    }

    /// How much a counter has risen since `before`; `None` if it was begun anew.
    pub(super) fn rise(&self, before: &Self, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
        let (now, before) = (self.sum(name, wanted)?, before.sum(name, wanted).unwrap_or(0.0));
        (now >= before).then_some(now - before)
    }

    /// A quantile of what a histogram has taken in since `before`, in its unit: within a bucket as
    /// if its values were spread evenly, as Prometheus's `histogram_quantile` has it. `None` if there
    /// was nothing.
    pub(super) fn quantile(
        &self,
        before: &Self,
        name: &str,
        wanted: &[(&str, &str)],
        quantile: f64,
    ) -> Option<f64> {
        let name = format!("{name}_bucket");
        let count = |reading: &Self, bound: &str| {
            let mut labels = wanted.to_vec();
            labels.push(("le", bound));
            reading.sum(&name, &labels).unwrap_or(0.0)
        };
        let mut bounds: Vec<(f64, &str)> = self
            .all(&name)
            .iter()
            .filter(|series| series.fits(wanted))
            .filter_map(|series| Some((series.label("le")?.parse().ok()?, series.label("le")?)))
            .collect();
        bounds.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        bounds.dedup();
        let counts: Vec<(f64, f64)> = bounds
            .into_iter()
            .map(|(bound, text)| (bound, count(self, text) - count(before, text)))
            .collect();
        let (_, all) = *counts.last()?;
        if all <= 0.0 {
            return None;
        }
        let rank = quantile * all;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, upto) in counts {
            if upto >= rank && upto > below {
                // Of the last bucket only the lower end is known.
                let share = (rank - below) / (upto - below);
                return Some(if bound.is_finite() { low + (bound - low) * share } else { low });
            }
            (low, below) = (bound, upto.max(below));
        }
        None
    }
}

/// The name, labels and value of a line.
fn series(line: &str) -> Option<(&str, Series)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, Series { labels, value }))
}

/// A value up to its closing quotation mark, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_labels_and_others_left_out() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"\\\\\\n}\"} 2\na{x=\"2\"} 3 1700000000\nb 0.5\n\
                    c NaN\nbroken{x=\"1\n\n a b c\n";
        let read = Exposition::read(text);
        assert_eq!(read.sum("a", &[]), Some(5.0));
        assert_eq!(read.sum("a", &[("y", "q\"\\\n}")]), Some(2.0));
        assert_eq!(read.sum("a", &[("x", "2"), ("y", "z")]), None);
        assert_eq!((read.sum("b", &[]), read.sum("c", &[])), (Some(0.5), None));
        assert_eq!(read.sum("broken", &[]), None);
    }

    #[test]
    fn rises_know_a_new_beginning() {
        let [low, high] = ["a 2\n", "a 5\n"].map(Exposition::read);
        assert_eq!(high.rise(&low, "a", &[]), Some(3.0));
        assert_eq!(low.rise(&high, "a", &[]), None);
        assert_eq!(high.rise(&Exposition::default(), "a", &[]), Some(5.0));
    }

    #[test]
    fn quantiles_are_those_of_the_time_between() {
        let histogram = |counts: [u32; 4]| {
            let bounds = ["0.1", "0.2", "0.4", "+Inf"];
            let line = |(bound, count)| format!("h_bucket{{c=\"k\",le=\"{bound}\"}} {count}\n");
            let other = "h_bucket{c=\"other\",le=\"0.1\"} 900\n";
            Exposition::read(&(bounds.iter().zip(counts).map(line).collect::<String>() + other))
        };
        let before = histogram([100, 100, 100, 100]);
        let after = histogram([100, 150, 200, 200]);
        let quantile = |quantile| after.quantile(&before, "h", &[("c", "k")], quantile);
        for (share, expected) in [(0.25, 0.15), (0.5, 0.2), (0.75, 0.3)] {
            assert!((quantile(share).expect("some") - expected).abs() < 1e-12, "{share}");
        }
        let beyond = histogram([100, 100, 100, 101]);
        assert_eq!(beyond.quantile(&before, "h", &[("c", "k")], 0.5), Some(0.4));
        assert_eq!(before.quantile(&before, "h", &[("c", "k")], 0.5), None);
        assert_eq!(after.quantile(&before, "no", &[], 0.5), None);
    }
}
