//! The unit that is shipped: systemd reads it without a complaint, and finds it closed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::output;

/// Greatest exposure, in tenths, as `systemd-analyze security` measures it.
const EXPOSURE_MAX: &str = "15";

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/systemd")
}

/// `systemd-analyze`, if this machine has it.
fn analyze(arguments: &[&str]) -> Option<Command> {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    let mut command = Command::new("systemd-analyze");
    command.args(arguments);
    there.then_some(command)
}

/// The shipped unit with programs and folders of its own, so that nothing has to be installed.
fn unit(folder: &Path, drop_ins: &[&str]) -> PathBuf {
    let text = std::fs::read_to_string(shipped().join("forebay.service")).expect("is shipped");
    let path = folder.join("forebay.service");
    std::fs::write(&path, text.replace("/usr/bin/forebay", "/bin/true")).expect("writes");
    for name in drop_ins {
        let folder = folder.join("forebay.service.d");
        std::fs::create_dir_all(&folder).expect("creates");
        std::fs::copy(shipped().join("forebay.service.d").join(name), folder.join(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    path
}

#[test]
fn systemd_reads_the_unit_and_its_drop_ins() {
    let Some(mut verify) = analyze(&["verify"]) else { return };
    let folder = tempfile::tempdir().expect("temporary folder");
    verify.arg(unit(folder.path(), &["gpu.conf", "tcp.conf"]));
    let output = output(&mut verify);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    // Settings that this systemd is too old for are no mistake; any other word about it is.
    let complaint = said.lines().find(|line| {
        line.contains("forebay.service")
            && !["RestartSteps", "RestartMaxDelaySec"].iter().any(|key| line.contains(key))
    });
    assert_eq!(complaint, None);
}

#[test]
fn the_unit_is_closed() {
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let drop_ins: [&[&str]; 2] = [&[], &["gpu.conf", "tcp.conf"]];
    for drop_ins in drop_ins {
        let Some(mut security) = analyze(&["security", "--offline=true", "--no-pager", &threshold])
        else {
            return;
        };
        let folder = tempfile::tempdir().expect("temporary folder");
        security.arg(unit(folder.path(), drop_ins));
        let output = output(&mut security);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
