//! What a task says to the person who runs it: lines and progress bars on stderr.
//!
//! On a terminal a bar moves; elsewhere (a log file, a build server) the same step is one plain
//! line when it begins and one when it ends. Standard output is left to the commands being run.

use std::time::Instant;

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};

/// Prints one line on stderr.
#[expect(
    clippy::print_stderr,
    reason = "talking to the person at the terminal is this crate's job"
)]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// One step whose length in bytes is known beforehand.
pub(crate) struct Step {
    bar: ProgressBar,
    what: String,
    started: Instant,
}

impl Step {
    /// Begins a step of `bytes` bytes; `what` reads as in "downloading onnxruntime 1.31.1".
    pub(crate) fn begin(what: &str, bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        if bar.is_hidden() {
            say(&format!("  {what} ({})", HumanBytes(bytes)));
        }
        // The template is a constant, so the fallback to the default style is never seen.
        let style = ProgressStyle::with_template(
            "  {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        Self { bar, what: what.to_owned(), started: Instant::now() }
    }

    /// Moves the bar to `bytes` bytes done.
    pub(crate) fn reach(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Moves the bar on by `bytes` bytes.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Ends the step as done.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        let took = self.started.elapsed();
        if took.as_secs() < 10 {
            say(&format!("  {}: done in {:.1} s", self.what, took.as_secs_f64()));
        } else {
            say(&format!("  {}: done in {}", self.what, HumanDuration(took)));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
