//! The log of the program, on standard error, and other listeners to the same events.

use std::io::IsTerminal;

use forebay::config::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::out::LogWriter;

/// Somebody who listens besides the log.
pub(crate) type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs from now on, as configured.
pub(crate) fn start(config: &LogConfig) {
    start_with(config, None);
}

/// [`start`], with a listener of its own.
pub(crate) fn start_with(config: &LogConfig, listener: Option<Listener>) {
    let listeners: Vec<Listener> = log(config).into_iter().chain(listener).collect();
    if listeners.is_empty() {
        return;
    }
    if let Err(error) = tracing_subscriber::registry().with(listeners).try_init() {
        crate::out::note!("warning: no log: {error}");
    }
}

/// The log itself. Libraries below Forebay are heard from `warn` upwards only.
fn log(config: &LogConfig) -> Option<Listener> {
    if config.level == LogLevel::Off {
        return None;
    }
    let others = if config.level == LogLevel::Error { "error" } else { "warn" };
    let filter = EnvFilter::new(format!("{others},forebay={}", config.level));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = fmt::layer().with_writer(LogWriter::default).with_ansi(colours);
    Some(match config.format {
        LogFormat::Text => log.compact().with_filter(filter).boxed(),
        LogFormat::Json => log.json().with_filter(filter).boxed(),
    })
}
