//! The result of a batch: the states of every token, row by row, without padding.

/// Hidden states of a batch's tokens in the caller's order.
#[derive(Debug, Clone)]
pub struct TokenStates {
    values: Vec<f32>,
    /// First token of each row, and the number of tokens at the end.
    starts: Vec<usize>,
    width: usize,
    padded_tokens: usize,
    sub_batches: usize,
}

impl TokenStates {
    /// Room for the rows that `cu_seqlens` describes, filled with zeros.
    pub(crate) fn zeros(cu_seqlens: &[u32], width: usize) -> Self {
        let starts: Vec<usize> = cu_seqlens.iter().map(|&start| start as usize).collect();
        let tokens = starts.last().copied().unwrap_or(0);
        Self { values: vec![0.0; tokens * width], starts, width, padded_tokens: 0, sub_batches: 0 }
    }

    /// Where the states of each row go, in the caller's order.
    pub(crate) fn rows_mut(&mut self) -> Vec<&mut [f32]> {
        let mut rest = self.values.as_mut_slice();
        let mut rows = Vec::with_capacity(self.starts.len());
        for pair in self.starts.windows(2) {
            let (row, after) = rest.split_at_mut((pair[1] - pair[0]) * self.width);
            rows.push(row);
            rest = after;
        }
        rows
    }

    /// Notes what the batch cost.
    pub(crate) fn set_cost(&mut self, padded_tokens: usize, sub_batches: usize) {
        self.padded_tokens = padded_tokens;
        self.sub_batches = sub_batches;
    }

    /// Length of one token's state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// States of row `index`, `[tokens, width]` row-major.
    ///
    /// # Panics
    /// If `index` is not below [`TokenStates::rows`], as slices do.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[self.starts[index] * self.width..self.starts[index + 1] * self.width]
    }

    /// Tokens of all rows.
    pub fn tokens(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Tokens of all rows with each row counted as wide as its attention block was. In a graph
    /// built from safetensors only attention sees the difference to [`TokenStates::tokens`]; in an
    /// exported graph every layer does.
    pub fn padded_tokens(&self) -> usize {
        self.padded_tokens
    }

    /// Runs that the batch was cut into.
    pub fn sub_batches(&self) -> usize {
        self.sub_batches
    }
}
