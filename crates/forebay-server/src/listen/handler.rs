//! One request on its way through the guards to its handler, held to the time it may take. The
//! answer carries the request's id, and tells the client when the daemon is about to end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::Service as HyperService;
use tower::ServiceExt;
use tracing::Instrument;
use tracing::field::Empty;

use super::Shared;
use super::body::{Complete, Fate, GuardedBody, LimitedBody};
use super::dialogue::{Answered, DialogueAnswer, DialogueBody};
use super::held::Held;
use super::metrics::{ConnectionMetrics, Listener, Refused};
use super::standing::{Claim, Standing};
use super::taking::Taking;
use crate::api::Problem;
use crate::grpc;
use crate::guard::refusal::{answer, dialect, too_slow};
use crate::guard::request_id::{RequestId, X_REQUEST_ID};
use crate::guard::{self, Asker};
use crate::policy::Policy;
use crate::trace::{Ending, current, scoped};

/// How a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) listener: Listener,
    /// User and primary group of the other end of a unix socket.
    pub(crate) user: Option<(u32, u32)>,
}

/// Answers the requests of one connection.
pub(crate) struct Handler {
    pub(crate) shared: Arc<Shared>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) came: Came,
    pub(crate) router: Router,
}

type Answer = Response<GuardedBody<Body, UnderWay>>;

impl HyperService<Request<Incoming>> for Handler {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let policy = self.shared.policy.load_full();
        let id = RequestId::of(request.headers());
        let span = tracing::error_span!("request", id = id.as_str(), trace_id = Empty);
        let (mut ending, mut trace) = (None, None);
        if let (Some(tracer), false) = (&self.shared.tracer, self.came.listener == Listener::Admin)
        {
            let (begun, trace_id) = tracer.begin(&request, &id);
            trace = begun.as_ref().map(|ending| ending.trace().clone());
            ending = begun;
            span.record("trace_id", trace_id.map(tracing::field::display));
        }
        let (claim, held) = (claim(&request, &policy), self.shared.body_bytes.hold());
        let resets_max = policy.limits.resets_max;
        let under_way = UnderWay::begin(&self.standing, claim, resets_max, held, ending);
        let taking = Taking::of(&request, &self.standing, &policy.limits);
        let (shared, came) = (Arc::clone(&self.shared), self.came);
        let router = self.router.clone();
        let answering = async move {
            let version = request.version();
            let (method, start) = (request.method().clone(), Instant::now());
            let path = request.uri().path().to_owned();
            let responding =
                respond(&shared, &policy, came, router, request, (&id, &under_way.held));
            let mut response = scoped(trace.clone(), responding).await;
            if let Some(trace) = trace {
                trace.answered(response.status());
            }
            under_way.held.take(response.body().size_hint().exact().unwrap_or(0));
            let headers = response.headers_mut();
            headers.insert(X_REQUEST_ID, id.header());
            if shared.service.is_draining() && version <= Version::HTTP_11 {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let (status, took) = (response.status().as_u16(), start.elapsed());
            tracing::debug!(%method, path, status, ?took, "answered");
            Ok(response.map(|body| GuardedBody::new(body, under_way, taking)))
        };
        Box::pin(answering.instrument(span))
    }
}

/// What a request means for the place of its connection.
fn claim<B>(request: &Request<B>, policy: &Policy) -> Claim {
    let (path, headers) = (request.uri().path(), request.headers());
    match grpc::listens(path, headers) {
        false => Claim::Answer,
        true if policy.keys.admit(headers) => Claim::Listen,
        true => Claim::Nothing,
    }
}

/// The answer to one request.
async fn respond(
    shared: &Shared,
    policy: &Policy,
    came: Came,
    router: Router,
    request: Request<Incoming>,
    (id, held): (&RequestId, &Arc<Held>),
) -> Response {
    let metrics = ConnectionMetrics::get();
    let (mut parts, body) = request.into_parts();
    let dialect = dialect(came.listener, &parts);
    let trace = current();
    let say = |problem: Problem| {
        if let Some(trace) = &trace {
            trace.problem(problem.code);
        }
        answer(&problem, dialect, &shared.service)
    };
    let refuse = |refused: Refused| {
        metrics.refused(refused);
        say(refused.problem())
    };
    match (guard::check(policy, came, &parts), &trace) {
        (Err(refused), _) => return refuse(refused),
        (Ok(Asker::Known), Some(trace)) => trace.let_in(),
        (Ok(_), _) => {}
    }
    parts.extensions.insert(id.clone());
    let (limits, fate) = (&policy.limits, Fate::default());
    let lasts =
        grpc::is_dialogue(parts.uri.path(), &parts.headers).then(|| Answered::new(Instant::now()));
    let body = match lasts.clone() {
        Some(answered) => {
            let ending = shared.service.no_more_taken();
            Body::new(DialogueBody::new(body, limits, answered, ending))
        }
        None => Body::new(LimitedBody::new(body, limits, Arc::clone(held), fate.clone())),
    };
    let request = Request::from_parts(parts, body);
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // What handlers make of an error of the body is theirs to say, but its status is not.
    if fate.is_too_large() {
        if response.status() != StatusCode::PAYLOAD_TOO_LARGE {
            response = say(Refused::BodySize.problem());
        }
        metrics.refused(Refused::BodySize);
    } else if fate.had_no_room() {
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            response = say(Refused::NoRoom.problem());
        }
        metrics.refused(Refused::NoRoom);
    } else if fate.is_too_slow() {
        if response.status() != StatusCode::REQUEST_TIMEOUT {
            response = say(too_slow());
        }
        metrics.cut(super::metrics::Cut::Body);
    }
    match lasts {
        Some(answered) => response.map(|inner| Body::new(DialogueAnswer { inner, answered })),
        None => response,
    }
}

/// A request of a connection, from its head to the end of its answer.
pub(crate) struct UnderWay {
    standing: Arc<Standing>,
    claim: Claim,
    resets_max: u32,
    answered: bool,
    /// What its body and its answer take.
    held: Arc<Held>,
    /// Its trace, which ends with it.
    _ending: Option<Ending>,
}

impl UnderWay {
    fn begin(
        standing: &Arc<Standing>,
        claim: Claim,
        resets_max: u32,
        held: Arc<Held>,
        ending: Option<Ending>,
    ) -> Self {
        standing.begin(claim);
        let standing = Arc::clone(standing);
        Self { standing, claim, resets_max, answered: false, held, _ending: ending }
    }
}

impl Complete for UnderWay {
    fn complete(&mut self) {
        self.answered = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.standing.end(self.claim, self.answered, Instant::now(), self.resets_max);
    }
}
