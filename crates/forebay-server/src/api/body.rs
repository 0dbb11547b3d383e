//! The body of a request: read within its limit, taken as JSON, refused with what is wrong.

use std::error::Error;

use axum::extract::{FromRef, FromRequest, Request};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::{Kind, Problem};
use super::observe::Arrived;
use super::state::Api;
use crate::listen::BodyError;
use crate::listen::metrics::Refused;

/// What is said of a body that is not understood, at most: it may repeat a value, which can be long.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// A body that is JSON of the shape `T`, and when its request came.
pub(crate) struct Json<T>(pub(crate) T, pub(crate) Arrived);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
    Api: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let api = Api::from_ref(state);
        if !is_json(request.headers()) {
            let message = "the body must be JSON; send the header content-type: application/json";
            return Err(Problem::new(Kind::MediaType, message));
        }
        let arrived = Arrived::among(request.extensions());
        let body = read(request, api.body_bytes_max()).await?;
        api.metrics().received(body.len());
        Ok(Self(parse(&body)?, arrived))
    }
}

async fn read(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), bytes_max);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if is_too_large(&*error) => {
            let message = format!(
                "the body has more than {bytes_max} bytes; send fewer or shorter texts at a time"
            );
            Err(Problem::new(Kind::TooLarge, message))
        }
        Err(error) if matches!(BodyError::among(&*error), Some(BodyError::NoRoom)) => {
            Err(Refused::NoRoom.problem())
        }
        Err(_) => {
            let message = "the body did not arrive whole and in time; send the request again";
            Err(Problem::new(Kind::TooSlow, message))
        }
    }
}

/// Whether the limit of this module or that of the listener was met.
fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    error.is::<LengthLimitError>()
        || matches!(BodyError::among(error), Some(BodyError::TooLarge { .. }))
}

/// Takes bytes as JSON. What was wrong is for the sender only, who may find a part of a value in it.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        if error.is_data() {
            let what: String = error.to_string().chars().take(MESSAGE_CHARACTERS_MAX).collect();
            Problem::new(Kind::Validation, format!("the request is not understood: {what}"))
        } else {
            Problem::new(Kind::Syntax, format!("the body is not valid JSON at {place}; correct it"))
        }
    })
}

/// Whether the header says JSON. Asked for strictly, as a web page of another origin can send any
/// other type without the browser asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| {
        let json = essence.eq_ignore_ascii_case("application/json");
        json || (essence.len() > 5
            && essence.to_ascii_lowercase().starts_with("application/")
            && essence.to_ascii_lowercase().ends_with("+json"))
    })
}
