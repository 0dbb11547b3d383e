//! The page: one file that works without a network. Its script draws what the JSON in it says.

use super::Report;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: [&str; 2] = [include_str!("plots.js"), include_str!("page.js")];

/// The page of a report, which is given as JSON, too.
pub(super) fn page(json: &str, report: &Report) -> String {
    let data = embedded(json);
    let title = format!("Soak test: {} - {}", report.profile.name, report.code().words());
    PAGE.replace("@TITLE@", &escaped(&title))
        .replace("@STYLE@", STYLE)
        .replace("@SCRIPT@", &SCRIPT.concat())
        // Last, as it may hold anything.
        .replacen("@DATA@", &data, 1)
}

/// JSON that nothing in it can end the element of: `<` stands in strings alone, where `\u003c` means it.
fn embedded(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_in_the_page_is_the_same_json_and_ends_no_element() {
        let value = serde_json::json!({"a": "</script><!-- <!DOCTYPE <\\/ \u{2028}", "b<": 1});
        let data = embedded(&value.to_string());
        assert!(!data.contains('<'), "{data}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&data).unwrap(), value);
    }

    #[test]
    fn no_array_that_grows_with_the_run_becomes_arguments() {
        // A call takes some hundred thousand arguments at most; a night has more samples. In an array
        // (`[...`) they may stand, and these are few, or stand in one.
        const FEW: [&str; 11] = [
            "children",
            "entries.map(",
            "head.map(",
            "roles.map(",
            "row.map(",
            "totals.values()",
            "Object.entries(t.by_class)",
            "Object.entries(t.by_level)",
            "(limit ?",
            "(run.beats ?",
            "(t.submit ?",
        ];
        for script in SCRIPT {
            for (place, _) in script.match_indices("...") {
                let (before, after) = (&script[..place], &script[place + 3..]);
                let is_few = FEW.iter().any(|few| after.starts_with(few));
                let line = after.lines().next().unwrap_or_default();
                assert!(before.ends_with('[') || is_few, "...{line}");
            }
        }
    }
}
