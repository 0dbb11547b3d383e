//! The page: one file that works without a network. Its script draws what the JSON in it says.

use super::Report;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: [&str; 2] = [include_str!("plots.js"), include_str!("page.js")];

/// The page of a report, which is given as JSON, too.
pub(super) fn page(json: &str, report: &Report) -> String {
    // Nothing in the data may end the element that holds it.
    let data = json.replace("</", "<\\/").replace("<!--", "<\\!--");
    let title = format!("Soak test: {} - {}", report.profile.name, report.code().words());
    PAGE.replace("@TITLE@", &escaped(&title))
        .replace("@STYLE@", STYLE)
        .replace("@SCRIPT@", &SCRIPT.concat())
        // Last, as it may hold anything.
        .replacen("@DATA@", &data, 1)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
