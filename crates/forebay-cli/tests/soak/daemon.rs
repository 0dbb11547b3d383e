//! The daemon under `forebay soak`: in each dialect, with faults by the operator's socket, and beside
//! another one.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::support::{eventually, exit_code, forebay_with_fake, kill};
use crate::{Place, assert_page_is_whole, ran};

/// A daemon with the place's model and fake workers; it ends with the test.
struct Daemon {
    child: Child,
    socket: PathBuf,
    admin: PathBuf,
}

impl Daemon {
    fn start(place: &Place) -> Self {
        let (socket, admin) = (place.file("daemon.sock"), place.file("admin.sock"));
        let config = place.file("forebay.toml");
        let text = format!(
            "[model]\npath = '{}'\n[server]\nsocket = '{}'\nadmin_socket = '{}'\n\
             drain_notice_ms = 10\n[supervisor]\nbackoff_min_ms = 1\nbackoff_max_ms = 20\n\
             restarts_max = 1000\ndwell_min_ms = 10\ndwell_max_ms = 100\n[faults]\nenabled = true\n",
            place.model.path().display(),
            socket.display(),
            admin.display()
        );
        std::fs::write(&config, text).expect("writes");
        let mut command = forebay_with_fake(&["serve", "--log-level", "error", "--config"]);
        let child = command.arg(&config).stdout(Stdio::null()).spawn().expect("starts");
        eventually("its sockets", || (socket.exists() && admin.exists()).then_some(()));
        Self { child, socket, admin }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill(self.child.id(), Signal::TERM);
        exit_code(&mut self.child);
    }
}

const SHORT: &str = r#"
name = "short"
scenario = "soak"
warmup_s = 1
duration_s = 8
quiet_s = 4
[load]
arrivals = { kind = "poisson", rate = 60 }
[[classes]]
priority = "control"
share = 1
deadline_ms = 60000
[[classes]]
priority = "bulk"
share = 1
[faults]
kinds = ["kill", "fail_starts=1"]
gap_min_s = 0.5
gap_max_s = 1
heal_within_s = 30
[objectives]
good_share_min = 0.9
[leak]
required = []
drift_max = { mappings = 40 }
[harness]
lag_share_max = 1
rest_s = 1
"#;

#[test]
fn the_daemon_survives_faults_in_its_own_dialect() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let target = format!("unix:{}", daemon.socket.display());
    let admin = daemon.admin.display().to_string();
    let mut command = place.soak(SHORT, &["--target", &target, "--admin", &admin]);
    let ran = ran(&place, &mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    let run = &ran.report["runs"][0]["run"];
    let faults = run["faults"].as_array().expect("faults");
    assert!(!faults.is_empty());
    for fault in faults {
        assert!(fault["refused"].is_null() && fault["healed_ms"].is_f64(), "{fault}");
    }
    assert_eq!(run["best_level"], "cpu");
    let roles: Vec<&str> = run["samples"]
        .as_array()
        .expect("samples")
        .iter()
        .filter_map(|s| s["role"].as_str())
        .collect();
    assert!(roles.contains(&"host") && roles.contains(&"worker cpu"), "{roles:?}");
}

#[test]
fn each_dialect_is_spoken_and_servers_stand_beside_each_other() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let socket = daemon.socket.display();
    let [native, openai, tei, grpc] =
        ["", "openai+", "tei+", "grpc+"].map(|dialect| format!("{dialect}unix:{socket}"));
    let arguments = [
        "--target",
        &native,
        "--beside",
        &openai,
        "--beside",
        &tei,
        "--beside",
        &grpc,
        "--no-faults",
        "--duration",
        "2s",
    ];
    let mut command = place.soak(SHORT, &arguments);
    let ran = ran(&place, &mut command);
    assert_eq!(ran.code, Some(0), "{}", ran.said);
    let runs = ran.report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 4);
    for run in runs {
        let (run, verdict) = (&run["run"], &run["verdict"]);
        assert_eq!(verdict["code"], "pass", "{run}");
        assert!(run["tallied"]["good"].as_u64() > Some(50), "{}", run["tallied"]);
    }
    assert_page_is_whole(&place.file("report.html"));
}

#[test]
fn faults_without_the_operators_socket_are_a_mistake() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let target = format!("unix:{}", daemon.socket.display());
    let mut command = place.soak(SHORT, &["--target", &target]);
    let ran = ran(&place, &mut command);
    assert_eq!(ran.code, Some(64), "{}", ran.said);
    assert!(ran.said.contains("--admin"), "{}", ran.said);
}
