//! `forebay doctor --bundle`: whether a bundle is whole, and whether it works on this machine. Its
//! files are looked at first; only if all are as they were is its program started, which loads
//! library and model in worker processes of its own.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use forebay::config::{Config, Device};
use tokio::process::Command;

use super::doctor_report::Report;
use crate::bundle::{self, CONFIG, Manifest, Opened, PROGRAM};
use crate::failure::{Exit, Failure};
use crate::out::say;

/// Time for the program to say its version.
const VERSION_TIME_MAX: Duration = Duration::from_secs(20);

/// Time for everything that the program does around the start of its workers.
const DOCTOR_TIME_MORE: Duration = Duration::from_secs(60);

/// Findings that are shown; the others are counted.
const SHOWN_MAX: usize = 50;

/// Looks at the bundle at `path`, and tries it.
///
/// # Errors
/// There is no bundle, or something about it is broken; what, has been printed.
pub(super) async fn run(path: &Path) -> Result<(), Failure> {
    let asked = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || bundle::open(&asked)).await;
    let opened = opened.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
    let mut report = Report::default();
    report.section("bundle");
    report.ok("place", path.display());
    files(&mut report, &opened);
    report.section("trial");
    match &opened.manifest {
        Some(manifest) if opened.findings.is_empty() => {
            trial(&mut report, &opened.root, manifest).await;
        }
        _ => report.note("program", "not tried: see above", None),
    }
    say!("{report}")?;
    if report.broken_count() > 0 { Err(Failure::silent(Exit::Failed)) } else { Ok(()) }
}

fn files(report: &mut Report, opened: &Opened) {
    if let Some(manifest) = &opened.manifest {
        report.ok("version", format_args!("forebay {}", manifest.version));
        report.ok("target", &manifest.target);
        report.ok("model", &manifest.model_fingerprint);
        if opened.findings.is_empty() {
            let count = manifest.files.len();
            report.ok("files", format_args!("{count}, all as they were, and no others"));
        }
    }
    for finding in opened.findings.iter().take(SHOWN_MAX) {
        report.broken("files", finding, Some(finding.remedy()));
    }
    if let Some(more @ 1..) = opened.findings.len().checked_sub(SHOWN_MAX) {
        report.broken("files", format_args!("{more} more are wrong"), None);
    }
}

/// Starts the bundle's program where nothing but the bundle can help it.
async fn trial(report: &mut Report, root: &Path, manifest: &Manifest) {
    let here = bundle::target();
    if manifest.target != here {
        let help = "make a bundle with a program that was built for this machine";
        let found = format!("it is for {}, this machine is {here}", manifest.target);
        return report.broken("program", found, Some(help));
    }
    let program = root.join(PROGRAM);
    let said = match output(command(&program).arg("--version"), VERSION_TIME_MAX).await {
        Ok(said) => said,
        Err(reason) => return does_not_run(report, &reason),
    };
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if !said.status.success() || version != format!("forebay {}", manifest.version) {
        let errors = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        let reason = format!("it ended with {} and said {version:?}\n{errors}", said.status);
        return does_not_run(report, reason.trim_end());
    }
    report.ok("program", format_args!("{version} runs on this machine"));
    let config = match Config::load(&root.join(CONFIG)) {
        Ok(config) => config,
        Err(error) => return report.broken("configuration", error, None),
    };
    let mut doctor = command(&program);
    doctor.arg("doctor").arg("--config").arg(root.join(CONFIG));
    if config.cpu.onnxruntime.is_some() {
        // What the bundle itself has; devices are the matter of the machine that it is for.
        doctor.args(["--device", &Device::Cpu.to_string()]);
    }
    let start = Duration::from_millis(config.worker.start_deadline_ms.into());
    match output(&mut doctor, start + DOCTOR_TIME_MORE).await {
        Ok(said) if said.status.success() => {
            report.ok("library and model", "loaded by a worker, and a text embedded");
        }
        Ok(said) => {
            let found = broken_lines(&String::from_utf8_lossy(&said.stdout));
            let errors = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            let found = if found.is_empty() { errors } else { found };
            let help = "its own program says this: `bin/forebay doctor --config forebay.toml`";
            report.broken(
                "library and model",
                format_args!("{}\n{found}", said.status),
                Some(help),
            );
        }
        Err(reason) => report.broken("library and model", reason, None),
    }
}

fn does_not_run(report: &mut Report, reason: &str) {
    let help = if reason.contains("GLIBC") {
        "this system's C library is older than the one that the program was built with: build it \
         on the oldest system that is to run it"
    } else {
        "check that this folder allows programs to run (noexec), and that the program was built for \
         a system like this one"
    };
    report.broken("program", format_args!("it does not run: {reason}"), Some(help));
}

/// A program with nothing of this process's environment.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end.
async fn output(command: &mut Command, time_max: Duration) -> Result<Output, String> {
    match tokio::time::timeout(time_max, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it has not ended within {} s", time_max.as_secs())),
    }
}

/// What a report calls broken, with what follows each such line.
fn broken_lines(report: &str) -> String {
    let mut lines = Vec::new();
    let mut is_broken = false;
    for line in report.lines() {
        let is_first = line.starts_with("  ") && !line.starts_with("   ");
        if is_first || line.is_empty() {
            is_broken = line.trim_start().starts_with("BROKEN");
        }
        if is_broken {
            lines.push(line.trim());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_taken_from_a_report() {
        let mut report = Report::default();
        report.section("a");
        report.ok("x", "fine\nreally");
        report.broken("y", "gone\nfor good", Some("look for it"));
        report.section("b");
        report.note("z", "none", None);
        let lines = broken_lines(&report.to_string());
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines, ["BROKEN  y                 gone", "for good", "help: look for it"]);
    }
}
