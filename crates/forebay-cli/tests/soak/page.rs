//! The page of a report in a real browser, which `FOREBAY_BROWSER` names: a Chromium or Chrome.

use std::process::Command;

use crate::support::output;
use crate::{Place, ran};

const SHORT: &str = r#"
name = "short"
scenario = "soak"
warmup_s = 0.5
duration_s = 6
quiet_s = 4
[load]
arrivals = { kind = "poisson", rate = 60 }
[faults]
kinds = ["kill"]
gap_min_s = 0.5
gap_max_s = 1
heal_within_s = 30
[leak]
required = []
sample_s = 0.2
drift_max = { mappings = 40 }
[harness]
lag_share_max = 1
rest_s = 0.5
"#;

#[test]
#[ignore = "needs a browser: FOREBAY_BROWSER=chromium"]
fn the_page_draws_its_plots_without_an_error_and_asks_nobody() {
    let browser = std::env::var("FOREBAY_BROWSER").expect("FOREBAY_BROWSER names a browser");
    let place = Place::new();
    let ran = ran(&place, &mut place.soak(SHORT, &[]));
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    let page = format!("file://{}", place.file("report.html").display());
    let mut command = Command::new(browser);
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]);
    let ended = output(command.args(["--window-size=1280,3000", "--dump-dom"]).arg(page));
    let (dom, log) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(!log.contains("CONSOLE"), "{log}");
    for asks in ["src=\"", "href=\"http", "href=\"//", "url(http"] {
        assert!(!dom.contains(asks), "{asks}: it asks somebody");
    }
    for part in
        ["Latency by percentile", "Latency over time", "Rates over time", "Memory", "Faults"]
    {
        assert!(dom.contains(part), "{part} is missing");
    }
    assert!(dom.matches("<svg").count() >= 5 && dom.matches("<path").count() >= 5, "{}", dom.len());
    assert!(dom.contains("class=\"badge pass\"") && !dom.contains("NaN"));
}
