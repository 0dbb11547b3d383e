//! Compiling several kernel files side by side before they are loaded one after the other: a first
//! start then takes as long as the slowest file. NVRTC compiles for several threads at a time.
//!
//! What was compiled is handed to the loading through [`KernelOptions`] and freed with them. Whether
//! an image is good, and whether it is kept on disk, is decided there; nothing fails here.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::cache::Cache;
use super::compile::{Compiler, recipe};
use super::source::SourceFile;
use super::{KernelOptions, KernelSource};
use crate::edge::Compiled;
use crate::error::CudaError;

/// Images and refusals of the compiler, by file and architecture. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Arc<Mutex<Vec<Job>>>);

#[derive(Debug)]
struct Job {
    file: &'static str,
    architecture: String,
    result: Result<Compiled, CudaError>,
}

impl Ahead {
    fn find(&self, file: &str, architecture: &str) -> Option<Result<Compiled, CudaError>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = jobs.iter().find(|job| job.file == file && job.architecture == architecture)?;
        Some(found.result.clone())
    }

    fn add(&self, job: Job) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }
}

/// A compiler whose work may have been done already.
pub(super) struct WithAhead<'a> {
    pub ahead: &'a Ahead,
    pub compiler: &'a dyn Compiler,
}

impl Compiler for WithAhead<'_> {
    fn version(&self) -> &str {
        self.compiler.version()
    }

    fn compile(&self, file: &SourceFile, architecture: &str) -> Result<Compiled, CudaError> {
        let done = self.ahead.find(file.name, architecture);
        done.unwrap_or_else(|| self.compiler.compile(file, architecture))
    }
}

/// Compiles those of `files` that a device of `capability` needs and the cache lacks, in as many
/// threads as the machine runs at once. Files that take long should come first.
pub(super) fn fill(
    files: &[&'static SourceFile],
    capability: (u32, u32),
    options: &KernelOptions,
    compiler: &(impl Compiler + Sync),
) {
    let cache = options.cache_dir.as_deref().map(Cache::below);
    let is_needed = |file: &SourceFile, architecture: &str| {
        let source = file.text();
        let recipe = recipe(&source, architecture);
        options.source != KernelSource::Ptx
            && !cache.as_ref().is_some_and(|cache| cache.contains(&recipe, compiler.version()))
            && options.ahead.find(file.name, architecture).is_none()
    };
    let jobs: Vec<(&'static SourceFile, String)> = files
        .iter()
        .filter_map(|file| Some((*file, file.architecture(capability)?)))
        .filter(|(file, architecture)| is_needed(file, architecture))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((file, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = compiler.compile(file, architecture);
            options.ahead.add(Job { file: file.name, architecture: architecture.clone(), result });
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(jobs.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::super::compile::{Origin, first_that_loads};
    use super::super::source::{ATTENTION, FILES, POOL};
    use super::*;

    /// A compiler that counts its work and refuses one file.
    struct Counting(AtomicU32);

    impl Compiler for Counting {
        fn version(&self) -> &str {
            "13.0"
        }

        fn compile(&self, file: &SourceFile, architecture: &str) -> Result<Compiled, CudaError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if file == &ATTENTION {
                return Err(CudaError::usage("nvrtcCompileProgram", "attention.cu(1): no"));
            }
            let image = format!("{} {architecture}", file.name).into_bytes();
            Ok(Compiled { image, log: String::new() })
        }
    }

    fn load(
        file: &SourceFile,
        options: &KernelOptions,
        compiler: &Counting,
    ) -> Result<(Vec<u8>, Origin), CudaError> {
        let compiler = WithAhead { ahead: &options.ahead, compiler };
        first_that_loads(file, (9, 0), options, Some(&compiler), |image, _| Ok(image.to_vec()))
    }

    #[test]
    fn every_file_is_compiled_once_and_a_cached_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let options = || KernelOptions {
            cache_dir: Some(folder.path().to_path_buf()),
            source: KernelSource::Nvrtc,
            ahead: Ahead::default(),
        };
        let compiler = Counting(AtomicU32::new(0));
        let compiled = || compiler.0.load(Ordering::Relaxed) as usize;
        let first = options();
        for _ in 0..2 {
            fill(&FILES, (9, 0), &first, &compiler);
            assert_eq!(compiled(), FILES.len());
        }
        for file in FILES.into_iter().filter(|file| *file != &ATTENTION) {
            let (image, origin) = load(file, &first, &compiler).unwrap();
            let architecture = file.architecture((9, 0)).unwrap();
            assert_eq!(image, format!("{} {architecture}", file.name).into_bytes());
            assert_eq!(origin, Origin::Nvrtc);
        }
        let error = load(&ATTENTION, &first, &compiler).unwrap_err();
        assert!(error.detail.contains("attention.cu(1): no"), "{error}");
        assert_eq!(compiled(), FILES.len(), "loading compiles nothing again");

        let second = options();
        fill(&FILES, (9, 0), &second, &compiler);
        assert_eq!(compiled(), FILES.len() + 1, "only what the cache lacks");
        assert_eq!(load(&POOL, &second, &compiler).unwrap().1, Origin::Cache);
    }

    #[test]
    fn nothing_is_compiled_for_embedded_kernels_or_for_another_device() {
        let compiler = Counting(AtomicU32::new(0));
        let ptx = KernelOptions { source: KernelSource::Ptx, ..KernelOptions::default() };
        fill(&FILES, (9, 0), &ptx, &compiler);
        assert_eq!(compiler.0.load(Ordering::Relaxed), 0);
        fill(&FILES, (12, 0), &KernelOptions::default(), &compiler);
        let portable = FILES.into_iter().filter(|file| file.is_portable()).count();
        assert_eq!(compiler.0.load(Ordering::Relaxed) as usize, portable);
    }
}
