//! Bad libraries, options, weights and batches: each a typed error that says what to do.

use std::path::Path;
use std::process::Command;

use forebay_model::ModelError;
use forebay_onnx::{EngineOptions, OnnxError, Precision, Session, SubBatchLimits, runtime_version};

use crate::support::{self, Geometry, Synthetic};

#[test]
fn the_installed_library_reports_a_version() {
    let version = runtime_version(&support::library()).unwrap();
    assert!(version.starts_with("1."), "{version}");
}

#[test]
fn a_missing_library_is_named() {
    let path = Path::new("/nowhere/libonnxruntime.so");
    let error = runtime_version(path).unwrap_err();
    assert!(matches!(error, OnnxError::LibraryMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/libonnxruntime.so"), "{error}");
    let options = EngineOptions { library: path.into(), ..support::options(Precision::F32) };
    let synthetic = Synthetic::new(&Geometry::default(), 1);
    let error = Session::load(&synthetic.open(), &options).unwrap_err();
    assert!(matches!(error, OnnxError::LibraryMissing { .. }), "{error:?}");
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libonnxruntime.so");
    std::fs::write(&path, b"not a library").unwrap();
    let error = runtime_version(&path).unwrap_err();
    assert!(matches!(error, OnnxError::LibraryUnusable { .. }), "{error:?}");
}

/// Compiles `source` into a shared library with the compiler that built this test.
fn shared_library(folder: &Path, name: &str, source: &str) -> std::path::PathBuf {
    let (input, output) = (folder.join("stub.rs"), folder.join(name));
    std::fs::write(&input, source).unwrap();
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(compiler)
        .args(["--edition", "2021", "--crate-type", "cdylib", "-C", "panic=abort", "-o"])
        .args([&output, &input])
        .status()
        .unwrap();
    assert!(status.success());
    output
}

#[test]
fn a_library_that_is_too_old_is_refused_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let source = r#"
        #[repr(C)] pub struct Base { api: usize, version: extern "C" fn() -> *const u8 }
        extern "C" fn version() -> *const u8 { "1.21.3\0".as_ptr() }
        static BASE: Base = Base { api: 0, version };
        #[no_mangle] pub extern "C" fn OrtGetApiBase() -> &'static Base { &BASE }
    "#;
    let old = shared_library(folder.path(), "libonnxruntime.so.1.21.3", source);
    let error = runtime_version(&old).unwrap_err();
    assert!(matches!(error, OnnxError::LibraryTooOld { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("1.21.3") && message.contains("1.22 or later"), "{message}");
}

#[test]
fn a_library_without_the_entry_point_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = "#[no_mangle] pub extern \"C\" fn something_else() {}";
    let other = shared_library(folder.path(), "libother.so", source);
    let error = runtime_version(&other).unwrap_err();
    assert!(error.to_string().contains("OrtGetApiBase"), "{error}");
}

#[test]
fn options_out_of_range_are_refused() {
    let folder = Synthetic::new(&Geometry::default(), 1).open();
    let good = support::options(Precision::F32);
    let limits = |rows_max, tokens_max, width_step, widths_max| EngineOptions {
        sub_batch: SubBatchLimits { rows_max, tokens_max, width_step, widths_max },
        ..good.clone()
    };
    let bad = [
        EngineOptions { intra_threads: 0, ..good.clone() },
        limits(0, 1024, 16, 4),
        limits(64, 0, 16, 4),
        limits(64, 1024, 0, 4),
        limits(64, 1024, 1 << 11, 4),
        limits(64, 1024, 16, 0),
        limits(64, 1024, 16, 17),
    ];
    for options in bad {
        let error = Session::load(&folder, &options).unwrap_err();
        assert!(matches!(error, OnnxError::Option { .. }), "{error:?}");
    }
    assert!("int4".parse::<Precision>().unwrap_err().to_string().contains("f32 or int8"));
    assert_eq!("int8".parse::<Precision>().unwrap(), Precision::Int8);
}

#[test]
fn weights_that_are_missing_misshapen_or_not_finite_are_refused() {
    let load = |change: fn(&mut Synthetic)| {
        let mut synthetic = Synthetic::new(&Geometry::default(), 1);
        change(&mut synthetic);
        synthetic.write_tensors();
        let options = support::options(Precision::F32);
        match Session::load(&synthetic.open(), &options).unwrap_err() {
            OnnxError::Model(error) => error,
            other => panic!("{other:?}"),
        }
    };
    const NAME: &str = "encoder.layer.1.output.dense.weight";
    let error = load(|synthetic| drop(synthetic.tensors.remove(NAME)));
    assert!(matches!(error, ModelError::TensorMissing { .. }), "{error:?}");
    let error = load(|synthetic| synthetic.tensors.get_mut(NAME).unwrap().0.reverse());
    assert!(matches!(error, ModelError::TensorShape { .. }), "{error:?}");
    let error = load(|synthetic| synthetic.tensors.get_mut(NAME).unwrap().1[7] = f32::NAN);
    assert!(matches!(error, ModelError::TensorNotFinite { element: 7, .. }), "{error:?}");
}

#[test]
fn bad_batches_are_the_callers_and_leave_the_session_usable() {
    let geometry = Geometry::default();
    let synthetic = Synthetic::new(&geometry, 1);
    let mut session = Session::load(&synthetic.open(), &support::options(Precision::F32)).unwrap();
    let long = vec![1; geometry.positions + 1];
    let cases: [(&[u32], &[u32], &str); 8] = [
        (&[1, 2], &[0, 0, 2], "row 0 has no token"),
        (&long, &[0, long.len() as u32], "row 0 has 71 tokens, the model takes at most 70"),
        (&[1, 2, 97], &[0, 1, 3], "token 1 of row 1 has id 97"),
        (&[1, 2], &[], "there are none"),
        (&[1, 2], &[1, 2], "from 1 to 2"),
        (&[1, 2], &[0, 1], "from 0 to 1"),
        (&[1, 2], &[0, 9, 2], "row 0 runs from 0 to 9"),
        (&[1, 2, 3], &[0, 2, 1, 3], "row 1 runs from 2 to 1"),
    ];
    for (ids, boundaries, expected) in cases {
        let error = session.encode(ids, boundaries).unwrap_err();
        assert!(error.is_input(), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(session.encode(&[], &[0]).unwrap().rows(), 0);
    assert_eq!(session.encode(&[1, 2], &[0, 2]).unwrap().tokens(), 2);
}
