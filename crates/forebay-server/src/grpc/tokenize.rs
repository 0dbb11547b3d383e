//! Texts to tokens and back. A stream has one message under way; the next is read once it is
//! answered.

use std::time::{Duration, Instant};

use futures::stream;
use tonic::{Request, Response, Status, Streaming};

use super::call;
use super::refused::Answers;
use super::status::{broken, refuse};
use super::tei::tokenize_server;
use super::tei::{DecodeRequest, DecodeResponse, EncodeRequest, EncodeResponse, SimpleToken};
use crate::api::{Api, Problem, empty, no_prompts, tokens};

/// The service `tei.v1.Tokenize`.
pub(super) struct Tokenize(pub(super) Api);

fn place(value: Option<usize>) -> Option<u32> {
    value.and_then(|value| u32::try_from(value).ok())
}

fn simple(token: forebay::Token) -> SimpleToken {
    let forebay::Token { id, text, special, start, stop } = token;
    SimpleToken { id, text, special, start: place(start), stop: place(stop) }
}

async fn encode(
    api: Api,
    request: EncodeRequest,
    time: Duration,
) -> Result<EncodeResponse, Problem> {
    no_prompts(request.prompt_name.as_deref())?;
    let text = request.inputs;
    if text.is_empty() {
        return Err(empty("inputs"));
    }
    tokens::check_bytes(&api, text.len())?;
    let special = request.add_special_tokens;
    let work = move |runtime: &forebay::Runtime| runtime.tokenizer().tokenize(&text, special);
    let found = tokens::apart(&api, time, work).await?;
    Ok(EncodeResponse { tokens: found.into_iter().map(simple).collect() })
}

async fn decode(
    api: Api,
    request: DecodeRequest,
    time: Duration,
) -> Result<DecodeResponse, Problem> {
    let DecodeRequest { ids, skip_special_tokens } = request;
    if ids.is_empty() {
        return Err(empty("ids"));
    }
    let work =
        move |runtime: &forebay::Runtime| runtime.tokenizer().decode(&ids, skip_special_tokens);
    Ok(DecodeResponse { text: tokens::apart(&api, time, work).await? })
}

/// How long the call may take that came just now.
fn time(api: &Api, until: Option<Instant>) -> Duration {
    let now = Instant::now();
    call::deadline(api, until, now).saturating_duration_since(now)
}

/// Answers one message.
async fn one<Q, A, F>(
    api: &Api,
    request: Request<Q>,
    answer: impl FnOnce(Api, Q, Duration) -> F,
) -> Result<Response<A>, Status>
where
    F: Future<Output = Result<A, Problem>>,
{
    let answering = async {
        let until = call::until(request.metadata(), Instant::now())?;
        answer(api.clone(), request.into_inner(), time(api, until)).await
    };
    answering.await.map(Response::new).map_err(|problem| refuse(api, problem))
}

/// Answers messages one after the other; the first that has no answer ends the stream.
fn each<Q, A, F>(
    api: &Api,
    request: Request<Streaming<Q>>,
    answer: fn(Api, Q, Duration) -> F,
) -> Result<Response<Answers<A>>, Status>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Future<Output = Result<A, Problem>> + Send + 'static,
{
    let until = call::until(request.metadata(), Instant::now());
    let until = until.map_err(|problem| refuse(api, problem))?;
    let begun = Some((api.clone(), request.into_inner()));
    let answers = stream::unfold(begun, move |state| async move {
        let (api, mut requests) = state?;
        let message = match until {
            Some(until) => tokio::time::timeout_at(until.into(), requests.message()).await,
            None => Ok(requests.message().await),
        };
        let late =
            forebay::EmbedError::DeadlineExceeded { waiting: "waiting for the next message" };
        let answered = match message {
            Ok(Ok(Some(request))) => {
                let answered = answer(api.clone(), request, time(&api, until)).await;
                answered.map_err(|problem| refuse(&api, problem))
            }
            Ok(Ok(None)) => return None,
            Ok(Err(status)) => Err(broken(&api, status)),
            Err(_) => Err(refuse(&api, late)),
        };
        let next = answered.is_ok().then_some((api, requests));
        Some((answered, next))
    });
    Ok(Response::new(Box::pin(answers)))
}

#[tonic::async_trait]
impl tokenize_server::Tokenize for Tokenize {
    type TokenizeStreamStream = Answers<EncodeResponse>;
    type DecodeStreamStream = Answers<DecodeResponse>;

    async fn tokenize(
        &self,
        request: Request<EncodeRequest>,
    ) -> Result<Response<EncodeResponse>, Status> {
        one(&self.0, request, encode).await
    }

    async fn tokenize_stream(
        &self,
        request: Request<Streaming<EncodeRequest>>,
    ) -> Result<Response<Self::TokenizeStreamStream>, Status> {
        each(&self.0, request, encode)
    }

    async fn decode(
        &self,
        request: Request<DecodeRequest>,
    ) -> Result<Response<DecodeResponse>, Status> {
        one(&self.0, request, decode).await
    }

    async fn decode_stream(
        &self,
        request: Request<Streaming<DecodeRequest>>,
    ) -> Result<Response<Self::DecodeStreamStream>, Status> {
        each(&self.0, request, decode)
    }
}
