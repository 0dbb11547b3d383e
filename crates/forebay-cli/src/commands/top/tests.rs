//! What is drawn of a daemon's real answers, in terminals of any size.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::exposition::Exposition;
use super::sample::{Picture, Sample};
use super::view;

const STATUS: &str = include_str!("../../../tests/fixtures/top/status.json");
const EVENTS: &str = include_str!("../../../tests/fixtures/top/events.json");
const METRICS: &str = include_str!("../../../tests/fixtures/top/metrics.txt");

fn sample(status: &str, events: &str, metrics: &str, at: Instant) -> Sample {
    let read = Sample::read(status.as_bytes(), events.as_bytes(), Exposition::read(metrics));
    Sample { at, ..read.expect("a daemon's answers") }
}

/// A daemon that has answered all that it has in ten seconds.
fn picture_of(status: &str, metrics: &str) -> Picture {
    let start = Instant::now();
    let mut picture = Picture::new("unix:/run/forebay/forebay.sock".to_owned());
    picture.add(sample(status, EVENTS, "", start));
    picture.add(sample(status, EVENTS, metrics, start + Duration::from_secs(10)));
    picture
}

fn picture() -> Picture {
    picture_of(STATUS, METRICS)
}

/// What stands on a terminal of this size.
fn shown(picture: &Picture, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a terminal");
    let drawn = terminal.draw(|frame| view::draw(picture, frame.area(), frame.buffer_mut()));
    let buffer = drawn.expect("drawn").buffer;
    let rows = buffer.content.chunks(usize::from(columns));
    rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
}

/// The words of the only line that begins with this.
fn words(lines: &[String], begin: &str) -> Vec<String> {
    let found: Vec<&String> = lines.iter().filter(|line| line.starts_with(begin)).collect();
    let [line] = found[..] else { panic!("one line with {begin}: {lines:#?}") };
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn everything_that_a_daemon_says_has_its_place() {
    let lines = shown(&picture(), 130, 40);
    assert_eq!(words(&lines, "forebay")[..3], ["forebay", "0.1.0", "all-MiniLM-L6-v2"]);
    assert_eq!(words(&lines, "level")[..4], ["level", "cpu", "(nominal)", "ready"]);
    let cpu = words(&lines, "cpu ");
    assert_eq!((cpu[1].as_str(), cpu[4].as_str()), ("serving", "0"));
    assert!(cpu.contains(&"3/3".to_owned()) && cpu.contains(&"f32".to_owned()), "{cpu:?}");
    let total = Exposition::read(METRICS);
    let ok = [("priority", "interactive"), ("outcome", "ok")];
    let per_s = total.sum("forebay_requests_total", &ok).expect("some") / 10.0;
    let interactive = words(&lines, "interactive");
    assert_eq!(interactive[4].parse::<f64>().expect("a rate"), (per_s * 10.0).round() / 10.0);
    assert!(interactive.join(" ").ends_with("ms"), "{interactive:?}");
    assert_eq!(words(&lines, "control")[7..], ["–", "–", "–"], "nothing of that class came");
    assert_eq!(words(&lines, "HTTP/S")[1], "2xx");
    let last = lines.iter().rev().find(|line| !line.trim().is_empty()).expect("events");
    assert!(last.contains("#6") && last.contains("level down to cpu"), "{last}");
}

#[test]
fn what_is_wrong_is_named() {
    let status = STATUS
        .replace("\"level\":\"cpu\"", "\"level\":\"down\"")
        .replace("\"ready\":true", "\"ready\":false")
        .replace("\"last_end\":null", "\"last_end\":\"killed by \\u001b[31m signal 9\"");
    let gpu = "forebay_device_utilisation_ratio{rung=\"cpu\"} 0.5\n\
               forebay_device_memory_used_bytes{rung=\"cpu\"} 3221225472\n\
               forebay_device_temperature_celsius{rung=\"cpu\"} NaN\n";
    let lines = shown(&picture_of(&status, gpu), 160, 40).join("\n");
    assert!(lines.contains("level down") && lines.contains("not ready (serving)"), "{lines}");
    assert!(lines.contains("50% 3.0 GiB ") && !lines.contains("°C"), "{lines}");
    assert!(lines.contains("killed by \\u{1b}[31m signal 9"), "{lines}");
}

#[test]
fn a_daemon_that_is_away_is_said_to_be() {
    let mut never = Picture::new("unix:/x".to_owned());
    assert!(shown(&never, 80, 5)[0].starts_with("asking unix:/x"));
    never.lost("cannot connect: no such file".to_owned(), Duration::from_secs(2));
    let lines = shown(&never, 80, 5);
    assert!(lines[0].starts_with("unix:/x is away; asked again in 2.0 s"), "{lines:?}");
    assert!(lines[1].starts_with("cannot connect"), "{lines:?}");

    let mut gone = picture();
    gone.lost("cannot connect".to_owned(), Duration::from_secs(10));
    let lines = shown(&gone, 130, 40);
    assert!(lines.iter().any(|line| line.contains("is gone, this is the last it said")));
    assert_eq!(words(&lines, "cpu ")[1], "serving");
    assert_eq!(words(&lines, "interactive")[4], "–", "a rate across a restart is none");
    gone.add(sample(STATUS, EVENTS, METRICS, Instant::now()));
    assert!(!shown(&gone, 130, 40).join("\n").contains("is gone"));
}

#[test]
fn events_of_a_later_release_are_counted_and_others_shown() {
    let events = EVENTS.replace("\"kind\":\"level_changed\"", "\"kind\":\"of_the_future\"");
    let mut picture = Picture::new(String::new());
    picture.add(sample(STATUS, &events, METRICS, Instant::now()));
    let lines = shown(&picture, 130, 40).join("\n");
    assert!(lines.contains("EVENTS (1 of kinds unknown to this release)"), "{lines}");
    assert!(lines.contains("#5") && !lines.contains("#6"), "{lines}");
}

#[test]
fn plain_text_is_what_a_terminal_shows_without_blanks() {
    let text = view::plain_text(&picture(), 130);
    let lines: Vec<&str> = text.lines().collect();
    let terminal = shown(&picture(), 130, 40);
    for (line, shown) in lines.iter().zip(&terminal) {
        assert_eq!(*line, shown.trim_end());
    }
    assert!(text.ends_with("probation is over\n") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn what_is_no_daemon_is_refused() {
    for (status, events) in
        [("", EVENTS), ("[]", EVENTS), ("{}", EVENTS), (STATUS, "{}"), (STATUS, "<html>")]
    {
        let read = Sample::read(status.as_bytes(), events.as_bytes(), Exposition::default());
        assert!(read.is_err(), "{status} {events}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_terminal_is_too_small(columns in 0_u16..200, rows in 0_u16..60, is_gone in any::<bool>()) {
        let mut picture = picture();
        if is_gone {
            picture.lost("away".to_owned(), Duration::from_secs(1));
        }
        let area = ratatui::layout::Rect::new(0, 0, columns, rows);
        view::draw(&picture, area, &mut ratatui::buffer::Buffer::empty(area));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>(), line in "[a-z{}=\",\\\\ 0-9.]{0,40}") {
        Exposition::read(&text);
        Exposition::read(&line);
    }
}
