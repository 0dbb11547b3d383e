//! `forebay events`: the event log as a table or as JSON, once or as it grows. It only reads: the
//! log may belong to a runtime that serves, or be what is left of one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use forebay::events::{Event, EventHistory, EventReadError, Follower, read};
use serde::Serialize;

use super::event_times::{Clock, Since};
use crate::failure::{Exit, Failure};
use crate::out::{note, say};
use crate::settings::Settings;

/// How often a log is looked at that is being followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Show what happened to workers, devices and the service level
///
/// Reads the event log of a runtime that runs, or of one that ended in whatever way: time, number
/// and what happened. What is damaged or missing in the log is said on standard error. --device
/// shows only what concerns these devices. `forebay explain NUMBER` shows what led to an event and
/// what followed.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay events --folder /var/lib/forebay/events --last 20
  forebay events --config forebay.toml --since 10m --device cuda:0
  forebay events --folder events --follow --json

Exit codes: 0 read, 65 nothing in the log is readable, 66 there is no log")]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object per event, one per line
    #[arg(long)]
    json: bool,
    /// Show only the newest events
    #[arg(long, value_name = "COUNT")]
    last: Option<usize>,
    /// Show only events since then: a time such as 2026-07-30T12:00:00Z, or how long ago: 10m, 1h,
    /// 2d
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// Go on showing events as they are written, until interrupted
    #[arg(long)]
    follow: bool,
}

/// Which log is read, and how its times are shown.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Folder of the event log [default: `events.folder` of the configuration]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Show times in UTC and not in local time
    #[arg(long)]
    utc: bool,
}

impl Place {
    /// The folder. The configuration is not looked at if it is named: it may be what broke.
    pub(crate) fn folder(&self, settings: &Settings) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let folder = settings.config()?.events.folder;
        if folder.as_os_str().is_empty() {
            let message = "no event log: `events.folder` is not set";
            return Err(Failure::new(Exit::Usage, message)
                .help("name the folder with --folder DIR, or a configuration with --config FILE"));
        }
        Ok(folder)
    }

    /// How times are shown.
    pub(crate) fn clock(&self) -> Clock {
        if self.utc { Clock::utc() } else { Clock::local() }
    }
}

/// An event with its time as text, which is easier on readers than nanoseconds.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl<'a> Shown<'a> {
    /// The event with its time in UTC.
    pub(crate) fn new(event: &'a Event) -> Self {
        Self { time: Clock::utc().exact(event.wall), event }
    }
}

/// Runs the command.
///
/// # Errors
/// There is no log, or nothing of it is readable.
pub(crate) fn run(args: &EventsArgs, settings: &Settings) -> Result<(), Failure> {
    let folder = args.place.folder(settings)?;
    let history = load(&folder)?;
    let mut follower = args.follow.then(|| Follower::after(&folder, &history));
    let devices = settings.device_names();
    let is_wanted = |event: &&Event| {
        let device = event.kind.device();
        let wanted = |names: &Vec<String>| names.iter().any(|name| device == Some(name.as_str()));
        devices.as_ref().is_none_or(wanted)
            && args.since.as_ref().is_none_or(|since| since.includes(event.wall))
    };
    let clock = args.place.clock();
    let show = |event: &Event| {
        if args.json { say!("{}\n", json(&Shown::new(event))) } else { row(&clock, event) }
    };
    let wanted: Vec<&Event> = history.events.iter().filter(is_wanted).collect();
    let skipped = args.last.map_or(0, |last| wanted.len().saturating_sub(last));
    for event in wanted.into_iter().skip(skipped) {
        show(event)?;
    }
    while let Some(follower) = &mut follower {
        std::thread::sleep(FOLLOW_INTERVAL);
        let (events, gaps) = follower.poll()?;
        for gap in gaps {
            note!("warning: {gap}");
        }
        for event in events.iter().filter(is_wanted) {
            show(event)?;
        }
    }
    Ok(())
}

/// The log, with its damage reported.
///
/// # Errors
/// There is none, or nothing of it is readable.
pub(crate) fn load(folder: &Path) -> Result<EventHistory, Failure> {
    let history = read(folder)?;
    if history.segments == 0 {
        let message = format!("there is no event log in {}", folder.display());
        return Err(Failure::new(Exit::NoInput, message)
            .help("name the folder that `events.folder` names where the runtime runs"));
    }
    for damage in &history.damage {
        note!("warning: {damage}");
    }
    for gap in &history.gaps {
        note!("warning: {gap}");
    }
    if history.damage_left_out > 0 {
        note!("warning: {} more damaged places", history.damage_left_out);
    }
    if history.events_left_out > 0 {
        note!("warning: {} older events are not shown", history.events_left_out);
    }
    if history.events.is_empty() && !history.damage.is_empty() {
        let message = format!("nothing in {} can be read as an event log", folder.display());
        return Err(Failure::new(Exit::BadInput, message)
            .help("name another folder; a runtime that starts with this one begins a new log"));
    }
    Ok(history)
}

/// One value as JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    // Events hold nothing that JSON cannot.
    serde_json::to_string(value).unwrap_or_default()
}

/// One event as a row of the table.
fn row(clock: &Clock, event: &Event) -> Result<(), Failure> {
    let (time, id, said) = (clock.shown(event.wall), event.id.to_string(), event.kind.to_string());
    say!("{time}  {id:>7}  {}\n", plain(&said))
}

/// Text that came from elsewhere, on one line and without anything that a terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

impl From<EventReadError> for Failure {
    fn from(error: EventReadError) -> Self {
        Self::with_remedy(Exit::NoInput, &error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        assert_eq!(plain("a\x1b[2Jb\nc ü"), "a\\u{1b}[2Jb\\nc ü");
    }
}
