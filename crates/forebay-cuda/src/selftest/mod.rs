//! The self-test of the CUDA engine: proof on the device itself, before it is trusted.
//!
//! [`run_kernels`] compares every kernel with an f64 reference on shapes and values chosen to break
//! it, and requires bits that do not depend on what else is in a batch. [`KnownAnswer`] compares a
//! loaded model's whole output with [`cpu_forward`]; both have a quick form, fast enough for every
//! start of a worker. [`run_engine`] tests what any loaded model must do, batch after batch. A self-test never repairs, retries or picks an implementation; it reports.

mod cases;
mod cpu_forward;
mod device;
mod endurance;
mod engine;
mod executor;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_engine;
mod invariance;
mod kernels;
mod known_answer;
mod output;
mod reference;
mod report;
mod shape;
mod texts;
mod values;

use std::path::PathBuf;
use std::sync::Arc;

use self::device::DeviceExecutor;
use self::executor::Executor;
use self::kernels::Scope;
use crate::edge::{Context, load};
use crate::kernels::{KernelOptions, KernelSource, compile_ahead};
use crate::{CudaError, Dtype};

pub use cpu_forward::cpu_forward;
pub use engine::run_engine;
pub use known_answer::{Engine, KnownAnswer};
pub use report::{Item, SelftestReport};
pub use shape::Shape;

/// What a self-test of the kernels covers, and with what.
#[derive(Debug, Clone, PartialEq)]
pub struct SelftestOptions {
    /// The device.
    pub ordinal: u32,
    /// The types to test.
    pub dtypes: Vec<Dtype>,
    /// The shape to test; without one, shapes that together use every kernel, or in a quick run
    /// the first of them.
    pub shape: Option<Shape>,
    /// Folders to look for CUDA's libraries in.
    pub libraries: Vec<PathBuf>,
    /// Where compiled kernels and measured plans are kept.
    pub cache_dir: Option<PathBuf>,
    /// Where kernels come from.
    pub source: KernelSource,
    /// Whether to run few cases, in well under a second.
    pub quick: bool,
}

/// Tests the kernels on a device.
///
/// # Errors
/// The device or its libraries cannot be used, or a call failed; a failure of a kernel names the
/// kernel and the case. Wrong results are no error: they are in the report.
pub fn run_kernels(options: &SelftestOptions) -> Result<SelftestReport, CudaError> {
    load(&options.libraries)?;
    let context = Context::open(options.ordinal)?;
    run_kernels_in(&context, options)
}

/// Tests the kernels in a context that is open already, in memory of its own that is given back.
///
/// # Errors
/// As for [`run_kernels`].
pub fn run_kernels_in(
    context: &Arc<Context>,
    options: &SelftestOptions,
) -> Result<SelftestReport, CudaError> {
    let all = Shape::all();
    let shapes = match &options.shape {
        Some(shape) => std::slice::from_ref(shape),
        None if options.quick => &all[..1],
        None => &all,
    };
    let kernel_options = KernelOptions {
        cache_dir: options.cache_dir.clone(),
        source: options.source,
        ..KernelOptions::default()
    };
    compile_ahead(context, &kernel_options, true)?;
    let mut report = SelftestReport::default();
    for &dtype in &options.dtypes {
        for shape in shapes {
            let quick = options.quick;
            let mut executor = DeviceExecutor::open(context, &kernel_options, shape, dtype, quick)?;
            tracing::debug!(%dtype, ?shape, origin = executor.origin(), "self-test of kernels");
            if !report.origins.iter().any(|origin| origin == executor.origin()) {
                report.origins.push(executor.origin().to_owned());
            }
            let scope = Scope { shape, dtype, quick };
            report.items.extend(check_all(scope, &mut executor)?);
        }
    }
    Ok(report)
}

/// Every check of one shape and type.
fn check_all(scope: Scope<'_>, executor: &mut dyn Executor) -> Result<Vec<Item>, CudaError> {
    let mut items = vec![
        kernels::embed_norm(scope, executor)?,
        kernels::attention(scope, executor)?,
        kernels::residual_norm(scope, executor)?,
        kernels::bias_activation(scope, executor)?,
    ];
    items.extend(kernels::pool(scope, executor)?);
    items.extend(kernels::gemms(scope, executor)?);
    Ok(items)
}
