//! The log of the program, on standard error.

use std::io::IsTerminal;

use forebay::config::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

use crate::out::LogWriter;

/// Logs from now on, as configured. Libraries below Forebay are heard from `warn` upwards only.
pub(crate) fn start(config: &LogConfig) {
    if config.level == LogLevel::Off {
        return;
    }
    let others = if config.level == LogLevel::Error { "error" } else { "warn" };
    let filter = EnvFilter::new(format!("{others},forebay={}", config.level));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LogWriter::default)
        .with_ansi(colours);
    let started = match config.format {
        LogFormat::Text => log.compact().try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    if let Err(error) = started {
        crate::out::note!("warning: no log: {error}");
    }
}
