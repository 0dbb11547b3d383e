//! What is shown where. It draws into cells, which a terminal shows and plain text is made from.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row, Table, Widget};

use super::sample::{Picture, Sample, Worker};
use crate::commands::event_times::Clock;
use crate::commands::events::plain;

const NONE: &str = "–";

const HEAD: Style = Style::new().add_modifier(Modifier::BOLD).fg(Color::Cyan);
const BAD: Style = Style::new().add_modifier(Modifier::BOLD).fg(Color::Red);
const WARN: Style = Style::new().fg(Color::Yellow);
const GOOD: Style = Style::new().fg(Color::Green);

/// Rows of plain text for events.
const EVENTS_PLAIN: u16 = 10;

/// Draws the picture.
pub(super) fn draw(picture: &Picture, area: Rect, buffer: &mut Buffer) {
    let Some(now) = &picture.now else {
        let lines = trouble(picture).unwrap_or_else(|| vec![format!("asking {}", picture.source)]);
        for (row, line) in area.rows().zip(lines) {
            Line::from(line).render(row, buffer);
        }
        return;
    };
    let head = head(picture, now);
    let heights = heights(picture, now);
    let areas = Layout::vertical(heights.map(Constraint::Length)).split(area);
    for (row, line) in areas[0].rows().zip(head) {
        line.render(row, buffer);
    }
    workers(now).render(areas[1], buffer);
    classes(picture, now).render(areas[2], buffer);
    for (row, line) in areas[3].rows().zip(totals(picture)) {
        line.render(row, buffer);
    }
    let used: u16 = heights.iter().sum();
    let below = Rect { y: area.y + used.min(area.height), ..area };
    let below = Rect { height: area.height.saturating_sub(used), ..below };
    for (row, line) in below.rows().zip(events(now, below.height)) {
        line.render(row, buffer);
    }
}

/// The picture as lines of text.
pub(super) fn plain_text(picture: &Picture, columns: u16) -> String {
    let rows = match &picture.now {
        Some(now) => heights(picture, now).iter().sum::<u16>() + EVENTS_PLAIN + 1,
        None => 2,
    };
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    draw(picture, area, &mut buffer);
    let mut text = String::new();
    for row in buffer.content.chunks(usize::from(columns)) {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Rows of the head, the workers, the classes and the totals, each with a free one below.
fn heights(picture: &Picture, now: &Sample) -> [u16; 4] {
    let rows = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX / 8);
    let head = 3 + trouble(picture).map_or(0, |lines| lines.len());
    [
        rows(head),
        rows(now.status.workers.len() + 2),
        rows(now.status.queues.len() + 2),
        rows(totals(picture).len() + 1),
    ]
}

fn trouble(picture: &Picture) -> Option<Vec<String>> {
    let (reason, again_in) = picture.trouble.as_ref()?;
    let what = if picture.now.is_some() { "is gone, this is the last it said" } else { "is away" };
    let source = &picture.source;
    let first = format!("{source} {what}; asked again in {}", time(again_in.as_secs_f64()));
    Some(vec![first, plain(reason)])
}

fn head<'a>(picture: &'a Picture, now: &'a Sample) -> Vec<Line<'a>> {
    let status = &now.status;
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("forebay {}", status.version), HEAD),
        format!("  {}  up {}  {}", status.model.name, up(status.uptime_s), picture.source).into(),
    ])];
    let level = match status.level.as_str() {
        "down" => BAD,
        "cpu" => WARN,
        _ => GOOD,
    };
    let ready = if status.ready { Span::styled("ready", GOOD) } else { not_ready(now) };
    let drain = if status.draining { "  draining" } else { "" };
    lines.push(Line::from(vec![
        "level ".into(),
        Span::styled(status.level.as_str(), level.add_modifier(Modifier::BOLD)),
        format!(" ({})  ", status.reason).into(),
        ready,
        Span::styled(drain, WARN),
        format!(
            "  heartbeat {} ms  oldest text {} ms  capacity {} tokens/s, {} texts/s",
            status.beat_age_ms,
            status.worst_age_ms,
            number(Some(status.rates.tokens_per_s)),
            number(Some(status.rates.texts_per_s)),
        )
        .into(),
    ]));
    let lost = trouble(picture).into_iter().flatten();
    lines.extend(lost.map(|line| Line::styled(line, BAD)));
    lines
}

fn not_ready(now: &Sample) -> Span<'_> {
    Span::styled(format!("not ready ({})", now.status.ready_reason), BAD)
}

fn workers(now: &Sample) -> Table<'_> {
    let rows = now.status.workers.iter().map(|worker| {
        let Worker { device, state, since, pid, restarts, engine, precision, last_end } = worker;
        let style = match state.as_str() {
            "serving" => GOOD,
            "starting" | "warming" | "probation" | "capped" | "draining" => WARN,
            _ => BAD,
        };
        let of = |name: &str| now.metrics.sum(name, &[("rung", device)]);
        let free = match (of("forebay_slots_free"), of("forebay_slots")) {
            (Some(free), Some(all)) => format!("{free}/{all}"),
            _ => NONE.to_owned(),
        };
        Row::new([
            Cell::from(device.as_str()),
            Cell::from(state.as_str()).style(style),
            Cell::from(time(since.as_secs_f64())),
            Cell::from(pid.map_or_else(|| NONE.to_owned(), |pid| pid.to_string())),
            Cell::from(restarts.to_string()),
            Cell::from(free),
            Cell::from(gpu(&of)),
            Cell::from(plain(&format!("{engine} {precision}"))),
            Cell::from(last_end.as_deref().map(plain).unwrap_or_default()),
        ])
    });
    let head = ["DEVICE", "STATE", "FOR", "PID", "RESTARTS", "FREE", "GPU", "ENGINE", "LAST END"];
    let widths = [8, 11, 6, 8, 8, 5, 26, 22].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Fill(1)]);
    Table::new(rows, widths).header(Row::new(head).style(HEAD))
}

/// What the device says of itself, as far as it does.
fn gpu(of: &impl Fn(&str) -> Option<f64>) -> String {
    const GIB: f64 = (1_u64 << 30) as f64;
    let said = [
        of("forebay_device_utilisation_ratio").map(|share| format!("{:.0}%", share * 100.0)),
        of("forebay_device_memory_used_bytes").map(|bytes| format!("{:.1} GiB", bytes / GIB)),
        of("forebay_device_temperature_celsius").map(|degrees| format!("{degrees:.0} °C")),
        of("forebay_device_power_watts").map(|watts| format!("{watts:.0} W")),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { NONE.to_owned() } else { said.join(" ") }
}

fn classes<'a>(picture: &Picture, now: &'a Sample) -> Table<'a> {
    let rows = now.status.queues.iter().map(|queue| {
        let class = ("priority", queue.priority.as_str());
        let of = |outcome| picture.rate("forebay_requests_total", &[class, ("outcome", outcome)]);
        let failed = ["deadline", "poison", "unavailable", "worker_lost", "internal"].map(of);
        let failed = failed.into_iter().flatten().reduce(|one, other| one + other);
        let latency = |quantile| {
            let found = picture.quantile("forebay_request_seconds", &[class], quantile);
            found.map_or_else(|| NONE.to_owned(), time)
        };
        let waiting = now.metrics.sum("forebay_queue_rows", &[class]);
        let style = |rate: Option<f64>, bad| match rate {
            Some(rate) if rate > 0.0 => bad,
            _ => Style::new(),
        };
        let refused = of("overloaded");
        Row::new([
            Cell::from(queue.priority.as_str()),
            Cell::from(format!("{}/{}", queue.under_way, queue.limit)),
            Cell::from(queue.requests_max.to_string()),
            Cell::from(number(waiting)),
            Cell::from(number(of("ok"))),
            Cell::from(number(refused)).style(style(refused, WARN)),
            Cell::from(number(failed)).style(style(failed, BAD)),
            Cell::from(latency(0.5)),
            Cell::from(latency(0.9)),
            Cell::from(latency(0.99)),
        ])
    });
    let head = [
        "CLASS",
        "UNDER WAY",
        "MAX",
        "QUEUED",
        "OK/S",
        "REFUSED/S",
        "FAILED/S",
        "P50",
        "P90",
        "P99",
    ];
    let widths = [11, 15, 8, 8, 9, 9, 9, 9, 9, 9].map(Constraint::Length);
    Table::new(rows, widths).header(Row::new(head).style(HEAD))
}

fn totals(picture: &Picture) -> Vec<Line<'static>> {
    let rate = |name: &str, wanted: &[(&str, &str)]| number(picture.rate(name, wanted));
    let class = |class| rate("forebay_http_requests_total", &[("class", class)]);
    let count =
        |name: &str| number(picture.now.as_ref().and_then(|now| now.metrics.sum(name, &[])));
    let stages = ["tokenize", "queue", "infer"].map(|stage| {
        let p99 = picture.quantile("forebay_stage_seconds", &[("stage", stage)], 0.99);
        format!("{stage} {}", p99.map_or_else(|| NONE.to_owned(), time))
    });
    let line = |title: &'static str, text: String| {
        Line::from(vec![Span::styled(format!("{title:<9}"), HEAD), text.into()])
    };
    vec![
        line(
            "HTTP/S",
            format!(
                "2xx {}  4xx {}  429 {}  5xx {}  503 {}  504 {}   connections {}  under way {}",
                class("2xx"),
                class("4xx"),
                class("429"),
                class("5xx"),
                class("503"),
                class("504"),
                count("forebay_connections_open"),
                count("forebay_http_requests_in_flight"),
            ),
        ),
        line(
            "BATCHES",
            format!(
                "{}/s  {} tokens/s   p99: {}",
                rate("forebay_batches_total", &[]),
                rate("forebay_tokens_total", &[]),
                stages.join("  "),
            ),
        ),
        line(
            "FAULTS",
            format!(
                "restarts {}  hedged {}  put back {}  suspects {}  events lost {}",
                count("forebay_worker_restarts_total"),
                count("forebay_requests_hedged_total"),
                count("forebay_requests_requeued_total"),
                count("forebay_suspects_total"),
                count("forebay_events_lost_total"),
            ),
        ),
    ]
}

/// The newest events, in so many rows with their head.
fn events(now: &Sample, rows: u16) -> Vec<Line<'static>> {
    let clock = Clock::local();
    let mut title = "EVENTS".to_owned();
    if now.unknown_events > 0 {
        title.push_str(&format!(" ({} of kinds unknown to this release)", now.unknown_events));
    }
    let room = usize::from(rows).saturating_sub(1);
    let newest = now.events.iter().skip(now.events.len().saturating_sub(room));
    let line = |event: &forebay::events::Event| {
        let said = plain(&event.kind.to_string());
        Line::from(format!("{}  {:>6}  {said}", clock.shown(event.wall), event.id.to_string()))
    };
    std::iter::once(Line::styled(title, HEAD)).chain(newest.map(line)).collect()
}

/// A number as short as it is readable.
fn number(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value >= 1e9 => format!("{:.1}G", value / 1e9),
        Some(value) if value >= 1e6 => format!("{:.1}M", value / 1e6),
        Some(value) if value >= 1e4 => format!("{:.1}k", value / 1e3),
        Some(value) if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

/// A time in a unit that suits it.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1e-2 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s => up(s),
    }
}

/// A long time in its two largest units.
fn up(seconds: f64) -> String {
    let s = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}
