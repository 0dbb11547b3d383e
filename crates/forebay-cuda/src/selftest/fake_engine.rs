//! An engine without a device that can be told to make one kind of mistake: proof that the checks
//! find it.

use super::engine::{Limits, Memory, Subject};
use super::texts::Batch;
use super::values::{generator, normal};
use crate::{Dtype, EngineError};

const WIDTH: usize = 16;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A row's last bit depends on its place.
    Place,
    /// A row contains a little of the one in front of it.
    Neighbour,
    /// Without a graph other bits come out.
    Eager,
    /// Every batch costs memory.
    Leak,
    /// After two hundred batches other bits come out.
    Unsteady,
    /// Rows are not of length 1.
    Short,
    /// Some batches overflow.
    NonFinite,
    /// Some batches fail.
    Fails,
}

/// Every text gets a random direction that its ids alone decide.
#[derive(Debug)]
pub(super) struct FakeEngine {
    pub(super) is_native: bool,
    fault: Option<Fault>,
    runs: u64,
}

impl FakeEngine {
    /// An engine with this mistake or with none.
    pub(super) fn new(fault: Option<Fault>) -> Self {
        Self { is_native: true, fault, runs: 0 }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn row(&self, text: &[u32]) -> [f32; WIDTH] {
        let seed = text.iter().fold(7_u64, |seed, &id| {
            seed.wrapping_mul(0x0100_0000_01B3).wrapping_add(u64::from(id))
        });
        let mut rng = generator(seed, "row");
        std::array::from_fn(|_| normal(&mut rng))
    }
}

impl Subject for FakeEngine {
    fn dtype(&self) -> Dtype {
        Dtype::F16
    }

    fn is_native(&self) -> bool {
        self.is_native
    }

    fn limits(&self) -> Limits {
        Limits { vocab: 1000, row_tokens_max: 128, tokens_max: 512, rows_max: 32 }
    }

    fn width(&self) -> usize {
        WIDTH
    }

    fn encode(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError> {
        self.runs += 1;
        if self.has(Fault::NonFinite) && batch.ids().len().is_multiple_of(7) {
            return Err(EngineError::NonFinite { row: 0, norm: f32::NAN });
        }
        if self.has(Fault::Fails) && self.runs == 150 {
            return Err(EngineError::Pipeline("the fake failed"));
        }
        let mut rows = Vec::new();
        let mut before = [0.0; WIDTH];
        for (place, pair) in batch.cu().windows(2).enumerate() {
            let own = self.row(&batch.ids()[pair[0] as usize..pair[1] as usize]);
            let mut row = own;
            if self.has(Fault::Neighbour) {
                row.iter_mut().zip(before).for_each(|(value, other)| *value += 0.1 * other);
            }
            before = own;
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter_mut().for_each(|value| *value /= norm);
            if self.has(Fault::Short) {
                row.iter_mut().for_each(|value| *value *= 0.99);
            }
            let is_off = self.has(Fault::Place) && place % 3 == 1
                || self.has(Fault::Unsteady) && self.runs > 200;
            row[3] += if is_off { 1e-4 } else { 0.0 };
            rows.extend(row);
            rows.push(norm);
        }
        Ok(rows)
    }

    fn encode_eager(&mut self, batch: &Batch) -> Result<Vec<f32>, EngineError> {
        let mut rows = self.encode(batch)?;
        if self.has(Fault::Eager) && batch.ids().len() > 400 {
            rows[5] += 1e-3;
        }
        Ok(rows)
    }

    fn prepare_all(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn memory(&self) -> Result<Memory, EngineError> {
        let leaked = if self.has(Fault::Leak) { self.runs << 16 } else { 0 };
        Ok(Memory { free: (1 << 40) - leaked, graphs: 0 })
    }
}
