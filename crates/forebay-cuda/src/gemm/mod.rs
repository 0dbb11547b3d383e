//! Matrix products through cublasLt with algorithms measured on this device.
//!
//! D\[m,n\] = A\[m,k\] · W\[n,k\]ᵀ (+ bias\[n\]), row-major, 16-bit elements, sums in f32. Each shape is tuned
//! once and remembered on disk. Algorithms that divide the sum over k are refused unless allowed:
//! their rounding depends on how many blocks happen to share the work.

mod plan;
mod store;
mod tune;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;

pub use plan::{GemmPlans, PlanCounts};

/// What a plan is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GemmShape {
    /// Rows of A and D: the capacity of a token bucket.
    pub m_bucket: u32,
    /// Rows of W, columns of D.
    pub n: u32,
    /// Columns of A and W.
    pub k: u32,
    /// Type of every operand, the bias included.
    pub dtype: Dtype,
    /// True if a bias is added to each row of D.
    pub bias: bool,
}

impl GemmShape {
    /// Multiplications and additions of one product.
    #[must_use]
    pub fn operations(&self) -> f64 {
        2.0 * f64::from(self.m_bucket) * f64::from(self.n) * f64::from(self.k)
    }

    /// True if every row of every operand begins at a multiple of 16 bytes, as algorithms need it.
    fn is_possible(&self) -> bool {
        let aligned = |columns: u32| columns > 0 && columns.is_multiple_of(8);
        self.m_bucket > 0 && aligned(self.n) && aligned(self.k)
    }
}

impl fmt::Display for GemmShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bias = if self.bias { " with bias" } else { "" };
        write!(f, "{} x {} x {} {}{bias}", self.m_bucket, self.n, self.k, self.dtype)
    }
}
