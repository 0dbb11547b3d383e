//! `forebay top`: what a daemon does, as a screen that is renewed, or once as plain text. Everything
//! comes from the daemon's own answers over its socket; nothing is started and nothing changed.

mod client;
mod exposition;
mod sample;
mod screen;
mod view;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::client::Source;
use self::sample::Picture;
use self::screen::Screen;
use crate::failure::{Exit, Failure};
use crate::out::say;
use crate::settings::Settings;

/// Longest wait before a daemon that has gone is asked again.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Columns of plain text where no terminal says how many there are.
const COLUMNS: u16 = 120;

/// Watch a running daemon: level, workers, queues, rates, latency, events
///
/// Asks `forebay serve` for its status, events and metrics, over its unix socket or TCP. Rates and
/// percentiles are those of the last half minute. q, Esc or Ctrl-C ends it. A daemon that goes away
/// is asked again until it is back. Where standard output is no terminal, it prints once.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  forebay top
  forebay top --socket /tmp/forebay.sock --interval-ms 500
  forebay top --url http://127.0.0.1:8080 --key-file key --once")]
pub(crate) struct TopArgs {
    /// The daemon's unix socket [default: `server.socket` of the configuration]
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    socket: Option<PathBuf>,
    /// The daemon's address, such as http://127.0.0.1:8080; TLS is not spoken
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the key that the daemon asks for
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Time between two looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
    /// Print what two looks have seen, as plain text, and end
    #[arg(long)]
    once: bool,
}

/// Runs the command.
///
/// # Errors
/// The daemon cannot be asked (only where it prints once), or the terminal cannot be used.
pub(crate) async fn run(args: TopArgs, settings: &Settings) -> Result<(), Failure> {
    let source = source(&args, settings)?;
    let interval = Duration::from_millis(args.interval_ms);
    if args.once || !std::io::stdout().is_terminal() {
        return once(&source, interval).await;
    }
    watch(&source, interval).await
}

fn source(args: &TopArgs, settings: &Settings) -> Result<Source, Failure> {
    let source = match (&args.socket, &args.url) {
        (Some(path), _) => Source::unix(path.clone()),
        (None, Some(url)) => Source::url(url)?,
        (None, None) => {
            let server = settings.config()?.server;
            match server.listen {
                _ if !server.socket.as_os_str().is_empty() => Source::unix(server.socket),
                Some(address) => Source::url(&format!("http://{address}"))?,
                None => {
                    let message = "the configuration names no address of a daemon";
                    return Err(Failure::new(Exit::Usage, message)
                        .help("name it with --socket PATH or --url URL"));
                }
            }
        }
    };
    let Some(path) = &args.key_file else { return Ok(source) };
    let key =
        std::fs::read_to_string(path).map_err(|error| Failure::reading(path.display(), &error))?;
    source.with_key(key.trim())
}

/// Two looks, as plain text.
async fn once(source: &Source, interval: Duration) -> Result<(), Failure> {
    let mut picture = Picture::new(source.to_string());
    for is_first in [true, false] {
        if !is_first {
            tokio::time::sleep(interval).await;
        }
        let sample = source.look().await.map_err(|reason| {
            Failure::new(Exit::Unavailable, format!("cannot ask {source}: {reason}"))
                .help("name the daemon with --socket PATH or --url URL; `forebay serve` starts one")
        })?;
        picture.add(sample);
    }
    say!("{}", view::plain_text(&picture, COLUMNS))
}

/// Renews the screen until somebody ends it.
async fn watch(source: &Source, interval: Duration) -> Result<(), Failure> {
    let mut screen = Screen::open()?;
    let mut picture = Picture::new(source.to_string());
    let mut wait = interval;
    loop {
        let Some(look) = screen.until(&picture, source.look()).await? else { return Ok(()) };
        match look {
            Ok(sample) => {
                picture.add(sample);
                wait = interval;
            }
            Err(reason) => {
                wait = (wait * 2).clamp(interval, BACKOFF_MAX.max(interval));
                picture.lost(reason, wait);
            }
        }
        if screen.until(&picture, tokio::time::sleep(wait)).await?.is_none() {
            return Ok(());
        }
    }
}
