//! Compiles every kernel for every supported architecture, without a device and without a driver.
//!
//! `compile_kernels FOLDER [--write-ptx]`, where FOLDER holds NVRTC. It prints what each kernel needs
//! and fails on warnings, on registers spilled to memory and on more shared memory than a block may
//! have without asking. The committed PTX must be what a rebuild gives; `--write-ptx` rewrites it.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use forebay_cuda::kernels::compile;
use forebay_cuda::kernels::source::{FILES, PTX_ARCHITECTURE, SourceFile};
use forebay_cuda::load_nvrtc;

/// Compute capabilities that releases are built for: data-centre and desktop GPUs, Orin and Thor.
const CAPABILITIES: [(u32, u32); 6] = [(8, 0), (8, 7), (9, 0), (10, 0), (11, 0), (12, 0)];

/// Shared memory that a block may declare itself.
const STATIC_SHARED_MAX: u32 = 48 * 1024;

/// What the assembler said of one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    kernel: String,
    registers: u32,
    shared_bytes: u32,
    stack_bytes: u32,
    spilled_bytes: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut folder = None;
    let mut is_writing = false;
    for argument in std::env::args_os().skip(1) {
        if argument == "--write-ptx" {
            is_writing = true;
        } else if folder.replace(PathBuf::from(&argument)).is_some() {
            return Err("only one folder may be named".into());
        }
    }
    let folder = folder.ok_or("usage: compile_kernels FOLDER [--write-ptx]")?;
    let found = load_nvrtc(std::slice::from_ref(&folder))?;
    if found.path.as_deref().is_none_or(|path| !path.starts_with(absolute(&folder))) {
        return Err(format!("{} has no usable {}", folder.display(), found.name).into());
    }
    println!("NVRTC {} from {}", found.version, folder.display());

    let mut objections = Vec::new();
    println!(
        "{:<20} {:<32} {:<8} {:>9} {:>7} {:>6} {:>6}",
        "file", "kernel", "arch", "registers", "shared", "stack", "spills"
    );
    for file in FILES {
        for architecture in CAPABILITIES.into_iter().filter_map(|c| file.architecture(c)) {
            inspect(file, &architecture, &mut objections)?;
        }
        if file.is_portable() {
            check_ptx(file, is_writing, &mut objections)?;
        }
    }
    if objections.is_empty() {
        println!("every kernel compiles without warnings, spills or stack");
        return Ok(());
    }
    Err(format!("{} objections:\n  {}", objections.len(), objections.join("\n  ")).into())
}

fn absolute(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

/// Compiles a file and prints and judges what its kernels need.
fn inspect(
    file: &SourceFile,
    architecture: &str,
    objections: &mut Vec<String>,
) -> Result<(), Box<dyn Error>> {
    let compiled = compile(file, architecture, &["--ptxas-options=-v"])?;
    let place = format!("{} for {architecture}", file.name);
    if !compiled.image.starts_with(b"\x7fELF") {
        objections.push(format!("{place}: the image is no cubin"));
    }
    let warnings = compiled.log.lines().filter(|line| line.to_lowercase().contains("warning"));
    objections.extend(warnings.map(|line| format!("{place}: {line}")));
    let kernels = read_usage(&compiled.log)?;
    if kernels.is_empty() {
        objections.push(format!("{place}: no kernel is reported:\n{}", compiled.log));
    }
    for usage in kernels {
        println!(
            "{:<20} {:<32} {:<8} {:>9} {:>7} {:>6} {:>6}",
            file.name,
            usage.kernel,
            architecture,
            usage.registers,
            usage.shared_bytes,
            usage.stack_bytes,
            usage.spilled_bytes
        );
        if usage.registers == 0
            || usage.shared_bytes > STATIC_SHARED_MAX
            || usage.stack_bytes > 0
            || usage.spilled_bytes > 0
        {
            objections.push(format!("{place}: {usage:?}"));
        }
    }
    Ok(())
}

/// Reads the assembler's report (`ptxas -v`): for each kernel a line that names it, one with stack
/// and spills and one with registers and shared memory.
fn read_usage(log: &str) -> Result<Vec<Usage>, Box<dyn Error>> {
    let mut kernels: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            kernels.push(Usage { kernel, ..Usage::default() });
        }
        let is_spill_line = line.contains("bytes stack frame");
        if !is_spill_line && !line.contains(" registers") {
            continue;
        }
        let usage = kernels.last_mut().ok_or("a report before the first kernel")?;
        let line = line.rsplit(" : ").next().unwrap_or(line);
        for part in line.split(',').map(|part| part.trim().trim_start_matches("Used ")) {
            let (number, what) = part.split_once(' ').unwrap_or((part, ""));
            let Ok(number) = number.parse::<u32>() else { continue };
            match what {
                "registers" => usage.registers = number,
                "bytes smem" => usage.shared_bytes = number,
                "bytes stack frame" => usage.stack_bytes = number,
                "bytes spill stores" | "bytes spill loads" => usage.spilled_bytes += number,
                _ => {}
            }
        }
    }
    Ok(kernels)
}

/// Compares the committed PTX of a file with a rebuild, or writes it.
fn check_ptx(
    file: &SourceFile,
    is_writing: bool,
    objections: &mut Vec<String>,
) -> Result<(), Box<dyn Error>> {
    let mut rebuilt = compile(file, PTX_ARCHITECTURE, &[])?.image;
    rebuilt.truncate(rebuilt.trim_ascii_end().len());
    rebuilt.push(b'\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/ptx").join(file.ptx_name());
    if is_writing {
        fs::write(&path, &rebuilt)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("{:<20} {} bytes of PTX written", file.name, rebuilt.len());
    } else if fs::read(&path).ok().as_deref() != Some(rebuilt.as_slice()) {
        objections.push(format!(
            "{} is not what its source gives: run `cargo xtask kernels --write-ptx`",
            path.display()
        ));
    }
    Ok(())
}
