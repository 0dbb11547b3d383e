//! Folders that have only an exported graph, `model.onnx`.
//!
//! Such a graph takes rectangular batches with an attention mask and runs as it is, in F32. It is
//! read into memory and must be complete in itself: a graph that keeps weights in other files could
//! name any file of the machine, so it is refused.

use std::path::Path;

use forebay_model::EncoderConfig;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorElementType, ValueType};

use crate::error::OnnxError;

pub(crate) const INPUT_IDS: &str = "input_ids";
pub(crate) const INPUT_MASK: &str = "attention_mask";
pub(crate) const INPUT_TOKEN_TYPES: &str = "token_type_ids";
const OUTPUT_STATES: &str = "last_hidden_state";

/// The protobuf encoding of the key `location` of a tensor kept outside the file.
const EXTERNAL_LOCATION: &[u8] = b"\x0a\x08location\x12";

/// What of an exported graph's interface varies.
#[derive(Debug)]
pub(crate) struct Interface {
    /// Whether the graph wants token types (always 0).
    pub(crate) token_types: bool,
    /// Name of the token states among the outputs.
    pub(crate) states: String,
}

/// Compiles the graph and finds its inputs and output.
pub(crate) fn load(
    file: &Path,
    config: &EncoderConfig,
    mut builder: SessionBuilder,
) -> Result<(Session, Interface), OnnxError> {
    let read = |source| OnnxError::ExportedRead { path: file.to_owned(), source };
    let bytes = std::fs::read(file).map_err(read)?;
    let refuse = |reason: String| OnnxError::ExportedGraph { path: file.to_owned(), reason };
    if bytes.windows(EXTERNAL_LOCATION.len()).any(|window| window == EXTERNAL_LOCATION) {
        return Err(refuse(
            "it keeps weights in other files, which is not supported; export it into one file or \
             add model.safetensors to the folder"
                .to_owned(),
        ));
    }
    let session = builder
        .commit_from_memory(&bytes)
        .map_err(|error| refuse(format!("{}; export it again", error.message())))?;
    let interface = interface(&session, config).map_err(refuse)?;
    Ok((session, interface))
}

fn interface(session: &Session, config: &EncoderConfig) -> Result<Interface, String> {
    let mut token_types = false;
    let mut required = [INPUT_IDS, INPUT_MASK].to_vec();
    for input in session.inputs() {
        match input.name() {
            INPUT_TOKEN_TYPES => token_types = true,
            name if required.contains(&name) => required.retain(|other| *other != name),
            name => return Err(format!("its input {name} is not known")),
        }
        if tensor(input).is_none_or(|(ty, rank)| ty != TensorElementType::Int64 || rank != 2) {
            return Err(format!("its input {} is not i64 [rows, tokens]", input.name()));
        }
    }
    if let Some(name) = required.first() {
        return Err(format!("it has no input {name}"));
    }
    let is_states = |output: &&Outlet| {
        tensor(output).is_some_and(|(ty, rank)| ty == TensorElementType::Float32 && rank == 3)
    };
    let named = session.outputs().iter().find(|output| output.name() == OUTPUT_STATES);
    let output =
        named.filter(is_states).or_else(|| session.outputs().iter().find(is_states)).ok_or(
            "it has no f32 output [rows, tokens, hidden], only pooled ones; export the encoder \
             with its last hidden state",
        )?;
    if let ValueType::Tensor { shape, .. } = output.dtype() {
        let width = shape.last().copied().unwrap_or(-1);
        if width >= 0 && width != config.hidden as i64 {
            return Err(format!(
                "its states are {width} wide, config.json says {}; graph and configuration do \
                 not belong together",
                config.hidden
            ));
        }
    }
    Ok(Interface { token_types, states: output.name().to_owned() })
}

fn tensor(outlet: &Outlet) -> Option<(TensorElementType, usize)> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. } => Some((*ty, shape.len())),
        _ => None,
    }
}
