//! The one way out of a worker process that must not linger.

use forebay_protocol::WorkerExit;

/// Ends the process now, with no destructors and no `atexit` handlers: other threads may be inside
/// an engine whose teardown would wait for them or touch a device that is gone.
pub(crate) fn now(exit: WorkerExit) -> ! {
    // SAFETY: `_exit` takes any status and does not return; nothing that runs afterwards could
    // observe a broken invariant, because nothing of this process runs afterwards.
    unsafe { libc::_exit(i32::from(exit.code())) }
}
