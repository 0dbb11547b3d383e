//! Measuring the algorithms that cublasLt proposes for a shape.
//!
//! Each is timed as a captured batch of products, so that the host's part of a launch, which can
//! exceed a small product's device time, does not blur the figures.

use super::GemmShape;
use crate::edge::lt::{Algorithm, Candidate, Handle, Product};
use crate::edge::operands::Operands;
use crate::edge::{Event, Graph, Stream};
use crate::error::CudaError;

/// How many algorithms are asked for.
const CANDIDATES_MAX: usize = 16;
/// Products run before the first is timed; also loads the algorithm's code.
const WARM_UPS: usize = 2;
/// Timed batches, of which the median counts.
const BATCHES: usize = 5;
/// Products of a batch.
const BATCH: usize = 10;

/// An algorithm and how long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tuned {
    pub(super) algorithm: Algorithm,
    /// Device time of one product.
    pub(super) time_us: f64,
}

/// The fastest algorithm for `shape` that does not divide the sum over k, by which a row might differ
/// in its last bits from bucket to bucket; between equals the one that the library prefers.
pub(super) fn tune(
    handle: &Handle,
    product: &Product,
    shape: GemmShape,
    operands: &Operands,
    stream: &Stream,
) -> Result<Tuned, CudaError> {
    let candidates = product.candidates(handle, CANDIDATES_MAX, operands.workspace_bytes)?;
    let proposed = candidates.len();
    let mut timed = Vec::new();
    let mut failure = None;
    for Candidate { algorithm, workspace_bytes } in candidates {
        if workspace_bytes > operands.workspace_bytes || algorithm.is_split()? {
            continue;
        }
        match time(stream, |stream| product.run(handle, algorithm, operands, stream)) {
            Ok(time_us) => timed.push(Tuned { algorithm, time_us }),
            Err(error) if error.kind.poisons() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, %shape, "algorithm passed over");
                failure = Some(error);
            }
        }
    }
    let best = fastest(&timed);
    tracing::debug!(%shape, proposed, timed = timed.len(), ?best, "gemm tuned");
    best.ok_or_else(|| {
        failure.unwrap_or_else(|| {
            CudaError::usage(
                "cublasLtMatmulAlgoGetHeuristic",
                format!(
                    "{shape}: none of {proposed} algorithms can be used with {} bytes of workspace \
                     and without split sums",
                    operands.workspace_bytes,
                ),
            )
        })
    })
}

/// Device time of one run of `work`, in microseconds.
fn time(
    stream: &Stream,
    work: impl Fn(&Stream) -> Result<(), CudaError>,
) -> Result<f64, CudaError> {
    for _ in 0..WARM_UPS {
        work(stream)?;
    }
    stream.synchronize()?;
    let graph = Graph::capture(stream, |stream| (0..BATCH).try_for_each(|_| work(stream)))?;
    graph.launch(stream)?;
    let start = Event::new(stream.context(), true)?;
    let end = Event::new(stream.context(), true)?;
    let mut times = [0.0; BATCHES];
    for time in &mut times {
        start.record(stream)?;
        graph.launch(stream)?;
        end.record(stream)?;
        end.synchronize()?;
        *time = start.elapsed_us(&end)? / BATCH as f64;
    }
    Ok(median(times))
}

fn median(mut times: [f64; BATCHES]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[BATCHES / 2]
}

fn fastest(timed: &[Tuned]) -> Option<Tuned> {
    // `min_by` keeps the first of equals.
    timed.iter().copied().min_by(|a, b| a.time_us.total_cmp(&b.time_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_batch_does_not_move_the_median() {
        assert_eq!(median([3.0, 900.0, 1.0, 2.0, 4.0]), 3.0);
        assert_eq!(median([5.0; BATCHES]), 5.0);
    }

    #[test]
    fn the_fastest_wins_and_the_librarys_order_breaks_ties() {
        let tuned = |id, time_us| Tuned { algorithm: Algorithm([id; 8]), time_us };
        let timed = [tuned(1, 4.0), tuned(2, 3.0), tuned(3, 3.0), tuned(4, f64::NAN)];
        assert_eq!(fastest(&timed), Some(tuned(2, 3.0)));
        assert_eq!(fastest(&[]), None);
    }
}
