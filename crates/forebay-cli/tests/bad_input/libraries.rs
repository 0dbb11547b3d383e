//! Libraries, workers and settings that cannot be used.

use std::path::PathBuf;
use std::process::Command;

use crate::Bench;
use crate::support::{forebay, output};

/// A library that says it is ONNX Runtime of this version, and can do nothing else.
fn pretender(bench: &Bench, version: &str) -> PathBuf {
    let (source, library) = (bench.path("pretender.c"), bench.path("libonnxruntime.so.old"));
    let code = format!(
        "struct base {{ const void *(*api)(unsigned); const char *(*version)(void); }};\n\
         static const void *api(unsigned v) {{ (void)v; return 0; }}\n\
         static const char *version(void) {{ return \"{version}\"; }}\n\
         static const struct base base = {{ api, version }};\n\
         const struct base *OrtGetApiBase(void) {{ return &base; }}\n"
    );
    std::fs::write(&source, code).expect("writes");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    // Rust needs one to link.
    assert!(compiler.status().expect("a C compiler").success());
    library
}

#[test]
fn no_onnx_runtime_or_none_that_can_be_used() {
    let bench = Bench::new();
    let with = |library: PathBuf| {
        let mut command = bench.embed(forebay);
        command.arg("--onnxruntime").arg(library);
        command
    };
    let said = ["no ONNX Runtime library", "cpu.onnxruntime is", "cargo xtask setup"];
    bench.assert_fails(&mut with(bench.path("absent.so")), 69, &said);
    let text = bench.path("libonnxruntime.so.text");
    std::fs::write(&text, b"this is no library").expect("writes");
    let said = ["libonnxruntime.so.text", "cannot be used as ONNX Runtime's library"];
    bench.assert_fails(&mut with(text), 69, &said);
    let said = ["is ONNX Runtime 1.4.0, which is too old", "install 1.22 or later"];
    bench.assert_fails(&mut with(pretender(&bench, "1.4.0")), 69, &said);
}

#[test]
fn no_worker_program() {
    let bench = Bench::new();
    let mut command = bench.real();
    command.env("FOREBAY_WORKER", "/nowhere/forebay");
    let said = ["no worker executable", "FOREBAY_WORKER is /nowhere/forebay"];
    bench.assert_fails(&mut command, 69, &said);
    // A program that is no worker: it ends without a word.
    command.env("FOREBAY_WORKER", "/bin/false");
    command.env("FOREBAY_SUPERVISOR__RESTARTS_MAX", "1");
    bench.assert_fails(&mut command, 69, &["no worker became ready", "exited with code 1"]);
}

#[test]
fn settings_that_are_unknown_or_out_of_range() {
    let bench = Bench::new();
    let path = bench.path("forebay.toml");
    let with = |text: &str| {
        std::fs::write(&path, text).expect("writes");
        let mut command = bench.fake();
        command.arg("--config").arg(&path);
        command
    };
    let said = ["forebay.toml", "2", "token_max", "tokens_max"];
    bench.assert_fails(&mut with("[batch]\ntoken_max = 4096\n"), 78, &said);
    let said = ["forebay.toml", "rows_max", "65536"];
    bench.assert_fails(&mut with("[batch]\nrows_max = 0\n"), 78, &said);
    let mut command = bench.fake();
    command.env("FOREBAY_BATCH__ROWS_MAX", "many");
    bench.assert_fails(&mut command, 78, &["FOREBAY_BATCH__ROWS_MAX", "many"]);
    bench.assert_fails(bench.fake().args(["--device", "gpu:0"]), 64, &["gpu:0", "cuda:N"]);
}

#[test]
fn a_gpu_that_is_not_there() {
    let bench = Bench::new();
    // ONNX Runtime is not asked for: nothing is to run on the CPU.
    let without_library = |device: &str| {
        let mut command = bench.embed(forebay);
        command.args(["--device", device]).arg("--onnxruntime").arg(bench.path("absent.so"));
        command
    };
    let mut command = without_library("cuda:63");
    command.env_remove("CUDA_VISIBLE_DEVICES");
    let said = ["no worker became ready: cuda:63: ", "missing", "help: "];
    bench.assert_fails(&mut command, 69, &said);
    let text = String::from_utf8_lossy(&output(&mut command).stderr).into_owned();
    // Without a driver it is the driver; with one, the device.
    assert!(text.contains("libcuda.so.1") || text.contains("sees no device"), "{text}");
    command.env("CUDA_VISIBLE_DEVICES", "");
    bench.assert_fails(&mut command, 69, &["cuda:63 is not visible", "CUDA_VISIBLE_DEVICES is"]);
    // One more for the CPU, and its library is asked for.
    let mut command = without_library("cuda:63,cpu");
    bench.assert_fails(&mut command, 69, &["no ONNX Runtime library"]);
    let mut command = bench.real();
    command.args(["--device", "cuda:63,cpu"]).env_remove("CUDA_VISIBLE_DEVICES");
    let served = output(&mut command);
    assert!(served.status.success(), "{}", String::from_utf8_lossy(&served.stderr));
}
