//! Embeddings: one text a call, or texts of a stream. What this model has not is refused.

use std::time::{Duration, Instant};

use forebay::{EmbedOptions, Embedding};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::call;
use super::embed_stream;
use super::refused::{Answers, of_another_model};
use super::status::refuse;
use super::tei::embed_server;
use super::tei::{EmbedAllRequest, EmbedAllResponse, EmbedRequest, EmbedSparseRequest};
use super::tei::{EmbedResponse, EmbedSparseResponse, Metadata, TruncationDirection};
use crate::api::{Api, Arrived, Kind, Problem, embed_together, empty, no_prompts};

const SPARSE: &str = "a model with SPLADE pooling";
const TOKENS: &str = "the vectors of single tokens, which do not leave the workers";

/// The service `tei.v1.Embed`.
pub(super) struct Embed(pub(super) Api);

impl EmbedRequest {
    /// What it asks for, to be answered by `deadline`.
    ///
    /// # Errors
    /// It asks for what there is not.
    pub(super) fn options(&self, deadline: Instant) -> Result<EmbedOptions, Problem> {
        no_prompts(self.prompt_name.as_deref())?;
        if self.inputs.is_empty() {
            return Err(empty("inputs"));
        }
        let direction = TruncationDirection::try_from(self.truncation_direction).map_err(|_| {
            let message = format!(
                "truncation_direction is {}; it is 0 (right) or 1 (left)",
                self.truncation_direction
            );
            Problem::new(Kind::Validation, message).about("truncation_direction")
        })?;
        Ok(EmbedOptions {
            deadline: Some(deadline),
            truncate: Some(self.truncate),
            truncate_left: direction == TruncationDirection::Left,
            normalize: Some(self.normalize),
            dimensions: self.dimensions.map(|count| count as usize),
            ..EmbedOptions::default()
        })
    }
}

/// The answer to a text of so many characters that came at `started`.
pub(super) fn answer(row: Embedding, characters: usize, started: Instant) -> EmbedResponse {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let metadata = Metadata {
        compute_chars: number(characters),
        compute_tokens: number(row.tokens),
        total_time_ns: nanos(started.elapsed()),
        tokenization_time_ns: nanos(row.times.tokenize),
        queue_time_ns: nanos(row.times.queue),
        inference_time_ns: nanos(row.times.infer),
    };
    EmbedResponse { embeddings: EmbedResponse::bytes_of(row.vector), metadata: Some(metadata) }
}

impl Embed {
    async fn one(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Problem> {
        let arrived = Arrived::among(request.extensions());
        let until = call::until(request.metadata(), arrived.0)?;
        let request = request.into_inner();
        let options = request.options(call::deadline(&self.0, until, arrived.0))?;
        let runtime = self.0.runtime();
        let texts = vec![request.inputs.into()];
        let mut embedded = embed_together(&runtime, texts, options, arrived).await?;
        let metadata = MetadataMap::from_headers(embedded.headers());
        let row = embedded.rows.pop();
        let row = row.ok_or_else(|| Problem::new(Kind::Internal, "the embedding is missing"))?;
        let answer = answer(row, embedded.characters, arrived.0);
        Ok(Response::from_parts(metadata, answer, Extensions::new()))
    }
}

#[tonic::async_trait]
impl embed_server::Embed for Embed {
    type EmbedStreamStream = Answers<EmbedResponse>;
    type EmbedSparseStreamStream = Answers<EmbedSparseResponse>;
    type EmbedAllStreamStream = Answers<EmbedAllResponse>;

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        self.one(request).await.map_err(|problem| refuse(&self.0, problem))
    }

    async fn embed_stream(
        &self,
        request: Request<Streaming<EmbedRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let until = call::until(request.metadata(), Instant::now());
        let until = until.map_err(|problem| refuse(&self.0, problem))?;
        let answers = embed_stream::answers(self.0.clone(), request.into_inner(), until);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn embed_sparse(
        &self,
        _: Request<EmbedSparseRequest>,
    ) -> Result<Response<EmbedSparseResponse>, Status> {
        Err(of_another_model(&self.0, SPARSE))
    }

    async fn embed_sparse_stream(
        &self,
        _: Request<Streaming<EmbedSparseRequest>>,
    ) -> Result<Response<Self::EmbedSparseStreamStream>, Status> {
        Err(of_another_model(&self.0, SPARSE))
    }

    async fn embed_all(
        &self,
        _: Request<EmbedAllRequest>,
    ) -> Result<Response<EmbedAllResponse>, Status> {
        Err(of_another_model(&self.0, TOKENS))
    }

    async fn embed_all_stream(
        &self,
        _: Request<Streaming<EmbedAllRequest>>,
    ) -> Result<Response<Self::EmbedAllStreamStream>, Status> {
        Err(of_another_model(&self.0, TOKENS))
    }
}
