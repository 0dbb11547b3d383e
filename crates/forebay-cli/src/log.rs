//! The log of the program, on standard error, and other listeners to the same events.

use std::io::IsTerminal;

use forebay::config::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

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

/// Changes what is logged while the program runs.
pub(crate) struct LevelSwitch(reload::Handle<EnvFilter, Registry>);

impl LevelSwitch {
    /// Logs from this level upwards from now on.
    pub(crate) fn set(&self, level: LogLevel) {
        if let Err(error) = self.0.reload(filter(level)) {
            crate::out::note!("warning: the log keeps its level: {error}");
        }
    }
}

/// [`start`], with a level that can be changed later.
pub(crate) fn start_adjustable(config: &LogConfig) -> LevelSwitch {
    let (filter, handle) = reload::Layer::new(filter(config.level));
    let listener = layer(config.format).with_filter(filter).boxed();
    if let Err(error) = tracing_subscriber::registry().with(listener).try_init() {
        crate::out::note!("warning: no log: {error}");
    }
    LevelSwitch(handle)
}

/// What is heard at this level. Libraries below Forebay are heard from `warn` upwards only.
fn filter(level: LogLevel) -> EnvFilter {
    let others = match level {
        LogLevel::Off | LogLevel::Error => level.as_str(),
        _ => "warn",
    };
    EnvFilter::new(format!("{others},forebay={level}"))
}

/// The log itself.
fn log(config: &LogConfig) -> Option<Listener> {
    if config.level == LogLevel::Off {
        return None;
    }
    Some(layer(config.format).with_filter(filter(config.level)).boxed())
}

/// Lines on standard error.
fn layer(format: LogFormat) -> Listener {
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = fmt::layer().with_writer(LogWriter::default).with_ansi(colours);
    match format {
        LogFormat::Text => log.compact().boxed(),
        LogFormat::Json => log.json().boxed(),
    }
}
