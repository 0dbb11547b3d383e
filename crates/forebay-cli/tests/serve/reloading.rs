//! New settings under load: good ones take effect, bad ones change nothing, and no request notices.

use std::path::Path;

use rustix::process::Signal;

use super::daemon::Daemon;
use super::guards::sum;
use super::load::Load;
use crate::support::tiny::TinyModel;
use crate::support::{eventually, exists};

/// Has it reload and waits for the end of that.
fn reload(daemon: &mut Daemon) -> serde_json::Value {
    daemon.signal(Signal::HUP);
    daemon.hears("RELOADING=1");
    daemon.hears("READY=1");
    daemon.status()["last_reload"].clone()
}

#[test]
fn limits_and_level_of_the_log_change_without_another_runtime() {
    let mut daemon = Daemon::start("");
    let load = Load::start(&daemon);
    let (model, workers) = (daemon.model.path().to_owned(), daemon.model.pids());
    daemon.write_settings(&model, "[limits]\nbody_bytes_max = 1024\n[log]\nlevel = 'debug'");
    let last = reload(&mut daemon);
    assert_eq!(last["ok"], true, "{last}");
    assert_eq!(daemon.connect().embed(&"w1 ".repeat(1_000)).expect("answers").status, 413);
    load.more();
    load.stop();
    assert!(daemon.log().contains("answered"), "requests are in the log now");
    assert_eq!(daemon.model.pids(), workers, "no worker was started");
    daemon.stop();
}

#[test]
fn another_model_takes_over_without_a_lost_request() {
    let mut daemon = Daemon::start("");
    let load = Load::start(&daemon);
    let (other, former) = (TinyModel::new(), daemon.model.pids());
    daemon.write_settings(other.path(), "");
    let last = reload(&mut daemon);
    assert_eq!(last["ok"], true, "{last}");
    load.more();
    let name = other.path().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(daemon.status()["model"], name);
    for pid in former {
        eventually("the end of a former worker", || (!exists(pid)).then_some(()));
    }
    load.more();
    load.stop();
    daemon.stop();
    assert!(other.pids().iter().all(|pid| !exists(*pid)));
}

#[test]
fn whatever_is_wrong_changes_nothing_and_is_said() {
    let mut daemon = Daemon::start("");
    let load = Load::start(&daemon);
    let model = daemon.model.path().to_owned();
    let workers = daemon.model.pids();
    let good = std::fs::read_to_string(daemon.folder.path().join("forebay.toml")).expect("reads");
    let broken = TinyModel::new();
    std::fs::write(broken.file("tokenizer.json"), "{").expect("writes");
    let of = |text: &str| format!("{good}\n{text}");
    for (text, wanted) in [
        ("[model]\npath = 3\n".to_owned(), "model.path"),
        ("[limits".to_owned(), "TOML"),
        (of("[limits]\nidle_ms = 0"), "limits.idle_ms"),
        (of("[auth]\nkey_hashes_file = '/no/such/file'"), "/no/such/file"),
        (good.replace("forebay.sock", "other.sock"), "server.socket cannot be changed"),
        (good.replace("[server]", "[server]\nthreads = 3"), "server.threads cannot be changed"),
        (good.replace(&model.display().to_string(), "/no/such/model"), "/no/such/model"),
        (good.replace(&model.display().to_string(), &broken.path().display().to_string()), "token"),
    ] {
        daemon.write_config(&text);
        let last = reload(&mut daemon);
        assert_eq!(last["ok"], false, "{text}: {last}");
        let message = last["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(wanted), "{wanted}: {message}");
        assert!(daemon.log().contains("reload refused"), "{}", daemon.log());
        assert!(daemon.said.last().expect("said").contains("last reload refused"));
        load.more();
    }
    assert_eq!(daemon.status()["model"], name(&model));
    assert_eq!(daemon.model.pids(), workers, "no worker was started or lost");
    daemon.write_config(&good);
    assert_eq!(reload(&mut daemon)["ok"], true);
    assert!(!daemon.said.last().expect("said").contains("refused"));
    load.stop();
    daemon.stop();
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn keys_are_read_again_from_their_file() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, sum("old")).expect("writes");
    let daemon = Daemon::start(&format!("[auth]\nkey_hashes_file = '{}'", file.display()));
    let status = |key: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        daemon.connect().send("GET", "/info", &headers, "").expect("answers").status
    };
    assert_eq!([status("old"), status("new")], [200, 401]);
    std::fs::write(&file, format!("{}\n", sum("new"))).expect("writes");
    let answer = daemon.admin("POST", "/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!([status("old"), status("new")], [401, 200]);
    std::fs::write(&file, "not a sum").expect("writes");
    let answer = daemon.admin("POST", "/reload", "");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(!answer.text().contains("not a sum"), "{}", answer.text());
    assert_eq!([status("old"), status("new")], [401, 200]);
    daemon.stop();
}
