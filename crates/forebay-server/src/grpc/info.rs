//! What is served, as `/info` of HTTP says it.

use tonic::{Request, Response, Status};

use super::tei::info_server;
use super::tei::{InfoRequest, InfoResponse, ModelType};
use crate::api::{Api, tei_info};

/// The service `tei.v1.Info`.
pub(super) struct Info(pub(super) Api);

#[tonic::async_trait]
impl info_server::Info for Info {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let info = tei_info(&self.0);
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Response::new(InfoResponse {
            version: info.version.to_owned(),
            sha: info.sha.map(str::to_owned),
            docker_label: info.docker_label.map(str::to_owned),
            model_id: info.model_id,
            model_sha: info.model_sha,
            model_dtype: info.model_dtype,
            model_type: ModelType::Embedding.into(),
            max_concurrent_requests: number(info.max_concurrent_requests),
            max_input_length: number(info.max_input_length),
            max_batch_tokens: number(info.max_batch_tokens),
            max_batch_requests: info.max_batch_requests.map(number),
            max_client_batch_size: number(info.max_client_batch_size),
            tokenization_workers: number(info.tokenization_workers),
        }))
    }
}
