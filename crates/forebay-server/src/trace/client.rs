//! How a collector is spoken to: OTLP over HTTP (a POST with protobuf) or over gRPC (one unary call
//! over HTTP/2), without TLS.

use bytes::{BufMut, Bytes, BytesMut};
use forebay::config::{OtlpProtocol, TracingConfig};
use http::{HeaderMap, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;

/// Where OTLP over HTTP takes traces.
const HTTP_PATH: &str = "/v1/traces";
/// The method that takes traces over gRPC.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Bytes of an answer that is read: it says how many spans were not taken, and why.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Bytes before a message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A collector. Its connection is kept, and made again when it has gone.
pub(super) struct Collector {
    client: Client<HttpConnector, Full<Bytes>>,
    protocol: OtlpProtocol,
    uri: Uri,
}

impl Collector {
    /// The collector that is configured, if one is. The endpoint has been checked with the settings.
    pub(super) fn new(config: &TracingConfig) -> Option<Self> {
        let protocol = config.otlp_protocol;
        let endpoint = config.otlp_endpoint.trim_end_matches('/');
        let has_path = endpoint.strip_prefix("http://")?.contains('/');
        let path = match protocol {
            OtlpProtocol::Grpc => GRPC_PATH,
            OtlpProtocol::HttpProtobuf if has_path => "",
            OtlpProtocol::HttpProtobuf => HTTP_PATH,
        };
        let uri = format!("{endpoint}{path}").parse();
        let uri = uri.inspect_err(|error| tracing::error!(%error, endpoint, "no traces")).ok()?;
        let is_grpc = protocol == OtlpProtocol::Grpc;
        let client = Client::builder(TokioExecutor::new()).http2_only(is_grpc).build_http();
        Some(Self { client, protocol, uri })
    }

    /// Sends spans: how many of them were not taken, or why none was.
    pub(super) async fn send(&self, spans: &ExportTraceServiceRequest) -> Result<usize, String> {
        let request = Request::builder().method(Method::POST).uri(self.uri.clone());
        let request = match self.protocol {
            OtlpProtocol::HttpProtobuf => request
                .header(header::CONTENT_TYPE, "application/x-protobuf")
                .body(Full::from(spans.encode_to_vec())),
            OtlpProtocol::Grpc => request
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .body(Full::from(framed(spans))),
        };
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| full(&error))?;
        let answer = match self.protocol {
            OtlpProtocol::HttpProtobuf => http_answer(response).await?,
            OtlpProtocol::Grpc => grpc_answer(response).await?,
        };
        let answer = ExportTraceServiceResponse::decode(answer)
            .map_err(|error| format!("its answer is none: {error}"))?;
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(usize::try_from(rejected).unwrap_or(0))
    }
}

/// A message as gRPC has it.
fn framed(spans: &ExportTraceServiceRequest) -> Bytes {
    let length = spans.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + length);
    framed.put_u8(0);
    // A batch is bounded far below 4 GiB: 10,000 requests of some spans each.
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    framed.put_slice(&spans.encode_to_vec());
    framed.freeze()
}

async fn http_answer(response: Response<Incoming>) -> Result<Bytes, String> {
    let status = response.status();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    Ok(read(response).await?.0)
}

async fn grpc_answer(response: Response<Incoming>) -> Result<Bytes, String> {
    let status = response.status();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    let headers = response.headers().clone();
    let (mut body, trailers) = read(response).await?;
    // An answer that is only an error has its status among the headers.
    let code = trailers.get("grpc-status").or_else(|| headers.get("grpc-status"));
    let code = code.and_then(|code| code.to_str().ok()).unwrap_or("none");
    if code != "0" {
        return Err(format!("it answered with gRPC status {code}"));
    }
    if body.len() < PREFIX_BYTES || body[0] != 0 {
        return Err("its answer is no plain gRPC message".to_owned());
    }
    Ok(body.split_off(PREFIX_BYTES))
}

async fn read(response: Response<Incoming>) -> Result<(Bytes, HeaderMap), String> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("its answer cannot be read: {error}"))?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok((body.to_bytes(), trailers))
}

/// An error with what caused it.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
