//! The matrix products: cublasLt's, and the native ones with what is fused behind them.

use super::super::cases::{Case, cases};
use super::super::executor::{Executor, GemmRun, Norm, Product};
use super::super::reference::{Expected, activated, dense_norm_row, dense_row};
use super::super::report::{Item, Tally};
use super::super::values::{Values, decode_all, encode_all, generator, normals, uniforms};
use super::tokenwise::suffix;
use super::{Matrix, Scope, Subject};
use crate::CudaError;

/// Multiplications of the reference for one run: bounds its time to some milliseconds each.
const MULTIPLICATIONS_QUICK: usize = 3_000_000;
const MULTIPLICATIONS_FULL: usize = 10_000_000;

/// Tests the products of one encoder layer: `[3·hidden, hidden]`, `[hidden, hidden]`,
/// `[intermediate, hidden]` and `[hidden, intermediate]`, in every implementation there is.
pub(in super::super) fn gemms(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
) -> Result<Vec<Item>, CudaError> {
    let (hidden, intermediate) = (scope.shape.hidden, scope.shape.intermediate);
    let mut items = Vec::new();
    let sizes =
        [(3 * hidden, hidden), (hidden, hidden), (intermediate, hidden), (hidden, intermediate)];
    for (n, k) in sizes {
        for product in executor.products(n, k) {
            items.push(gemm(scope, executor, product, n, k)?);
        }
    }
    Ok(items)
}

/// Few rows, odd rows, a full bucket and several row tiles.
fn product_cases(quick: bool, tokens_max: usize) -> Vec<Case> {
    let mut all = cases(quick, tokens_max);
    if quick {
        all[0].values = vec![Values::Normal];
        return all;
    }
    all.retain(|case| case.batch.rows() != 1 || [1, 17, 129].contains(&case.batch.lengths[0]));
    for case in &mut all {
        case.values.retain(|values| matches!(values, Values::Normal | Values::Outliers));
        if case.values.is_empty() {
            case.values.push(Values::Normal);
        }
    }
    all
}

fn gemm(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
    product: Product,
    n: usize,
    k: usize,
) -> Result<Item, CudaError> {
    let Scope { shape, dtype, quick } = scope;
    // Only the first layer of the feed-forward block is followed by the activation.
    let widens = (n, k) == (shape.intermediate, shape.hidden);
    let activation = (product == Product::Rows && widens).then_some(shape.activation);
    let what = match (product, activation) {
        (Product::CublasLt, _) => "cublaslt".to_owned(),
        (Product::Rows, None) => "gemm_rows".to_owned(),
        (Product::Rows, Some(activation)) => format!("gemm_rows_{}", suffix(activation)),
        (Product::Norm, _) => "gemm_norm".to_owned(),
    };
    let mut tally = Tally::new(format!("{what}_{dtype} {n}x{k}"));
    let mut rng = generator(16, tally.name());
    // Half the spread that keeps the variance, so that outliers do not overflow F16.
    let spread = 0.5 / (k as f32).sqrt();
    let weight = encode_all(&uniforms(&mut rng, n * k, spread), dtype);
    let weight_values = decode_all(&weight, dtype);
    let random_bias = decode_all(&encode_all(&normals(&mut rng, n, 0.0, 1.0), dtype), dtype);
    // The library adds a bias only where nothing else follows the product.
    let with_bias = product != Product::CublasLt || (n, k) == (3 * shape.hidden, shape.hidden);
    let bias = if with_bias { random_bias } else { vec![0.0; n] };
    let gamma = normals(&mut rng, n, 1.0, 0.3);
    let beta = normals(&mut rng, n, 0.0, 0.3);
    let norm = Norm { gamma: &gamma, beta: &beta, eps: shape.layer_norm_eps };
    let multiplications = if quick { MULTIPLICATIONS_QUICK } else { MULTIPLICATIONS_FULL };
    let sampled = (multiplications / (n * k)).clamp(4, scope.sampled());

    for case in product_cases(quick, shape.positions) {
        let batch = &case.batch;
        for &values in &case.values {
            let a = values.matrix(&mut rng, dtype, batch.tokens(), k);
            let residual_rows = if product == Product::Norm { batch.tokens() } else { 0 };
            let residual = Values::Normal.matrix(&mut rng, dtype, residual_rows, n);
            let expected = |token: usize| -> Vec<Expected> {
                let row = decode_all(&a[token * k..(token + 1) * k], dtype);
                let dense = dense_row(&row, &weight_values, &bias);
                match (product, activation) {
                    (Product::Norm, _) => {
                        let residual = decode_all(&residual[token * n..(token + 1) * n], dtype);
                        dense_norm_row(&dense, &residual, norm.gamma, norm.beta, norm.eps)
                    }
                    (_, Some(activation)) => {
                        dense.into_iter().map(|x| activated(activation, x)).collect()
                    }
                    (_, None) => dense,
                }
            };
            let mut inputs = vec![Matrix { bits: a.clone(), width: k }];
            if product == Product::Norm {
                inputs.push(Matrix { bits: residual.clone(), width: n });
            }
            let case = format!("{}, {values:?}", batch.name);
            let subject = Subject {
                // cublasLt knows no sizes but the bucket.
                whole_tiles: product == Product::CublasLt,
                // cublasLt may choose another algorithm for another bucket.
                invariant: product != Product::CublasLt,
                sampled,
                ..scope.subject(case, batch, inputs, n)
            };
            subject.check(
                executor,
                &mut tally,
                &mut |executor, batch, inputs, out| {
                    let run = GemmRun {
                        dtype,
                        n,
                        k,
                        batch,
                        a: &inputs[0],
                        weight: &weight,
                        bias: with_bias.then_some(&*bias),
                        activation,
                        residual: inputs.get(1).map(|residual| (&**residual, norm)),
                    };
                    executor.gemm(product, &run, out)
                },
                &expected,
            )?;
        }
    }
    Ok(tally.finish())
}
