//! gRPC on the sockets of HTTP: `tei.v1` of text-embeddings-inference, health and reflection.
//!
//! Each method is a route like any other, so keys, limits, ids and metrics are those of HTTP. What
//! is refused is a problem here too, told as a status. Nothing here owns a socket.

mod call;
mod embed;
mod embed_stream;
mod health;
mod info;
mod observe;
mod proto;
mod refused;
mod status;
mod tokenize;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, post_service};
use http::{HeaderMap, Version, header};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tower::Service;

pub(crate) use call::given_up_at;
pub(crate) use observe::{StreamTexts, observed};
pub use proto::{EmbedResponse, TEI_DESCRIPTORS, tei};
pub(crate) use status::status;

use crate::api::{Api, Kind, Problem};
use tei::embed_server::EmbedServer;
use tei::info_server::InfoServer;
use tei::predict_server::PredictServer;
use tei::rerank_server::RerankServer;
use tei::tokenize_server::TokenizeServer;

/// Every method, as the router has it.
pub(crate) const METHODS: [&str; 21] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/tei.v1.Embed/Embed",
    "/tei.v1.Embed/EmbedAll",
    "/tei.v1.Embed/EmbedAllStream",
    "/tei.v1.Embed/EmbedSparse",
    "/tei.v1.Embed/EmbedSparseStream",
    "/tei.v1.Embed/EmbedStream",
    "/tei.v1.Info/Info",
    "/tei.v1.Predict/Predict",
    "/tei.v1.Predict/PredictPair",
    "/tei.v1.Predict/PredictPairStream",
    "/tei.v1.Predict/PredictStream",
    "/tei.v1.Rerank/Rerank",
    "/tei.v1.Rerank/RerankStream",
    "/tei.v1.Tokenize/Decode",
    "/tei.v1.Tokenize/DecodeStream",
    "/tei.v1.Tokenize/Tokenize",
    "/tei.v1.Tokenize/TokenizeStream",
];

/// Methods that anybody may call, also without a key: they say nothing but yes or no.
const PUBLIC: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];

/// Whether a call to `path` needs no key.
pub(crate) fn is_public(path: &str, headers: &HeaderMap) -> bool {
    is_grpc(headers) && PUBLIC.contains(&path)
}

/// Whether a call to `path` only asks how things are, or what there is.
pub(crate) fn only_asks(path: &str) -> bool {
    path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.")
}

/// Whether the call is answered whenever something changes, for as long as the client likes.
pub(crate) fn listens(path: &str, headers: &HeaderMap) -> bool {
    path == "/grpc.health.v1.Health/Watch" && is_grpc(headers)
}

/// Whether the client goes on sending while it is answered, for as long as both like.
pub(crate) fn is_dialogue(path: &str, headers: &HeaderMap) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    let streams = method.ends_with("Stream") || method == "ServerReflectionInfo";
    streams && is_grpc(headers) && METHODS.contains(&path)
}

/// Whether a request says that it is gRPC, and is therefore to be answered with a status.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    matches!(subtype(headers), Some(rest) if rest.is_empty() || rest.starts_with('+'))
}

/// What the content type has behind `application/grpc`.
fn subtype(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next()?.trim().strip_prefix("application/grpc")
}

/// Every method as a route.
pub(crate) fn router() -> Router<Api> {
    let mut router = Router::new();
    for path in METHODS {
        router = match path.split('/').nth(1) {
            Some("tei.v1.Info") => router.route(path, post(info)),
            Some("tei.v1.Embed") => router.route(path, post(embed)),
            Some("tei.v1.Predict") => router.route(path, post(predict)),
            Some("tei.v1.Rerank") => router.route(path, post(rerank)),
            Some("tei.v1.Tokenize") => router.route(path, post(tokenize)),
            Some("grpc.health.v1.Health") => router.route(path, post(health)),
            Some("grpc.reflection.v1.ServerReflection") => {
                router.route(path, post_service(sound(described().build_v1())))
            }
            _ => router.route(path, post_service(sound(described().build_v1alpha()))),
        };
    }
    router.route_layer(from_fn(only_grpc))
}

/// Reflection over everything that is served.
fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(TEI_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
        .include_reflection_service(false)
}

#[expect(clippy::expect_used, reason = "the descriptors are part of the program")]
fn sound<T>(built: Result<T, tonic_reflection::server::Error>) -> T {
    built.expect("descriptors that a compiler wrote")
}

/// Lets nothing through that is not gRPC: a web page of another origin can send any other content
/// type without the browser asking first.
async fn only_grpc(request: Request, next: Next) -> Response {
    match subtype(request.headers()) {
        Some("" | "+proto") => {}
        _ => {
            let message = "this is a gRPC method; send the header content-type: application/grpc";
            return Problem::new(Kind::MediaType, message).into_response();
        }
    }
    if request.version() < Version::HTTP_2 {
        let message = "gRPC needs HTTP/2; with TLS it is agreed on by itself, without it the client \
                       must begin with it";
        return Problem::new(Kind::MediaType, message).into_response();
    }
    next.run(request).await
}

async fn served<S>(mut server: S, request: Request) -> Response
where
    S: Service<Request, Response = http::Response<tonic::body::Body>, Error = Infallible>,
{
    match server.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// A handler that serves a service with the limits of the moment.
macro_rules! handler {
    ($name:ident: $Server:ident of $service:path) => {
        async fn $name(State(api): State<Api>, request: Request) -> Response {
            let bytes_max = api.body_bytes_max();
            let server = $Server::new($service(api)).max_decoding_message_size(bytes_max);
            served(server, request).await
        }
    };
}

handler!(info: InfoServer of info::Info);
handler!(embed: EmbedServer of embed::Embed);
handler!(predict: PredictServer of refused::Predict);
handler!(rerank: RerankServer of refused::Rerank);
handler!(tokenize: TokenizeServer of tokenize::Tokenize);
handler!(health: HealthServer of health::Health);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use tonic::codegen::http::HeaderValue;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        methods: Vec<Named>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Files {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }

    #[test]
    fn every_method_of_every_contract_is_a_route() {
        let contracts = [
            TEI_DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut described = BTreeSet::new();
        for contract in contracts {
            for file in Files::decode(contract).expect("descriptors").files {
                for service in file.services {
                    let path = format!("/{}.{}/", file.package, service.name);
                    described.extend(service.methods.iter().map(|m| format!("{path}{}", m.name)));
                }
            }
        }
        let routes: BTreeSet<String> = METHODS.iter().map(ToString::to_string).collect();
        assert_eq!(described, routes);
        assert!(METHODS.is_sorted());
    }

    #[test]
    fn what_says_that_it_is_grpc_is() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            is_grpc(&headers)
        };
        for value in ["application/grpc", "application/grpc+proto", "application/grpc; a=b"] {
            assert!(of(value), "{value}");
        }
        for value in ["application/json", "application/grpc-web", "application/grpcx", ""] {
            assert!(!of(value), "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
