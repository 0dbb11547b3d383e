//! A collector of traces: OTLP over HTTP and over gRPC on one port, which does as it is told.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::sync::oneshot;

use crate::support::GENEROUS;

/// Batches that it keeps for the test, far more than there are.
const BATCHES_MAX: usize = 1_000;

/// What it does with a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Takes,
    /// It reads the batch and never answers.
    Hangs,
    /// It says that it cannot now.
    Refuses,
    /// It takes the batch but for so many spans.
    Rejects(i64),
}

pub(crate) struct Collector {
    port: u16,
    batches: Receiver<ExportTraceServiceRequest>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    pub(crate) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let (tell, batches) = sync_channel(BATCHES_MAX);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, manner, tell) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, batches, stop: Some(stop), thread: Some(thread) }
    }

    /// Settings of a daemon that sends here.
    pub(crate) fn settings(&self, protocol: &str, more: &str) -> String {
        settings(self.port, protocol, more)
    }

    /// The next batch, with the resource that it comes from.
    pub(crate) fn batch(&self) -> ExportTraceServiceRequest {
        self.batches.recv_timeout(GENEROUS).expect("a batch in time")
    }

    /// Spans of the next batches, until there are so many.
    pub(crate) fn spans(&self, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < count {
            spans.extend(spans_of(self.batch()));
        }
        assert_eq!(spans.len(), count, "{spans:?}");
        spans
    }

    /// Spans that have come meanwhile.
    pub(crate) fn rest(&self) -> Vec<Span> {
        self.batches.try_iter().flat_map(spans_of).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Settings of a daemon that sends to this port.
pub(crate) fn settings(port: u16, protocol: &str, more: &str) -> String {
    format!(
        "[tracing]\notlp_endpoint = 'http://127.0.0.1:{port}'\notlp_protocol = '{protocol}'\n\
         batch_wait_ms = 1\n{more}\n"
    )
}

fn spans_of(batch: ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = batch.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// An attribute as text.
pub(crate) fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

async fn accept(
    listener: TcpListener,
    manner: Manner,
    tell: SyncSender<ExportTraceServiceRequest>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let tell = tell.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, manner, tell.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            // The daemon may end the connection whenever it likes.
            builder.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    manner: Manner,
    tell: SyncSender<ExportTraceServiceRequest>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.expect("a body").to_bytes();
    let is_grpc = parts.headers["content-type"] == "application/grpc";
    let path = match is_grpc {
        true => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        false => "/v1/traces",
    };
    assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", path));
    if is_grpc {
        assert_eq!(parts.version, http::Version::HTTP_2);
        let prefix = body.split_to(5);
        let length = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes"));
        assert_eq!((prefix[0], length as usize), (0, body.len()));
    }
    // The test may have ended.
    tell.send(ExportTraceServiceRequest::decode(body).expect("a batch")).ok();
    let rejected_spans = match manner {
        Manner::Hangs => std::future::pending().await,
        Manner::Rejects(spans) => spans,
        Manner::Takes | Manner::Refuses => 0,
    };
    let partial = ExportTracePartialSuccess { rejected_spans, error_message: "no".to_owned() };
    let partial_success = (rejected_spans > 0).then_some(partial);
    let message = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    let refuses = manner == Manner::Refuses;
    let mut response = Response::new(Full::from(message.clone()).boxed());
    if is_grpc {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.put_slice(&message);
        let mut trailers = HeaderMap::new();
        let code = if refuses { "14" } else { "0" };
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        let body = Full::from(framed.freeze()).with_trailers(async { Some(Ok(trailers)) });
        response = Response::new(body.boxed());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    } else if refuses {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}
