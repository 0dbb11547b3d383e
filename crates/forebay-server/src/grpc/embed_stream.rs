//! Texts of a stream: each is submitted as it arrives, so that they share batches; answers go out in
//! the order of the texts.
//!
//! No more than `limits.grpc_stream_texts_max` are under way at once. Beyond that, and while there is
//! no room at the gate or the client does not take its answers, nothing is read, and the window of
//! HTTP/2 holds the client back. The first text is refused at once if there is no room; the others
//! wait for it, until their deadline. The first text that has no embedding ends the stream in its
//! turn, and those behind it are given up. So they are when the client leaves.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use forebay::{Runtime, Ticket};
use futures::{Stream, stream};
use tonic::{Status, Streaming};

use super::call;
use super::embed::answer;
use super::observe::StreamTexts;
use super::status::{broken, refuse};
use super::tei::{EmbedRequest, EmbedResponse};
use crate::api::{Api, Kind, Problem};
use crate::trace::{current, scoped};

/// A text that has been accepted.
struct Text {
    ticket: Ticket,
    characters: usize,
    started: Instant,
    /// A runtime that has been replaced goes on until nobody holds it.
    _runtime: Arc<Runtime>,
}

/// A text in its turn: accepted, or why the stream ends there.
type Turn = Result<Text, Status>;

/// A text on its way through the gate.
type Entering = Pin<Box<dyn Future<Output = Result<Text, Problem>> + Send>>;

/// A stream between two answers.
struct Texts {
    api: Api,
    requests: Streaming<EmbedRequest>,
    turns: VecDeque<Turn>,
    entering: Option<Entering>,
    /// The client has ended its side, or is no longer listened to.
    is_over: bool,
    has_begun: bool,
    /// By when the client wants the whole stream to be over.
    until: Option<Instant>,
    texts_max: usize,
    counted: StreamTexts,
}

/// The answers to a stream of texts, which is to be over by `until`.
pub(super) fn answers(
    api: Api,
    requests: Streaming<EmbedRequest>,
    until: Option<Instant>,
) -> impl Stream<Item = Result<EmbedResponse, Status>> + Send {
    let texts = Texts {
        requests,
        turns: VecDeque::new(),
        entering: None,
        is_over: false,
        has_begun: false,
        until,
        texts_max: api.stream_texts_max(),
        counted: api.metrics().stream_texts(),
        api,
    };
    // Answers are asked for when the call has been taken in, so its trace is taken along.
    let trace = current();
    stream::unfold(Some(texts), move |texts| {
        let trace = trace.clone();
        scoped(trace, next(texts))
    })
}

/// The next answer of a stream, and what is left of it.
async fn next(texts: Option<Texts>) -> Option<(Result<EmbedResponse, Status>, Option<Texts>)> {
    let mut texts = texts?;
    match texts.next().await? {
        Ok(answer) => Some((Ok(answer), Some(texts))),
        // Nothing comes after the status; what is left is given up.
        Err(status) => Some((Err(status), None)),
    }
}

impl Texts {
    /// The next answer; `None` after the last.
    async fn next(&mut self) -> Option<Result<EmbedResponse, Status>> {
        loop {
            self.counted.are(self.turns.len() + usize::from(self.entering.is_some()));
            let Self { requests, turns, entering, .. } = self;
            if self.is_over && turns.is_empty() && entering.is_none() {
                return None;
            }
            let has_room = entering.is_none() && turns.len() < self.texts_max;
            tokio::select! {
                biased;
                () = over(self.until) => {
                    let message = "the stream was not over within grpc-timeout; texts without an \
                                   answer are given up";
                    return Some(Err(refuse(&self.api, Problem::new(Kind::Deadline, message))));
                }
                entered = entered(entering) => {
                    self.entering = None;
                    self.take(entered.map_err(|problem| refuse(&self.api, problem)));
                }
                // Before the answers: texts that arrive together are to be computed together.
                message = requests.message(), if has_room && !self.is_over => match message {
                    Ok(Some(request)) => self.enter(request),
                    Ok(None) => self.is_over = true,
                    Err(status) => {
                        let status = broken(&self.api, status);
                        self.take(Err(status));
                    }
                },
                answered = first(turns) => {
                    self.turns.pop_front();
                    return Some(answered.map_err(|problem| match problem {
                        Ended::Refused(problem) => refuse(&self.api, problem),
                        Ended::Status(status) => status,
                    }));
                }
            }
        }
    }

    /// The next in turn; nothing is read behind a text that ends the stream.
    fn take(&mut self, turn: Turn) {
        self.is_over |= turn.is_err();
        self.turns.push_back(turn);
    }

    /// Submits a text: at once if it is the first, else when there is room.
    fn enter(&mut self, request: EmbedRequest) {
        let started = Instant::now();
        let options = match request.options(call::deadline(&self.api, self.until, started)) {
            Ok(options) => options,
            Err(problem) => {
                let status = refuse(&self.api, problem);
                return self.take(Err(status));
            }
        };
        if let Some(trace) = current() {
            trace.priority(options.priority.as_str());
        }
        let characters = request.inputs.chars().count();
        let runtime = self.api.runtime();
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        self.entering = Some(Box::pin(async move {
            let ticket = if is_first {
                runtime.try_submit(request.inputs, &options)?
            } else {
                runtime.submit(request.inputs, &options).await?
            };
            Ok(Text { ticket, characters, started, _runtime: runtime })
        }));
    }
}

/// Why a turn has no answer.
enum Ended {
    Refused(Problem),
    Status(Status),
}

/// Waits for the answer of the first in turn.
async fn first(turns: &mut VecDeque<Turn>) -> Result<EmbedResponse, Ended> {
    match turns.front_mut() {
        Some(Ok(text)) => match (&mut text.ticket).await {
            Ok(row) => {
                if let Some(trace) = current() {
                    trace.texts(text.ticket.submitted_at(), [&row]);
                }
                Ok(answer(row, text.characters, text.started))
            }
            Err(error) => Err(Ended::Refused(error.into())),
        },
        Some(Err(status)) => Err(Ended::Status(status.clone())),
        None => pending().await,
    }
}

async fn entered(entering: &mut Option<Entering>) -> Result<Text, Problem> {
    match entering {
        Some(entering) => entering.await,
        None => pending().await,
    }
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => pending().await,
    }
}
