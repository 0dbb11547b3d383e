//! Where a kernel file's image comes from: the cache, the run-time compiler, or the embedded PTX.
//!
//! The order is the same for every file, and every source that fails is named in the error or in a
//! warning: an image is never taken from another place silently. Nothing here knows a device beyond
//! its compute capability, so that the order is tested without one.

use std::time::Instant;

use super::cache::{Cache, Lookup, Recipe};
use super::source::{OPTIONS, SourceFile};
use super::{KernelOptions, KernelSource};
use crate::edge::{Compiled, compile as nvrtc_compile};
use crate::error::CudaError;

/// Where a loaded image came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Compiled at an earlier start.
    Cache,
    /// Compiled just now.
    Nvrtc,
    /// The PTX in this program, compiled by the driver.
    Ptx,
}

/// Compiles `file` for `architecture` (`sm_..` gives a cubin, `compute_..` PTX), with `extra`
/// options behind the usual ones. NVRTC must have been opened.
///
/// # Errors
/// The compiler's refusal with its log.
pub fn compile(
    file: &SourceFile,
    architecture: &str,
    extra: &[&str],
) -> Result<Compiled, CudaError> {
    let options: Vec<String> = std::iter::once(format!("-arch={architecture}"))
        .chain(OPTIONS.iter().chain(extra).map(|option| (*option).to_owned()))
        .collect();
    nvrtc_compile(file.name, &file.text(), &options)
}

/// Something that compiles kernels.
pub(crate) trait Compiler {
    /// Its version, such as `13.0`.
    fn version(&self) -> &str;
    /// A cubin.
    fn compile(&self, file: &SourceFile, architecture: &str) -> Result<Compiled, CudaError>;
}

/// NVRTC of this version.
#[derive(Clone, Debug)]
pub(crate) struct Nvrtc(pub String);

impl Compiler for Nvrtc {
    fn version(&self) -> &str {
        &self.0
    }

    fn compile(&self, file: &SourceFile, architecture: &str) -> Result<Compiled, CudaError> {
        let start = Instant::now();
        let compiled = compile(file, architecture, &[]);
        let ms = start.elapsed().as_millis();
        tracing::debug!(file = file.name, architecture, ms, "compiled a kernel file");
        compiled
    }
}

/// What an image of `source` for `architecture` is compiled from.
pub(super) fn recipe<'a>(source: &'a str, architecture: &'a str) -> Recipe<'a> {
    Recipe { source, architecture, options: &OPTIONS }
}

/// Offers images of `file` to `load` until it takes one; what it made, and from where.
///
/// A failure of `load` that ends CUDA for the process ends this too.
///
/// # Errors
/// [`Usage`](crate::ErrorKind::Usage) with every reason if no image is taken.
pub(crate) fn first_that_loads<M>(
    file: &SourceFile,
    capability: (u32, u32),
    options: &KernelOptions,
    compiler: Option<&dyn Compiler>,
    mut load: impl FnMut(&[u8], Origin) -> Result<M, CudaError>,
) -> Result<(M, Origin), CudaError> {
    let (major, minor) = capability;
    let mut reasons: Vec<String> = Vec::new();
    let mut offer =
        |image: &[u8], origin: Origin, reasons: &mut Vec<String>| match load(image, origin) {
            Ok(made) => Ok(Some((made, origin))),
            Err(error) if error.kind.poisons() => Err(error),
            Err(error) => {
                reasons.push(format!("{origin:?}: {error}"));
                Ok(None)
            }
        };

    let architecture = file.architecture(capability);
    if let (Some(architecture), true) = (&architecture, options.source != KernelSource::Ptx) {
        let source = file.text();
        let recipe = recipe(&source, architecture);
        let cache = options.cache_dir.as_deref().map(Cache::below);
        let cached = match (&cache, compiler) {
            (Some(cache), Some(compiler)) => cache.read(&recipe, compiler.version()),
            (Some(cache), None) => cache.read_any(&recipe),
            (None, _) => Lookup::Absent,
        };
        match cached {
            Lookup::Found(image) => {
                if let Some(taken) = offer(&image, Origin::Cache, &mut reasons)? {
                    return Ok(taken);
                }
            }
            Lookup::Damaged(path) => {
                tracing::warn!(file = file.name, path = %path.display(), "damaged kernel cache entry");
                reasons.push(format!("Cache: {} is damaged", path.display()));
            }
            Lookup::Absent => {}
        }
        match compiler.map(|compiler| (compiler.version(), compiler.compile(file, architecture))) {
            Some((version, Ok(compiled))) => {
                if !compiled.log.is_empty() {
                    tracing::warn!(file = file.name, log = %compiled.log, "the compiler warns");
                }
                if let Some(taken) = offer(&compiled.image, Origin::Nvrtc, &mut reasons)? {
                    keep(cache.as_ref(), &recipe, version, &compiled.image);
                    return Ok(taken);
                }
            }
            Some((_, Err(error))) => reasons.push(format!("Nvrtc: {error}")),
            None => reasons.push("Nvrtc: the library was not found".to_owned()),
        }
    }
    if let (Some(ptx), true) = (file.ptx, options.source != KernelSource::Nvrtc) {
        if !reasons.is_empty() {
            tracing::warn!(file = file.name, reasons = %reasons.join("; "), "using embedded PTX");
        }
        if let Some(taken) = offer(ptx.as_bytes(), Origin::Ptx, &mut reasons)? {
            return Ok(taken);
        }
    }
    if reasons.is_empty() {
        reasons.push("it has instructions of another device".to_owned());
    }
    Err(CudaError::usage(
        "load kernels",
        format!(
            "{} for compute capability {major}.{minor} (source {:?}): {}; install NVRTC of CUDA 13 \
             or name its folder",
            file.name,
            options.source,
            reasons.join("; ")
        ),
    ))
}

fn keep(cache: Option<&Cache>, recipe: &Recipe<'_>, version: &str, image: &[u8]) {
    let Some(cache) = cache else { return };
    if let Err(error) = cache.write(recipe, version, image) {
        tracing::warn!(%error, "compiled kernels are not kept, the next start compiles them again");
    }
}

#[cfg(test)]
mod tests;
