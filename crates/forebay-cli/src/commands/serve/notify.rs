//! What the service manager is told: one datagram of `KEY=value` lines to the socket that it names in
//! `NOTIFY_SOCKET` (sd_notify(3)). Without that variable nothing is sent and nothing is missing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use forebay::Health;
use forebay_server::LastReload;

/// How long a full queue of the service manager is waited for.
const SEND_TIME_MAX: Duration = Duration::from_secs(1);

/// Bytes of a status line; longer ones are cut.
const STATUS_BYTES_MAX: usize = 512;

/// The way to the service manager.
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// The way that the environment names.
    ///
    /// # Errors
    /// The system refuses a socket, or the name is none.
    pub(super) fn from_env() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self(None));
        };
        Self::to(name.as_bytes())
    }

    /// The way to this socket; a leading `@` is one without a file.
    fn to(name: &[u8]) -> io::Result<Self> {
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(name)))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIME_MAX))?;
        Ok(Self(Some((socket, address))))
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "the service manager cannot be told");
        }
    }

    /// It serves.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}\n", line(status)));
    }

    /// What it is doing.
    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={}\n", line(status)));
    }

    /// It reads its settings again; [`Notifier::ready`] ends that.
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}\n"));
    }

    /// It is about to end.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining\n");
    }

    /// It is well.
    pub(super) fn watchdog(&self) {
        self.send("WATCHDOG=1\n");
    }
}

/// Half of the time within which the service manager wants to hear that all is well; `None` if it
/// does not ask, or asks another process.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    let us = number("WATCHDOG_USEC").filter(|us| *us >= 2)?;
    Some(Duration::from_micros(us / 2))
}

/// The level in words, and what the last reload left undone.
pub(super) fn describe(health: &Health, reload: Option<&LastReload>) -> String {
    let reason = serde_json::to_value(health.reason).unwrap_or_default();
    let mut text = format!("level {}: {}", health.level, reason.as_str().unwrap_or("unknown"));
    if let Some(LastReload { ok: false, message, .. }) = reload {
        text.push_str("; last reload refused: ");
        text.push_str(message);
    }
    text
}

/// Text as one line of bounded length: what follows a line break would be another message.
fn line(text: &str) -> String {
    let mut line: String = text.split('\n').collect::<Vec<_>>().join("; ");
    while line.len() > STATUS_BYTES_MAX {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use forebay::{HealthReason, Level};

    use super::*;

    #[test]
    fn messages_reach_a_socket_with_a_file_and_one_without() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("@forebay-test-{}", std::process::id());
        let abstract_ = SocketAddr::from_abstract_name(&name[1..]).expect("a name");
        for (socket, name) in [
            (UnixDatagram::bind(&path).expect("binds"), path.as_os_str().as_bytes()),
            (UnixDatagram::bind_addr(&abstract_).expect("binds"), name.as_bytes()),
        ] {
            let notifier = Notifier::to(name).expect("a socket");
            notifier.ready("level cpu\nREADY=0");
            let mut buffer = [0; 256];
            let length = socket.recv(&mut buffer).expect("arrives");
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=level cpu; READY=0\n");
        }
        Notifier(None).ready("nobody is told");
    }

    #[test]
    fn a_refused_reload_stays_in_the_status() {
        let health = Health {
            level: Level::Gpu(2),
            reason: HealthReason::Nominal,
            capacity_ktokens_per_s: 0,
            worst_age: Duration::ZERO,
            beat_age: Duration::ZERO,
        };
        assert_eq!(describe(&health, None), "level gpu(2): nominal");
        let last = |ok| LastReload {
            at: std::time::SystemTime::UNIX_EPOCH,
            ok,
            message: "f.toml:1: wrong".to_owned(),
        };
        assert_eq!(describe(&health, Some(&last(true))), "level gpu(2): nominal");
        let refused = describe(&health, Some(&last(false)));
        assert_eq!(refused, "level gpu(2): nominal; last reload refused: f.toml:1: wrong");
    }

    #[test]
    fn a_line_is_one_and_not_endless() {
        assert_eq!(line("a\nb"), "a; b");
        assert!(line(&"ü".repeat(1_000)).len() <= STATUS_BYTES_MAX);
    }
}
