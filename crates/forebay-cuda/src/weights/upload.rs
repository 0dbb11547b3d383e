//! Converts the tensors and copies them to the device, through one page-locked buffer.
//!
//! The copy can be repeated in the other 16-bit type into the same allocation, which is how a model
//! that turns out to overflow F16 is switched. Values that are not finite are an error that names
//! the tensor. The largest magnitude of what is rounded to 16 bits is found on the way.

use std::sync::Arc;

use forebay_model::{EncoderWeights, Linear, Norm, WeightView};

use super::convert;
use super::geometry::Geometry;
use super::map::{LinearAt, NormAt, WeightsMap};
use super::precision::larger;
use crate::Dtype;
use crate::edge::{Context, DeviceMemory, DevicePtr, PinnedBuffer, Stream};
use crate::engine::EngineError;

/// Elements converted at a time; as f32 they fill the page-locked buffer of 4 MiB.
const PIECE: usize = 1 << 20;

/// The weights on the device.
#[derive(Debug)]
pub(crate) struct DeviceWeights {
    memory: DeviceMemory,
    map: WeightsMap,
}

/// The largest magnitude among the weights that are kept in 16 bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightRange {
    /// The magnitude.
    pub largest: f32,
    /// The tensor that holds it.
    pub tensor: String,
}

impl DeviceWeights {
    /// Allocates room for the weights of `geometry`; their content is undefined before
    /// [`write`](Self::write).
    pub(crate) fn allocate(
        context: &Arc<Context>,
        geometry: &Geometry,
    ) -> Result<Self, EngineError> {
        let map = WeightsMap::of(geometry);
        let memory = DeviceMemory::allocate(context, map.bytes, "weights")?;
        Ok(Self { memory, map })
    }

    /// Where everything stands.
    pub(crate) fn map(&self) -> &WeightsMap {
        &self.map
    }

    /// The device's address of what stands at `offset`.
    pub(crate) fn at(&self, offset: usize) -> DevicePtr {
        self.memory.base().offset(offset)
    }

    /// Copies every tensor, rounded to `dtype`, and waits for the last copy. Nothing may use the
    /// weights meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Model`] for a value that is not finite; [`EngineError::Cuda`].
    pub(crate) fn write(
        &self,
        weights: &EncoderWeights<'_>,
        geometry: &Geometry,
        dtype: Dtype,
        stream: &Stream,
    ) -> Result<WeightRange, EngineError> {
        let hidden = geometry.hidden as usize;
        let buffer = PinnedBuffer::new(stream.context(), PIECE * size_of::<f32>())?;
        let mut writer = Writer {
            base: self.memory.base(),
            stream,
            dtype,
            buffer,
            values: vec![0.0; PIECE],
            bits: Vec::with_capacity(PIECE),
            range: WeightRange { largest: 0.0, tensor: String::new() },
        };
        let map = &self.map;
        self.memory.zero(stream)?;
        writer.half(map.word, &weights.word, elements(&weights.word))?;
        writer.half(map.position, &weights.position, elements(&weights.position))?;
        writer.half(map.type0, &weights.token_type, hidden)?;
        writer.norm(&map.embedding_norm, &weights.embedding_norm)?;
        for (at, layer) in map.layers.iter().zip(&weights.layers) {
            for (index, part) in [&layer.query, &layer.key, &layer.value].into_iter().enumerate() {
                let at = LinearAt {
                    weight: at.qkv.weight + index * hidden * hidden * Dtype::BYTES,
                    bias: at.qkv.bias + index * hidden * size_of::<f32>(),
                    bias_half: at.qkv.bias_half + index * hidden * Dtype::BYTES,
                };
                writer.linear(&at, part)?;
            }
            writer.linear(&at.projection, &layer.attention_output)?;
            writer.norm(&at.attention_norm, &layer.attention_norm)?;
            writer.linear(&at.up, &layer.intermediate)?;
            writer.linear(&at.down, &layer.output)?;
            writer.norm(&at.output_norm, &layer.output_norm)?;
        }
        Ok(writer.range)
    }
}

fn elements(view: &WeightView<'_>) -> usize {
    view.shape.iter().product()
}

struct Writer<'a> {
    base: DevicePtr,
    stream: &'a Stream,
    dtype: Dtype,
    buffer: PinnedBuffer,
    values: Vec<f32>,
    bits: Vec<u16>,
    range: WeightRange,
}

impl Writer<'_> {
    fn linear(&mut self, at: &LinearAt, linear: &Linear<'_>) -> Result<(), EngineError> {
        self.half(at.weight, &linear.weight, elements(&linear.weight))?;
        self.half(at.bias_half, &linear.bias, elements(&linear.bias))?;
        self.float(at.bias, &linear.bias)
    }

    fn norm(&mut self, at: &NormAt, norm: &Norm<'_>) -> Result<(), EngineError> {
        self.float(at.gamma, &norm.gamma)?;
        self.float(at.beta, &norm.beta)
    }

    /// The first `count` elements of `view` in the 16-bit type.
    fn half(&mut self, at: usize, view: &WeightView<'_>, count: usize) -> Result<(), EngineError> {
        for start in (0..count).step_by(PIECE) {
            let length = PIECE.min(count - start);
            let values = &mut self.values[..length];
            convert::read(view, start, values)?;
            let largest = values.iter().copied().fold(0.0, larger);
            if largest > self.range.largest {
                self.range = WeightRange { largest, tensor: view.name.to_owned() };
            }
            let bytes = length * Dtype::BYTES;
            let out = &mut self.buffer.as_mut_bytes()?[..bytes];
            convert::write_half(values, self.dtype, out, &mut self.bits);
            self.send(at + start * Dtype::BYTES, bytes)?;
        }
        Ok(())
    }

    /// All elements of `view` in f32.
    fn float(&mut self, at: usize, view: &WeightView<'_>) -> Result<(), EngineError> {
        let count = elements(view);
        for start in (0..count).step_by(PIECE) {
            let length = PIECE.min(count - start);
            let values = &mut self.values[..length];
            convert::read(view, start, values)?;
            let bytes = length * size_of::<f32>();
            convert::write_float(values, &mut self.buffer.as_mut_bytes()?[..bytes]);
            self.send(at + start * size_of::<f32>(), bytes)?;
        }
        Ok(())
    }

    /// The buffer is written again right after, so the copy is waited for.
    fn send(&mut self, at: usize, bytes: usize) -> Result<(), EngineError> {
        self.buffer.copy_in(0, self.base.offset(at), bytes, self.stream)?;
        Ok(self.stream.synchronize()?)
    }
}
