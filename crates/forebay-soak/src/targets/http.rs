//! A server as target: HTTP/1.1, or HTTP/2 for gRPC, over a unix socket or TCP, by connections that are
//! kept.
//!
//! Each connection carries one request at a time. That bounds them, says when a request really left,
//! and shows an answer that nobody asked for, which clients that share connections hide.

mod connection;
mod open;
mod tls;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::Fault;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{HeaderName, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::TrySendError;
use serde_json::json;
use tokio::sync::Semaphore;

use connection::{Connection, Strays};

use tls::Tls;

use super::address::Place;
use super::dialect::{self, Dialect};
use super::{Answer, Call, Look, Reading, Sent, Stray, Target, grpc, within};
use crate::error::SoakError;
use crate::sync::lock;

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time for a question about its state, and for a connection.
const ASK_TIME_MAX: Duration = Duration::from_secs(5);
/// A look is a request.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A connection that was not used for this long is not used again: a server that closes it while a
/// request is on its way would look as if it had lost that.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// Time for the end of a request whose answer is there already: the next one goes out on a connection
/// that carries nothing else.
const READY_TIME_MAX: Duration = Duration::from_millis(500);

/// Where a server is, and what it asks for.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it speaks.
    pub dialect: Dialect,
    /// How it is reached.
    pub place: Place,
    /// The operator's socket, which takes faults.
    pub admin: Option<Place>,
    /// The key that it asks for.
    pub key: Option<String>,
    /// The model to name, where the dialect wants one.
    pub model: Option<String>,
    /// PEM file with the authorities that vouch for it, where it is reached by TLS.
    pub authorities: Option<PathBuf>,
    /// Its process, if that is known.
    pub pid: Option<u32>,
    /// Connections at most.
    pub connections_max: u32,
}

/// A server.
pub struct HttpTarget {
    inner: Arc<Inner>,
}

struct Inner {
    server: Server,
    pool: Pool,
    host: HeaderValue,
    key: Option<HeaderValue>,
    tls: Option<Tls>,
    /// The process at the other end of a unix socket; 0 while it is not known.
    peer: AtomicU32,
}

/// Connections that are not in use, and leave to have more.
struct Pool {
    /// The latest used last, each with when that was.
    idle: Mutex<Vec<(Instant, Connection)>>,
    room: Arc<Semaphore>,
    strays: Strays,
}

impl HttpTarget {
    /// A server, which is asked once whether it is there.
    ///
    /// # Errors
    /// It cannot be reached; its key cannot be sent.
    pub async fn connect(server: Server) -> Result<Self, SoakError> {
        let host = match &server.place {
            Place::Unix(_) => "localhost",
            Place::Tcp(address) | Place::Tls(address) => address,
        };
        let tls = match &server.place {
            Place::Tls(address) => Some(Tls::to(address, server.authorities.as_deref())?),
            Place::Unix(_) | Place::Tcp(_) => None,
        };
        let header = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| SoakError::Usage("the key or the host cannot be sent".to_owned()))
        };
        let key = server.key.as_ref().map(|key| header(&format!("Bearer {key}"))).transpose()?;
        let inner = Inner {
            host: header(host)?,
            key,
            tls,
            pool: Pool {
                idle: Mutex::default(),
                room: Arc::new(Semaphore::new(server.connections_max as usize)),
                strays: Arc::default(),
            },
            peer: AtomicU32::new(0),
            server,
        };
        let target = Self { inner: Arc::new(inner) };
        let opened = target.inner.open(&target.inner.server.place, target.inner.is_grpc()).await;
        let connection = opened.map_err(|reason| SoakError::Unreachable {
            target: target.inner.server.place.to_string(),
            reason,
        })?;
        target.inner.keep(connection);
        Ok(target)
    }
}

impl Inner {
    fn is_grpc(&self) -> bool {
        self.server.dialect == Dialect::Grpc
    }

    /// A connection that is not in use, or a new one.
    async fn take(&self) -> Result<Connection, String> {
        loop {
            let idle = lock(&self.pool.idle).pop();
            match idle {
                // One that the server has closed meanwhile is not ready.
                Some((since, connection))
                    if since.elapsed() < IDLE_MAX && connection.sender.is_ready() =>
                {
                    return Ok(connection);
                }
                Some(_) => {}
                None => return self.open(&self.server.place, self.is_grpc()).await,
            }
        }
    }

    fn keep(&self, connection: Connection) {
        lock(&self.pool.idle).push((Instant::now(), connection));
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(Bytes::from(body)))
    }

    /// A request for embeddings of whose deadline so much is left.
    fn embedding(
        &self,
        call: &Call,
        left: Option<Duration>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let dialect = self.server.dialect;
        let body = dialect.body(call, left, self.server.model.as_deref());
        let path = dialect.path(call.texts.len());
        if !self.is_grpc() {
            return self.request(Method::POST, path, body);
        }
        // Of HTTP/2 the host is a part of the address.
        let host = self.host.to_str().unwrap_or("localhost");
        let request = Request::post(format!("http://{host}{path}"))
            .header(CONTENT_TYPE, grpc::CONTENT_TYPE)
            .header(TE, "trailers");
        let key = self.key.iter().map(|key| (AUTHORIZATION, key.clone()));
        let timeout = left.and_then(|left| HeaderValue::from_str(&grpc::timeout(left)).ok());
        let timeout = timeout.map(|left| (HeaderName::from_static(grpc::TIMEOUT), left));
        let all = key.chain(timeout);
        let request = all.fold(request, |request, (name, value)| request.header(name, value));
        request.body(Full::new(Bytes::from(body)))
    }

    async fn send(&self, call: Call) -> Sent {
        let taking = async {
            // It never closes.
            let permit = Arc::clone(&self.pool.room).acquire_owned().await;
            self.take().await.map(|connection| (connection, permit))
        };
        let until = call.deadline.map(|until| until.saturating_duration_since(Instant::now()));
        let room = until.map_or(call.connection_wait, |until| until.min(call.connection_wait));
        let taken = tokio::time::timeout(room, taking).await;
        let sent_at = Instant::now();
        let left = call.deadline.map(|deadline| deadline.saturating_duration_since(sent_at));
        let answer = match taken {
            // Nobody wants its answer any more, and the target was never asked.
            _ if left.is_some_and(|left| left.is_zero()) => {
                if let Ok(Ok((sender, _permit))) = taken {
                    self.keep(sender);
                }
                Answer::Refused("deadline_before_sent".into())
            }
            // It has not left, so nobody owes an answer.
            Err(_) => Answer::Refused("no_connection".into()),
            Ok(Err(_)) => Answer::Refused("unreachable".into()),
            Ok(Ok((connection, _permit))) => {
                let request = self.embedding(&call, left);
                let answering = self.answered(connection, call.number, request);
                let answered = within(call.wait, answering).await;
                let (answer, connection) = answered.unwrap_or_else(|lost| (lost, None));
                let over_at = Instant::now();
                if let Some(connection) = connection {
                    self.keep_once_ready(connection).await;
                }
                return Sent { sent_at, over_at, answer };
            }
        };
        Sent { sent_at, over_at: sent_at, answer }
    }

    /// The answer, and the connection if it came on it.
    async fn answered(
        &self,
        mut connection: Connection,
        number: u64,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> (Answer, Option<Connection>) {
        let request = match request {
            Ok(request) => request,
            Err(error) => return (Answer::Refused(error.to_string().into()), None),
        };
        connection.last.store(number, Ordering::Relaxed);
        let response = match connection.sender.try_send(request).await {
            Ok(response) => Ok(response),
            // The connection had ended before anything went out, so nobody owes an answer yet.
            Err(mut error) => match error.take_message() {
                Some(request) => match self.open(&self.server.place, self.is_grpc()).await {
                    Ok(fresh) => {
                        connection = fresh;
                        connection.last.store(number, Ordering::Relaxed);
                        let sent = connection.sender.try_send(request).await;
                        sent.map_err(TrySendError::into_error)
                    }
                    Err(_) => return (Answer::Refused("unreachable".into()), None),
                },
                None => Err(error.into_error()),
            },
        };
        match response {
            Ok(response) => (self.read(response).await, Some(connection)),
            Err(error) => (Answer::Lost(error.to_string()), None),
        }
    }

    /// Keeps a connection that has seen the end of an answer and of its request; a server that has
    /// answered need not read the rest of that, so it is not waited for long.
    async fn keep_once_ready(&self, mut connection: Connection) {
        match tokio::time::timeout(READY_TIME_MAX, connection.sender.ready()).await {
            Ok(Ok(())) => self.keep(connection),
            // It has ended.
            Ok(Err(_)) => {}
            Err(_) => connection.task.abort(),
        }
    }

    async fn read(&self, response: http::Response<hyper::body::Incoming>) -> Answer {
        let (head, body) = response.into_parts();
        match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
            Ok(body) => {
                let trailers = body.trailers().cloned();
                self.server.dialect.answer(&head, trailers.as_ref(), &body.to_bytes())
            }
            Err(error) => Answer::Lost(error.to_string()),
        }
    }

    /// Asks something on a connection of its own.
    async fn ask(
        &self,
        place: &Place,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), String> {
        let asking = async {
            let mut sender = self.open(place, false).await?.sender;
            let request = self.request(method, path, body).map_err(|error| error.to_string())?;
            let sent = sender.try_send(request).await;
            let response = sent.map_err(|error| error.error().to_string())?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let asked = tokio::time::timeout(ASK_TIME_MAX, asking).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {ASK_TIME_MAX:?}")))
    }
}

impl Target for HttpTarget {
    fn name(&self) -> String {
        format!("{}+{}", self.inner.server.dialect, self.inner.server.place)
    }

    fn send(&self, call: Call) -> BoxFuture<'static, Sent> {
        let inner = Arc::clone(&self.inner);
        async move { inner.send(call).await }.boxed()
    }

    fn knows_deadlines(&self) -> bool {
        self.inner.server.dialect.tells_deadlines()
    }

    fn tells(&self) -> bool {
        self.inner.server.dialect == Dialect::Native
    }

    fn look(&self) -> BoxFuture<'_, Option<Look>> {
        async {
            let inner = &self.inner;
            if !self.tells() {
                return None;
            }
            let asked =
                inner.ask(&inner.server.place, Method::GET, "/api/v1/status", Vec::new()).await;
            match asked {
                Ok((200, body)) => dialect::look(&body),
                _ => None,
            }
        }
        .boxed()
    }

    fn look_interval(&self) -> Duration {
        LOOK_INTERVAL
    }

    fn readings(&self) -> BoxFuture<'_, Vec<Reading>> {
        async {
            let inner = &self.inner;
            if inner.server.dialect != Dialect::Native {
                return Vec::new();
            }
            match inner.ask(&inner.server.place, Method::GET, "/metrics", Vec::new()).await {
                Ok((200, body)) => dialect::readings(&String::from_utf8_lossy(&body)),
                _ => Vec::new(),
            }
        }
        .boxed()
    }

    fn counted<'t>(&'t self, name: &'t str) -> BoxFuture<'t, Option<u64>> {
        async move {
            let inner = &self.inner;
            if inner.server.dialect != Dialect::Native {
                return None;
            }
            let place = &inner.server.place;
            match inner.ask(place, Method::GET, "/metrics", Vec::new()).await {
                Ok((200, body)) => Some(dialect::counted(&String::from_utf8_lossy(&body), name)),
                _ => None,
            }
        }
        .boxed()
    }

    fn inject<'t>(
        &'t self,
        device: Option<&'t str>,
        fault: Fault,
    ) -> BoxFuture<'t, Result<(), String>> {
        async move {
            let Some(admin) = &self.inner.server.admin else {
                return Err("the operator's socket is not named; use --admin PATH".to_owned());
            };
            let mut body = HashMap::from([("fault", json!(fault.to_string()))]);
            if let Some(device) = device {
                body.insert("device", json!(device));
            }
            let body = json!(body).to_string().into_bytes();
            match self.inner.ask(admin, Method::POST, "/faults", body).await {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => {
                    let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
                    Err(format!("status {status}: {text}"))
                }
                Err(reason) => Err(reason),
            }
        }
        .boxed()
    }

    fn root_pid(&self) -> Option<u32> {
        let peer = self.inner.peer.load(Ordering::Relaxed);
        self.inner.server.pid.or((peer > 0).then_some(peer))
    }

    fn stray(&self) -> Option<Stray> {
        lock(&self.inner.pool.strays).pop_front()
    }

    fn rest(&self) {
        lock(&self.inner.pool.idle).clear();
    }
}

#[cfg(test)]
mod tests;
