//! Several requests for embeddings in one, as Vertex AI sends them. Of more than anybody may send only
//! the number is kept.

use std::fmt;

use axum::extract::State;
use axum::response::Response;
use futures::future::try_join_all;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{TeiEmbedRequest, respond};
use crate::api::answer::{Answer, Encoding};
use crate::api::body::Json;
use crate::api::embed::{Embedded, Entry};
use crate::api::error::{Problem, TeiError};
use crate::api::input::{KEPT_MAX, check_count};
use crate::api::state::Api;

/// Requests for embeddings as Vertex AI sends them.
#[derive(Deserialize, ToSchema)]
pub(crate) struct VertexRequest {
    #[schema(value_type = Vec<TeiEmbedRequest>, min_items = 1)]
    instances: Instances,
}

/// What each of them comes to.
#[derive(Serialize, ToSchema)]
pub(crate) struct VertexResponse {
    predictions: Vec<Vec<Vec<f32>>>,
}

/// The requests, until there are more texts in them than a request may have anywhere.
struct Instances {
    kept: Vec<TeiEmbedRequest>,
    /// How many there were.
    count: usize,
    /// Texts of those that are kept.
    texts: usize,
}

impl<'de> Deserialize<'de> for Instances {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(InstancesVisitor)
    }
}

struct InstancesVisitor;

impl<'de> Visitor<'de> for InstancesVisitor {
    type Value = Instances;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Instances, A::Error> {
        let mut instances = Instances { kept: Vec::new(), count: 0, texts: 0 };
        // One that has no text counts as one: it takes room, too.
        while instances.texts < KEPT_MAX {
            let Some(next) = list.next_element::<TeiEmbedRequest>()? else { return Ok(instances) };
            instances.texts += next.inputs.count().max(1);
            instances.count += 1;
            instances.kept.push(next);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            instances.count += 1;
        }
        Ok(instances)
    }
}

/// Several requests for embeddings in one.
#[utoipa::path(
    post, path = "/vertex", tag = "Text Embeddings Inference", request_body = VertexRequest,
    responses((status = 200, description = "The embeddings of each", body = VertexResponse),
        (status = "default", description = "As /embed", body = TeiError)),
)]
pub(crate) async fn vertex(
    State(api): State<Api>,
    Json(request, arrived): Json<VertexRequest>,
) -> Result<Response, Problem> {
    let Instances { kept, count, texts } = request.instances;
    check_count(count, api.texts_max(), "instances")?;
    check_count(texts, api.texts_max(), "inputs")?;
    let runtime = api.runtime();
    // Together: the first of them is let in or the request refused, the others follow as room appears.
    // The first is polled first, so a refusal has cost nothing.
    let runs = kept.into_iter().enumerate().map(async |(number, instance)| {
        let entry = if number == 0 { Entry::AtOnce } else { Entry::Waiting };
        let embedded = instance.run(&api, &runtime, arrived, entry).await;
        embedded.map_err(|mut problem| {
            problem.message.push_str(&format!(" (instance number {number})"));
            problem
        })
    });
    let embedded = try_join_all(runs).await?;
    let predictions: Vec<usize> = embedded.iter().map(|instance| instance.rows.len()).collect();
    let all = Embedded::join(embedded, arrived, &runtime);
    let mut answer = Answer::for_rows(&all.rows, Encoding::Float, 4);
    answer.raw(r#"{"predictions":"#);
    let mut rows = all.rows.as_slice();
    answer.list(&predictions, |answer, count| {
        // The counts are those of the parts that were joined.
        let (own, rest) = rows.split_at(*count);
        answer.rows(own, Encoding::Float);
        rows = rest;
    });
    answer.raw("}");
    Ok(respond(&all, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_anybody_may_send_is_counted_and_not_kept() {
        let json = format!(r#"[{}{{"inputs":"b"}}]"#, r#"{"inputs":"a"},"#.repeat(KEPT_MAX + 9));
        let instances: Instances = serde_json::from_str(&json).expect("requests");
        assert_eq!((instances.kept.len(), instances.count), (KEPT_MAX, KEPT_MAX + 10));
        let few: Instances =
            serde_json::from_str(r#"[{"inputs":["a","b"]},{"inputs":[]}]"#).expect("requests");
        assert_eq!((few.kept.len(), few.count, few.texts), (2, 2, 3));
        assert!(serde_json::from_str::<Instances>(r#"[{"inputs":"a"},7]"#).is_err());
    }
}
