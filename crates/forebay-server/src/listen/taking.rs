//! Whether a client takes its answer over HTTP/2. There a client can hold an answer back by its
//! windows while the socket has room, and hyper does not ask for more of an answer that is held
//! back: nothing that an answer does by itself happens then. So the task of each stream has a time
//! for it, and gives up what is not taken within.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use forebay::config::LimitsConfig;
use http::{Request, Version};
use hyper::rt::Executor;

use super::alarm::Alarm;
use super::dialogue;
use super::metrics::{ConnectionMetrics, Cut};
use super::pace::Pace;
use super::standing::Standing;
use crate::grpc;

/// A part of an answer that hyper was given and has not passed on yet.
#[derive(Clone, Copy)]
struct Offer {
    since: Instant,
    /// When it is given up.
    until: Instant,
    /// Whether that is the client's own wish.
    is_wished: bool,
}

tokio::task_local! {
    /// The offer of the stream that a task serves.
    static OFFER: Cell<Option<Offer>>;
}

/// How the answer to one request is taken.
pub(crate) struct Taking {
    standing: Arc<Standing>,
    pace: Pace,
    /// Whether each part has the whole time: who takes little of a dialogue is not slow.
    is_dialogue: bool,
    /// When the client itself gives the call up.
    wished: Option<Instant>,
    /// Until when it may stand still.
    until: Option<Instant>,
    offered_bytes: Option<usize>,
}

impl Taking {
    /// For the answer to a request that comes now; `None` for HTTP/1, where the socket tells.
    pub(crate) fn of<B>(
        request: &Request<B>,
        standing: &Arc<Standing>,
        limits: &LimitsConfig,
    ) -> Option<Self> {
        if request.version() < Version::HTTP_2 {
            return None;
        }
        let is_dialogue = grpc::is_dialogue(request.uri().path(), request.headers());
        Some(Self {
            standing: Arc::clone(standing),
            pace: if is_dialogue { dialogue::pace(limits) } else { Pace::of(limits) },
            is_dialogue,
            wished: grpc::given_up_at(request.headers(), Instant::now()),
            until: None,
            offered_bytes: None,
        })
    }

    /// More is asked for: what was given before has been passed on.
    pub(crate) fn taken(&mut self) {
        let Some(bytes) = self.offered_bytes.take() else { return };
        let now = Instant::now();
        self.standing.taken(now);
        self.until = match self.until {
            Some(until) if !self.is_dialogue => Some(self.pace.after(until, bytes, now)),
            _ => None,
        };
        set(None);
    }

    /// So much is given.
    pub(crate) fn offer(&mut self, bytes: usize) {
        let since = Instant::now();
        let until = *self.until.get_or_insert_with(|| self.pace.begin(since));
        let wished = self.wished.filter(|wished| *wished < until);
        let offer = Offer { since, until: wished.unwrap_or(until), is_wished: wished.is_some() };
        self.offered_bytes = Some(bytes);
        set(Some(offer));
    }

    /// There is nothing to give now, so nobody can be late.
    pub(crate) fn wait(&mut self) {
        self.until = None;
    }
}

fn set(offer: Option<Offer>) {
    // HTTP/2 is served by `StreamTasks` alone; an answer that is polled elsewhere has no time.
    OFFER.try_with(|cell| cell.set(offer)).ok();
}

/// Serves the streams of one connection, a task each.
#[derive(Clone)]
pub(crate) struct StreamTasks(pub(crate) Arc<Standing>);

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(OFFER.scope(Cell::new(None), held_to_time(stream, Arc::clone(&self.0))));
    }
}

/// A stream until it is over, or its answer has not been taken in time: dropping it resets it.
async fn held_to_time(stream: impl Future<Output = ()>, standing: Arc<Standing>) {
    let mut stream = pin!(stream);
    let mut alarm = Alarm::default();
    let missed = poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let Some(offer) = OFFER.with(Cell::get) else {
            alarm.silence();
            return Poll::Pending;
        };
        alarm.poll(offer.until, context).map(|()| Some(offer))
    });
    match missed.await {
        // Nobody asks for more behind the last part of an answer.
        None => standing.taken(Instant::now()),
        Some(offer) if offer.is_wished => {}
        // The client reads other answers: only this one goes.
        Some(offer) if standing.has_taken_since(offer.since) => {
            ConnectionMetrics::get().cut(Cut::Write);
        }
        Some(_) => standing.cut(Cut::Write),
    }
}
