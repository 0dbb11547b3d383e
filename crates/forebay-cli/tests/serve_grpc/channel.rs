//! A channel to a daemon, and requests.

use std::path::Path;

use forebay_server::grpc::tei;
use forebay_server::grpc::tei::embed_client::EmbedClient;
use prost::bytes::{Buf, BufMut};
use tonic::Code;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};

use crate::daemon::Daemon;
use crate::support::GENEROUS;

/// Runs a client to its end.
pub(crate) fn run<T>(client: impl Future<Output = T>) -> T {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("an executor");
    executor.block_on(async { tokio::time::timeout(GENEROUS, client).await }).expect("in time")
}

pub(crate) async fn connect(socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display())).expect("a path");
    endpoint.connect().await.expect("connects")
}

pub(crate) async fn embed_client(daemon: &Daemon) -> EmbedClient<Channel> {
    EmbedClient::new(connect(&daemon.socket()).await)
}

/// A text whose embedding is to have length 1.
pub(crate) fn text(text: &str) -> tei::EmbedRequest {
    tei::EmbedRequest { inputs: text.to_owned(), normalize: true, ..tei::EmbedRequest::default() }
}

/// The code of what must have failed.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> Code {
    result.expect_err("it is refused").code()
}

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, tonic::Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Calls a method by its path, with one message of these bytes; gives those of the first answer.
pub(crate) async fn call_raw(
    channel: &Channel,
    path: &str,
    message: &[u8],
    key: Option<&str>,
) -> Result<Option<Vec<u8>>, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a channel");
    let mut request = tonic::Request::new(tokio_stream::once(message.to_vec()));
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    let path = path.parse().expect("a path");
    client.streaming(request, path, Raw).await?.into_inner().message().await
}
