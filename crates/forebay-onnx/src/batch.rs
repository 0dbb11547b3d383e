//! A batch on its way through one or several sessions: what each run reads, and where the states of
//! its rows go. It runs nothing itself.

use crate::error::OnnxError;
use crate::plan::SubBatch;
use crate::states::TokenStates;

/// A checked batch, as [`Session::encode`](crate::Session::encode) takes it.
pub(crate) struct Batch<'a> {
    pub(crate) ids: &'a [u32],
    pub(crate) cu_seqlens: &'a [u32],
    /// Length of one token's state.
    pub(crate) hidden: usize,
}

/// One run with the ids of its rows and the places for their states, all in the run's order.
pub(crate) struct Job<'a> {
    pub(crate) run: SubBatch,
    pub(crate) rows: Vec<&'a [u32]>,
    pub(crate) states: Vec<&'a mut [f32]>,
}

impl Batch<'_> {
    /// Has the runs of `plan`, which holds each row once, computed by `run`.
    pub(crate) fn encode(
        &self,
        plan: Vec<SubBatch>,
        run: impl FnOnce(Vec<Job<'_>>) -> Result<(), OnnxError>,
    ) -> Result<TokenStates, OnnxError> {
        let mut states = TokenStates::zeros(self.cu_seqlens, self.hidden);
        let padded_tokens = plan.iter().map(SubBatch::padded_tokens).sum();
        states.set_cost(padded_tokens, plan.len());
        let mut places: Vec<Option<&mut [f32]>> = states.rows_mut().into_iter().map(Some).collect();
        let ids = |row: usize| {
            &self.ids[self.cu_seqlens[row] as usize..self.cu_seqlens[row + 1] as usize]
        };
        let job = |run: SubBatch| Job {
            rows: run.rows.iter().map(|&row| ids(row)).collect(),
            states: run.rows.iter().filter_map(|&row| places[row].take()).collect(),
            run,
        };
        run(plan.into_iter().map(job).collect())?;
        Ok(states)
    }
}
