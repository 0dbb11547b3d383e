//! The operator's socket: reload, pin a level, release a rung, bring a fault about, look. Only the
//! daemon's own user and root reach it, so it asks for no key.

use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use forebay::config::Device;
use forebay::{Fault, InjectError, Level, PinError};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::listen::ServerHandle;
use crate::reload::{ReloadError, Reloaded};

/// Who asked for a reload, and hears how it came out.
pub type ReloadAsked = oneshot::Sender<Result<Reloaded, ReloadError>>;

/// Bytes of a request: each is a few words.
const BODY_BYTES_MAX: usize = 4_096;

#[derive(Clone)]
struct Admin {
    server: ServerHandle,
    reloads: mpsc::Sender<ReloadAsked>,
}

/// The operator's routes.
pub(crate) fn router(server: ServerHandle, reloads: mpsc::Sender<ReloadAsked>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/status", get(status))
        .route("/reload", post(reload))
        .route("/pin", post(pin))
        .route("/release", post(release))
        .route("/faults", post(inject))
        .with_state(Admin { server, reloads })
}

/// A refusal: its status, a word for programs and a sentence for people.
struct Refusal(StatusCode, &'static str, String);

type Answer = Result<Value, Refusal>;

fn answer(answer: Answer) -> Response {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal(status, code, message)) => {
            (status, json!({"error": {"code": code, "message": message}}))
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn read<T: DeserializeOwned>(request: Request<Body>) -> Result<T, Refusal> {
    let bad = |message| Refusal(StatusCode::BAD_REQUEST, "bad_request", message);
    let body = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let body = body.map_err(|error| bad(format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&body).map_err(|error| bad(format!("the body is not right: {error}")))
}

async fn status(State(admin): State<Admin>) -> Response {
    let service = admin.server.service();
    let runtime = service.runtime();
    let reload = service.last_reload().map(|last| {
        let at = last.at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        json!({"at_unix_ms": at.as_millis() as u64, "ok": last.ok, "message": last.message})
    });
    let addresses: Vec<String> = admin.server.addresses().iter().map(ToString::to_string).collect();
    answer(Ok(json!({
        "pid": std::process::id(),
        "uptime_s": service.uptime().as_secs(),
        "draining": service.is_draining(),
        "addresses": addresses,
        "connections": admin.server.connections(),
        "last_reload": reload,
        "model": service.model_name(),
        "pinned": runtime.pinned_level().map(|level| level.to_string()),
        "health": runtime.health(),
        "runtime": runtime.status(),
    })))
}

async fn reload(State(admin): State<Admin>) -> Response {
    let ending = || {
        let message = "the daemon is about to end".to_owned();
        Refusal(StatusCode::SERVICE_UNAVAILABLE, "ending", message)
    };
    let asked = async {
        let (tell, told) = oneshot::channel();
        admin.reloads.try_send(tell).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let message = "a reload is under way and another waits; try again".to_owned();
                Refusal(StatusCode::TOO_MANY_REQUESTS, "busy", message)
            }
            mpsc::error::TrySendError::Closed(_) => ending(),
        })?;
        match told.await.map_err(|_| ending())? {
            Ok(done) => Ok(json!({
                "message": done.to_string(),
                "groups": done.groups,
                "runtime_replaced": done.runtime_replaced,
            })),
            Err(error) => {
                let code = match error {
                    ReloadError::Settings(_) => "bad_settings",
                    ReloadError::Serve(_) => "unusable_settings",
                    ReloadError::Start(_) | ReloadError::Pin(_) => "runtime_failed",
                };
                Err(Refusal(StatusCode::CONFLICT, code, error.to_string()))
            }
        }
    };
    answer(asked.await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PinTo {
    /// `null` lifts the cap.
    level: Option<String>,
}

async fn pin(State(admin): State<Admin>, request: Request<Body>) -> Response {
    let pinned = async {
        let PinTo { level } = read(request).await?;
        let level: Option<Level> = level.map(|text| text.parse()).transpose().map_err(bad)?;
        let service = admin.server.service();
        let _operated = service.operate().await;
        let pinning = service.runtime();
        pinning.pin_level(level).await.map_err(|error| match error {
            PinError::NothingLeft { .. } => {
                Refusal(StatusCode::CONFLICT, "nothing_left", error.to_string())
            }
            _ => Refusal(StatusCode::SERVICE_UNAVAILABLE, "ending", error.to_string()),
        })?;
        Ok(json!({"pinned": level.map(|level| level.to_string())}))
    };
    answer(pinned.await)
}

fn bad(message: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "bad_request", message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseOf {
    device: String,
}

async fn release(State(admin): State<Admin>, request: Request<Body>) -> Response {
    let released = async {
        let ReleaseOf { device } = read(request).await?;
        let device: Device = device.parse().map_err(bad)?;
        let service = admin.server.service();
        let mut operated = service.operate().await;
        match service.runtime().release(device).await {
            true => {
                // One of the rungs, so there are never many.
                if !operated.released.contains(&device) {
                    operated.released.push(device);
                }
                Ok(json!({"released": device.to_string()}))
            }
            false => {
                let message = format!("there is no rung on {device}; name one of the status");
                Err(Refusal(StatusCode::NOT_FOUND, "no_such_device", message))
            }
        }
    };
    answer(released.await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOn {
    device: Option<String>,
    fault: String,
}

async fn inject(State(admin): State<Admin>, request: Request<Body>) -> Response {
    let injected = async {
        let FaultOn { device, fault } = read(request).await?;
        let fault: Fault = fault.parse().map_err(|error| bad(format!("{error}")))?;
        let device: Option<Device> =
            device.map(|device| device.parse()).transpose().map_err(bad)?;
        let runtime = admin.server.service().runtime();
        runtime.inject(device, fault).await.map_err(|error| {
            let (status, code) = match error {
                InjectError::NotEnabled { .. } => (StatusCode::FORBIDDEN, "not_enabled"),
                InjectError::UnknownDevice { .. } => (StatusCode::NOT_FOUND, "no_such_device"),
                InjectError::NoDevice { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
                _ => (StatusCode::CONFLICT, "not_possible"),
            };
            Refusal(status, code, error.to_string())
        })?;
        tracing::warn!(%fault, device = device.map(|d| d.to_string()), "fault on request");
        Ok(json!({"asked_for": fault.to_string()}))
    };
    answer(injected.await)
}
