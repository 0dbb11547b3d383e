//! `forebay serve`: the daemon. Here its parts are started and ended in order; requests are answered
//! by `forebay_server`, texts by the runtime.

mod notify;
mod supervise;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use forebay::config::LogFormat;
use forebay::metrics::prometheus::{self, FileWriter};
use forebay::{Config, Runtime};
use forebay_server::{Drained, Reloader, RunningServer, Server, ServerArgs, Service, sole_owner};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::notify::{Notifier, watchdog_interval};
use self::supervise::{Reloads, feed_watchdog, reload_when_asked, status_line, tell_level};
use crate::executor;
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::log;
use crate::out::note;
use crate::settings::Settings;

/// How long parts that have been told to end may hold on to what they share.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(5);

/// Serve embeddings over HTTP and gRPC, on a unix socket or TCP
///
/// Listens where the configuration says: by default on /run/forebay/forebay.sock, with an operator's
/// socket beside it. Addresses given here are all there are. SIGTERM and SIGINT end in order, SIGHUP
/// reads the configuration again; a bad one changes nothing.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  forebay serve --listen 127.0.0.1:8080
  forebay serve --socket /tmp/forebay.sock --model models/all-MiniLM-L6-v2
  forebay serve --config /etc/forebay/forebay.toml")]
pub(crate) struct ServeArgs {
    /// Listen on this TCP address; any other than a loopback one needs keys or client certificates
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Listen on this unix socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Let the operator in on this unix socket
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
}

impl ServeArgs {
    /// The settings in effect, read anew.
    fn config(&self, settings: &Settings) -> Result<Config, Failure> {
        let mut config = settings.runtime_config()?;
        let server = &mut config.server;
        if self.listen.is_some() || self.socket.is_some() {
            server.listen = self.listen;
            server.socket = self.socket.clone().unwrap_or_default();
            server.admin_socket = PathBuf::new();
        }
        if let Some(path) = &self.admin_socket {
            server.admin_socket = path.clone();
        }
        config.validate()?;
        Ok(config)
    }
}

/// Runs the command.
///
/// # Errors
/// Whatever is needed and not there, at the start; or an accept loop that failed.
pub(crate) fn run(args: ServeArgs, settings: Settings) -> Result<(), Failure> {
    let config = args.config(&settings)?;
    executor(config.server.thread_count())?.block_on(serve(args, settings, config))
}

async fn serve(args: ServeArgs, settings: Settings, config: Config) -> Result<(), Failure> {
    let mut interrupt = Interrupt::listen()?;
    let hangup =
        signal(SignalKind::hangup()).map_err(|error| cannot("listen to SIGHUP", &error))?;
    // What can be told to be wrong at once is, before a model is read.
    Server::check(&config)?;
    let level = log::start_adjustable(&config.log);
    let notifier = Notifier::from_env().map_err(|error| cannot("use NOTIFY_SOCKET", &error))?;
    let notifier = Arc::new(notifier);
    let metrics = metrics(&config)?;
    notifier.status("starting workers");
    let runtime = tokio::select! {
        started = Runtime::start(config) => started?,
        exit = interrupt.raised() => {
            tracing::info!(?exit, "asked to end before anything served");
            return Ok(());
        }
    };
    let service = Arc::new(Service::new(runtime));
    let (ask, asked) = mpsc::channel(1);
    let server = Server::start(ServerArgs { service: Arc::clone(&service), reloads: ask });
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            end_runtime(service).await;
            return Err(error.into());
        }
    };
    // Who collects the log has it from there.
    if service.config().log.format == LogFormat::Text {
        for address in server.handle().addresses() {
            note!("listening on {address}");
        }
    }
    let load = move || args.config(&settings).map_err(|failure| failure.message);
    let on_config = move |config: &Config| level.set(config.log.level);
    let reloader = Reloader::new(server.handle(), Box::new(load), Box::new(on_config));
    notifier.ready(&status_line(&service));
    let daemon = Daemon::start(server, service, notifier, reloader, (hangup, asked));
    let ended = daemon.run(&mut interrupt).await;
    drop(metrics);
    ended
}

fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("cannot {what}: {error}"))
}

/// The recorder of the process, and its file if one is configured.
fn metrics(config: &Config) -> Result<Option<FileWriter>, Failure> {
    let handle = prometheus::install_with(&forebay_server::all_metrics())
        .map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    let Some(path) = &config.metrics.prometheus_file else { return Ok(None) };
    let interval = Duration::from_millis(config.metrics.prometheus_interval_ms.into());
    let writer =
        handle.write_every(path, interval).map_err(|error| Failure::creating(path, &error))?;
    Ok(Some(writer))
}

/// Everything that runs.
struct Daemon {
    server: RunningServer,
    service: Arc<Service>,
    notifier: Arc<Notifier>,
    /// The status line and the watchdog.
    telling: JoinSet<()>,
    stop_reloads: oneshot::Sender<()>,
    reloads: JoinSet<()>,
}

impl Daemon {
    fn start(
        server: RunningServer,
        service: Arc<Service>,
        notifier: Arc<Notifier>,
        reloader: Reloader,
        (hangup, asked): (tokio::signal::unix::Signal, mpsc::Receiver<forebay_server::ReloadAsked>),
    ) -> Self {
        let mut telling = JoinSet::new();
        telling.spawn(tell_level(Arc::clone(&service), Arc::clone(&notifier)));
        if let Some(every) = watchdog_interval() {
            telling.spawn(feed_watchdog(server.handle(), Arc::clone(&notifier), every));
        }
        let (stop_reloads, stop) = oneshot::channel();
        let mut reloads = JoinSet::new();
        let asked = Reloads { hangup, asked, stop };
        let (told, teller) = (Arc::clone(&service), Arc::clone(&notifier));
        reloads.spawn(reload_when_asked(reloader, asked, told, teller));
        Self { server, service, notifier, telling, stop_reloads, reloads }
    }

    /// Serves until the end is asked for, and ends in order.
    async fn run(mut self, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let outcome = tokio::select! {
            exit = interrupt.raised() => {
                tracing::info!(?exit, "asked to end");
                Ok(())
            }
            () = self.server.ended() => {
                Err(Failure::new(Exit::Failed, "a listener has failed")
                    .help("look into the log; this is a fault of the program"))
            }
        };
        self.end().await;
        outcome
    }

    /// Answers what was accepted, ends the workers.
    async fn end(self) {
        let Self { server, service, notifier, mut telling, stop_reloads, mut reloads } = self;
        notifier.stopping();
        // It ends by itself if it has ended already.
        stop_reloads.send(()).ok();
        let Drained { cut } = server.drain().await;
        if cut > 0 {
            tracing::warn!(cut, "requests took longer than server.drain_deadline_ms");
        }
        while reloads.join_next().await.is_some() {}
        telling.shutdown().await;
        end_runtime(service).await;
    }
}

/// Ends the runtime that answered last.
async fn end_runtime(service: Arc<Service>) {
    let runtime = match sole_owner(service, LET_GO_TIME_MAX).await {
        Ok(service) => service.into_runtime(),
        Err(shared) => shared.runtime(),
    };
    match sole_owner(runtime, LET_GO_TIME_MAX).await {
        Ok(runtime) => {
            if !runtime.shutdown().await.drained {
                tracing::warn!("texts were given up: they took longer than shutdown.drain_ms");
            }
        }
        // Its workers end with this process.
        Err(_) => tracing::error!("the runtime is still in use and ends with the process"),
    }
}
