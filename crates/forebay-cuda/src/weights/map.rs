//! Where each tensor stands in the one allocation of weights, as byte offsets.
//!
//! Query, key and value are one matrix `[3 * hidden, hidden]`, so that one product gives all three.
//! Each bias exists twice: in f32 for our own kernels and in the 16-bit type for library products
//! that add it themselves. The map depends on the geometry alone: both 16-bit types are two bytes.

use super::geometry::Geometry;
use crate::edge::aligned;

const HALF_BYTES: usize = 2;
const FLOAT_BYTES: usize = 4;

/// Offsets of one dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinearAt {
    /// `[out, in]` in the 16-bit type.
    pub weight: usize,
    /// `[out]` in f32.
    pub bias: usize,
    /// `[out]` in the 16-bit type.
    pub bias_half: usize,
}

/// Offsets of one layer normalisation, f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NormAt {
    /// Scale, `[hidden]`.
    pub gamma: usize,
    /// Shift, `[hidden]`.
    pub beta: usize,
}

/// Offsets of one encoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerAt {
    /// Query, key and value, `[3 * hidden, hidden]`.
    pub qkv: LinearAt,
    /// Projection of the joined heads, `[hidden, hidden]`.
    pub projection: LinearAt,
    /// Normalisation after attention.
    pub attention_norm: NormAt,
    /// First layer of the feed-forward block, `[intermediate, hidden]`.
    pub up: LinearAt,
    /// Second layer of the feed-forward block, `[hidden, intermediate]`.
    pub down: LinearAt,
    /// Normalisation after the feed-forward block.
    pub output_norm: NormAt,
}

/// Offsets of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightsMap {
    /// Word table `[vocab, hidden]`.
    pub word: usize,
    /// Position table `[positions, hidden]`.
    pub position: usize,
    /// Row 0 of the token type table, `[hidden]`: single texts use no other.
    pub type0: usize,
    /// Normalisation of the summed embeddings.
    pub embedding_norm: NormAt,
    /// The layers, first to last.
    pub layers: Vec<LayerAt>,
    /// A bias of zeros in f32, as wide as the widest row.
    pub zeros: usize,
    /// Size of the allocation.
    pub bytes: usize,
}

impl WeightsMap {
    /// The map of an encoder with this geometry.
    pub(crate) fn of(geometry: &Geometry) -> Self {
        let hidden = geometry.hidden as usize;
        let intermediate = geometry.intermediate as usize;
        let mut end = Cursor(0);
        let word = end.take(geometry.vocab as usize * hidden * HALF_BYTES);
        let position = end.take(geometry.positions as usize * hidden * HALF_BYTES);
        let type0 = end.take(hidden * HALF_BYTES);
        let embedding_norm = end.norm(hidden);
        let layers = (0..geometry.layers)
            .map(|_| LayerAt {
                qkv: end.linear(3 * hidden, hidden),
                projection: end.linear(hidden, hidden),
                attention_norm: end.norm(hidden),
                up: end.linear(intermediate, hidden),
                down: end.linear(hidden, intermediate),
                output_norm: end.norm(hidden),
            })
            .collect();
        let zeros = end.take(geometry.widest() as usize * FLOAT_BYTES);
        Self { word, position, type0, embedding_norm, layers, zeros, bytes: end.0 }
    }
}

/// End of what is placed so far; always aligned.
struct Cursor(usize);

impl Cursor {
    fn take(&mut self, bytes: usize) -> usize {
        let at = self.0;
        self.0 += aligned(bytes);
        at
    }

    fn linear(&mut self, out: usize, input: usize) -> LinearAt {
        LinearAt {
            weight: self.take(out * input * HALF_BYTES),
            bias: self.take(out * FLOAT_BYTES),
            bias_half: self.take(out * HALF_BYTES),
        }
    }

    fn norm(&mut self, width: usize) -> NormAt {
        NormAt { gamma: self.take(width * FLOAT_BYTES), beta: self.take(width * FLOAT_BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::ALIGNMENT;
    use crate::weights::mini_geometry;

    /// Every part with its size in bytes.
    fn parts(map: &WeightsMap, geometry: &Geometry) -> Vec<(usize, usize)> {
        let (h, i) = (geometry.hidden as usize, geometry.intermediate as usize);
        let mut parts = vec![
            (map.word, geometry.vocab as usize * h * 2),
            (map.position, geometry.positions as usize * h * 2),
            (map.type0, h * 2),
            (map.zeros, geometry.widest() as usize * 4),
        ];
        let linear = |at: &LinearAt, out: usize, input: usize| {
            [(at.weight, out * input * 2), (at.bias, out * 4), (at.bias_half, out * 2)]
        };
        let norm = |at: &NormAt| [(at.gamma, h * 4), (at.beta, h * 4)];
        parts.extend(norm(&map.embedding_norm));
        for layer in &map.layers {
            parts.extend(linear(&layer.qkv, 3 * h, h));
            parts.extend(linear(&layer.projection, h, h));
            parts.extend(norm(&layer.attention_norm));
            parts.extend(linear(&layer.up, i, h));
            parts.extend(linear(&layer.down, h, i));
            parts.extend(norm(&layer.output_norm));
        }
        parts
    }

    #[test]
    fn parts_are_aligned_disjoint_and_fill_the_allocation() {
        let geometry = mini_geometry();
        let map = WeightsMap::of(&geometry);
        let mut parts = parts(&map, &geometry);
        parts.sort_unstable();
        assert_eq!(parts[0].0, 0);
        for pair in parts.windows(2) {
            assert_eq!(pair[0].0 % ALIGNMENT, 0);
            assert_eq!(pair[0].0 + aligned(pair[0].1), pair[1].0, "a gap or an overlap");
        }
        let last = parts[parts.len() - 1];
        assert_eq!(last.0 + aligned(last.1), map.bytes);
    }

    #[test]
    fn a_six_layer_model_of_width_384_takes_45_mb() {
        let bytes = WeightsMap::of(&mini_geometry()).bytes;
        assert!((45_000_000..46_500_000).contains(&bytes), "{bytes}");
    }
}
