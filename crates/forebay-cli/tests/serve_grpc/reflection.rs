//! A client that knows nothing of the contract asks for it, and calls with what it was told.

use std::collections::BTreeSet;

use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tonic::transport::Channel;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_reflection::pb::v1alpha;

use crate::channel::{call_raw, connect, run};
use crate::daemon::Daemon;
use crate::support::tiny::expected;

async fn asked(channel: &Channel, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { message_request: Some(request), ..Default::default() };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await;
    let answer = answers.expect("answers").into_inner().message().await.expect("answers");
    let answer: ServerReflectionResponse = answer.expect("an answer");
    answer.message_response.expect("an answer")
}

#[test]
fn a_client_that_knows_nothing_finds_its_way_to_an_embedding() {
    let daemon = Daemon::start("");
    run(async {
        let channel = connect(&daemon.socket()).await;
        let services = asked(&channel, MessageRequest::ListServices(String::new())).await;
        let MessageResponse::ListServicesResponse(services) = services else {
            panic!("no list: {services:?}")
        };
        let names: BTreeSet<&str> = services.service.iter().map(|one| one.name.as_str()).collect();
        let all = [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "tei.v1.Embed",
            "tei.v1.Info",
            "tei.v1.Predict",
            "tei.v1.Rerank",
            "tei.v1.Tokenize",
        ];
        assert_eq!(names, BTreeSet::from(all));

        let symbol = MessageRequest::FileContainingSymbol("tei.v1.Embed".to_owned());
        let files = asked(&channel, symbol).await;
        let MessageResponse::FileDescriptorResponse(files) = files else {
            panic!("no files: {files:?}")
        };
        let mut pool = DescriptorPool::new();
        for file in &files.file_descriptor_proto {
            let file = FileDescriptorProto::decode(file.as_slice()).expect("a descriptor");
            pool.add_file_descriptor_proto(file).expect("nothing is missing");
        }
        let service = pool.get_service_by_name("tei.v1.Embed").expect("the service");
        let method = service.methods().find(|method| method.name() == "Embed").expect("a method");
        let mut request = DynamicMessage::new(method.input());
        request.set_field_by_name("inputs", Value::String("w1 w2".to_owned()));
        request.set_field_by_name("normalize", Value::Bool(true));
        let path = format!("/{}/{}", service.full_name(), method.name());
        let answer = call_raw(&channel, &path, &request.encode_to_vec(), None).await;
        let answer = answer.expect("answers").expect("an answer");
        let answer = DynamicMessage::decode(method.output(), answer.as_slice()).expect("decodes");
        let values = answer.get_field_by_name("embeddings").expect("a field").into_owned();
        let values: Vec<f32> =
            values.as_list().expect("a list").iter().filter_map(Value::as_f32).collect();
        assert_eq!(values, expected("w1 w2"));

        // Most tools still ask the older service first.
        let mut older = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
        let request =
            v1alpha::ServerReflectionRequest { message_request: Some(list), ..Default::default() };
        let answers = older.server_reflection_info(tokio_stream::once(request)).await;
        let answer = answers.expect("answers").into_inner().message().await.expect("answers");
        let answer = answer.expect("an answer").message_response;
        let Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
            answer
        else {
            panic!("no list: {answer:?}")
        };
        assert_eq!(list.service.len(), all.len());
    });
    daemon.stop();
}
