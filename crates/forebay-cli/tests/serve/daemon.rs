//! A daemon with a tiny model and fake workers, in a folder of its own, with a service manager that
//! listens to what it says.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::client::{Answer, Connection};
use crate::support::script::Script;
use crate::support::tiny::TinyModel;
use crate::support::{GENEROUS, eventually, exists, forebay_with_fake, kill};

pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) model: TinyModel,
    manager: UnixDatagram,
    /// Everything that it said to the manager, a datagram each.
    pub(crate) said: Vec<String>,
}

/// What is added to the settings of every daemon here.
const COMMON: &str = "
[server]
drain_notice_ms = 50
{listen}
[supervisor]
backoff_min_ms = 1
backoff_max_ms = 20
restarts_max = 1000
[admission]
down_grace_ms = 60000
";

impl Daemon {
    /// One that serves with these additional settings.
    pub(crate) fn start(settings: &str) -> Self {
        Self::start_with(settings, "", &[])
    }

    /// One that listens on TCP, too.
    pub(crate) fn start_tcp(settings: &str) -> Self {
        Self::start_with(settings, "listen = '127.0.0.1:0'", &[])
    }

    pub(crate) fn start_with(settings: &str, listen: &str, env: &[(&str, &str)]) -> Self {
        let model = TinyModel::scripted(&Script { delay_us: 500, ..Script::default() });
        let mut daemon = Self::spawn(model, settings, listen, env);
        daemon.hears("READY=1");
        daemon
    }

    /// One that has been started and may not serve yet.
    pub(crate) fn spawn(
        model: TinyModel,
        settings: &str,
        listen: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let manager = UnixDatagram::bind(folder.path().join("notify")).expect("binds");
        manager.set_read_timeout(Some(GENEROUS)).expect("a limit");
        let config = folder.path().join("forebay.toml");
        let mut command = forebay_with_fake(&["serve", "--config", &config.display().to_string()]);
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        command.envs(env.iter().copied());
        let log = std::fs::File::create(folder.path().join("log")).expect("creates");
        command.stdout(Stdio::null()).stderr(log);
        let text = Self::settings(folder.path(), model.path(), settings, listen);
        std::fs::write(&config, text).expect("writes");
        let child = command.spawn().expect("starts");
        Self { child, folder, model, manager, said: Vec::new() }
    }

    fn settings(folder: &Path, model: &Path, settings: &str, listen: &str) -> String {
        let listen = format!(
            "{listen}\nsocket = '{0}/forebay.sock'\nadmin_socket = '{0}/admin.sock'",
            folder.display()
        );
        let common = COMMON.replace("{listen}", &listen);
        format!("[model]\npath = '{}'\n{common}\n{settings}", model.display())
    }

    /// Writes other settings, which a reload reads.
    pub(crate) fn write_settings(&self, model: &Path, settings: &str) {
        let text = Self::settings(self.folder.path(), model, settings, "");
        self.write_config(&text);
    }

    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.folder.path().join("forebay.toml"), text).expect("writes");
    }

    /// Waits until it tells the manager something that contains this.
    pub(crate) fn hears(&mut self, wanted: &str) -> String {
        let mut buffer = [0; 4_096];
        loop {
            let length = match self.manager.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) => panic!("never said {wanted}: {error}\n{}", self.log()),
            };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.said.push(text.clone());
            if text.contains(wanted) {
                return text;
            }
        }
    }

    /// What it has said to the manager that nobody has heard yet.
    pub(crate) fn said_meanwhile(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let mut buffer = [0; 4_096];
        self.manager.set_nonblocking(true).expect("a socket");
        while let Ok(length) = self.manager.recv(&mut buffer) {
            said.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.manager.set_nonblocking(false).expect("a socket");
        said
    }

    /// Lets go of what it has said so far.
    pub(crate) fn forget_said(&mut self) {
        self.said_meanwhile();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("forebay.sock")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::unix(&self.socket()).expect("connects")
    }

    pub(crate) fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut connection = Connection::unix(&self.admin_socket()).expect("connects");
        connection.send(method, path, &[], body).expect("answers")
    }

    pub(crate) fn status(&self) -> Value {
        self.admin("GET", "/status", "").json()
    }

    /// The address of its TCP listener.
    pub(crate) fn tcp_address(&self) -> String {
        let status = self.status();
        let addresses = status["addresses"].as_array().expect("addresses");
        let found = addresses.iter().find_map(|address| address.as_str()?.split_once("://"));
        found.expect("a TCP address").1.to_owned()
    }

    /// The sum of a metric over all labels that contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.connect().get("/metrics").expect("answers").text();
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub(crate) fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).expect("can be listed").count()
    }

    /// Memory that it occupies, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("its memory");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
        kib * 1_024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// Ends it in order and sees that nothing is left.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        self.ended();
    }

    /// Waits for an end in order and sees that nothing is left.
    pub(crate) fn ended(&mut self) {
        let status = eventually("the end", || self.child.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.workers_gone();
        assert!(!self.socket().exists() && !self.admin_socket().exists());
    }

    pub(crate) fn workers_gone(&self) {
        let pids = self.model.pids();
        assert!(!pids.is_empty());
        for pid in pids {
            eventually("the end of a worker", || (!exists(pid)).then_some(()));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Most often it has ended; a test that failed leaves none behind.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
