//! The order of sources, without a compiler and without a device.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;

use super::super::source::{GEMM_ROWS, POOL};
use super::*;
use crate::ErrorKind;

/// A compiler that counts its work.
struct Fake {
    version: &'static str,
    works: bool,
    compiled: Cell<u32>,
}

impl Fake {
    fn new(works: bool) -> Self {
        Self { version: "13.0", works, compiled: Cell::new(0) }
    }
}

impl Compiler for Fake {
    fn version(&self) -> &str {
        self.version
    }

    fn compile(&self, file: &SourceFile, architecture: &str) -> Result<Compiled, CudaError> {
        self.compiled.set(self.compiled.get() + 1);
        if !self.works {
            return Err(CudaError::usage("nvrtcCompileProgram", "pool.cu(7): error: no"));
        }
        let image = format!("{} {architecture}", file.name).into_bytes();
        Ok(Compiled { image, log: String::new() })
    }
}

fn options(source: KernelSource, folder: Option<&Path>) -> KernelOptions {
    KernelOptions { cache_dir: folder.map(Path::to_path_buf), source, ..KernelOptions::default() }
}

/// Takes every image and gives its first bytes.
fn take(image: &[u8], _: Origin) -> Result<String, CudaError> {
    Ok(String::from_utf8_lossy(image).chars().take(30).collect())
}

fn refuse(_: &[u8], origin: Origin) -> Result<(), CudaError> {
    Err(CudaError::usage("cuModuleLoadData", format!("not that {origin:?}")))
}

#[test]
fn the_first_start_compiles_and_the_second_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(KernelSource::Auto, Some(folder.path()));
    let compiler = Fake::new(true);
    for origin in [Origin::Nvrtc, Origin::Cache, Origin::Cache] {
        let taken = first_that_loads(&POOL, (9, 0), &options, Some(&compiler), take).unwrap();
        assert_eq!(taken, ("pool.cu sm_90".to_owned(), origin));
    }
    assert_eq!(compiler.compiled.get(), 1);
    let (image, _) = first_that_loads(&POOL, (8, 7), &options, Some(&compiler), take).unwrap();
    assert_eq!(image, "pool.cu sm_87");

    let newer = Fake { version: "13.1", ..Fake::new(true) };
    let (_, origin) = first_that_loads(&POOL, (9, 0), &options, Some(&newer), take).unwrap();
    assert_eq!(origin, Origin::Nvrtc, "another compiler may do better");
    let (_, origin) = first_that_loads(&POOL, (9, 0), &options, None, take).unwrap();
    assert_eq!(origin, Origin::Cache, "without a compiler any entry is good");
}

#[test]
fn a_damaged_entry_is_compiled_again_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(KernelSource::Auto, Some(folder.path()));
    let compiler = Fake::new(true);
    first_that_loads(&POOL, (9, 0), &options, Some(&compiler), take).unwrap();
    let version = folder.path().join("kernels/nvrtc-13.0");
    for entry in fs::read_dir(version).unwrap() {
        fs::write(entry.unwrap().path(), "torn").unwrap();
    }
    for origin in [Origin::Nvrtc, Origin::Cache] {
        let (_, found) = first_that_loads(&POOL, (9, 0), &options, Some(&compiler), take).unwrap();
        assert_eq!(found, origin);
    }
}

#[test]
fn a_folder_that_cannot_be_written_costs_time_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let options = options(KernelSource::Auto, Some(&file));
    let compiler = Fake::new(true);
    for _ in 0..2 {
        let (_, origin) = first_that_loads(&POOL, (9, 0), &options, Some(&compiler), take).unwrap();
        assert_eq!(origin, Origin::Nvrtc);
    }
    assert_eq!(compiler.compiled.get(), 2);
}

#[test]
fn without_a_working_compiler_the_embedded_ptx_serves_and_only_where_it_may() {
    let broken = Fake::new(false);
    for compiler in [None, Some(&broken as &dyn Compiler)] {
        let auto = options(KernelSource::Auto, None);
        let (image, origin) = first_that_loads(&POOL, (9, 0), &auto, compiler, take).unwrap();
        assert_eq!(origin, Origin::Ptx);
        assert!(image.starts_with("//"), "{image}");

        let strict = options(KernelSource::Nvrtc, None);
        let error = first_that_loads(&POOL, (9, 0), &strict, compiler, take).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Usage);
        assert!(error.detail.contains("9.0") && error.detail.contains("pool.cu"), "{error}");
    }
    let strict = options(KernelSource::Nvrtc, None);
    let error = first_that_loads(&POOL, (9, 0), &strict, Some(&broken), take).unwrap_err();
    assert!(error.detail.contains("pool.cu(7): error: no"), "the compiler's words: {error}");
}

#[test]
fn with_ptx_asked_for_nothing_is_compiled_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = Fake::new(true);
    let auto = options(KernelSource::Auto, Some(folder.path()));
    first_that_loads(&POOL, (9, 0), &auto, Some(&compiler), take).unwrap();
    let ptx = options(KernelSource::Ptx, Some(folder.path()));
    let (_, origin) = first_that_loads(&POOL, (9, 0), &ptx, Some(&compiler), take).unwrap();
    assert_eq!((origin, compiler.compiled.get()), (Origin::Ptx, 1));
}

#[test]
fn every_source_is_tried_in_order_and_every_reason_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let auto = options(KernelSource::Auto, Some(folder.path()));
    let compiler = Fake::new(true);
    first_that_loads(&POOL, (9, 0), &auto, Some(&compiler), take).unwrap();
    let seen = RefCell::new(Vec::new());
    let error = first_that_loads(&POOL, (9, 0), &auto, Some(&compiler), |image, origin| {
        seen.borrow_mut().push(origin);
        refuse(image, origin)
    })
    .unwrap_err();
    assert_eq!(*seen.borrow(), [Origin::Cache, Origin::Nvrtc, Origin::Ptx]);
    for origin in ["not that Cache", "not that Nvrtc", "not that Ptx"] {
        assert!(error.detail.contains(origin), "{error}");
    }
}

#[test]
fn a_fault_ends_the_search() {
    let auto = options(KernelSource::Auto, None);
    let tried = Cell::new(0);
    let error = first_that_loads(&POOL, (9, 0), &auto, Some(&Fake::new(true)), |_, _| {
        tried.set(tried.get() + 1);
        let mut error = CudaError::usage("cuModuleLoadData", "illegal address");
        error.kind = ErrorKind::Sticky;
        Err::<(), _>(error)
    })
    .unwrap_err();
    assert_eq!((error.kind, tried.get()), (ErrorKind::Sticky, 1));
}

#[test]
fn a_file_for_another_device_is_refused_without_compiling() {
    let auto = options(KernelSource::Auto, None);
    let compiler = Fake::new(true);
    let error = first_that_loads(&GEMM_ROWS, (10, 0), &auto, Some(&compiler), take).unwrap_err();
    assert_eq!((error.kind, compiler.compiled.get()), (ErrorKind::Usage, 0));
    assert!(error.detail.contains("another device"), "{error}");
}
