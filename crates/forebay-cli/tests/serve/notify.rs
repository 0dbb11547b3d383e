//! What the service manager hears, and in which order.

use rustix::process::Signal;

use super::daemon::Daemon;

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
