//! The known answers: what the CPU computes in F32 for each text, and by how much an answer may
//! differ from it.

use forebay::config::{CudaPrecision, Device, Fallback, Precision, Rungs};
use forebay::{Config, EmbedOptions, Runtime};

use crate::error::SoakError;

/// By how much 1 - cosine may differ from 0, by arithmetic. Another order of summation changes the
/// last bits of F32; F16, BF16 and INT8 round more.
const F32_TOLERANCE: f64 = 1e-4;
const F16_TOLERANCE: f64 = 1e-3;
const BF16_TOLERANCE: f64 = 5e-3;
const INT8_TOLERANCE: f64 = 3e-2;

/// By how much the length of a vector may differ, as a share of what it is to be.
const LENGTH_TOLERANCE: f64 = 1e-3;

/// Texts whose answers are nearer to each other than this many tolerances could be mistaken for each
/// other, so one of them is left out.
const APART: f64 = 4.0;

/// Texts with their known answers.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// The texts.
    pub texts: Vec<String>,
    /// Their answers, in the same order.
    pub vectors: Vec<Vec<f32>>,
    /// Whether these have length 1; if not, an answer must be as long as the known one.
    pub is_unit: bool,
    /// An answer is right if 1 - cosine of it and the known one is at most this.
    pub tolerance: f64,
    /// What an answer is held to that was sent and answered at a level: less than `tolerance`.
    pub tolerance_by_level: Vec<(String, f64)>,
    /// Texts that were left out, as their answers were too near to others.
    pub left_out: usize,
}

/// The tolerance that the rungs of a runtime need: that of the coarsest arithmetic among them.
#[must_use]
pub fn tolerance(config: &Config) -> f64 {
    let rungs = match &config.devices.rungs {
        Rungs::Listed(devices) => devices.clone(),
        Rungs::Auto => vec![Device::Cuda(0), Device::Cpu],
    };
    let of = |device: &Device| match device {
        Device::Cpu => cpu_tolerance(config),
        Device::Cuda(_) if config.cuda.precision == CudaPrecision::F16 => F16_TOLERANCE,
        Device::Cuda(_) => BF16_TOLERANCE,
    };
    rungs.iter().map(of).fold(F32_TOLERANCE, f64::max)
}

fn cpu_tolerance(config: &Config) -> f64 {
    match config.model.precision {
        Precision::Int8 => INT8_TOLERANCE,
        _ => F32_TOLERANCE,
    }
}

impl Oracle {
    /// Has the texts computed by a runtime on the CPU in F32, which is ended again.
    ///
    /// # Errors
    /// The runtime does not start; a text has no embedding; fewer than two texts can be told apart.
    pub async fn compute(
        config: &Config,
        texts: Vec<String>,
        tolerance: f64,
    ) -> Result<Self, SoakError> {
        let mut config = config.clone();
        config.devices.rungs = Rungs::Listed(vec![Device::Cpu]);
        config.devices.fallback = Fallback::None;
        config.model.precision = Precision::F32;
        config.faults.enabled = false;
        // The tested runtime writes there.
        config.events.folder = std::path::PathBuf::new();
        let unreachable = |reason: String| SoakError::Unreachable {
            target: "the CPU, which computes the known answers".to_owned(),
            reason,
        };
        let runtime =
            Runtime::start(config).await.map_err(|error| unreachable(error.to_string()))?;
        let rows = runtime.embed_batch(texts.clone(), &EmbedOptions::bulk()).await;
        runtime.shutdown().await;
        let rows = rows.map_err(|error| unreachable(error.to_string()))?;
        let mut vectors = Vec::with_capacity(rows.len());
        for (row, text) in rows.into_iter().zip(&texts) {
            let row = row.map_err(|error| unreachable(format!("text {text:?}: {error}")))?;
            vectors.push(row.vector);
        }
        Self::of(texts, vectors, tolerance)
    }

    /// Texts with these answers, without those that could be mistaken for others.
    ///
    /// # Errors
    /// Fewer than two texts can be told apart.
    pub fn of(
        texts: Vec<String>,
        vectors: Vec<Vec<f32>>,
        tolerance: f64,
    ) -> Result<Self, SoakError> {
        let is_unit = vectors.iter().all(|vector| (norm(vector) - 1.0).abs() <= LENGTH_TOLERANCE);
        let mut oracle = Self {
            texts: Vec::new(),
            vectors: Vec::new(),
            is_unit,
            tolerance,
            tolerance_by_level: Vec::new(),
            left_out: 0,
        };
        for (text, vector) in texts.into_iter().zip(vectors) {
            let apart = |other: &Vec<f32>| distance(other, &vector) > APART * tolerance;
            if oracle.vectors.iter().all(apart) {
                oracle.texts.push(text);
                oracle.vectors.push(vector);
            } else {
                oracle.left_out += 1;
            }
        }
        match oracle.texts.len() >= 2 {
            true => Ok(oracle),
            false => Err(SoakError::Usage(
                "fewer than two texts have answers that can be told apart; give more texts, or \
                 longer ones"
                    .to_owned(),
            )),
        }
    }

    /// Whether a vector is right for a text.
    #[must_use]
    pub fn is_right(&self, text: u32, vector: &[f32]) -> bool {
        let Some(known) = self.vectors.get(text as usize) else { return false };
        let (length, allowed) = match self.is_unit {
            true => (norm(vector), LENGTH_TOLERANCE),
            // An error of this share of the length turns a vector by the tolerance at most.
            false => (norm(vector) / norm(known), LENGTH_TOLERANCE + (2.0 * self.tolerance).sqrt()),
        };
        distance(known, vector) <= self.tolerance && (length - 1.0).abs() <= allowed
    }

    /// Holds what the CPU alone can have computed to what its arithmetic needs.
    pub fn hold_levels(&mut self, config: &Config) {
        let cpu = cpu_tolerance(config);
        if cpu < self.tolerance {
            self.tolerance_by_level = vec![("cpu".to_owned(), cpu)];
        }
    }
}

fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

/// 1 - cosine; not a number if the lengths differ, which is no less than anything.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    if one.len() != other.len() {
        return f64::NAN;
    }
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    1.0 - dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_could_be_mistaken_are_left_out() {
        let texts = ["a", "b", "c"].map(str::to_owned).to_vec();
        let vectors = vec![vec![1.0, 0.0], vec![0.9999, 0.01], vec![0.0, 1.0]];
        let oracle = Oracle::of(texts.clone(), vectors.clone(), 1e-3).unwrap();
        assert_eq!((oracle.texts, oracle.left_out), (vec!["a".to_owned(), "c".to_owned()], 1));
        assert!(Oracle::of(texts[..2].to_vec(), vectors[..2].to_vec(), 1e-3).is_err());
    }

    #[test]
    fn an_answer_is_right_within_the_tolerance_and_for_its_text() {
        let texts = ["a", "b"].map(str::to_owned).to_vec();
        let oracle = Oracle::of(texts, vec![vec![1.0, 0.0], vec![0.0, 1.0]], 1e-3).unwrap();
        assert!(oracle.is_unit && !oracle.is_right(0, &[2.0, 0.0]));
        assert!(oracle.is_right(0, &[1.0, 0.01]) && oracle.is_right(1, &[0.0, 1.0]));
        assert!(!oracle.is_right(0, &[1.0, 0.1]) && !oracle.is_right(0, &[0.0, 1.0]));
        assert!(!oracle.is_right(0, &[f32::NAN, 0.0]) && !oracle.is_right(0, &[1.0]));
        assert!(!oracle.is_right(2, &[1.0, 0.0]));
        let texts = ["a", "b"].map(str::to_owned).to_vec();
        let long = Oracle::of(texts, vec![vec![3.0, 0.0], vec![0.0, 4.0]], 1e-3).unwrap();
        assert!(!long.is_unit && long.is_right(0, &[3.05, 0.0]) && long.is_right(1, &[0.0, 3.9]));
        assert!(!long.is_right(0, &[1.0, 0.0]) && !long.is_right(1, &[0.0, 3.0]));
    }
}
