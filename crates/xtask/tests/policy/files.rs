//! How sources are kept: short files that begin with what they are for, nothing left undone, and
//! `unsafe` only where it is listed with its reason.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{assert_none, root};

/// The longest a source may be.
const LINES_MAX: usize = 450;

/// Endings of sources in other languages: kernels, and the fake driver of the tests.
const FOREIGN: [&str; 4] = [".c", ".h", ".cu", ".cuh"];

/// Folders that are not part of the sources.
const SKIPPED: [&str; 6] = [".git", ".forebay", ".venv", "target", "__pycache__", "node_modules"];

/// Every file that may contain `unsafe`, below `crates/`, and why it must.
const UNSAFE_FILES: &[(&str, &str)] = &[
    ("forebay-arena/src/host.rs", "maps the sealed memfd and hands out its slots"),
    ("forebay-arena/src/worker.rs", "maps the inherited memfd and hands out its slots"),
    ("forebay-cli/tests/fake_worker/rogue.rs", "takes over the descriptors inherited at spawn"),
    ("forebay-cli/tests/faults/stuck.rs", "holds a process so that its parent cannot reap it"),
    ("forebay-cuda/examples/edge_probe.rs", "maps and registers shared memory to probe a device"),
    ("forebay-cuda/src/edge/context.rs", "calls the driver: contexts and threads"),
    ("forebay-cuda/src/edge/device.rs", "calls the driver: devices and their properties"),
    ("forebay-cuda/src/edge/graph.rs", "calls the driver: capture and launch of graphs"),
    ("forebay-cuda/src/edge/host.rs", "calls the driver: registered and page-locked memory"),
    ("forebay-cuda/src/edge/library.rs", "opens the driver, NVRTC and cublasLt"),
    ("forebay-cuda/src/edge/lt.rs", "calls cublasLt"),
    ("forebay-cuda/src/edge/memory.rs", "calls the driver: device memory and blocking copies"),
    ("forebay-cuda/src/edge/module.rs", "calls the driver: code, kernels and their launch"),
    ("forebay-cuda/src/edge/nvrtc.rs", "calls NVRTC"),
    ("forebay-cuda/src/edge/stream.rs", "calls the driver: streams, events, asynchronous copies"),
    ("forebay-cuda/src/edge/symbols.rs", "asks the opened libraries for their functions"),
    ("forebay-cuda/src/edge/tensor_map.rs", "calls the driver: descriptors of tiled matrices"),
    ("forebay-cuda/src/kernels/faults.rs", "launches the kernels that break on purpose"),
    ("forebay-cuda/src/kernels/hopper.rs", "launches the matrix kernels of one architecture"),
    ("forebay-cuda/src/kernels/launch.rs", "launches the kernels with their own parameters"),
    ("forebay-onnx/src/runtime.rs", "asks the ONNX Runtime library for its version"),
    ("forebay-worker/src/engine/cuda/mod.rs", "registers the arena's pages with the device"),
    ("forebay-worker/src/monitor/raw.rs", "calls functions of NVML that its wrapper lacks"),
    (
        "forebay-worker/src/os.rs",
        "exit without teardown, signal dispositions, inherited descriptors",
    ),
    ("forebay-worker/src/process.rs", "takes over the descriptors inherited at spawn"),
];

/// Every file of the repository with its path relative to the root.
fn files() -> Vec<(String, PathBuf)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    paths.into_iter().map(|path| (relative(&path), path)).collect()
}

/// Every Rust source with its content.
fn sources() -> Vec<(String, String)> {
    with_ending(&[".rs"])
}

/// Every file whose name ends so, with its content.
fn with_ending(endings: &[&str]) -> Vec<(String, String)> {
    let found: Vec<(String, String)> = files()
        .into_iter()
        .filter(|(name, _)| endings.iter().any(|ending| name.ends_with(ending)))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect();
    assert!(found.len() > 15, "found only {} sources of {endings:?}", found.len());
    found
}

/// True if a line has the keyword `unsafe` outside a comment and outside a string.
fn uses_unsafe(line: &str) -> bool {
    let mut code = String::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 0 {
            code.push_str(part.split("//").next().unwrap_or_default());
            if part.contains("//") {
                break;
            }
        }
    }
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

#[test]
fn sources_are_short() {
    let objections: Vec<String> = sources()
        .iter()
        .chain(&with_ending(&FOREIGN))
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert_none(&objections, &format!("split files of more than {LINES_MAX} lines by job:"));
}

#[test]
fn sources_begin_with_what_they_are_for() {
    let objections: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! ") || text.starts_with("//! Placeholder"))
        .chain(with_ending(&FOREIGN).into_iter().filter(|(_, text)| !text.starts_with("// ")))
        .map(|(name, _)| name)
        .collect();
    assert_none(&objections, "begin the file with a comment line that says what it is for:");
}

#[test]
fn unsafe_is_only_where_it_is_listed() {
    let mut objections = Vec::new();
    for (name, text) in sources() {
        let reason = name
            .strip_prefix("crates/")
            .and_then(|name| UNSAFE_FILES.iter().find(|(listed, _)| *listed == name));
        let lines: Vec<usize> =
            (1..).zip(text.lines()).filter(|(_, line)| uses_unsafe(line)).map(|(n, _)| n).collect();
        if !lines.is_empty() && reason.is_none() {
            objections.push(format!("{name}: lines {lines:?}"));
        }
    }
    assert_none(&objections, "use safe code, or list the file here with its reason:");
}

#[test]
fn listed_unsafe_files_exist_and_need_their_place() {
    let mut objections = Vec::new();
    for (name, reason) in UNSAFE_FILES {
        assert!(!reason.is_empty(), "{name} has no reason");
        let text = fs::read_to_string(root().join("crates").join(name)).unwrap_or_default();
        if !text.lines().any(uses_unsafe) {
            objections.push((*name).to_owned());
        }
    }
    assert_none(&objections, "these contain no unsafe code (any more), take them off the list:");
}

#[test]
fn nothing_is_left_undone() {
    // Written apart so that this file does not object to itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
    ];
    let mut objections = Vec::new();
    for (name, path) in files() {
        // Binary files have no words.
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            let number: usize = number;
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                objections.push(format!("{name}:{number}: {word}"));
            }
        }
    }
    assert_none(&objections, "finish it, or write down a limit in words:");
}

#[test]
fn the_scanner_tells_code_from_comments_and_strings() {
    for code in ["unsafe { x() }", "  unsafe fn f() {}", "#[unsafe(no_mangle)]", "let a = unsafe {"]
    {
        assert!(uses_unsafe(code), "{code}");
    }
    let no_code = [
        "// unsafe is not used here",
        "let a = 1; // unsafe",
        "unsafe_op_in_unsafe_fn",
        "let url = \"http://x\"; // unsafe",
    ];
    for other in no_code {
        assert!(!uses_unsafe(other), "{other}");
    }
    assert!(!uses_unsafe(&"let name = 'unsafe';".replace('\'', "\"")));
}
