//! The daemon under `forebay soak`: in each dialect, with faults by the operator's socket, and beside
//! another one.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::support::certificates::certificates;
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
        let socket = place.file("daemon.sock");
        let daemon = Self::start_with(place, &format!("socket = '{}'\n", socket.display()), "");
        eventually("its socket", || socket.exists().then_some(()));
        daemon
    }

    /// With TLS on a port of the system's choice.
    fn start_tls(place: &Place) -> (Self, u16) {
        let path = |name: &str| place.file(name).display().to_string();
        let tls = format!(
            "[tls]\ncertificate = '{}'\nkey = '{}'\n",
            path("server.pem"),
            path("server.key")
        );
        let daemon = Self::start_with(place, "socket = ''\nlisten = '127.0.0.1:0'\n", &tls);
        let port = eventually("its port", || {
            let log = std::fs::read_to_string(place.file("daemon.log")).ok()?;
            let (_, rest) = log.split_once("listening on https://127.0.0.1:")?;
            rest.split_once('\n')?.0.parse().ok()
        });
        (daemon, port)
    }

    fn start_with(place: &Place, listen: &str, more: &str) -> Self {
        let (socket, admin) = (place.file("daemon.sock"), place.file("admin.sock"));
        let config = place.file("forebay.toml");
        let text = format!(
            "[model]\npath = '{}'\n[server]\n{listen}admin_socket = '{}'\n\
             drain_notice_ms = 10\n[supervisor]\nbackoff_min_ms = 1\nbackoff_max_ms = 20\n\
             restarts_max = 1000\ndwell_min_ms = 10\ndwell_max_ms = 100\n[faults]\nenabled = true\n{more}",
            place.model.path().display(),
            admin.display()
        );
        std::fs::write(&config, text).expect("writes");
        let mut command = forebay_with_fake(&["serve", "--log-level", "error", "--config"]);
        let log = std::fs::File::create(place.file("daemon.log")).expect("creates");
        command.arg(&config).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("starts");
        eventually("its operator's socket", || {
            let log = std::fs::read_to_string(place.file("daemon.log")).unwrap_or_default();
            assert!(!log.contains("error:"), "{log}");
            admin.exists().then_some(())
        });
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
fn tls_is_spoken_with_who_is_vouched_for() {
    let place = Place::new();
    certificates(place.folder.path());
    std::fs::create_dir(place.file("other")).expect("makes");
    certificates(&place.file("other"));
    let (_daemon, port) = Daemon::start_tls(&place);
    let [native, grpc] = ["", "grpc+"].map(|dialect| format!("{dialect}https://localhost:{port}"));
    let run = |authority: Option<&str>| {
        let authority = authority.map(|name| place.file(name).display().to_string());
        let ca = authority.iter().flat_map(|path| ["--ca", path.as_str()]);
        let targets = ["--target", &native, "--beside", &grpc, "--remote", "--no-faults"];
        let mut command = place.soak(SHORT, &targets);
        ran(&place, command.args(["--duration", "2s"]).args(ca))
    };
    let trusted = run(Some("ca.pem"));
    assert_eq!(trusted.code, Some(0), "{}", trusted.said);
    for run in trusted.report["runs"].as_array().expect("runs") {
        assert!(run["run"]["tallied"]["good"].as_u64() > Some(50), "{run}");
    }
    for (authority, code, word) in [
        (None, 64, "--ca"),
        (Some("other/ca.pem"), 69, "certificate"),
        (Some("texts"), 64, "texts"),
    ] {
        let ran = run(authority);
        assert_eq!(ran.code, Some(code), "{}", ran.said);
        assert!(ran.said.contains(word), "{}", ran.said);
    }
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
