//! A worker whose process does not go although it was killed. What does that in service is a driver
//! that never returns; what does it here is a process that traces the worker and never looks: until
//! it is gone, the kernel does not let the parent reap what it traces.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use forebay::{Config, Fault, Level, WorkerState};

use crate::history::{COMES_BACK, assert_chain};
use crate::load::{GPU, alone, config, patient, script, under_load_of};
use crate::support::tiny::TinyModel;
use crate::support::{eventually, exists, start};

/// Keeps a process from being reaped for as long as it lives.
struct Tracer(Child);

impl Tracer {
    fn hold(pid: u32) -> Self {
        let mut sleeper = Command::new("sleep");
        sleeper.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let seize = move || {
            // SAFETY: with this request the call takes a process id and two numbers, and touches no
            // memory of this process.
            let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
            if seized == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: one system call, which is allowed between fork and exec; it allocates nothing.
        unsafe { sleeper.pre_exec(seize) };
        Self(sleeper.spawn().unwrap_or_else(|error| panic!("cannot trace a child: {error}")))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Calls a process stuck soon.
fn impatient(config: &mut Config) {
    patient(config);
    config.supervisor.kill_grace_ms = 0;
    config.supervisor.reap_deadline_ms = 300;
}

#[test]
fn nothing_is_started_beside_a_process_that_does_not_go() {
    let outcome = under_load_of(&script(), impatient, |loaded| {
        let held = loaded.runtime.status().workers[0].pid.expect("it serves");
        let tracer = Tracer::hold(held);
        let started = loaded.model.pids().len();
        loaded.inject(GPU, Fault::Kill);
        loaded.happened(GPU, "exited to stuck", 1);
        // What it had runs elsewhere, and nobody waits for it.
        loaded.answers_everybody();
        loaded.serves();
        assert_eq!(loaded.runtime.level(), Level::Gpu(1));
        assert!(exists(held));
        assert_eq!(loaded.model.pids().len(), started, "no other process for its device");
        // It goes after all.
        drop(tracer);
        loaded.happened(GPU, "stuck to exited", 1);
        assert!(!exists(held));
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 1));
    let begin = ["fault kill", "serving to exited", "exited to stuck"];
    // Its end is known before its slot is free again.
    let end = [&[COMES_BACK[0], "stuck to exited"][..], &COMES_BACK[1..]].concat();
    assert_chain(&outcome.events, GPU, &[&begin[..], &end].concat());
}

#[test]
fn a_shutdown_does_not_wait_for_it() {
    let _alone = alone();
    let model = TinyModel::new();
    let mut config = config(&model);
    impatient(&mut config);
    let runtime = start(config);
    runtime.settled();
    let held = runtime.status().workers[0].pid.expect("it serves");
    let tracer = Tracer::hold(held);
    runtime.inject(Some(GPU), Fault::Kill).expect("injected");
    eventually("a stuck process", || {
        let state = runtime.status().workers[0].state;
        (state == WorkerState::Stuck).then_some(())
    });
    assert!(runtime.shutdown().drained);
    assert!(exists(held), "it was not there any more");
    for pid in model.pids() {
        assert!(pid == held || !exists(pid), "worker {pid} is left behind");
    }
    drop(tracer);
}
