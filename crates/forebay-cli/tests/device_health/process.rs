//! The life of the monitor's process: a call that hangs, a program that is no monitor, the end of
//! the host, and what `forebay doctor` shows.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use forebay::MonitorFault;
use forebay::health::{DeviceVerdict, InjectMonitorError};

use crate::library::FakeNvml;
use crate::support::{FOREBAY, eventually, exists, exit_code, forebay, output, real_model};
use crate::{config, of, watch, watch_with};

#[test]
fn a_call_that_hangs_costs_the_process_and_every_device_is_unknown_meanwhile() {
    let fake = FakeNvml::new(&[]);
    let mut settings = config(&fake.path());
    settings.report_deadline_ms = 500;
    let watched = watch(settings);
    watched.verdict(0, "fine");
    let pid = watched.monitor();
    let before = watched.count();
    fake.say(&["hang - nvmlDeviceGetPowerUsage"]);
    let report = watched.report_after(before, "unknown", |report| report.problem.is_some());
    let problem = report.problem.clone().expect("some");
    assert!(problem.contains("500 ms; the driver may hang"), "{problem}");
    assert_eq!(of(&report, 0).1, DeviceVerdict::Unknown(problem));
    eventually("the end of the process that hung", || (!exists(pid)).then_some(()));
    fake.say(&[]);
    let later = |index| {
        watched.report_after(before, "fine again", |report| {
            report.problem.is_none() && of(report, index).1 == DeviceVerdict::Fine
        })
    };
    assert!(later(0).at > report.at || watched.monitor() != pid);
    assert_ne!(watched.monitor(), pid);
    watched.stop();
}

#[test]
fn one_that_hangs_is_ended_with_its_watcher() {
    for call in ["nvmlInit_v2", "nvmlEventSetWait_v2", "nvmlDeviceGetCount_v2"] {
        let hang = format!("hang - {call}");
        let fake = FakeNvml::new(&[&hang]);
        let watched = watch(config(&fake.path()));
        watched.monitor();
        watched.stop();
    }
}

#[test]
fn a_fault_hangs_the_monitor_and_the_next_one_is_well() {
    let fake = FakeNvml::new(&[]);
    let mut settings = config(&fake.path());
    settings.report_deadline_ms = 500;
    let watched = watch(settings);
    watched.verdict(0, "fine");
    let (pid, before) = (watched.monitor(), watched.count());
    watched.inject(MonitorFault::Hang).expect("passed on");
    let late = watched.report_after(before, "unknown", |report| report.problem.is_some());
    watched.report_after(before, "well", |report| {
        report.at > late.at && of(report, 0).1 == DeviceVerdict::Fine
    });
    assert_ne!(watched.monitor(), pid);
    watched.stop();
}

#[test]
fn faults_are_refused_unless_they_are_enabled() {
    let fake = FakeNvml::new(&[]);
    let watched = watch_with(FOREBAY.as_ref(), config(&fake.path()), false);
    watched.verdict(0, "fine");
    let refused = watched.inject(MonitorFault::Hang);
    assert!(matches!(refused, Err(InjectMonitorError::Disabled)), "{refused:?}");
    watched.verdict(0, "fine");
    watched.stop();
    // The process itself refuses, too.
    let mut monitor = monitor(&fake, r#"{"interval_ms":20,"library":LIBRARY,"faults":false}"#);
    let mut stdin = monitor.stdin.take().expect("piped");
    let mut lines = BufReader::new(monitor.stdout.take().expect("piped")).lines();
    writeln!(stdin, r#"{{"inject":"hang"}}"#).expect("written");
    let next = |line: Option<std::io::Result<String>>| line.expect("more").expect("text");
    let log = BufReader::new(monitor.stderr.take().expect("piped")).lines().next();
    assert!(next(log).contains("faults.enabled"));
    for _ in 0..5 {
        next(lines.next());
    }
    drop(stdin);
    assert_eq!(exit_code(&mut monitor), Some(0));
}

#[test]
fn a_program_that_is_no_monitor_leaves_the_devices_unknown() {
    let fake = FakeNvml::new(&[]);
    let watched = watch_with(Path::new("/bin/false"), config(&fake.path()), true);
    let report = watched.report("a problem", |report| report.problem.is_some());
    assert!(report.problem.expect("some").contains("ended without a report"));
    watched.stop();
    let watched = watch_with(Path::new("/nowhere/forebay"), config(&fake.path()), true);
    let report = watched.report("a problem", |report| report.problem.is_some());
    assert!(report.problem.expect("some").contains("/nowhere/forebay"));
    let refused = watched.inject(MonitorFault::Lies);
    assert!(matches!(refused, Err(InjectMonitorError::NotRunning)), "{refused:?}");
    watched.stop();
}

/// A monitor process without a watcher.
fn monitor(fake: &FakeNvml, request: &str) -> Child {
    let library = format!("{:?}", fake.path().to_str().expect("text"));
    Command::new(FOREBAY)
        .env("FOREBAY_DEVICE_MONITOR", request.replace("LIBRARY", &library))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

#[test]
fn the_end_of_the_host_is_the_end_of_the_monitor_even_in_a_call_that_hangs() {
    let request = r#"{"interval_ms":20,"library":LIBRARY,"faults":false}"#;
    for hang in ["hang - nothing", "hang - nvmlDeviceGetName"] {
        let fake = FakeNvml::new(&[hang]);
        let mut monitor = monitor(&fake, request);
        drop(monitor.stdin.take());
        assert_eq!(exit_code(&mut monitor), Some(0), "{hang}");
    }
    let fake = FakeNvml::new(&[]);
    let mut reporting = monitor(&fake, request);
    let _input = reporting.stdin.take();
    let mut lines = BufReader::new(reporting.stdout.take().expect("piped")).lines();
    lines.next().expect("a report").expect("text");
    // Nobody reads any more.
    drop(lines);
    assert_eq!(exit_code(&mut reporting), Some(0));
    let mut confused = monitor(&fake, "nonsense");
    assert_ne!(exit_code(&mut confused), Some(0));
}

#[test]
fn doctor_shows_what_the_monitor_can_see() {
    let fake = FakeNvml::new(&["recovery_action 0 none"]);
    let mut command = forebay(&["doctor", "--device", "cuda:0", "--model"]);
    command.arg(real_model()).env("FOREBAY_HEALTH__NVML", fake.path());
    let said = String::from_utf8(output(&mut command).stdout).expect("text");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "Forebay fake GPU",
        "seen: Xid events, ECC errors",
        "not seen: recovery action",
        "unknown: not known: recovery action",
    ] {
        assert!(words.contains(part), "{part:?} is not in: {words}");
    }
}
