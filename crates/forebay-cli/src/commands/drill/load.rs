//! The load of a drill: clients that submit texts at random moments whether or not earlier ones are
//! done, and the recorder of all that happens. What the runtime does with it is not judged here.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay::{EmbedOptions, Runtime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;

use super::answers::digest;
use super::event::{Event, HEADER};
use super::tally::{Tallied, Tally};
use crate::commands::bench::open_loop::{Load, arrivals, wait_until};
use crate::failure::{Exit, Failure};

/// Events that wait to be recorded.
const EVENTS_WAITING: usize = 1 << 16;
/// Bits of a request's number that count the requests of one client.
const CLIENT_SHIFT: u32 = 40;

/// How the clients behave.
pub(super) struct Plan {
    pub(super) runtime: Arc<Runtime>,
    pub(super) texts: Arc<[String]>,
    /// Texts per second of all clients together.
    pub(super) rate: f64,
    pub(super) clients: u32,
    pub(super) seed: u64,
    /// How long after its submission a text is worth an answer; `None` for ever.
    pub(super) deadline: Option<Duration>,
}

/// Clients at work. Dropping it tells them to stop.
pub(super) struct Running {
    zero: Instant,
    stop: Arc<AtomicBool>,
    /// Accepted requests without a recorded reply.
    outstanding: Arc<AtomicU64>,
    caught_up_us: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    clients: Vec<std::thread::JoinHandle<()>>,
    recorder: Option<std::thread::JoinHandle<Result<Tallied, Failure>>>,
}

impl Running {
    /// Starts the clients, and the recorder with its history if there is to be one.
    ///
    /// # Errors
    /// The file cannot be created; a thread cannot be started.
    pub(super) fn start(plan: Plan, tally: Tally, history: Option<&Path>) -> Result<Self, Failure> {
        let history = history.map(History::create).transpose()?;
        let (events, arrived) = mpsc::channel(EVENTS_WAITING);
        let caught_up_us = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&caught_up_us);
        let recorder = thread("fb-record", move || record(arrived, tally, history, &shown))?;
        let mut running = Self {
            zero: Instant::now(),
            stop: Arc::default(),
            outstanding: Arc::default(),
            caught_up_us,
            events,
            clients: Vec::new(),
            recorder: Some(recorder),
        };
        let plan = Arc::new(plan);
        for number in 0..plan.clients {
            let client = Client {
                number,
                plan: Arc::clone(&plan),
                zero: running.zero,
                stop: Arc::clone(&running.stop),
                outstanding: Arc::clone(&running.outstanding),
                events: running.events.clone(),
                tasks: tokio::runtime::Handle::current(),
            };
            running.clients.push(thread("fb-client", move || client.run())?);
        }
        Ok(running)
    }

    /// Notes something in the order of events.
    pub(super) async fn note(&self, event: impl FnOnce(u64) -> Event) {
        // A recorder that is gone says why at the end.
        self.events.send(event(microseconds(self.zero.elapsed()))).await.ok();
    }

    /// Whether a text that was due after `moment` has been answered in time.
    pub(super) fn caught_up(&self, moment: Instant) -> bool {
        let moment = microseconds(moment.saturating_duration_since(self.zero));
        self.caught_up_us.load(Ordering::Relaxed) > moment
    }

    /// Whether the recorder has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.events.is_closed()
    }

    /// Stops the clients, waits for the replies that are under way, at most for `patience`, and gives
    /// what it all comes to.
    ///
    /// # Errors
    /// The history could not be written; a thread panicked.
    pub(super) async fn end(mut self, patience: Duration) -> Result<Tallied, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let joined = tokio::task::spawn_blocking(move || {
            clients.into_iter().all(|client| client.join().is_ok())
        });
        let sound = joined.await.unwrap_or(false);
        let until = Instant::now() + patience;
        while self.outstanding.load(Ordering::Acquire) > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.note(|at_us| Event::End { at_us }).await;
        let panicked = || Failure::new(Exit::Failed, "a thread of the drill panicked");
        let recorder = self.recorder.take().ok_or_else(panicked)?;
        let recorded = tokio::task::spawn_blocking(move || recorder.join()).await;
        let tallied = recorded.ok().and_then(Result::ok).ok_or_else(panicked)?;
        if sound { tallied } else { Err(panicked()) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One client, in a thread of its own.
struct Client {
    number: u32,
    plan: Arc<Plan>,
    zero: Instant,
    stop: Arc<AtomicBool>,
    outstanding: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    tasks: tokio::runtime::Handle,
}

impl Client {
    fn run(self) {
        let Plan { texts, rate, clients, seed, .. } = &*self.plan;
        let seed = seed.wrapping_add(u64::from(self.number));
        // Independent random arrivals add up to random arrivals.
        let load = Load { rate: rate / f64::from(*clients), seconds: f64::INFINITY, seed };
        let mut random = StdRng::seed_from_u64(!seed);
        let first = u64::from(self.number) << CLIENT_SHIFT;
        for (request, at) in (first..).zip(arrivals(load)) {
            wait_until(self.zero + at);
            let text = random.random_range(0..texts.len());
            if self.stop.load(Ordering::Relaxed) || !self.submit(request, text, at) {
                return;
            }
        }
    }

    /// Submits a text; `false` if nobody records any more.
    fn submit(&self, request: u64, text: usize, at: Duration) -> bool {
        let Some(content) = self.plan.texts.get(text) else { return false };
        let invoke = Event::Invoke {
            request,
            client: self.number,
            text: u32::try_from(text).unwrap_or(u32::MAX),
            scheduled_us: microseconds(at),
            at_us: microseconds(self.zero.elapsed()),
        };
        // Noted first, so that no reply can come before it.
        if self.events.blocking_send(invoke).is_err() {
            return false;
        }
        // A deadline is a moment: each text has its own.
        let options = EmbedOptions::default();
        let options = self.plan.deadline.map_or(options, |after| options.within(after));
        match self.plan.runtime.try_submit(content.as_str(), &options) {
            Ok(ticket) => {
                self.outstanding.fetch_add(1, Ordering::AcqRel);
                let (events, zero) = (self.events.clone(), self.zero);
                let outstanding = Arc::clone(&self.outstanding);
                drop(self.tasks.spawn(async move {
                    let result = ticket.await;
                    let at_us = microseconds(zero.elapsed());
                    let outcome = match &result {
                        Ok(embedding) => Ok(digest(&embedding.vector)),
                        Err(error) => Err(error.code()),
                    };
                    events.send(Event::Reply { request, at_us, outcome }).await.ok();
                    outstanding.fetch_sub(1, Ordering::AcqRel);
                }));
                true
            }
            Err(error) => {
                let at_us = microseconds(self.zero.elapsed());
                let kind = error.code();
                self.events.blocking_send(Event::Refused { request, at_us, kind }).is_ok()
            }
        }
    }
}

/// The history file, written line by line as things happen.
struct History {
    name: String,
    file: std::io::BufWriter<std::fs::File>,
}

impl History {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = std::fs::File::create(path).map_err(|error| Failure::creating(path, &error))?;
        let mut file = std::io::BufWriter::new(file);
        let name = path.display().to_string();
        writeln!(file, "{HEADER}").map_err(|error| Failure::writing(&name, &error))?;
        Ok(Self { name, file })
    }

    fn check(&self, written: std::io::Result<()>) -> Result<(), Failure> {
        written.map_err(|error| Failure::writing(&self.name, &error))
    }
}

/// Counts and writes every event until the last.
fn record(
    mut events: mpsc::Receiver<Event>,
    mut tally: Tally,
    mut history: Option<History>,
    caught_up_us: &AtomicU64,
) -> Result<Tallied, Failure> {
    loop {
        let event = match events.try_recv() {
            Ok(event) => Some(event),
            Err(_) => {
                // Nothing to do: a good time to have everything on the disk.
                if let Some(history) = &mut history {
                    let flushed = history.file.flush();
                    history.check(flushed)?;
                }
                events.blocking_recv()
            }
        };
        // Without a last event the drill was broken off.
        let Some(event) = event else { break };
        tally.take(&event);
        caught_up_us.store(tally.caught_up_us(), Ordering::Relaxed);
        if let Some(history) = &mut history {
            let written = writeln!(history.file, "{event}");
            history.check(written)?;
        }
        if matches!(event, Event::End { .. }) {
            break;
        }
    }
    if let Some(history) = &mut history {
        let flushed = history.file.flush();
        history.check(flushed)?;
    }
    Ok(tally.finish())
}

fn thread<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot start a thread: {error}"))
            .help("raise the limit of threads of this user")
    })
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
