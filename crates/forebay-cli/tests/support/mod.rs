//! What the system tests share: models, configurations, processes, and waiting for a condition.

pub(crate) mod certificates;
pub(crate) mod reference;
pub(crate) mod script;
pub(crate) mod tiny;
mod vector;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use forebay::blocking::Runtime;
use forebay::config::{Device, Rungs};
use forebay::{Config, EmbedResult};

/// The worker that misbehaves on demand.
pub(crate) const FAKE_WORKER: &str = env!("CARGO_BIN_EXE_forebay-fake-worker");
/// The program itself, which is also the real worker.
pub(crate) const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

/// Time within which everything that is waited for must have happened; far above what it takes.
pub(crate) const GENEROUS: Duration = Duration::from_secs(90);

/// Waits until `condition` gives a value.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + GENEROUS;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not within {GENEROUS:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A configuration for the fake worker: small batches, quick restarts.
pub(crate) fn fake_config(model: &Path) -> Config {
    let mut config = Config::default();
    config.model.path = model.to_owned();
    config.worker.program = Some(FAKE_WORKER.into());
    config.devices.rungs = Rungs::Listed(vec![Device::Cpu]);
    // The fake worker loads no library; any file will do.
    config.cpu.onnxruntime = Some(FAKE_WORKER.into());
    config.batch.rows_max = 16;
    config.tokenize.threads = 1;
    config.supervisor.backoff_min_ms = 1;
    config.supervisor.backoff_max_ms = 20;
    config.supervisor.restarts_max = 1_000;
    // Machines that run tests may be busy with other things.
    config.admission.down_grace_ms = 60_000;
    config
}

pub(crate) fn start(config: Config) -> Runtime {
    Runtime::start(config).unwrap_or_else(|error| panic!("runtime does not start: {error}"))
}

/// Process id of the worker that serves now.
pub(crate) fn worker_pid(runtime: &Runtime) -> Option<u32> {
    runtime.status().workers.first().and_then(|worker| worker.pid)
}

pub(crate) fn restarts(runtime: &Runtime) -> u64 {
    runtime.status().workers.iter().map(|worker| worker.restarts).sum()
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    // It may have ended by itself.
    rustix::process::kill_process(pid, signal).ok();
}

/// Whether the process exists, be it only to be reaped.
pub(crate) fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Processes whose parent is `pid`, with their states.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|candidate| parent_of(*candidate) == Some(pid)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

/// Checks that a row is what the fake worker gives for this text.
pub(crate) fn assert_right(text: &str, result: &EmbedResult) {
    let embedding = result.as_ref().unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(embedding.vector, tiny::expected(text), "wrong row for {text:?}");
}

/// The folder of all-MiniLM-L6-v2.
pub(crate) fn real_model() -> PathBuf {
    let path = from_setup("FOREBAY_MODEL", "models/all-MiniLM-L6-v2");
    assert!(path.join("tokenizer.json").is_file(), "{}: {SETUP}", path.display());
    path
}

/// ONNX Runtime's library, or the folder with it.
pub(crate) fn real_library() -> PathBuf {
    let path = from_setup("FOREBAY_ONNXRUNTIME", "onnxruntime");
    assert!(path.exists(), "{}: {SETUP}", path.display());
    path
}

const SETUP: &str = "is not there; run `cargo xtask setup` first";

fn from_setup(variable: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.forebay");
    std::env::var_os(variable).map_or_else(|| folder.join(name), PathBuf::from)
}

/// A configuration for the real engine on the CPU.
pub(crate) fn real_config(model: &Path) -> Config {
    let mut config = Config::default();
    config.model.path = model.to_owned();
    config.worker.program = Some(FOREBAY.into());
    config.devices.rungs = Rungs::Listed(vec![Device::Cpu]);
    config.cpu.onnxruntime = Some(real_library());
    config
}

/// The program, to be run on the CPU and with nothing from the environment of the test.
pub(crate) fn forebay(arguments: &[&str]) -> Command {
    let mut command = Command::new(FOREBAY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOREBAY_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).env("FOREBAY_DEVICES__RUNGS", "cpu");
    command
}

/// The program with the fake worker.
pub(crate) fn forebay_with_fake(arguments: &[&str]) -> Command {
    let mut command = forebay(arguments);
    command.env("FOREBAY_WORKER", FAKE_WORKER).env("FOREBAY_ONNXRUNTIME", FAKE_WORKER);
    command
}

/// Runs a command to its end; one that hangs is ended and fails the test.
pub(crate) fn output(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let pid = child.id();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || tell.send(child.wait_with_output()).ok());
    match told.recv_timeout(GENEROUS) {
        Ok(output) => output.expect("its output can be read"),
        Err(_) => {
            kill(pid, rustix::process::Signal::KILL);
            panic!("{command:?} did not end within {GENEROUS:?}");
        }
    }
}

/// The end of a child; one that hangs is ended and fails the test.
pub(crate) fn exit_code(child: &mut Child) -> Option<i32> {
    let status = eventually("end of the program", || child.try_wait().expect("a child"));
    status.code()
}
