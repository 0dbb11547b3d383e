//! The host at the other end of standard input and output: reports go there, commands and its end
//! come from there. A thread listens, so that the end of the host is heard inside a call that hangs.

use std::io::{BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use forebay_protocol::{
    MONITOR_LINE_BYTES_MAX, MonitorCommand, MonitorFault, MonitorReport, WorkerExit,
};

/// Commands that may wait for the next report.
const COMMANDS_MAX: usize = 16;

/// The conversation with the host.
pub(super) struct Host {
    faults: Receiver<MonitorFault>,
}

impl Host {
    /// Begins to listen. The end of standard input ends the process.
    pub(super) fn listen(faults_allowed: bool) -> Self {
        let (tell, faults) = sync_channel(COMMANDS_MAX);
        // Never joined: the end of the process is its end.
        std::thread::spawn(move || {
            hear(std::io::stdin().lock(), faults_allowed, &tell);
            crate::os::exit_now(WorkerExit::Clean);
        });
        Self { faults }
    }

    /// A fault that was asked for since the last question.
    pub(super) fn fault(&self) -> Option<MonitorFault> {
        self.faults.try_recv().ok()
    }

    /// Prints a report. A host that does not read any more is gone.
    pub(super) fn tell(&self, report: &MonitorReport) {
        let line = match report.encode() {
            Ok(line) => line,
            Err(error) => {
                tracing::error!("cannot report: {error}");
                crate::os::exit_now(WorkerExit::Protocol);
            }
        };
        let mut out = std::io::stdout().lock();
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            crate::os::exit_now(WorkerExit::Clean);
        }
    }
}

/// Reads commands until there are no more.
fn hear(mut from: impl BufRead, faults_allowed: bool, tell: &SyncSender<MonitorFault>) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut from).take(MONITOR_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return;
        }
        match MonitorCommand::decode(&line) {
            Ok(MonitorCommand::Inject(fault)) if faults_allowed => {
                tracing::warn!(?fault, "a fault was asked for");
                if tell.try_send(fault).is_err() {
                    tracing::warn!(?fault, "too many faults wait already; this one is dropped");
                }
            }
            Ok(MonitorCommand::Inject(fault)) => {
                tracing::warn!(?fault, "faults are not enabled (faults.enabled); nothing is done");
            }
            Err(error) => tracing::warn!("not understood: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &str, faults_allowed: bool) -> Vec<MonitorFault> {
        let (tell, told) = sync_channel(COMMANDS_MAX);
        hear(lines.as_bytes(), faults_allowed, &tell);
        drop(tell);
        told.iter().collect()
    }

    #[test]
    fn faults_are_heard_only_where_they_are_enabled() {
        let lines = "nonsense\n{\"inject\":\"lies\"}\n{\"inject\":\"hang\"}\n";
        assert_eq!(heard(lines, true), [MonitorFault::Lies, MonitorFault::Hang]);
        assert_eq!(heard(lines, false), []);
        assert_eq!(heard(&"{\"inject\":\"lies\"}\n".repeat(99), true).len(), COMMANDS_MAX);
    }
}
