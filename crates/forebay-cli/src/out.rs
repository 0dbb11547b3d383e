//! What the program says: results to standard output, everything else to standard error.
//!
//! Writing here fails as a value and not as a panic. Lines on standard error go around the progress
//! bar while there is one; that they cannot be written has nowhere to be reported.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

use crate::failure::Failure;

/// The progress bar that is on the screen.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes text to standard output.
///
/// # Errors
/// What the stream says.
pub(crate) fn print(text: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_fmt(text)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::writing("standard output", &error))
}

/// Writes one line to standard error.
pub(crate) fn tell(text: fmt::Arguments<'_>) {
    above_bar(|| {
        writeln!(io::stderr().lock(), "{text}").ok();
    });
}

/// Writes what ended a command to standard error.
pub(crate) fn report(failure: &Failure) {
    for line in failure.message.lines() {
        tell(format_args!("error: {line}"));
    }
    if let Some(help) = &failure.help {
        tell(format_args!("help: {help}"));
    }
}

/// Whether a person reads standard error.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Shows `bar`, which further lines go around, until the result is dropped.
pub(crate) fn show(bar: ProgressBar) -> ShownBar {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
    ShownBar { bar }
}

/// A progress bar on the screen; it vanishes when this is dropped.
pub(crate) struct ShownBar {
    bar: ProgressBar,
}

impl ShownBar {
    /// The bar itself.
    pub(crate) fn bar(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for ShownBar {
    fn drop(&mut self) {
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.bar.finish_and_clear();
    }
}

fn above_bar(write: impl FnOnce()) {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error for the log: whole lines, around the progress bar.
#[derive(Debug, Default)]
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = Ok(0);
        above_bar(|| written = io::stderr().lock().write_all(bytes).map(|()| bytes.len()));
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

macro_rules! say {
    ($($text:tt)*) => { $crate::out::print(format_args!($($text)*)) };
}

macro_rules! note {
    ($($text:tt)*) => { $crate::out::tell(format_args!($($text)*)) };
}

pub(crate) use {note, say};
