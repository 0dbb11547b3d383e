//! The way in for fuzzing: bytes as the body of a request, read as every route reads it. No request
//! is answered here.

use axum::body::Body;
use forebay::EmbedInput;
use http::Response;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::body::parse;
use super::error::{Dialect, Problem};
use super::input::Inputs;
use super::{native, openai, tei};

/// Texts of a request, for this purpose.
const TEXTS_MAX: usize = 8;

/// Longest answer that a refusal may come to, in bytes.
const REFUSAL_BYTES_MAX: usize = 4_096;

/// Reads `body` as the body of each route that has one, and writes every refusal in every dialect.
///
/// # Panics
/// If a promise is broken: a refusal that is not short JSON, or inputs beyond their limit.
pub fn read_every_body(body: &[u8]) {
    read::<openai::EmbeddingsRequest>(body);
    read::<tei::TeiEmbedRequest>(body);
    read::<tei::SimilarityRequest>(body);
    read::<tei::VertexRequest>(body);
    read::<tei::TokenizeRequest>(body);
    read::<tei::DecodeRequest>(body);
    read::<native::EmbedRequest>(body);
    let Some(inputs) = read::<Inputs>(body) else { return };
    let taken = taken(inputs.clone().take(TEXTS_MAX, "inputs"));
    assert!(taken.is_none_or(|inputs| (1..=TEXTS_MAX).contains(&inputs.len())));
    self::taken(inputs.clone().take_texts(TEXTS_MAX, "inputs"));
    let ids: Option<Vec<EmbedInput>> = self::taken(inputs.take_ids(TEXTS_MAX, "ids"))
        .map(|lists| lists.into_iter().map(EmbedInput::Ids).collect());
    assert!(ids.is_none_or(|ids| !ids.contains(&EmbedInput::Ids(Vec::new()))));
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    taken(parse::<T>(body))
}

/// The value, or nothing once the refusal has been written and looked at.
fn taken<T>(result: Result<T, Problem>) -> Option<T> {
    let problem = match result {
        Ok(value) => return Some(value),
        Err(problem) => problem,
    };
    for dialect in [Dialect::OpenAi, Dialect::Tei, Dialect::Native] {
        let response = problem.respond(dialect);
        assert!(response.status().is_client_error(), "{:?}", response.status());
        let body = whole(response);
        assert!(body.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", body.len());
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "a refusal is no JSON");
    }
    None
}

/// The body of an answer that is there already.
fn whole(response: Response<Body>) -> bytes::Bytes {
    let collected = futures::executor::block_on(response.into_body().collect());
    collected.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}
