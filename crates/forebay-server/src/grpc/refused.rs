//! Services of models of other types: each call is refused with the reason, as over HTTP.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::status::refuse;
use super::tei::{PredictPairRequest, PredictRequest, PredictResponse};
use super::tei::{RerankRequest, RerankResponse, RerankStreamRequest};
use super::tei::{predict_server, rerank_server};
use crate::api::{Api, wrong_model};

/// Answers of a stream, in the order of its requests.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service `tei.v1.Predict`.
pub(super) struct Predict(pub(super) Api);

/// The service `tei.v1.Rerank`.
pub(super) struct Rerank(pub(super) Api);

/// The refusal of a call that another type of model has.
pub(super) fn of_another_model(api: &Api, needs: &str) -> Status {
    refuse(api, wrong_model(api, needs))
}

impl Predict {
    fn refuse(&self) -> Status {
        of_another_model(&self.0, "a classifier")
    }
}

impl Rerank {
    fn refuse(&self) -> Status {
        of_another_model(&self.0, "a re-ranker")
    }
}

#[tonic::async_trait]
impl predict_server::Predict for Predict {
    type PredictStreamStream = Answers<PredictResponse>;
    type PredictPairStreamStream = Answers<PredictResponse>;

    async fn predict(
        &self,
        _: Request<PredictRequest>,
    ) -> Result<Response<PredictResponse>, Status> {
        Err(self.refuse())
    }

    async fn predict_pair(
        &self,
        _: Request<PredictPairRequest>,
    ) -> Result<Response<PredictResponse>, Status> {
        Err(self.refuse())
    }

    async fn predict_stream(
        &self,
        _: Request<Streaming<PredictRequest>>,
    ) -> Result<Response<Self::PredictStreamStream>, Status> {
        Err(self.refuse())
    }

    async fn predict_pair_stream(
        &self,
        _: Request<Streaming<PredictPairRequest>>,
    ) -> Result<Response<Self::PredictPairStreamStream>, Status> {
        Err(self.refuse())
    }
}

#[tonic::async_trait]
impl rerank_server::Rerank for Rerank {
    async fn rerank(&self, _: Request<RerankRequest>) -> Result<Response<RerankResponse>, Status> {
        Err(self.refuse())
    }

    async fn rerank_stream(
        &self,
        _: Request<Streaming<RerankStreamRequest>>,
    ) -> Result<Response<RerankResponse>, Status> {
        Err(self.refuse())
    }
}
