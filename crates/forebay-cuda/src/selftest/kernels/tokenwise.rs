//! The kernels that treat each token by itself: residual with layer normalisation, and bias with
//! activation.

use forebay_model::Activation;

use super::super::cases::cases;
use super::super::executor::{BiasActivationRun, Executor, Norm, ResidualNormRun};
use super::super::reference::{Expected, bias_activation as expected_activation, layer_norm};
use super::super::report::{Item, Tally};
use super::super::values::{Values, decode, generator, normals};
use super::{Matrix, Scope, Subject};
use crate::CudaError;

/// Tests the residual kernel for a shape, with an output of its own and over its residual.
pub(in super::super) fn residual_norm(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
) -> Result<Item, CudaError> {
    let Scope { shape, dtype, quick } = scope;
    let hidden = shape.hidden;
    let mut tally = Tally::new(format!("residual_norm_{dtype}_h{hidden}"));
    let mut rng = generator(13, "residual_norm");
    let random_bias = normals(&mut rng, hidden, 0.0, 0.5);
    let zeros = vec![0.0; hidden];
    let gamma = normals(&mut rng, hidden, 1.0, 0.3);
    let beta = normals(&mut rng, hidden, 0.0, 0.3);
    for case in cases(quick, shape.positions) {
        for (index, &values) in case.values.iter().enumerate() {
            let batch = &case.batch;
            let tokens = batch.tokens();
            let y = values.matrix(&mut rng, dtype, tokens, hidden);
            let residual = values.matrix(&mut rng, dtype, tokens, hidden);
            // A bias would hide that there is no variance, or hardly any.
            let hidden_by_bias = matches!(values, Values::Equal | Values::Tiny);
            let bias = if hidden_by_bias { &zeros } else { &random_bias };
            let eps = if index % 2 == 0 { 1e-12 } else { 1e-5 };
            let expected = |token: usize| -> Vec<Expected> {
                let terms = |column: usize| {
                    let at = token * hidden + column;
                    [decode(y[at], dtype), bias[column], decode(residual[at], dtype)].map(f64::from)
                };
                let sums: Vec<f64> = (0..hidden).map(|c| terms(c).iter().sum()).collect();
                let size = |column| terms(column).iter().map(|term| term.abs()).sum::<f64>();
                let magnitude = (0..hidden).map(size).fold(0.0, f64::max);
                layer_norm(&sums, magnitude, &gamma, &beta, eps)
            };
            for in_place in [false, true] {
                let matrix = |bits: &[u16]| Matrix { bits: bits.to_vec(), width: hidden };
                let how = if in_place { "over the residual" } else { "apart" };
                let case = format!("{}, {values:?}, {how}", batch.name);
                let inputs = vec![matrix(&y), matrix(&residual)];
                let subject = Subject {
                    in_place: in_place.then_some(1),
                    ..scope.subject(case, batch, inputs, hidden)
                };
                subject.check(
                    executor,
                    &mut tally,
                    &mut |executor, batch, inputs, out| {
                        let run = ResidualNormRun {
                            batch,
                            y: &inputs[0],
                            bias,
                            residual: (!in_place).then_some(&*inputs[1]),
                            norm: Norm { gamma: &gamma, beta: &beta, eps },
                        };
                        executor.residual_norm(&run, out)
                    },
                    &expected,
                )?;
            }
        }
    }
    Ok(tally.finish())
}

/// Tests the activation kernel for a shape.
pub(in super::super) fn bias_activation(
    scope: Scope<'_>,
    executor: &mut dyn Executor,
) -> Result<Item, CudaError> {
    let Scope { shape, dtype, quick } = scope;
    let (width, activation) = (shape.intermediate, shape.activation);
    let mut tally =
        Tally::new(format!("bias_activation_{dtype}_{}, width {width}", suffix(activation)));
    let mut rng = generator(14, "bias_activation");
    let bias = normals(&mut rng, width, 0.0, 2.0);
    for case in cases(quick, shape.positions) {
        let batch = &case.batch;
        for &values in &case.values {
            let x = values.matrix(&mut rng, dtype, batch.tokens(), width);
            let expected = |token: usize| -> Vec<Expected> {
                let row = &x[token * width..(token + 1) * width];
                let value = |(&x, &bias): (&u16, &f32)| {
                    expected_activation(activation, decode(x, dtype), bias)
                };
                row.iter().zip(&bias).map(value).collect()
            };
            let case = format!("{}, {values:?}", batch.name);
            let inputs = vec![Matrix { bits: x.clone(), width }];
            let subject =
                Subject { in_place: Some(0), ..scope.subject(case, batch, inputs, width) };
            subject.check(
                executor,
                &mut tally,
                &mut |executor, batch, _, out| {
                    let run = BiasActivationRun { width, batch, bias: &bias };
                    executor.bias_activation(&run, out)
                },
                &expected,
            )?;
        }
    }
    Ok(tally.finish())
}

/// The part of a kernel's name that stands for an activation.
pub(super) fn suffix(activation: Activation) -> &'static str {
    match activation {
        Activation::GeluErf => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Relu => "relu",
    }
}
