//! `forebay explain`: one event of the log with what led to it and what followed, and the times
//! between.

use std::path::Path;

use clap::Args;
use forebay::events::{EventHistory, EventId, EventKind, Step, Story, explain};
use serde::Serialize;

use super::event_times::{Clock, span};
use super::events::{Place, Shown, json, load, plain};
use crate::failure::{Exit, Failure};
use crate::out::say;
use crate::settings::Settings;

/// Explain an event: what led to it, and what followed until its device served again
///
/// Follows the causes in the event log back to the first one and on to everything that came of the
/// event, with the time from each step to the next. The event that was asked about is marked.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay explain 42 --folder /var/lib/forebay/events
  forebay explain '#42' --config forebay.toml --json

Exit codes: 0 explained, 1 there is no such event, 65 nothing in the log is readable, 66 there is no
log")]
pub(crate) struct ExplainArgs {
    /// The number of the event, as `forebay events` shows it
    #[arg(value_name = "NUMBER")]
    id: EventId,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    steps: Vec<ReportStep<'a>>,
    steps_left_out: usize,
    missing_cause: Option<EventId>,
    not_serving: &'a [&'a str],
}

#[derive(Serialize)]
struct ReportStep<'a> {
    after_ms: f64,
    is_asked: bool,
    #[serde(flatten)]
    event: Shown<'a>,
}

/// Runs the command.
///
/// # Errors
/// There is no such event, no log, or nothing of it is readable.
pub(crate) fn run(args: &ExplainArgs, settings: &Settings) -> Result<(), Failure> {
    let folder = args.place.folder(settings)?;
    let history = load(&folder)?;
    let story =
        explain(&history.events, args.id).ok_or_else(|| missing(args.id, &history, &folder))?;
    if args.json {
        return say!("{}\n", json(&report(&story)));
    }
    say!("{}", told(&story, &args.place.clock()))
}

fn missing(id: EventId, history: &EventHistory, folder: &Path) -> Failure {
    let range = match (history.events.first(), history.events.last()) {
        (Some(first), Some(last)) => format!("it has {} to {}", first.id, last.id),
        _ => "it is empty".to_owned(),
    };
    let message = format!("there is no event {id} in the log in {}: {range}", folder.display());
    Failure::new(Exit::Failed, message).help("`forebay events` lists the events with their numbers")
}

fn report<'a>(story: &'a Story<'a>) -> Report<'a> {
    let step = |step: &Step<'a>| ReportStep {
        after_ms: step.after.as_secs_f64() * 1_000.0,
        is_asked: step.is_asked,
        event: Shown::new(step.event),
    };
    Report {
        steps: story.steps.iter().map(step).collect(),
        steps_left_out: story.steps_left_out,
        missing_cause: story.missing_cause,
        not_serving: &story.not_serving,
    }
}

/// The story as lines: the time of the first step, then the time from each step to the next.
fn told(story: &Story<'_>, clock: &Clock) -> String {
    let mut text = String::new();
    let mut line = |said: &str| {
        text.push_str(said.trim_end());
        text.push('\n');
    };
    if let Some(cause) = story.missing_cause {
        line(&format!("caused by event {cause}, which is no longer in the log"));
    }
    for (nth, step) in story.steps.iter().enumerate() {
        let event = step.event;
        let time =
            if nth == 0 { clock.shown(event.wall) } else { format!("{} later", span(step.after)) };
        let (mark, id) = (if step.is_asked { '>' } else { ' ' }, event.id.to_string());
        let said = plain(&event.kind.to_string());
        line(&format!("{mark} {time:>29}  {id:>7}  {said}"));
        if let EventKind::WorkerEnded { log, .. } = &event.kind {
            for logged in log.lines() {
                line(&format!("{:42}| {}", "", plain(logged)));
            }
        }
    }
    if story.steps_left_out > 0 {
        line(&format!("and {} more events", story.steps_left_out));
    }
    for device in &story.not_serving {
        line(&format!("{} does not serve at the end of this", plain(device)));
    }
    text
}
