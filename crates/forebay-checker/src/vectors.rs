//! Whether a vector is the one of its text. What is kept of a vector that was found right is which text
//! it belongs to and how near it is, so that a night of ever new vectors fits into memory.

use std::collections::HashMap;

use crate::Length;

/// A length may differ by this from what it is to be, whatever the arithmetic.
const NORM_TOLERANCE: f64 = 1e-3;
/// Two texts whose known answers are farther apart than this many tolerances have no right vector in
/// common.
const APART: f64 = 4.0;

/// The known answers, and the vectors so far.
#[derive(Default)]
pub(crate) struct Vectors {
    texts: HashMap<u64, Vec<f32>>,
    /// Those that were compared with no text yet, or were wrong.
    unknown: HashMap<u64, Vec<f32>>,
    /// Those that are right, with their text and 1 - cosine.
    right: HashMap<u64, (u64, f64)>,
}

impl Vectors {
    pub(crate) fn know(&mut self, text: u64, vector: Vec<f32>) {
        self.texts.insert(text, vector);
    }

    /// Takes a vector that was not seen before; says if it cannot be one of any text.
    pub(crate) fn add(&mut self, id: u64, vector: Vec<f32>, length: Length) -> Option<String> {
        let norm = norm(&vector);
        // A NaN is in no range.
        let is_sound = match length {
            Length::Unit => (1.0 - NORM_TOLERANCE..=1.0 + NORM_TOLERANCE).contains(&norm),
            Length::Own => norm.is_finite() && norm > 0.0,
        };
        self.unknown.insert(id, vector);
        (!is_sound).then(|| format!("vector {id} has length {norm}"))
    }

    /// 1 - cosine of a vector and the answer of a text.
    ///
    /// # Errors
    /// In words what is wrong with it, if it is not within the tolerance.
    pub(crate) fn compare(
        &mut self,
        text: u64,
        id: u64,
        tolerance: f64,
        length: Length,
    ) -> Result<f64, String> {
        if let Some((of, distance)) = self.right.get(&id).copied() {
            let is_other = of != text && self.between(of, text) > APART * tolerance;
            return match is_other {
                true => Err(format!("the answer is the vector of text {of}")),
                false => Ok(distance),
            };
        }
        let pair = self.texts.get(&text).zip(self.unknown.get(&id));
        let Some((found, (known, vector))) =
            pair.and_then(|pair| Some((distance(pair.0, pair.1)?, pair)))
        else {
            return Err(format!("vector {id} cannot be compared with the known answer"));
        };
        // A NaN is no less.
        let is_near = found <= tolerance;
        if !is_near {
            return Err(self.wrong(text, vector, found, tolerance));
        }
        if length == Length::Own {
            // An error of this share of the length turns a vector by `tolerance` at most.
            let allowed = (2.0 * tolerance).sqrt() + NORM_TOLERANCE;
            let ratio = norm(vector) / norm(known);
            if !(1.0 - allowed..=1.0 + allowed).contains(&ratio) {
                return Err(format!("its length is {ratio:.4} of what it is to be"));
            }
        }
        self.unknown.remove(&id);
        self.right.insert(id, (text, found));
        Ok(found)
    }

    /// 1 - cosine of two known answers; infinite if they cannot be compared.
    fn between(&self, one: u64, other: u64) -> f64 {
        let pair = self.texts.get(&one).zip(self.texts.get(&other));
        pair.and_then(|(one, other)| distance(one, other)).unwrap_or(f64::INFINITY)
    }

    fn wrong(&self, text: u64, vector: &[f32], found: f64, tolerance: f64) -> String {
        let others = self.texts.iter().filter(|(other, _)| **other != text);
        let nearest = others
            .filter_map(|(other, known)| Some((distance(known, vector)?, *other)))
            .min_by(|one, other| one.0.total_cmp(&other.0));
        match nearest {
            Some((to_other, other)) if to_other <= tolerance => {
                format!("the answer is the vector of text {other}")
            }
            _ => format!("1 - cosine is {found:.6}, allowed is {tolerance}"),
        }
    }
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn distance(one: &[f32], other: &[f32]) -> Option<f64> {
    if one.len() != other.len() {
        return None;
    }
    let dot: f64 = one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    Some(1.0 - dot / (norm(one) * norm(other)))
}
