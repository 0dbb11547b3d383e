//! The embedding tables of a model. They stay outside the graph, so that the sessions
//! of a worker share them: they are half of a small model's memory.

use forebay_model::{EncoderConfig, EncoderWeights};

use crate::error::OnnxError;

/// Word and position embeddings, one row of `hidden` values each.
#[derive(Debug)]
pub(crate) struct Tables {
    word: Vec<f32>,
    /// With the embedding of token type 0 added, which every token of a text has.
    position: Vec<f32>,
    position_offset: usize,
    hidden: usize,
}

impl Tables {
    pub(crate) fn read(
        config: &EncoderConfig,
        weights: &EncoderWeights<'_>,
    ) -> Result<Self, OnnxError> {
        let word = weights.word.to_f32()?;
        let mut position = weights.position.to_f32()?;
        let token_type = weights.token_type.to_f32()?;
        for row in position.chunks_exact_mut(config.hidden) {
            row.iter_mut().zip(&token_type).for_each(|(value, kind)| *value += kind);
        }
        let EncoderConfig { hidden, position_offset, .. } = *config;
        Ok(Self { word, position, position_offset, hidden })
    }

    /// Appends the embedding of each token of a checked row, before normalisation.
    pub(crate) fn embed(&self, ids: &[u32], out: &mut Vec<f32>) {
        let hidden = self.hidden;
        let positions = self.position[self.position_offset * hidden..].chunks_exact(hidden);
        for (&id, position) in ids.iter().zip(positions) {
            let word = &self.word[id as usize * hidden..][..hidden];
            out.extend(word.iter().zip(position).map(|(word, position)| word + position));
        }
    }
}
