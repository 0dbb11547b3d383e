//! A runtime that has been shut down leaves nothing in the process that used it: no shared memory,
//! no socket, no thread, no child. In a file of its own, because it looks at the whole process.

#![expect(clippy::expect_used, reason = "a test reports by panicking")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::collections::BTreeMap;

use forebay::EmbedOptions;
use support::script::Script;
use support::tiny::{TinyModel, text};
use support::{assert_right, children_of, eventually, fake_config, kill, start, worker_pid};

/// How many open descriptors point to what; the numbers in brackets of sockets and pipes left out.
fn descriptors() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").expect("can be listed") {
        let entry = entry.expect("can be listed");
        // The descriptor of the listing itself is gone by now.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split(":[").next().unwrap_or_default().to_owned();
        *found.entry(kind).or_default() += 1;
    }
    found
}

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("can be listed");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        let comm = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        Some(comm.trim().to_owned())
    };
    tasks.filter_map(name).filter(|name| name.starts_with("fb-")).collect()
}

#[test]
fn nothing_is_left_after_a_shutdown_even_if_a_worker_was_killed() {
    let model = TinyModel::scripted(&Script::default());
    // What the first use of anything makes for the whole process is there already.
    start(fake_config(model.path())).shutdown();
    eventually("no thread of the first runtime", || threads().is_empty().then_some(()));
    let before = descriptors();
    let runtime = start(fake_config(model.path()));
    assert!(descriptors().keys().any(|kind| kind.contains("memfd:forebay-arena")));
    assert!(!threads().is_empty());
    kill(worker_pid(&runtime).expect("serves"), rustix::process::Signal::KILL);
    for number in 0..50 {
        let text = text(number);
        assert_right(&text, &runtime.embed(text.as_str(), &EmbedOptions::default()));
    }
    assert!(runtime.shutdown().drained);
    eventually("descriptors as before", || (descriptors() == before).then_some(()));
    eventually("no thread left", || threads().is_empty().then_some(()));
    assert!(children_of(std::process::id()).is_empty());
}
