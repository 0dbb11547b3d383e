//! An executor on the CPU that can be told to make one mistake: shows that the checks find it.
//!
//! Without a mistake it rounds the reference, so it says nothing about the reference itself.

use super::executor::{
    AttentionRun, BiasActivationRun, EmbedNormOut, EmbedNormRun, Executor, GemmRun, Packed,
    PoolRun, Product, ResidualNormRun,
};
use super::output::Output;
use super::reference::{self, Expected};
use super::shape::Shape;
use super::values::{decode, decode_all, encode, roundoff, underflow};
use crate::{CudaError, Dtype};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mistake {
    /// Nothing.
    None,
    /// The last real row is not written.
    LastRowMissing,
    /// The row after the last real one is written, as far as the buffer's guard.
    OneRowTooMany,
    /// The row in front of the buffer is written.
    RowInFront,
    /// A value of the row after it in the batch, or of the poison there, gets into each row.
    ReadsNextRow,
    /// Results are off by 8 units in the last place of 16 bits, or 4096 of 32.
    Imprecise,
    /// Odd rows of the batch are rounded up by one unit in the last place.
    DependsOnPlace,
    /// Every second run differs in one bit.
    DependsOnTime,
    /// The position offset is ignored, logits are doubled, ε is 0.1, the bias is subtracted, rows
    /// are √12 long, products are 1% too large.
    Constant,
}

pub(super) struct Fake<'a> {
    mistake: Mistake,
    shape: &'a Shape,
    dtype: Dtype,
    runs: u32,
}

impl<'a> Fake<'a> {
    pub(super) fn new(mistake: Mistake, shape: &'a Shape, dtype: Dtype) -> Self {
        Self { mistake, shape, dtype, runs: 0 }
    }

    /// Writes rows as the mistake demands.
    fn write<T: Copy + Into<u32> + TryFrom<u32>>(
        &mut self,
        rows: usize,
        all: &mut [T],
        guard: usize,
        width: usize,
        row: &dyn Fn(usize) -> Vec<T>,
    ) {
        self.runs += 1;
        let flip = |bits: &mut T| {
            let flipped: u32 = (*bits).into() ^ 1;
            *bits = T::try_from(flipped).unwrap_or(*bits);
        };
        let mut put = |at: usize, mut values: Vec<T>| {
            if self.mistake == Mistake::DependsOnPlace && at % 2 == 1 {
                values.iter_mut().for_each(flip);
            }
            if self.mistake == Mistake::DependsOnTime && self.runs.is_multiple_of(2) {
                flip(&mut values[0]);
            }
            if self.mistake == Mistake::Imprecise {
                for bits in &mut values {
                    let off: u32 = (*bits).into() + if size_of::<T>() == 2 { 8 } else { 4096 };
                    *bits = T::try_from(off).unwrap_or(*bits);
                }
            }
            all[guard + at * width..guard + (at + 1) * width].copy_from_slice(&values);
        };
        let written = rows - usize::from(self.mistake == Mistake::LastRowMissing);
        for at in 0..written {
            put(at, row(at));
        }
        let last = row(rows - 1);
        match self.mistake {
            Mistake::OneRowTooMany => put(rows, last),
            Mistake::RowInFront => all[guard - width..guard].copy_from_slice(&last),
            _ => {}
        }
    }

    /// Rows rounded to the 16-bit type, each with a value of the next if that is the mistake.
    fn tokens(
        &mut self,
        packed: Packed<'_>,
        out: &mut Output<u16>,
        peek: &dyn Fn(usize) -> f32,
        row: &dyn Fn(usize) -> Vec<Expected>,
    ) {
        let (guard, width, dtype) = (out.guard_elements(), out.width(), self.dtype);
        let leak = self.mistake == Mistake::ReadsNextRow;
        self.write(packed.tokens, out.all_mut(), guard, width, &|at| {
            let mut values = row(at);
            if leak {
                values[0].value += f64::from(peek(at + 1));
            }
            values.iter().map(|expected| encode(expected.value as f32, dtype)).collect()
        });
    }
}

/// The tokens of the sequence that holds `token`.
fn sequence(packed: Packed<'_>, token: usize) -> std::ops::Range<usize> {
    let row = packed.cu[1..=packed.rows].partition_point(|&end| end as usize <= token);
    packed.cu[row] as usize..packed.cu[row + 1] as usize
}

impl Executor for Fake<'_> {
    fn embed_norm(
        &mut self,
        run: &EmbedNormRun<'_>,
        out: &mut EmbedNormOut,
    ) -> Result<(), CudaError> {
        let (h, dtype) = (self.shape.hidden, self.dtype);
        let offset =
            if self.mistake == Mistake::Constant { 0 } else { run.position_offset as usize };
        let at = |table: &[u16], row: usize, column: usize| {
            f64::from(decode(table[row * h + column], dtype))
        };
        let row = |token: usize| {
            let place = token - sequence(run.batch, token).start + offset;
            let sums: Vec<f64> = (0..h)
                .map(|c| {
                    at(run.word, run.ids[token] as usize, c)
                        + at(run.position, place, c)
                        + at(run.token_type, 0, c)
                })
                .collect();
            reference::layer_norm(&sums, 0.0, run.norm.gamma, run.norm.beta, run.norm.eps)
        };
        let peek = |token: usize| decode(run.word[run.ids[token] as usize * h], dtype);
        self.tokens(run.batch, &mut out.x, &peek, &row);
        let cu = &run.batch.cu[..=run.batch.rows];
        let start = out.cu.guard_elements();
        out.cu.all_mut()[start..start + cu.len()].copy_from_slice(cu);
        let sizes = [run.batch.tokens as u32, run.batch.rows as u32];
        out.sizes.all_mut()[start..start + 2].copy_from_slice(&sizes);
        Ok(())
    }

    fn attention(
        &mut self,
        run: &AttentionRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let (d, h, dtype) = (self.shape.head_dim(), self.shape.hidden, self.dtype);
        let wrong = if self.mistake == Mistake::Constant { 2.0 } else { 1.0 };
        let qkv = decode_all(run.qkv, dtype);
        let part = |token: usize, part: usize, head: usize| {
            let start = (token * 3 + part) * h + head * d;
            &qkv[start..start + d]
        };
        let row = |token: usize| {
            let keys = sequence(run.batch, token);
            (0..run.heads)
                .flat_map(|head| {
                    let all = |which| -> Vec<&[f32]> {
                        keys.clone().map(|key| part(key, which, head)).collect()
                    };
                    let query: Vec<f32> = part(token, 0, head).iter().map(|q| q * wrong).collect();
                    let (unit, small) = (roundoff(dtype), underflow(dtype));
                    reference::attention_row(&query, &all(1), &all(2), unit, small)
                })
                .collect()
        };
        let peek = |token: usize| decode(run.qkv[token * 3 * h], dtype);
        self.tokens(run.batch, out, &peek, &row);
        Ok(())
    }

    fn residual_norm(
        &mut self,
        run: &ResidualNormRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let (h, dtype) = (self.shape.hidden, self.dtype);
        let before = out.head(run.batch.tokens).to_vec();
        let residual = run.residual.unwrap_or(&before);
        let eps = if self.mistake == Mistake::Constant { 0.1 } else { run.norm.eps };
        let row = |token: usize| {
            let sums: Vec<f64> = (0..h)
                .map(|c| {
                    let at = token * h + c;
                    let y = f64::from(decode(run.y[at], dtype)) + f64::from(run.bias[c]);
                    y + f64::from(decode(residual[at], dtype))
                })
                .collect();
            reference::layer_norm(&sums, 0.0, run.norm.gamma, run.norm.beta, eps)
        };
        let peek = |token: usize| decode(run.y[token * h], dtype);
        self.tokens(run.batch, out, &peek, &row);
        Ok(())
    }

    fn bias_activation(
        &mut self,
        run: &BiasActivationRun<'_>,
        x: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let (w, dtype, activation) = (run.width, self.dtype, self.shape.activation);
        let before = x.all()[x.guard_elements()..].to_vec();
        let sign = if self.mistake == Mistake::Constant { -1.0 } else { 1.0 };
        let row = |token: usize| {
            (0..w)
                .map(|c| {
                    let x = decode(before[token * w + c], dtype);
                    reference::bias_activation(activation, x, sign * run.bias[c])
                })
                .collect()
        };
        let peek = |token: usize| decode(before[token * w], dtype);
        self.tokens(run.batch, x, &peek, &row);
        Ok(())
    }

    fn pool(&mut self, run: &PoolRun<'_>, out: &mut Output<u32>) -> Result<(), CudaError> {
        let (h, dtype) = (self.shape.hidden, self.dtype);
        let (leak, constant) =
            (self.mistake == Mistake::ReadsNextRow, self.mistake == Mistake::Constant);
        let (guard, width) = (out.guard_elements(), out.width());
        self.write(run.batch.rows, out.all_mut(), guard, width, &|row| {
            let tokens = run.batch.cu[row] as usize..run.batch.cu[row + 1] as usize;
            let end = tokens.end + usize::from(leak);
            let hidden = decode_all(&run.x[tokens.start * h..end * h], dtype);
            let mut values = reference::pool(run.mode, &hidden, h);
            if hidden.iter().any(|x| x.is_nan()) {
                values[h].value = f64::NAN;
            }
            if constant {
                // The mistake of a norm over one warp's share of the row.
                values[..h].iter_mut().for_each(|x| x.value *= 12.0_f64.sqrt());
            }
            values.iter().map(|expected| (expected.value as f32).to_bits()).collect()
        });
        Ok(())
    }

    fn products(&self, n: usize, k: usize) -> Vec<Product> {
        if n <= k { vec![Product::CublasLt, Product::Norm] } else { vec![Product::Rows] }
    }

    fn gemm(
        &mut self,
        product: Product,
        run: &GemmRun<'_>,
        out: &mut Output<u16>,
    ) -> Result<(), CudaError> {
        let (n, k) = (run.n, run.k);
        let weight = decode_all(run.weight, run.dtype);
        let zeros = vec![0.0; n];
        let bias = run.bias.unwrap_or(&zeros);
        let constant = self.mistake == Mistake::Constant;
        let row = |token: usize| {
            let a = decode_all(&run.a[token * k..(token + 1) * k], run.dtype);
            let mut dense = reference::dense_row(&a, &weight, bias);
            if constant {
                dense.iter_mut().for_each(|x| x.value *= 1.01);
            }
            match (product, run.activation, run.residual) {
                (Product::Norm, _, Some((residual, norm))) => {
                    let residual = decode_all(&residual[token * n..(token + 1) * n], run.dtype);
                    let (gamma, beta) = (norm.gamma, norm.beta);
                    reference::dense_norm_row(&dense, &residual, gamma, beta, norm.eps)
                }
                (_, Some(activation), _) => {
                    dense.into_iter().map(|x| reference::activated(activation, x)).collect()
                }
                _ => dense,
            }
        };
        let peek = |token: usize| decode(run.a[token * k], run.dtype);
        self.tokens(run.batch, out, &peek, &row);
        Ok(())
    }
}
