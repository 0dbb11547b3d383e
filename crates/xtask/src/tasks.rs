//! `demo`, `test`, `simulate`, `interleavings`, `kernels`, `clients`, `bench-cpu`, `bench-http` and
//! `bench-hostile`: set up what is needed, then run the programs that do the work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::console::say;
use crate::process::{self, cargo, run, run_watched};
use crate::setup::{self, Installed, SetupOptions, setup};

/// The variable that tells every program of the project where ONNX Runtime is.
const ONNXRUNTIME_VARIABLE: &str = "FOREBAY_ONNXRUNTIME";

/// Embeds the shipped events and shows level, throughput, latency and the nearest lines.
pub(crate) fn demo(options: &SetupOptions) -> Result<()> {
    let installed = setup(options)?;
    let program = build_release()?;
    let data = process::root().join("examples/data");
    run(Command::new(program)
        .arg("demo")
        .arg("--model")
        .arg(&installed.model)
        .arg("--onnxruntime")
        .arg(&installed.onnxruntime)
        .arg("--input")
        .arg(data.join("events.txt")))
}

/// Runs every test: documentation examples first, so that the run ends with the test runner's
/// summary. A failure of either fails the task, and both are always run.
pub(crate) fn test(options: &SetupOptions, runner: &[String]) -> Result<()> {
    let installed = setup(options)?;
    let examples = run(test_command(&installed).args(["test", "--doc", "--workspace", "--locked"]));
    if process::is_installed("cargo-nextest") {
        run(test_command(&installed)
            .args(["nextest", "run", "--workspace", "--locked", "--no-tests", "fail"])
            .args(runner))?;
    } else {
        say("cargo-nextest is not installed: using cargo test");
        let mut passed = 0;
        run_watched(
            test_command(&installed)
                .args(["test", "--workspace", "--locked", "--no-fail-fast"])
                .args(["--lib", "--bins", "--tests"])
                .args(runner),
            |line| passed += passed_tests(line),
        )?;
        if passed == 0 {
            bail!("no test ran");
        }
    }
    examples
}

/// Goes through simulated histories; all the work is in an example of the library. Optimised, and with
/// the library's own assertions, which cost no second build of what it depends on.
pub(crate) fn simulate(seeds: u64, start: u64) -> Result<()> {
    run(cargo()
        .args(["run", "--quiet", "--locked", "--release", "--package", "forebay"])
        .args(["--config", "profile.release.package.forebay.debug-assertions=true"])
        .args(["--example", "simulate", "--features", "simulation", "--"])
        .args(["--seeds", &seeds.to_string(), "--start", &start.to_string()]))
}

/// Runs the tests that explore interleavings. They are a build of their own, in which shared state
/// is made of types that a scheduler controls.
pub(crate) fn interleavings() -> Result<()> {
    run(cargo()
        .args(["test", "--quiet", "--locked", "--lib"])
        .args(["--package", "forebay", "--package", "forebay-arena"])
        .args(["--features", "forebay/interleavings,forebay-arena/interleavings"])
        .args(["--", "interleavings"]))
}

/// Compares the program with its peers; all the work is in `benches/cpu.py`.
pub(crate) fn bench_cpu(options: &SetupOptions, bench: &[String]) -> Result<()> {
    script(options, "benches/cpu.py", bench)
}

/// Runs a benchmark that loads the daemon; all the work is in its script and the generator of load.
pub(crate) fn bench_load(options: &SetupOptions, path: &str, bench: &[String]) -> Result<()> {
    run(cargo()
        .args(["build", "--release", "--locked", "--package", "forebay-server"])
        .args(["--example", "load"]))?;
    let generator = target_folder()?.join("release/examples/load");
    let generator = ["--generator".to_owned(), generator.display().to_string()];
    script(options, path, &[&generator, bench].concat())
}

/// Runs published clients against the daemon; all the work is in `clients.py`.
pub(crate) fn clients(options: &SetupOptions, clients: &[String]) -> Result<()> {
    script(options, "crates/forebay-cli/tests/conformance/clients.py", clients)
}

/// Runs a script that needs the program, the model and ONNX Runtime.
fn script(options: &SetupOptions, path: &str, further: &[String]) -> Result<()> {
    let installed = setup(options)?;
    let program = build_release()?;
    run(Command::new("python3")
        .current_dir(process::root())
        .arg(path)
        .arg("--program")
        .arg(program)
        .arg("--model")
        .arg(&installed.model)
        .arg("--onnxruntime")
        .arg(&installed.onnxruntime)
        .args(further))
}

/// Compiles the CUDA kernels for every architecture; all the work is in an example of the crate that
/// holds them. Needs neither a GPU nor a driver.
pub(crate) fn kernels(into: Option<&Path>, is_writing_ptx: bool) -> Result<()> {
    let folder = setup::nvrtc(into)?;
    run(cargo()
        .args(["run", "--quiet", "--locked", "--package", "forebay-cuda"])
        .args(["--example", "compile_kernels", "--"])
        .arg(folder)
        .args(is_writing_ptx.then_some("--write-ptx")))
}

fn test_command(installed: &Installed) -> Command {
    let mut command = cargo();
    command.env(ONNXRUNTIME_VARIABLE, &installed.onnxruntime);
    command
}

/// Builds the `forebay` program optimised; returns its path.
fn build_release() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--locked", "--package", "forebay-cli"]))?;
    Ok(target_folder()?.join("release").join("forebay"))
}

/// Where cargo puts what it builds, as its configuration and environment say.
fn target_folder() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let folder = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    Ok(PathBuf::from(folder.context("cargo metadata names no target_directory")?))
}

/// How many tests a line of `cargo test` says have passed; 0 for any other line.
fn passed_tests(line: &str) -> u64 {
    let counts = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "));
    let passed = counts.and_then(|(_, counts)| counts.split_once(" passed"));
    passed.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_read_from_summaries_only() {
        let summary = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(passed_tests(summary), 12);
        assert_eq!(passed_tests("test result: FAILED. 3 passed; 1 failed"), 3);
        assert_eq!(passed_tests("test tests::twelve ... ok"), 0);
        assert_eq!(passed_tests("12 passed"), 0);
    }

    #[test]
    fn the_target_folder_is_the_one_in_use() {
        let folder = target_folder().unwrap();
        let this = std::env::current_exe().unwrap();
        assert!(this.starts_with(&folder), "{} is not below {}", this.display(), folder.display());
    }
}
