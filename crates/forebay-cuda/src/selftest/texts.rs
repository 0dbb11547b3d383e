//! Seeded texts as token ids, and batches of them.

use rand::Rng;
use rand::rngs::SmallRng;

use super::engine::Limits;

/// Texts packed one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    ids: Vec<u32>,
    cu: Vec<u32>,
}

impl Batch {
    /// A batch of these texts, none of which is empty.
    pub(super) fn of<'t>(texts: impl IntoIterator<Item = &'t [u32]>) -> Self {
        let mut batch = Self { ids: Vec::new(), cu: vec![0] };
        for text in texts {
            batch.push(text);
        }
        batch
    }

    fn push(&mut self, text: &[u32]) {
        self.ids.extend_from_slice(text);
        self.cu.push(self.ids.len() as u32);
    }

    /// Token ids of all texts.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Boundaries: one more than there are texts.
    pub(super) fn cu(&self) -> &[u32] {
        &self.cu
    }
}

/// A text of this many tokens.
pub(super) fn random_text(rng: &mut SmallRng, limits: &Limits, tokens: u32) -> Vec<u32> {
    (0..tokens).map(|_| rng.random_range(0..limits.vocab)).collect()
}

/// Random texts of all lengths, together of this many tokens.
pub(super) fn random_batch_of(rng: &mut SmallRng, limits: &Limits, tokens: u32) -> Batch {
    let mut batch = Batch::of([]);
    let mut left = tokens;
    while left > 0 {
        let length = log_uniform(rng, limits.row_tokens_max).min(left);
        batch.push(&random_text(rng, limits, length));
        left -= length;
    }
    batch
}

/// A number from 1 to `most`, of each order of magnitude as often as of any other.
pub(super) fn log_uniform(rng: &mut SmallRng, most: u32) -> u32 {
    let exponent = rng.random::<f64>() * (f64::from(most) + 1.0).ln();
    (exponent.exp() as u32).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::super::values::generator;
    use super::*;

    const LIMITS: Limits = Limits { vocab: 50, row_tokens_max: 20, tokens_max: 512, rows_max: 8 };

    #[test]
    fn a_batch_has_the_tokens_asked_for_and_keeps_the_limits() {
        let mut rng = generator(3, "texts");
        for tokens in 1..200 {
            let batch = random_batch_of(&mut rng, &LIMITS, tokens);
            assert_eq!(batch.ids().len() as u32, tokens);
            assert_eq!(batch.cu().last(), Some(&tokens));
            assert!(batch.ids().iter().all(|&id| id < LIMITS.vocab));
            assert!(batch.cu().windows(2).all(|pair| (1..=20).contains(&(pair[1] - pair[0]))));
        }
    }

    #[test]
    fn every_order_of_magnitude_is_drawn_alike() {
        let mut rng = generator(4, "numbers");
        let mut decades = [0_u32; 4];
        for _ in 0..4000 {
            let number = log_uniform(&mut rng, 9999);
            decades[number.ilog10() as usize] += 1;
        }
        assert!(decades.iter().all(|&count| (800..1200).contains(&count)), "{decades:?}");
        assert!((0..100).all(|_| log_uniform(&mut rng, 1) == 1));
    }
}
