//! `forebay ready`: asks a daemon whether requests should be sent to it, for health checks of
//! containers and scripts that have no other client.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::failure::{Exit, Failure};
use crate::out::say;
use crate::settings::Settings;

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Ask a daemon whether it is ready
///
/// Asks /readyz of the daemon that the configuration describes, or of the one named here. The exit
/// code is 0 if it is ready, and 69 if it is not or does not answer. TLS is not spoken: ask on the
/// unix socket.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay ready
  forebay ready --socket /run/forebay/forebay.sock
  forebay ready --url http://127.0.0.1:8080")]
pub(crate) struct ReadyArgs {
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    socket: Option<PathBuf>,
    /// Address of the daemon as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Time for the answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2_000,
        value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

/// Where the daemon is.
enum Place {
    Socket(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// Runs the command.
///
/// # Errors
/// The daemon is not ready, or does not answer.
pub(crate) async fn run(args: ReadyArgs, settings: &Settings) -> Result<(), Failure> {
    let time_max = Duration::from_millis(args.timeout_ms);
    let place = place(args, settings)?;
    let name = match &place {
        Place::Socket(path) => path.display().to_string(),
        Place::Tcp(authority) => format!("http://{authority}"),
    };
    let answer = tokio::time::timeout(time_max, ask(&place)).await;
    let answer = answer.map_err(|_| {
        let message = format!("{name} has not answered within {} ms", time_max.as_millis());
        Failure::new(Exit::Unavailable, message)
    })?;
    let answer = answer.map_err(|error| {
        Failure::new(Exit::Unavailable, format!("{name} cannot be asked: {error}"))
            .help("check that the daemon runs and that this user may reach it")
    })?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => say!("ready\n"),
        Some(status) => {
            let said: String = body.chars().filter(|c| !c.is_control()).take(300).collect();
            Err(Failure::new(Exit::Unavailable, format!("not ready: {status} {said}")))
        }
        None => Err(Failure::new(Exit::Unavailable, format!("{name} does not answer in HTTP"))),
    }
}

fn place(args: ReadyArgs, settings: &Settings) -> Result<Place, Failure> {
    let authority = |url: &str| {
        let authority = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
        let is_one = |text: &&str| !text.is_empty() && !text.contains(['/', ' ', '\r', '\n']);
        authority.filter(is_one).map(str::to_owned)
    };
    if let Some(path) = args.socket {
        return Ok(Place::Socket(path));
    }
    if let Some(url) = args.url {
        let usage = || {
            Failure::new(Exit::Usage, format!("{url:?} is not of the form http://HOST:PORT"))
                .help("give the daemon's address without a path; for TLS ask on the unix socket")
        };
        return authority(&url).map(Place::Tcp).ok_or_else(usage);
    }
    let config = settings.config()?;
    if !config.server.socket.as_os_str().is_empty() {
        return Ok(Place::Socket(config.server.socket));
    }
    match config.server.listen {
        Some(address) if !config.tls.is_on() => Ok(Place::Tcp(address.to_string())),
        _ => Err(Failure::new(Exit::Config, "the configuration has no socket that can be asked")
            .help("set server.socket, or give --socket or --url")),
    }
}

async fn ask(place: &Place) -> std::io::Result<Vec<u8>> {
    match place {
        Place::Socket(path) => asked(UnixStream::connect(path).await?, "localhost").await,
        Place::Tcp(authority) => {
            let stream = TcpStream::connect(authority.as_str()).await?;
            asked(stream, authority).await
        }
    }
}

/// Sends the question; reads until the other end closes.
async fn asked(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
) -> std::io::Result<Vec<u8>> {
    let question = format!("GET /readyz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}
