//! What a worker asks of the operating system that has no safe call: to leave at once, to be left
//! alone by signals meant for its host, and to hold nothing that it was not given.

use std::os::fd::RawFd;

use forebay_protocol::WorkerExit;
use rustix::process::{Signal, set_parent_process_death_signal};

/// Ends the process now, with no destructors and no `atexit` handlers: other threads may be inside
/// an engine whose teardown would wait for them or touch a device that is gone.
pub(crate) fn exit_now(exit: WorkerExit) -> ! {
    // SAFETY: `_exit` takes any status and does not return; nothing that runs afterwards could
    // observe a broken invariant, because nothing of this process runs afterwards.
    unsafe { libc::_exit(i32::from(exit.code())) }
}

/// Ends the process by this signal, as an abort or a wild pointer would: at once and with a status
/// that names it, whatever handlers there are. No core file is left behind.
pub(crate) fn end_by(signal: libc::c_int) -> ! {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls take plain values and a pointer to one that outlives the call; the default
    // disposition of the signal, which the callers choose among those that end a process, runs no
    // code of this process.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    exit_now(WorkerExit::Panic)
}

/// Has the kernel kill this process when its host ends, whatever it is doing then: one that hangs in a
/// driver hears of no socket. The signal comes with the end of the *thread* that started this process,
/// which is the host's control thread and ends last of all.
pub(crate) fn die_with_host() {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        tracing::warn!(%error, "this process may outlive its host if it hangs");
    }
}

/// Ignores the polite signals. Service managers send them to every process of a service at once;
/// a worker that obeyed would take from its host what the host is about to finish. Its socket and
/// SIGKILL end it.
pub(crate) fn ignore_polite_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: SIG_IGN installs no code; these signals are valid numbers and may be ignored.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Closes every descriptor from `first` on: what the host had open without the close-on-exec flag
/// is none of a worker's business and would be held open by it.
pub(crate) fn close_from(first: RawFd) {
    let Ok(first) = u32::try_from(first) else { return };
    // SAFETY: called before anything in this process has opened a descriptor; `first` is above
    // those that were inherited on purpose, so no owner of a closed descriptor exists. A kernel
    // without the call leaves them open, as they were.
    unsafe { libc::close_range(first, u32::MAX, 0) };
}

/// Whether this number is an open descriptor.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag and takes any number; one that is not open gives -1.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}
