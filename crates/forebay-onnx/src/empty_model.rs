//! A model without nodes, as ONNX writes it in protobuf: what a session begins with.
//!
//! The messages have those fields only that such a model needs, with ONNX's names and numbers.

use prost::Message;

/// Version of the format that goes with the operator sets in use.
const IR_VERSION: i64 = 10;
/// ONNX's number for F32.
const FLOAT: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, required, tag = "7")]
    graph: GraphProto,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, required, tag = "2")]
    r#type: TypeProto,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, required, tag = "1")]
    tensor_type: TensorType,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
}

/// A model of these operator sets, whose F32 outputs are its inputs.
pub(crate) fn bytes<'n>(
    outputs: impl Iterator<Item = &'n str>,
    operator_sets: &[(&str, u32)],
) -> Vec<u8> {
    let values: Vec<ValueInfoProto> = outputs
        .map(|name| ValueInfoProto {
            name: name.to_owned(),
            r#type: TypeProto { tensor_type: TensorType { elem_type: FLOAT } },
        })
        .collect();
    let opset_import = operator_sets.iter().map(|(domain, version)| OperatorSetIdProto {
        domain: (*domain).to_owned(),
        version: (*version).into(),
    });
    let graph = GraphProto { name: "encoder".to_owned(), input: values.clone(), output: values };
    let model = ModelProto { ir_version: IR_VERSION, graph, opset_import: opset_import.collect() };
    model.encode_to_vec()
}
