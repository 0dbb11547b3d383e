//! The plans in use: one algorithm for each shape.
//!
//! [`GemmPlans::prepare`] is for start-up; [`GemmPlans::run`] never tunes, allocates or asks the
//! library for advice, so that it can be captured into a graph.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::GemmShape;
use super::store::{DeviceKey, Store};
use super::tune::{Tuned, tune};
use crate::edge::lt::{Algorithm, Handle, Product};
use crate::edge::operands::{OPERAND_ALIGNMENT, Operands};
use crate::edge::{self, Context, DevicePtr, Stream};
use crate::error::CudaError;

/// A shape's description, algorithm and measured time.
#[derive(Debug)]
struct Plan {
    product: Product,
    algorithm: Algorithm,
    time_us: f64,
}

/// What happened to plans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// Shapes measured.
    pub tuned: u32,
    /// Shapes taken from the disk.
    pub restored: u32,
    /// Shapes on the disk that the library refused, and that were measured again.
    pub stale: u32,
    /// Times the file could not be read or made no sense.
    pub load_failures: u32,
    /// Times the file could not be written.
    pub save_failures: u32,
}

/// The plans of one device, used by one thread.
#[derive(Debug)]
pub struct GemmPlans {
    // Plans go before the handle.
    plans: HashMap<GemmShape, Plan>,
    handle: Handle,
    store: Store,
    workspace: DevicePtr,
    workspace_bytes: usize,
    counts: Cell<PlanCounts>,
    changed: Cell<bool>,
}

impl GemmPlans {
    /// No plans yet; those on disk below `cache_dir` are read and used when their shape is prepared.
    /// The workspace must live as long as the plans and be used by one stream at a time; 32 MiB
    /// lets every algorithm of a Hopper device run.
    ///
    /// # Errors
    /// [`Missing`](crate::ErrorKind::Missing) without cublasLt,
    /// [`Usage`](crate::ErrorKind::Usage) for a workspace that is not aligned to 16 bytes; the
    /// library's failure. A cache that cannot be read is no error: it is counted.
    pub fn new(
        context: &Arc<Context>,
        cache_dir: Option<&Path>,
        workspace: DevicePtr,
        workspace_bytes: usize,
    ) -> Result<Self, CudaError> {
        if !workspace.addr().is_multiple_of(OPERAND_ALIGNMENT) {
            return Err(CudaError::usage(
                "GemmPlans::new",
                format!("the workspace at {workspace:?} is no multiple of 16 bytes"),
            ));
        }
        let library = edge::load_cublaslt(&[])?;
        let driver = edge::load(&[])?.driver;
        let handle = Handle::new(context)?;
        let key = DeviceKey::new(context.info(), driver, &library.version);
        let mut counts = PlanCounts::default();
        let (store, problem) = Store::open(cache_dir, key);
        if let Some(reason) = problem {
            tracing::warn!(reason, "gemm plans on disk not used");
            counts.load_failures += 1;
        }
        Ok(Self {
            plans: HashMap::new(),
            handle,
            store,
            workspace,
            workspace_bytes,
            counts: Cell::new(counts),
            changed: Cell::new(false),
        })
    }

    /// Makes a plan for `shape` if there is none: from the disk, or by measuring up to 16
    /// algorithms on `stream`. `a`, `w` and `d` point to memory of the operands' sizes; `d` is
    /// overwritten, also after the call returns, and `w` serves as the bias too.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a shape whose n or k is no multiple of 8, or one for
    /// which the library has no algorithm; the failure of the library or the device.
    pub fn prepare(
        &mut self,
        shape: GemmShape,
        stream: &Stream,
        a: DevicePtr,
        w: DevicePtr,
        d: DevicePtr,
    ) -> Result<(), CudaError> {
        if self.plans.contains_key(&shape) {
            return Ok(());
        }
        if !shape.is_possible() {
            return Err(CudaError::usage(
                "GemmPlans::prepare",
                format!("{shape}: n and k must be multiples of 8, and none may be 0"),
            ));
        }
        let product = Product::new(shape, w)?;
        let operands = self.operands(a, w, shape.bias.then_some(w), d);
        let plan = match self.restore(shape, &product, &operands, stream)? {
            Some(tuned) => {
                self.count(|counts| counts.restored += 1);
                tuned
            }
            None => {
                let tuned = tune(&self.handle, &product, shape, &operands, stream)?;
                self.count(|counts| counts.tuned += 1);
                self.store.insert(shape, tuned);
                self.changed.set(true);
                tuned
            }
        };
        let Tuned { algorithm, time_us } = plan;
        self.plans.insert(shape, Plan { product, algorithm, time_us });
        Ok(())
    }

    /// The algorithm that the disk has for `shape`, if the library still runs it. It is run once,
    /// which also loads its code: that must not first happen during a capture.
    fn restore(
        &self,
        shape: GemmShape,
        product: &Product,
        operands: &Operands,
        stream: &Stream,
    ) -> Result<Option<Tuned>, CudaError> {
        let Some(tuned) = self.store.get(shape) else { return Ok(None) };
        let confirmed = product
            .confirm(&self.handle, tuned.algorithm)
            .is_some_and(|candidate| candidate.workspace_bytes <= self.workspace_bytes);
        if confirmed && !tuned.algorithm.is_split()? {
            match product.run(&self.handle, tuned.algorithm, operands, stream) {
                Ok(()) => return Ok(Some(tuned)),
                Err(error) if error.kind.poisons() => return Err(error),
                Err(error) => tracing::debug!(%error, "gemm plan on disk does not run"),
            }
        }
        tracing::debug!(%shape, "gemm plan on disk refused");
        self.count(|counts| counts.stale += 1);
        Ok(None)
    }

    /// Enqueues D = A · Wᵀ (+ bias) on `stream`; D may not overlap the others.
    ///
    /// # Errors
    /// [`Usage`](crate::ErrorKind::Usage) for a shape that was not prepared, a bias given or left
    /// out against the shape, or a pointer that is no multiple of 16 bytes; the library's failure.
    pub fn run(
        &self,
        shape: GemmShape,
        a: DevicePtr,
        w: DevicePtr,
        bias: Option<DevicePtr>,
        d: DevicePtr,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let plan = self.plans.get(&shape).ok_or_else(|| {
            CudaError::usage("GemmPlans::run", format!("{shape} was not prepared"))
        })?;
        let operands = self.operands(a, w, bias, d);
        plan.product.run(&self.handle, plan.algorithm, &operands, stream)
    }

    /// Device time of one product of `shape` when it was measured, in microseconds.
    #[must_use]
    pub fn time_us(&self, shape: GemmShape) -> Option<f64> {
        self.plans.get(&shape).map(|plan| plan.time_us)
    }

    /// What happened to plans since the start.
    #[must_use]
    pub fn counts(&self) -> PlanCounts {
        self.counts.get()
    }

    /// Writes the plans to the cache if new ones were measured. A failure is logged and counted:
    /// it costs time at the next start and nothing else.
    pub fn save(&self) {
        if !self.changed.get() {
            return;
        }
        match self.store.save() {
            Ok(()) => self.changed.set(false),
            Err(reason) => {
                tracing::warn!(reason, "gemm plans not saved");
                self.count(|counts| counts.save_failures += 1);
            }
        }
    }

    fn operands(
        &self,
        a: DevicePtr,
        w: DevicePtr,
        bias: Option<DevicePtr>,
        d: DevicePtr,
    ) -> Operands {
        let (workspace, workspace_bytes) = (self.workspace, self.workspace_bytes);
        Operands { a, w, bias, d, workspace, workspace_bytes }
    }

    fn count(&self, change: impl FnOnce(&mut PlanCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}
