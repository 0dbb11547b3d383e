//! What the service manager hears, and in which order.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::process::Signal;

use super::daemon::Daemon;
use crate::support::eventually;

#[test]
fn the_manager_hears_of_start_reload_and_end_in_order() {
    let usec = [("WATCHDOG_USEC", "100000")];
    let mut daemon = Daemon::start_with("", "", &usec);
    daemon.hears("WATCHDOG=1");
    daemon.signal(Signal::HUP);
    daemon.hears("RELOADING=1");
    daemon.hears("READY=1");
    daemon.signal(Signal::TERM);
    daemon.hears("STOPPING=1");
    daemon.ended();
    let said = &daemon.said;
    assert_eq!(said[0], "STATUS=starting workers\n");
    assert!(
        said[1].starts_with(
            "READY=1
STATUS=level cpu"
        ),
        "after the first rung serves: {said:?}"
    );
    assert!(said.iter().any(|text| text.starts_with("RELOADING=1\nMONOTONIC_USEC=")), "{said:?}");
    let first = |wanted: &str| said.iter().position(|text| text.contains(wanted));
    assert!(first("READY=1") < first("WATCHDOG=1"), "{said:?}");
    assert!(first("RELOADING=1") < first("STOPPING=1"), "{said:?}");
}

#[test]
fn a_change_of_level_is_in_the_status() {
    let mut daemon = Daemon::start("");
    daemon.model.script(&crate::support::script::Script {
        start: crate::support::script::Start::Exit,
        ..Default::default()
    });
    for pid in daemon.model.pids() {
        crate::support::kill(pid, Signal::KILL);
    }
    daemon.hears("STATUS=level down");
    daemon.model.script(&crate::support::script::Script::default());
    daemon.hears("STATUS=level cpu");
    daemon.stop();
}

/// Holds one thread of the daemon where it is, as a lock that never comes would.
struct Held(Pid);

impl Held {
    fn thread(daemon: &Daemon, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", daemon.child.id());
        let found = std::fs::read_dir(tasks).expect("its threads").find_map(|task| {
            let path = task.expect("a thread").path();
            let is_it = std::fs::read_to_string(path.join("comm")).is_ok_and(|n| n.trim() == name);
            is_it.then(|| path.file_name()?.to_str()?.parse().ok()).flatten()
        });
        let thread = Pid::from_raw(found.unwrap_or_else(|| panic!("no thread {name}")));
        ptrace::seize(thread, ptrace::Options::empty()).expect("a child of this process");
        ptrace::interrupt(thread).expect("it is traced");
        waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).ok();
    }
}

#[test]
fn the_watchdog_is_not_told_that_all_is_well_while_the_dispatcher_is_stuck() {
    let usec = [("WATCHDOG_USEC", "100000")];
    let mut daemon = Daemon::start_with("", "watchdog_age_ms_max = 2000", &usec);
    daemon.hears("WATCHDOG=1");
    let withheld = |daemon: &Daemon| daemon.log().matches("the watchdog is not told").count();
    let held = Held::thread(&daemon, "fb-dispatch");
    // Twice: the first may have been decided before the thread was held.
    let start = withheld(&daemon);
    eventually("it is withheld", || (withheld(&daemon) >= start + 2).then_some(()));
    daemon.forget_said();
    let before = withheld(&daemon);
    eventually("it is withheld again and again", || {
        (withheld(&daemon) >= before + 10).then_some(())
    });
    let said = daemon.said_meanwhile();
    assert!(said.iter().all(|text| !text.contains("WATCHDOG=1")), "{said:?}");
    let answer = daemon.connect().get("/livez").expect("answers");
    assert_eq!((answer.status, &answer.json()["status"]), (503, &"stalled".into()), "{answer:?}");
    drop(held);
    daemon.hears("WATCHDOG=1");
    assert_eq!(daemon.connect().embed("w1").expect("answers").status, 200);
    daemon.stop();
}
