//! The graph of a BERT-family encoder over packed tokens.
//!
//! The graph begins with the sum of each token's embeddings (`tables.rs`). Dense layers and
//! normalisation see the tokens of all rows one after another, `[tokens, hidden]`,
//! with no padding. Attention needs rectangular blocks: one gather per operand picks the head-wide
//! pieces of the packed projection straight into `[rows, heads, width, head_dim]`, which replaces
//! splitting, padding and transposing; another gather takes the result back. Unused places of a
//! block repeat the row's own first token and are masked, so no row ever reads another one.
//!
//! There are several blocks, so that rows of different widths share the dense layers of one run. A
//! block that a run does not need has no rows, and its operators have nothing to do.
//!
//! INT8 layers map each token's activations onto 8 bits from that token's least to its greatest
//! value (`operators.rs`). Integer sums are exact, so a token's result does not depend on what else is
//! in the run.

use forebay_model::{Activation, EncoderConfig, EncoderWeights, LayerWeights, Linear, Norm};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::TensorElementType;

use crate::error::OnnxError;
use crate::graph::{Dimension, GraphBuilder, float, int, outlet, text};
use crate::operators::{QUANTIZE_TOKENS, RESCALE_TOKENS};
use crate::options::Precision;
use crate::quantize::{self, QuantizedWeight};

/// Sum of each token's embeddings, f32 `[tokens, hidden]`.
pub(crate) const INPUT_EMBEDDINGS: &str = "embeddings";
/// For each token and head, its place in the blocks counted over blocks, rows, heads and width, i32
/// `[tokens, heads]`.
pub(crate) const INPUT_RETURNS: &str = "returns";
/// Token states, f32 `[tokens, hidden]`.
pub(crate) const OUTPUT_STATES: &str = "states";

/// Score of an unused place: its exponential is exactly zero beside any real score.
pub(crate) const MASKED: f32 = -1e30;

/// For each place of each block, its token times 3·heads, i32 `[rows, 1, width]`.
pub(crate) fn input_slots(block: usize) -> String {
    format!("slots_{block}")
}

/// Added to the attention scores of each block: 0, or [`MASKED`] for unused places, f32
/// `[rows, 1, 1, width]`.
pub(crate) fn input_mask(block: usize) -> String {
    format!("mask_{block}")
}

/// Builds and compiles the encoder with `blocks` attention blocks.
pub(crate) fn build(
    config: &EncoderConfig,
    weights: &EncoderWeights<'_>,
    precision: Precision,
    blocks: usize,
    builder: &SessionBuilder,
) -> Result<Session, OnnxError> {
    let mut encoder = Encoder { graph: GraphBuilder::new()?, config, precision, blocks };
    let mut states =
        encoder.normalize("embedding_norm", INPUT_EMBEDDINGS, &weights.embedding_norm)?;
    let shared = encoder.shared()?;
    for (index, layer) in weights.layers.iter().enumerate() {
        states = encoder.layer(index, layer, &states, &shared)?;
    }
    encoder.graph.name_output(&states, OUTPUT_STATES)?;

    let fixed = Dimension::Fixed;
    let varying = |name: &str| Dimension::Varying(name.to_owned());
    let ints =
        |name: &str, dimensions: &[Dimension]| outlet(name, TensorElementType::Int32, dimensions);
    let floats =
        |name: &str, dimensions: &[Dimension]| outlet(name, TensorElementType::Float32, dimensions);
    let mut inputs = vec![
        floats(INPUT_EMBEDDINGS, &[varying("tokens"), fixed(config.hidden)]),
        ints(INPUT_RETURNS, &[varying("tokens"), fixed(config.heads)]),
    ];
    for block in 0..blocks {
        let [rows, width] = ["rows", "width"].map(|name| format!("{name}_{block}"));
        let (rows, width) = (|| varying(&rows), || varying(&width));
        inputs.push(ints(&input_slots(block), &[rows(), fixed(1), width()]));
        inputs.push(floats(&input_mask(block), &[rows(), fixed(1), fixed(1), width()]));
    }
    let outputs = vec![floats(OUTPUT_STATES, &[varying("tokens"), fixed(config.hidden)])];
    encoder.graph.into_session(inputs, outputs, builder)
}

struct Encoder<'a> {
    graph: GraphBuilder,
    config: &'a EncoderConfig,
    precision: Precision,
    blocks: usize,
}

/// Values that every layer uses.
struct Shared {
    /// One for each attention block.
    blocks: Vec<SharedBlock>,
    /// Target shape of the head-wide pieces, and of the joined heads.
    pieces: String,
    joined: String,
    quantized: Option<SharedQuantized>,
}

/// What every layer needs of an attention block.
struct SharedBlock {
    /// Where to gather queries, keys and values, `[rows, heads, width]` each.
    gathers: [String; 3],
    mask: String,
}

/// Values of INT8 layers only.
struct SharedQuantized {
    one: String,
    zero_point: String,
}

impl Encoder<'_> {
    fn shared(&mut self) -> Result<Shared, OnnxError> {
        let EncoderConfig { hidden, heads, .. } = *self.config;
        let graph = &mut self.graph;
        let mut offsets = Vec::with_capacity(3);
        for part in 0..3 {
            let values: Vec<i32> = (0..heads).map(|head| (part * heads + head) as i32).collect();
            offsets.push(graph.constant(format!("heads_{part}"), &[1, heads, 1], &values)?);
        }
        let mut blocks = Vec::with_capacity(self.blocks);
        for block in 0..self.blocks {
            let slots = input_slots(block);
            let mut gathers = [const { String::new() }; 3];
            for (gather, offsets) in gathers.iter_mut().zip(&offsets) {
                *gather = graph.node("Add", &[&slots, offsets], Vec::new())?;
            }
            blocks.push(SharedBlock { gathers, mask: input_mask(block) });
        }
        let pieces = [-1, self.config.head_dim() as i64];
        let quantized = match self.precision {
            Precision::F32 => None,
            Precision::Int8 => Some(self.shared_quantized()?),
        };
        Ok(Shared {
            blocks,
            pieces: self.graph.constant("pieces", &[2], &pieces)?,
            joined: self.graph.constant("joined", &[2], &[-1, hidden as i64])?,
            quantized,
        })
    }

    fn shared_quantized(&mut self) -> Result<SharedQuantized, OnnxError> {
        let graph = &mut self.graph;
        Ok(SharedQuantized {
            one: graph.constant("one", &[], &[1.0_f32])?,
            zero_point: graph.constant("zero_point", &[], &[0_u8])?,
        })
    }

    fn layer(
        &mut self,
        index: usize,
        layer: &LayerWeights<'_>,
        states: &str,
        shared: &Shared,
    ) -> Result<String, OnnxError> {
        let name = |part: &str| format!("layer_{index}_{part}");
        let projections = [&layer.query, &layer.key, &layer.value];
        let projected = self.dense(&name("qkv"), states, &projections, shared)?;
        let context = self.attention(&projected, shared)?;
        let output = [&layer.attention_output];
        let context = self.dense(&name("attention"), &context, &output, shared)?;
        let name_norm = name("attention_norm");
        let states = self.add_and_normalize(&name_norm, &context, states, &layer.attention_norm)?;

        let inner = self.dense(&name("intermediate"), &states, &[&layer.intermediate], shared)?;
        let inner = match self.config.activation {
            Activation::GeluErf => self.graph.node("Gelu", &[&inner], Vec::new())?,
            Activation::GeluTanh => {
                self.graph.node("Gelu", &[&inner], vec![text("approximate", "tanh")?])?
            }
            Activation::Relu => self.graph.node("Relu", &[&inner], Vec::new())?,
        };
        let output = self.dense(&name("output"), &inner, &[&layer.output], shared)?;
        self.add_and_normalize(&name("output_norm"), &output, &states, &layer.output_norm)
    }

    /// softmax(Q·Kᵀ / √head_dim + mask)·V per head; `[tokens, 3·hidden]` to `[tokens, hidden]`.
    fn attention(&mut self, projected: &str, shared: &Shared) -> Result<String, OnnxError> {
        let graph = &mut self.graph;
        let pieces = graph.node("Reshape", &[projected, &shared.pieces], Vec::new())?;
        let scale = 1.0 / (self.config.head_dim() as f32).sqrt();
        let mut blocks = Vec::with_capacity(shared.blocks.len());
        for SharedBlock { gathers, mask } in &shared.blocks {
            let mut pick =
                |part: usize| graph.node("Gather", &[&pieces, &gathers[part]], Vec::new());
            let (query, key, value) = (pick(0)?, pick(1)?, pick(2)?);
            let scores = graph.contrib_node(
                "FusedMatMul",
                &[&query, &key],
                vec![float("alpha", scale)?, int("transB", 1)?],
            )?;
            let scores = graph.node("Add", &[&scores, mask], Vec::new())?;
            let shares = graph.node("Softmax", &[&scores], vec![int("axis", -1)?])?;
            let block = graph.node("MatMul", &[&shares, &value], Vec::new())?;
            blocks.push(graph.node("Reshape", &[&block, &shared.pieces], Vec::new())?);
        }
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        let pieces = graph.node("Concat", &blocks, vec![int("axis", 0)?])?;
        let returned = graph.node("Gather", &[&pieces, INPUT_RETURNS], Vec::new())?;
        graph.node("Reshape", &[&returned, &shared.joined], Vec::new())
    }

    /// LayerNorm(left + right). Two plain operators: the fused one is several times slower here.
    fn add_and_normalize(
        &mut self,
        name: &str,
        left: &str,
        right: &str,
        norm: &Norm<'_>,
    ) -> Result<String, OnnxError> {
        let sum = self.graph.node("Add", &[left, right], Vec::new())?;
        self.normalize(name, &sum, norm)
    }

    fn normalize(&mut self, name: &str, input: &str, norm: &Norm<'_>) -> Result<String, OnnxError> {
        let hidden = [self.config.hidden];
        let graph = &mut self.graph;
        let gamma = graph.constant(format!("{name}_gamma"), &hidden, &norm.gamma.to_f32()?)?;
        let beta = graph.constant(format!("{name}_beta"), &hidden, &norm.beta.to_f32()?)?;
        let attributes = vec![int("axis", -1)?, float("epsilon", self.config.layer_norm_eps)?];
        graph.node("LayerNormalization", &[input, &gamma, &beta], attributes)
    }

    /// x·Wᵀ + b for the layers of `parts` side by side.
    fn dense(
        &mut self,
        name: &str,
        input: &str,
        parts: &[&Linear<'_>],
        shared: &Shared,
    ) -> Result<String, OnnxError> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in parts {
            weight.extend(part.weight.to_f32()?);
            bias.extend(part.bias.to_f32()?);
        }
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
        let Some(quantized) = &shared.quantized else {
            let weight =
                self.graph.constant(format!("{name}_weight"), &[outputs, inputs], &weight)?;
            let bias = self.graph.constant(format!("{name}_bias"), &[outputs], &bias)?;
            return self.graph.node("Gemm", &[input, &weight, &bias], vec![int("transB", 1)?]);
        };
        let weight = quantize::per_column(&weight, inputs, quantize::weight_limit());
        self.dense_int8(name, input, weight, &bias, quantized)
    }

    /// The same with 8-bit operands. Per token, with least value m and scale s = (greatest - m)/255:
    /// q = round((x - m) / s), and x·Wᵀ + b = (q·W_q ∘ s_W)·s + m·(column sums of W) + b.
    fn dense_int8(
        &mut self,
        name: &str,
        input: &str,
        weight: QuantizedWeight,
        bias: &[f32],
        shared: &SharedQuantized,
    ) -> Result<String, OnnxError> {
        let (outputs, inputs) = (bias.len(), weight.values.len() / bias.len());
        let graph = &mut self.graph;
        let [quantized, ranges] = graph.own_node(QUANTIZE_TOKENS, &[input])?;
        let values =
            graph.constant(format!("{name}_weight"), &[inputs, outputs], &weight.values)?;
        let scales = graph.constant(format!("{name}_scales"), &[outputs], &weight.scales)?;
        let product = graph.contrib_node(
            "MatMulIntegerToFloat",
            &[&quantized, &values, &shared.one, &scales, &shared.zero_point],
            Vec::new(),
        )?;
        let sums = graph.constant(format!("{name}_sums"), &[outputs], &weight.column_sums())?;
        let bias = graph.constant(format!("{name}_bias"), &[outputs], bias)?;
        let [rescaled] = graph.own_node(RESCALE_TOKENS, &[&product, &ranges, &sums, &bias])?;
        Ok(rescaled)
    }
}
