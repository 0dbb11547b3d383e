//! What an engine is opened with. Defaults are for a data-centre GPU and a small model.

use std::path::PathBuf;

use super::error::EngineError;
use super::memory::{RINGS, TOKENS_MAX_MIN};
use crate::Dtype;
use crate::kernels::KernelSource;

/// Arithmetic of matrices and activations. Sums, normalisation, softmax and pooling are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrecisionChoice {
    /// F16, or BF16 if the weights or a probe batch come near the end of F16's range.
    #[default]
    Auto,
    /// IEEE 754 half precision; refused if the model overflows it.
    F16,
    /// bfloat16: the range of f32 with 8 significant bits.
    Bf16,
}

/// Who computes the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GemmChoice {
    /// The fused kernels where the device and the sizes have them, cuBLASLt for the rest.
    #[default]
    Auto,
    /// cuBLASLt for all of them, with separate kernels for what is fused otherwise.
    CublasLt,
    /// The fused kernels for all of them; an error where they do not exist.
    Native,
}

/// How ids and rows get between the host's memory and the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CopyChoice {
    /// In place on a device that shares the host's memory, and elsewhere for small batches, where
    /// a copy takes longer to start than kernels take to read over the bus.
    #[default]
    Auto,
    /// Always by copies.
    Copy,
    /// Always in place, where the device can read the host's memory.
    Mapped,
}

/// Options of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// CUDA's number of the device.
    pub ordinal: u32,
    /// Arithmetic.
    pub precision: PrecisionChoice,
    /// Most tokens of one device batch; larger requests are split. Lowered, never below 512, if
    /// memory does not suffice.
    pub tokens_max: u32,
    /// Most rows of one device batch.
    pub rows_max: u32,
    /// Batches that may be under way at a time.
    pub slots: u32,
    /// Device memory the engine may use in bytes; `None` for what is free.
    pub memory_bytes_max: Option<u64>,
    /// Captured graphs kept at most. They are two for each size of batch that is told apart, so
    /// with fewer of them batches are rounded up more.
    pub graphs_max: u32,
    /// How ids and rows are moved.
    pub copies: CopyChoice,
    /// Batches of at most this many tokens count as small for [`CopyChoice::Auto`].
    pub zero_copy_tokens_max: u32,
    /// Most time that the wait for one batch looks without a pause, in microseconds. A wait that is
    /// expected to take longer sleeps until half of this before the expected end; one that takes
    /// longer than expected goes on with pauses.
    pub completion_spin_us: u32,
    /// Who computes the matrix products.
    pub gemm: GemmChoice,
    /// Where the kernels come from.
    pub kernels: KernelSource,
    /// Folders searched for CUDA libraries first.
    pub libraries: Vec<PathBuf>,
    /// Folder of compiled kernels and of product tuning; `None` keeps nothing.
    pub cache_dir: Option<PathBuf>,
    /// Whether events take the time of every step; costs a few microseconds per batch.
    pub stage_times: bool,
    /// Whether a pipeline loads what it needs to bring a [`DeviceFault`](super::DeviceFault) about.
    pub faults: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            ordinal: 0,
            precision: PrecisionChoice::Auto,
            tokens_max: 8192,
            rows_max: 1024,
            slots: 4,
            memory_bytes_max: None,
            graphs_max: 48,
            copies: CopyChoice::Auto,
            zero_copy_tokens_max: 512,
            completion_spin_us: 200,
            gemm: GemmChoice::Auto,
            kernels: KernelSource::Auto,
            libraries: Vec::new(),
            cache_dir: None,
            stage_times: true,
            faults: false,
        }
    }
}

/// Largest device batch: sizes of activations stay far inside 32 bits.
const TOKENS_MAX_MAX: u32 = 131_072;

impl EngineOptions {
    /// Checks every number against its range.
    ///
    /// # Errors
    /// [`EngineError::Option`] for the first that is out of it.
    pub fn check(&self) -> Result<(), EngineError> {
        for (option, value, min, max) in [
            ("tokens_max", self.tokens_max, TOKENS_MAX_MIN, TOKENS_MAX_MAX),
            ("rows_max", self.rows_max, 1, TOKENS_MAX_MAX),
            ("slots", self.slots, 1, 1024),
            ("graphs_max", self.graphs_max, RINGS as u32, 4096),
        ] {
            if !(min..=max).contains(&value) {
                let expected = format!("{min} to {max}");
                return Err(EngineError::Option { option, value: value.to_string(), expected });
            }
        }
        Ok(())
    }

    /// Batches of at most this many tokens are used in place, on a device that is `integrated` and
    /// with host memory that it can read or not.
    pub(crate) fn mapped_tokens_max(&self, integrated: bool, readable: bool) -> u32 {
        match self.copies {
            _ if !readable => 0,
            CopyChoice::Copy => 0,
            CopyChoice::Mapped => u32::MAX,
            CopyChoice::Auto if integrated => u32::MAX,
            CopyChoice::Auto => self.zero_copy_tokens_max,
        }
    }
}

impl PrecisionChoice {
    /// The type asked for, or `None` if the model decides.
    #[must_use]
    pub fn fixed(self) -> Option<Dtype> {
        match self {
            Self::Auto => None,
            Self::F16 => Some(Dtype::F16),
            Self::Bf16 => Some(Dtype::BF16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range_and_numbers_out_of_it_are_named() {
        EngineOptions::default().check().unwrap();
        let expect = |options: EngineOptions, name: &str| {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("expected"), "{error}");
        };
        expect(EngineOptions { tokens_max: 511, ..EngineOptions::default() }, "tokens_max");
        expect(EngineOptions { slots: 0, ..EngineOptions::default() }, "slots");
        expect(EngineOptions { rows_max: u32::MAX, ..EngineOptions::default() }, "rows_max");
        expect(EngineOptions { graphs_max: 1, ..EngineOptions::default() }, "graphs_max");
    }

    #[test]
    fn small_batches_are_used_in_place_where_that_is_possible() {
        let of = |copies| EngineOptions { copies, ..EngineOptions::default() };
        let auto = of(CopyChoice::Auto);
        assert_eq!(auto.mapped_tokens_max(false, true), auto.zero_copy_tokens_max);
        assert_eq!(auto.mapped_tokens_max(true, true), u32::MAX);
        assert_eq!(auto.mapped_tokens_max(true, false), 0);
        assert_eq!(of(CopyChoice::Copy).mapped_tokens_max(true, true), 0);
        assert_eq!(of(CopyChoice::Mapped).mapped_tokens_max(false, true), u32::MAX);
    }

    #[test]
    fn only_a_named_precision_is_fixed() {
        assert_eq!(PrecisionChoice::Auto.fixed(), None);
        assert_eq!(PrecisionChoice::Bf16.fixed(), Some(Dtype::BF16));
    }
}
