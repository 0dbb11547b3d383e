//! The layer sequence: which kernel reads and writes what, in which order.
//!
//! Everything here only enqueues work on the stream it is given, in a capture or outside of one. Sizes
//! are read by the kernels from the device, before they wait for the kernel in front of them: what
//! `embed` leaves must be complete when the first layer is launched. The bucket says how many rows are
//! launched for.

use std::sync::Arc;

use super::loading::Loaded;
use super::products::{Product, Products, norm_operands, operands};
use super::workspace::Ring;
use crate::CudaError;
use crate::edge::{DevicePtr, Stream};
use crate::kernels::{Attention, EmbedNorm, Pool};
use crate::weights::LayerAt;

/// A batch as the embedding kernel finds it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    /// Token ids of all rows, on the device or in mapped memory.
    pub ids: DevicePtr,
    /// Row boundaries, `rows + 1`, rising from 0.
    pub boundaries: DevicePtr,
    /// Number of tokens.
    pub tokens: u32,
    /// Number of rows.
    pub rows: u32,
}

/// Rows of activations that were just computed, for whoever watches a run without a graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activations {
    /// The layer, from 0; embeddings count as layer 0.
    pub layer: usize,
    /// What they are.
    pub what: &'static str,
    /// Where they are.
    pub at: DevicePtr,
    /// Values of one row.
    pub width: u32,
}

/// Looks at activations between two steps. The work that makes them may still be under way.
pub(crate) type Watch<'a> = dyn FnMut(Activations) -> Result<(), CudaError> + 'a;

/// The loaded model with its products.
pub(crate) struct Layers {
    loaded: Arc<Loaded>,
    products: Products,
}

impl Layers {
    pub(crate) fn new(loaded: Arc<Loaded>, products: Products) -> Self {
        Self { loaded, products }
    }

    pub(crate) fn loaded(&self) -> &Arc<Loaded> {
        &self.loaded
    }

    pub(crate) fn products(&self) -> &Products {
        &self.products
    }

    /// Enqueues the sum of the embeddings and its normalisation, which also leaves boundaries and sizes
    /// for the kernels behind it.
    ///
    /// # Errors
    /// The driver's failure.
    pub(crate) fn embed(
        &self,
        ring: usize,
        input: &Input,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let Loaded { geometry, weights, workspace, kernels, .. } = &*self.loaded;
        let (map, ring) = (weights.map(), workspace.ring(ring));
        kernels.embed_norm(
            stream,
            &EmbedNorm {
                ids: input.ids,
                cu: input.boundaries,
                tokens: input.tokens,
                rows: input.rows,
                word: weights.at(map.word),
                position: weights.at(map.position),
                type0: weights.at(map.type0),
                gamma: weights.at(map.embedding_norm.gamma),
                beta: weights.at(map.embedding_norm.beta),
                eps: geometry.eps,
                position_offset: geometry.position_offset,
                x: ring.states,
                cu_out: ring.boundaries,
                sizes_out: ring.sizes,
            },
        )
    }

    /// Enqueues the pooling of `rows` rows in buffer `ring` into `out`, `[rows, hidden + 1]`.
    ///
    /// # Errors
    /// The driver's failure.
    pub(crate) fn pool(
        loaded: &Loaded,
        ring: usize,
        rows: u32,
        out: DevicePtr,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let ring = loaded.workspace.ring(ring);
        let mode = loaded.geometry.pooling;
        let (x, cu) = (ring.states, ring.boundaries);
        loaded.kernels.pool(stream, &Pool { x, cu, rows, mode, out })
    }

    /// Makes the library's plans for `bucket`; those of the first layer stand for all. Overwrites the
    /// buffer and the scratch memory.
    ///
    /// # Errors
    /// The library's failure.
    pub(crate) fn prepare(
        &mut self,
        ring: usize,
        bucket: u32,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let Loaded { weights, workspace, .. } = &*self.loaded;
        let Some(layer) = weights.map().layers.first() else { return Ok(()) };
        let states = workspace.ring(ring).states;
        for (product, at, a, d) in [
            (Product::Projections, &layer.qkv, states, workspace.projections),
            (Product::Joined, &layer.projection, workspace.attended, workspace.product),
            (Product::Up, &layer.up, states, workspace.wide),
            (Product::Down, &layer.down, workspace.wide, workspace.product),
        ] {
            let operands = operands(at, |offset| weights.at(offset), a, d);
            self.products.prepare(product, bucket, &operands, stream)?;
        }
        self.products.save();
        Ok(())
    }

    /// Enqueues all layers for the batch that [`embed`](Self::embed) left in buffer `ring`. That must
    /// be complete: a graph is not launched before it is, and a run without one waits for it.
    ///
    /// # Errors
    /// The driver's or the library's failure, and what `watch` returns.
    pub(crate) fn run(
        &self,
        ring: usize,
        bucket: u32,
        stream: &Stream,
        watch: &mut Watch<'_>,
    ) -> Result<(), CudaError> {
        let ring = self.loaded.workspace.ring(ring);
        for (layer, at) in self.loaded.weights.map().layers.iter().enumerate() {
            self.layer(layer, at, ring, bucket, stream, watch)?;
        }
        Ok(())
    }

    fn layer(
        &self,
        layer: usize,
        at: &LayerAt,
        ring: Ring,
        bucket: u32,
        stream: &Stream,
        watch: &mut Watch<'_>,
    ) -> Result<(), CudaError> {
        let Loaded { geometry, weights, workspace, kernels, .. } = &*self.loaded;
        let products = &self.products;
        let address = |offset| weights.at(offset);
        let zeros = weights.at(weights.map().zeros);
        let Ring { states, sizes, .. } = ring;
        let (projections, attended) = (workspace.projections, workspace.attended);
        let (wide, scratch) = (workspace.wide, workspace.product);
        let mut show = |what, at, width| watch(Activations { layer, what, at, width });

        let into = operands(&at.qkv, address, states, projections);
        products.rows(Product::Projections, bucket, &into, sizes, kernels, stream)?;
        show("projections", projections, 3 * geometry.hidden)?;

        kernels.attention(
            stream,
            &Attention {
                qkv: projections,
                cu: ring.boundaries,
                sizes,
                ctx: attended,
                heads: geometry.heads,
                bucket,
            },
        )?;
        show("attention", attended, geometry.hidden)?;

        for (product, linear, norm, a, what) in [
            (Product::Joined, &at.projection, &at.attention_norm, attended, "attention output"),
            (Product::Down, &at.down, &at.output_norm, wide, "output"),
        ] {
            if product == Product::Down {
                let up = operands(&at.up, address, states, wide);
                products.rows(Product::Up, bucket, &up, sizes, kernels, stream)?;
                show("feed-forward", wide, geometry.intermediate)?;
            }
            let linear = operands(linear, address, a, states);
            let norm = norm_operands(norm, address, states);
            products
                .norm(product, bucket, &linear, &norm, scratch, zeros, sizes, kernels, stream)?;
            show(what, states, geometry.hidden)?;
        }
        Ok(())
    }
}
