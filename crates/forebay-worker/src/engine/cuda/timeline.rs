//! A timeline of every batch through stages and streams, as lines of JSON that `forebay bench
//! pipeline --trace` turns into a picture. Times are microseconds of the system's monotonic clock,
//! which host and worker share.
//!
//! Writing it must not slow what it shows: lines go through a buffer, and a line that cannot be
//! written ends the timeline with one warning, never the worker.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_cuda::{StageSpan, StageTimes};
use serde_json::json;

use super::steps::ThreadSpans;

/// Names of the stages, in their order.
const STAGES: [&str; 4] = ["copy-in", "infer", "pool", "copy-out"];

/// The file, and what places both clocks on its axis.
pub(super) struct TimelineFile {
    out: Option<BufWriter<File>>,
    /// An instant and the monotonic clock at that instant, in microseconds.
    anchor: (Instant, f64),
    /// The device's time zero on the monotonic clock, in microseconds.
    device_zero_us: f64,
    written_at: Instant,
}

/// Longest time that lines stay in the buffer while batches come.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

impl TimelineFile {
    /// Creates the file. `device_zero` is when the device's clock stood at zero.
    ///
    /// # Errors
    /// The file cannot be created; the message names it.
    pub(super) fn create(path: &Path, device_zero: Instant) -> io::Result<Self> {
        let file = File::create(path).map_err(|error| {
            io::Error::new(error.kind(), format!("timeline {}: {error}", path.display()))
        })?;
        let anchor = (Instant::now(), monotonic_us());
        let device_zero_us = place(anchor, device_zero);
        let written_at = anchor.0;
        Ok(Self { out: Some(BufWriter::new(file)), anchor, device_zero_us, written_at })
    }

    /// Writes one batch: what each thread did, and what each stream did.
    pub(super) fn write(
        &mut self,
        batch: u64,
        (rows, tokens): (usize, usize),
        threads: &ThreadSpans,
        streams: &StageTimes,
    ) {
        let Some(out) = &mut self.out else { return };
        let mut line = |track: String, start_us: f64, duration_us: f64| {
            let line = json!({
                "batch": batch, "rows": rows, "tokens": tokens, "track": track,
                "start_us": start_us, "duration_us": duration_us,
            });
            writeln!(out, "{line}")
        };
        let mut write = || -> io::Result<()> {
            for (stage, span) in STAGES.iter().zip(threads.0) {
                if let Some((start, duration)) = span {
                    let duration_us = duration.as_secs_f64() * 1e6;
                    line(format!("thread {stage}"), place(self.anchor, start), duration_us)?;
                }
            }
            let spans = [streams.copy_in, streams.infer, streams.pool, streams.copy_out];
            for (stage, StageSpan { start_us, us }) in STAGES.iter().zip(spans) {
                if us > 0.0 {
                    line(format!("stream {stage}"), self.device_zero_us + start_us, us)?;
                }
            }
            Ok(())
        };
        let mut result = write();
        if self.written_at.elapsed() > FLUSH_EVERY || batch < 2 {
            result = result.and_then(|()| out.flush());
            self.written_at = Instant::now();
        }
        self.go_on(result);
    }

    /// Brings every line to the file.
    pub(super) fn flush(&mut self) {
        let Some(out) = &mut self.out else { return };
        let result = out.flush();
        self.go_on(result);
    }

    fn go_on(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!("the timeline ends here: {error}");
            self.out = None;
        }
    }
}

/// `instant` on the monotonic clock, in microseconds.
fn place((at, at_us): (Instant, f64), instant: Instant) -> f64 {
    match instant.checked_duration_since(at) {
        Some(after) => at_us + after.as_secs_f64() * 1e6,
        None => at_us - at.duration_since(instant).as_secs_f64() * 1e6,
    }
}

fn monotonic_us() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_and_each_busy_stream_has_a_line_on_one_axis() {
        let folder = std::env::temp_dir().join(format!("forebay-timeline-{}", std::process::id()));
        let path = folder.with_extension("jsonl");
        let zero = Instant::now();
        let mut file = TimelineFile::create(&path, zero).expect("creates");
        let span = |start_us, us| StageSpan { start_us, us };
        let streams = StageTimes {
            copy_in: span(5.0, 0.0),
            infer: span(10.0, 100.0),
            pool: span(111.0, 4.0),
            copy_out: span(115.0, 0.0),
        };
        let spans = ThreadSpans([Some((zero, Duration::from_micros(7))); 4]);
        file.write(1, (2, 9), &spans, &streams);
        let text = std::fs::read_to_string(&path).expect("reads");
        file.write(2, (1, 3), &spans, &streams);
        file.flush();
        let all = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(all.lines().count(), 2 * text.lines().count(), "a flush leaves nothing behind");
        drop(file);
        std::fs::remove_file(&path).expect("removes");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!(lines[0]["track"], "thread copy-in");
        assert_eq!(lines[4]["track"], "stream infer");
        let behind = lines[4]["start_us"].as_f64().expect("number")
            - lines[0]["start_us"].as_f64().expect("number");
        assert!((behind - 10.0).abs() < 1e-3, "{behind}");
        assert_eq!(lines[5]["tokens"], 9);
    }
}
