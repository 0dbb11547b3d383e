//! A picture of where time goes: the host's spans and the workers' stages and streams on one axis,
//! as Chrome trace events, which Perfetto and other viewers open.
//!
//! Everything but reading and writing files is a pure function. Spans of one kind that overlap get
//! lanes of their own, as a viewer expects spans of one track to be nested or apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spans::HostSpan;
use crate::failure::{Exit, Failure};

/// Lanes of one kind; spans that would need more are left out and counted.
const LANES_MAX: usize = 64;
/// Overlaps up to this are rounding of clocks and are cut off, in microseconds.
const ROUNDING_US: f64 = 2.0;
/// Lines that are read of one worker at most.
const LINES_MAX: usize = 400_000;

/// Tracks in the order in which a text passes them; others follow by name.
const HOST_TRACKS: [&str; 5] = ["request", "tokenize", "waiting", "in flight", "reply"];
const WORKER_TRACKS: [&str; 8] = [
    "thread copy-in",
    "thread infer",
    "thread pool",
    "thread copy-out",
    "stream copy-in",
    "stream infer",
    "stream pool",
    "stream copy-out",
];

/// What a worker writes of one batch in one thread or stream.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct WorkerLine {
    batch: u64,
    rows: u32,
    tokens: u32,
    track: String,
    start_us: f64,
    duration_us: f64,
}

/// A worker with its lines.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkerTrace {
    pub(super) name: String,
    pub(super) lines: Vec<WorkerLine>,
}

/// The whole file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Timeline {
    trace_events: Vec<Event>,
    display_time_unit: &'static str,
    /// Spans that found no lane.
    #[serde(skip)]
    pub(super) left_out: u64,
}

/// One event: a complete span (`X`) or a name (`M`). Times in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Event {
    name: String,
    ph: &'static str,
    pid: usize,
    tid: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    args: BTreeMap<&'static str, serde_json::Value>,
}

/// A span on its way into a track.
struct Placed {
    name: String,
    start_us: f64,
    end_us: f64,
    args: BTreeMap<&'static str, serde_json::Value>,
}

impl Placed {
    fn new(name: String, start_us: f64, duration_us: f64) -> Self {
        Self { name, start_us, end_us: start_us + duration_us.max(0.0), args: BTreeMap::new() }
    }
}

/// Tracks of one process by name.
type Tracks = BTreeMap<String, Vec<Placed>>;

/// Puts the host and its workers on one axis that starts with the first of all spans.
pub(super) fn merge(host: &[HostSpan], workers: &[WorkerTrace]) -> Timeline {
    let mut processes = vec![("host".to_owned(), host_tracks(host), &HOST_TRACKS[..])];
    for WorkerTrace { name, lines } in workers {
        processes.push((name.clone(), worker_tracks(lines), &WORKER_TRACKS[..]));
    }
    let spans = processes.iter().flat_map(|(_, tracks, _)| tracks.values().flatten());
    let zero_us = spans.map(|span| span.start_us).fold(f64::INFINITY, f64::min);
    let mut timeline = Timeline { trace_events: Vec::new(), display_time_unit: "ms", left_out: 0 };
    for (index, (name, tracks, order)) in processes.into_iter().enumerate() {
        timeline.add_process(index + 1, &name, tracks, order, zero_us);
    }
    timeline
}

fn host_tracks(spans: &[HostSpan]) -> Tracks {
    let mut tracks = Tracks::new();
    for HostSpan { name, start_us, duration_us, fields } in spans {
        let number = |wanted| fields.iter().find(|(name, _)| *name == wanted).map(|(_, n)| *n);
        let (track, label) = match (*name, number("batch_id")) {
            ("batch", Some(batch)) => ("in flight", format!("batch {batch}")),
            (name, _) => (name, name.to_owned()),
        };
        if let ("batch", Some(waited_us)) = (*name, number("waited_us")) {
            let waited_us = waited_us as f64;
            let mut waiting = Placed::new(label.clone(), start_us - waited_us, waited_us);
            waiting.args = fields.iter().map(|(name, value)| (*name, (*value).into())).collect();
            tracks.entry("waiting".to_owned()).or_default().push(waiting);
        }
        let mut span = Placed::new(label, *start_us, *duration_us);
        span.args = fields.iter().map(|(name, value)| (*name, (*value).into())).collect();
        tracks.entry(track.to_owned()).or_default().push(span);
    }
    tracks
}

fn worker_tracks(lines: &[WorkerLine]) -> Tracks {
    let mut tracks = Tracks::new();
    for WorkerLine { batch, rows, tokens, track, start_us, duration_us } in lines {
        let mut span = Placed::new(format!("batch {batch}"), *start_us, *duration_us);
        span.args =
            [("batch", (*batch).into()), ("rows", (*rows).into()), ("tokens", (*tokens).into())]
                .into();
        tracks.entry(track.clone()).or_default().push(span);
    }
    tracks
}

impl Timeline {
    /// How many spans it has.
    pub(super) fn spans(&self) -> usize {
        self.trace_events.iter().filter(|event| event.ph == "X").count()
    }

    fn add_process(
        &mut self,
        pid: usize,
        name: &str,
        mut tracks: Tracks,
        order: &[&str],
        zero_us: f64,
    ) {
        self.name("process_name", pid, 0, name.into());
        self.name("process_sort_index", pid, 0, pid.into());
        let known = order.iter().filter_map(|name| tracks.remove_entry(*name));
        let mut sorted: Vec<(String, Vec<Placed>)> = known.collect();
        sorted.extend(tracks);
        let mut tid = 0;
        for (track, spans) in sorted {
            let (lanes, left_out) = lanes(spans);
            self.left_out += left_out;
            for (lane, spans) in lanes.into_iter().enumerate() {
                tid += 1;
                let name = match lane {
                    0 => track.clone(),
                    lane => format!("{track} {}", lane + 1),
                };
                self.name("thread_name", pid, tid, name.into());
                self.name("thread_sort_index", pid, tid, tid.into());
                self.trace_events.extend(spans.into_iter().map(|span| Event {
                    name: span.name,
                    ph: "X",
                    pid,
                    tid,
                    ts: Some(span.start_us - zero_us),
                    dur: Some(span.end_us - span.start_us),
                    args: span.args,
                }));
            }
        }
    }

    fn name(&mut self, what: &str, pid: usize, tid: usize, value: serde_json::Value) {
        let key = if what.ends_with("name") { "name" } else { "sort_index" };
        let args = [(key, value)].into();
        self.trace_events.push(Event {
            name: what.to_owned(),
            ph: "M",
            pid,
            tid,
            ts: None,
            dur: None,
            args,
        });
    }
}

/// Spreads spans over lanes so that no two in a lane overlap: each goes into the first lane that is
/// free when it starts. Also gives how many found none.
fn lanes(mut spans: Vec<Placed>) -> (Vec<Vec<Placed>>, u64) {
    spans.sort_by(|one, other| one.start_us.total_cmp(&other.start_us));
    let mut lanes: Vec<Vec<Placed>> = Vec::new();
    let mut left_out = 0;
    for mut span in spans {
        let end = |lane: &Vec<Placed>| lane.last().map_or(f64::NEG_INFINITY, |span| span.end_us);
        let free = lanes.iter().position(|lane| end(lane) <= span.start_us + ROUNDING_US);
        let index = free.unwrap_or(lanes.len());
        if index == LANES_MAX {
            left_out += 1;
            continue;
        }
        if index == lanes.len() {
            lanes.push(Vec::new());
        }
        if let Some(lane) = lanes.get_mut(index) {
            span.start_us = span.start_us.max(end(lane));
            span.end_us = span.end_us.max(span.start_us);
            lane.push(span);
        }
    }
    (lanes, left_out)
}

/// A timeline in the making: the file it goes to, and where the workers write their part.
pub(super) struct TimelineFile {
    path: PathBuf,
    file: File,
}

impl TimelineFile {
    /// Creates the file, and removes what workers of an earlier run left behind.
    ///
    /// # Errors
    /// It cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure::creating(path, &error))?;
        let created = Self { path: path.to_owned(), file };
        for (path, _) in created.parts() {
            std::fs::remove_file(&path).map_err(|error| Failure::creating(&path, &error))?;
        }
        Ok(created)
    }

    /// Where a worker is to write its lines; with several GPUs each adds its device to the name.
    pub(super) fn worker_path(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.worker.jsonl", self.file_name()))
    }

    /// Merges what the workers wrote with the host's spans, writes the file, and removes the
    /// workers' parts. Gives a line about it for people.
    ///
    /// # Errors
    /// Reading or writing fails.
    pub(super) fn finish(self, host: &[HostSpan], host_left_out: u64) -> Result<String, Failure> {
        let (mut workers, mut lines_left_out) = (Vec::new(), 0);
        let parts = self.parts();
        for (path, name) in &parts {
            let file = File::open(path).map_err(|e| Failure::reading(path.display(), &e))?;
            let (lines, left_out) = read_lines(BufReader::new(file))
                .map_err(|error| Failure::reading(path.display(), &error))?;
            lines_left_out += left_out;
            workers.push(WorkerTrace { name: name.clone(), lines });
        }
        let timeline = merge(host, &workers);
        let failed = |error| Failure::writing(self.path.display(), &error);
        let mut out = BufWriter::new(&self.file);
        serde_json::to_writer(&mut out, &timeline)
            .map_err(|error| Failure::new(Exit::Io, format!("cannot write: {error}")))?;
        out.flush().map_err(failed)?;
        for (path, _) in &parts {
            std::fs::remove_file(path).map_err(|e| Failure::writing(path.display(), &e))?;
        }
        let left_out = host_left_out + lines_left_out + timeline.left_out;
        let from = match workers.len() {
            0 => "the host alone: no worker on a GPU took part".to_owned(),
            count => format!("the host and {count} GPU workers"),
        };
        Ok(format!(
            "{}: {} spans of {from}; {left_out} left out",
            self.path.display(),
            timeline.spans()
        ))
    }

    fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Files that workers wrote, with the names of the workers.
    fn parts(&self) -> Vec<(PathBuf, String)> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let start = format!("{}.worker", self.file_name());
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut parts: Vec<(PathBuf, String)> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let device = name.strip_prefix(&start)?.strip_suffix(".jsonl")?;
                let name = match device.strip_prefix("-cuda") {
                    Some(index) => format!("worker cuda:{index}"),
                    None => "worker".to_owned(),
                };
                Some((entry.path(), name))
            })
            .collect();
        parts.sort();
        parts
    }
}

/// A worker's lines. A last line that was cut off when its worker ended counts as left out, and so
/// do lines beyond the limit.
fn read_lines(input: impl BufRead) -> std::io::Result<(Vec<WorkerLine>, u64)> {
    let (mut lines, mut left_out) = (Vec::new(), 0);
    for line in input.lines() {
        match serde_json::from_str(&line?) {
            Ok(line) if lines.len() < LINES_MAX => lines.push(line),
            _ => left_out += 1,
        }
    }
    Ok((lines, left_out))
}

#[cfg(test)]
mod tests;
