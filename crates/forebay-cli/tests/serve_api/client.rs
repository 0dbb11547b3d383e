//! A service over the fake worker, and a client without a network.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use forebay::{Config, Runtime};
use forebay_server::Service;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::support::tiny::TinyModel;
use crate::support::{GENEROUS, fake_config};

/// A running service. The model folder lives as long.
pub(crate) struct Daemon {
    pub(crate) model: TinyModel,
    pub(crate) service: Arc<Service>,
    pub(crate) executor: tokio::runtime::Runtime,
    router: Router,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::with(TinyModel::new(), |_| {})
    }

    pub(crate) fn with(model: TinyModel, change: impl FnOnce(&mut Config)) -> Self {
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("an executor");
        let mut config = fake_config(model.path());
        change(&mut config);
        let runtime = executor.block_on(Runtime::start(config)).expect("starts");
        let service = Arc::new(Service::new(runtime));
        let router = forebay_server::api::router(Arc::clone(&service));
        Self { model, service, executor, router }
    }

    /// Name of the model that is served.
    pub(crate) fn model_name(&self) -> String {
        self.service.model_name()
    }

    /// One request, to be awaited or dropped.
    pub(crate) fn ask(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let router = self.router.clone();
        async move {
            let answering = async {
                let response = router.oneshot(request).await.expect("a router has no errors");
                let (parts, body) = response.into_parts();
                let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
                Answer { status: parts.status, headers: parts.headers, body }
            };
            tokio::time::timeout(GENEROUS, answering).await.expect("answered in time")
        }
    }

    pub(crate) fn call(&self, request: Request<Body>) -> Answer {
        self.executor.block_on(self.ask(request))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call(request(Method::GET, path, None))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(post(path, body))
    }

    /// Posts what should be answered with 200, and gives the answer's JSON.
    pub(crate) fn posted(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{path} {body}: {answer}");
        answer.json()
    }

    /// Posts a body as it is.
    pub(crate) fn post_raw(&self, path: &str, kind: Option<&str>, body: &str) -> Answer {
        let mut request = Request::post(path);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        self.call(request.body(Body::from(body.to_owned())).expect("a request"))
    }

    /// Starts a request and lets it run until it waits in the runtime.
    pub(crate) fn begin(&self, path: &str, body: &Value) -> tokio::task::JoinHandle<Answer> {
        self.executor.spawn(self.ask(post(path, body)))
    }

    /// Texts of every class that are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.service.runtime().rates().under_way.iter().sum()
    }
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Body> {
    request(Method::POST, path, Some(body))
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    request.body(body).expect("a request")
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no header {name}: {self}"));
        value.to_str().expect("text")
    }

    /// A header that is a number.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.header(name).parse().expect("a number")
    }

    /// What every answer has, whatever it says.
    pub(crate) fn assert_marked(&self, level: &str) {
        assert_eq!(self.header("x-embed-level"), level, "{self}");
        assert!(!self.header("x-request-id").is_empty());
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, headers, body } = self;
        write!(f, "{status} {headers:?} {}", String::from_utf8_lossy(body))
    }
}

/// A vector of an answer.
pub(crate) fn vector(value: &Value) -> Vec<f32> {
    let values = value.as_array().expect("a list");
    values.iter().map(|value| value.as_f64().expect("a number") as f32).collect()
}

/// The vector that a base64 string stands for.
pub(crate) fn decoded(value: &Value) -> Vec<f32> {
    let bytes = base64(value.as_str().expect("a string"));
    let value = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    bytes.chunks_exact(4).map(value).collect()
}

/// Decodes base64 as any textbook has it, independently of what is tested.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(text.len() % 4, 0, "padded");
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks_exact(4) {
        let kept = four.iter().take_while(|byte| **byte != b'=').count();
        let bits = four[..kept].iter().fold(0_u32, |bits, byte| {
            let place = ALPHABET.iter().position(|letter| letter == byte).expect("a letter");
            bits << 6 | place as u32
        });
        let bits = bits << (6 * (4 - kept));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..kept]);
    }
    bytes
}

/// A vector scaled to length 1, as the routes do.
pub(crate) fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }
}

/// The first values of a vector, scaled to length 1.
pub(crate) fn cut(vector: &[f32], dimensions: usize) -> Vec<f32> {
    let kept = &vector[..dimensions];
    let length = kept.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() as f32;
    kept.iter().map(|value| value / length).collect()
}
