//! Places that cannot be written to.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::support::{FAKE_WORKER, GENEROUS, eventually, forebay_with_fake};
use crate::{Bench, assert_fails};

#[test]
fn an_output_that_cannot_be_created() {
    let bench = Bench::new();
    let to = |place: &std::path::Path| {
        let mut command = forebay_with_fake(&["embed", "--input"]);
        command.arg(bench.path("in.txt")).arg("--output").arg(place);
        command.arg("--model").arg(bench.model.path());
        command
    };
    let said = ["cannot create", "no such file or directory", "a folder that exists"];
    assert_fails(&mut to(&bench.path("absent/out.npy")), 73, &said);
    let said = ["cannot create", "out.npy", "is a directory"];
    std::fs::create_dir(bench.path("out.npy")).expect("creates");
    assert_fails(&mut to(&bench.path("out.npy")), 73, &said);
    // A place where nobody may create anything, root included.
    assert_fails(&mut to("/proc/out.npy".as_ref()), 73, &["cannot create /proc/out.npy"]);
    assert_fails(&mut to(&bench.path("rows.csv")), 64, &["must end in .npy or .jsonl"]);
    assert!(bench.model.pids().is_empty(), "no worker was started for nothing");
}

#[test]
fn a_full_disk() {
    let bench = Bench::new();
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full is there");
    let mut child = forebay_with_fake(&["embed", "--output", "-", "--input"])
        .arg(bench.path("in.txt"))
        .arg("--model")
        .arg(bench.model.path())
        .env("FOREBAY_WORKER", FAKE_WORKER)
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let status = eventually("end of the program", || child.try_wait().expect("a child"));
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    std::io::Read::read_to_string(&mut stderr, &mut said).expect("UTF-8");
    assert_eq!(status.code(), Some(74), "{said} (waited for {GENEROUS:?} at most)");
    assert!(said.contains("cannot write standard output: no space left on device"), "{said}");
    assert!(said.contains("free some space"), "{said}");
}
