//! A recorded sequence of work, launched as one.
//!
//! The capture is local to its thread, so other threads may allocate and load meanwhile. Within it
//! nothing may be allocated, waited for or asked.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUstreamCaptureMode};

use super::context::Context;
use super::fault::{check, check_drop, first_fault};
use super::stream::Stream;
use crate::error::CudaError;

/// An instantiated graph. Whatever its nodes touch must outlive it; the engine's memory does.
#[derive(Debug)]
pub struct Graph {
    context: Arc<Context>,
    executable: sys::CUgraphExec,
    nodes: usize,
}

// SAFETY: the handle may be used from every thread, one at a time; it is not `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` enqueues on `stream`, without running it, and makes it ready to launch.
    ///
    /// The capture is ended in every case, also if `work` fails or panics.
    ///
    /// # Errors
    /// The failure of `work`, or the driver's.
    pub fn capture(
        stream: &Stream,
        work: impl FnOnce(&Stream) -> Result<(), CudaError>,
    ) -> Result<Self, CudaError> {
        let context = stream.context();
        context.enter()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive, and not capturing: a capture ends before this returns.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream.raw(), mode) })?;
        let capture = Capture { stream, ended: false };
        let outcome = work(stream);
        let recorded = capture.end();
        outcome?;
        let recorded = recorded?;

        let mut nodes = 0;
        // SAFETY: the graph is alive; without an array only the number is written.
        check("cuGraphGetNodes", unsafe {
            sys::cuGraphGetNodes(recorded.0, ptr::null_mut(), &raw mut nodes)
        })?;
        let mut executable = ptr::null_mut();
        // SAFETY: the graph is alive and `executable` is a place for the handle.
        check("cuGraphInstantiate", unsafe {
            sys::cuGraphInstantiateWithFlags(&raw mut executable, recorded.0, 0)
        })
        .map_err(|error| error.with(format!("{nodes} nodes")))?;
        let graph = Self { context: Arc::clone(context), executable, nodes };
        // SAFETY: both handles are alive. This moves the cost of a first launch to here.
        check("cuGraphUpload", unsafe { sys::cuGraphUpload(graph.executable, stream.raw()) })?;
        Ok(graph)
    }

    /// Enqueues the whole graph on `stream`.
    ///
    /// # Errors
    /// The driver's failure.
    pub fn launch(&self, stream: &Stream) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: both handles are alive.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.executable, stream.raw()) })
    }

    /// How many pieces of work it holds.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if first_fault().is_none() && self.context.enter().is_ok() {
            // SAFETY: the handle is alive and used for the last time; a launch still running is
            // finished by the driver.
            check_drop("cuGraphExecDestroy", unsafe { sys::cuGraphExecDestroy(self.executable) });
        }
    }
}

/// A recorded graph before instantiation.
struct Recorded(sys::CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        if first_fault().is_none() && !self.0.is_null() {
            // SAFETY: the handle is alive and used for the last time.
            check_drop("cuGraphDestroy", unsafe { sys::cuGraphDestroy(self.0) });
        }
    }
}

/// A capture under way; dropping it, as a panic does, ends it.
struct Capture<'a> {
    stream: &'a Stream,
    ended: bool,
}

impl Capture<'_> {
    fn end(mut self) -> Result<Recorded, CudaError> {
        self.ended = true;
        self.finish()
    }

    fn finish(&self) -> Result<Recorded, CudaError> {
        let mut graph = ptr::null_mut();
        // SAFETY: the stream is alive and capturing; `graph` is a place for the handle.
        let result = unsafe { sys::cuStreamEndCapture(self.stream.raw(), &raw mut graph) };
        let recorded = Recorded(graph);
        check("cuStreamEndCapture", result)?;
        if recorded.0.is_null() {
            return Err(CudaError::usage("cuStreamEndCapture", "the capture was invalidated"));
        }
        Ok(recorded)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.finish()
        {
            tracing::warn!(%error, "capture not ended");
        }
    }
}
