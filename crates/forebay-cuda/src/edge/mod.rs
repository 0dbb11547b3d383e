//! The edge to CUDA: every call into its libraries is made below this module or in the kernel
//! launchers, behind safe types.
//!
//! It is reachable from outside for this crate's examples and is no interface for others: a
//! [`DevicePtr`] may be moved anywhere, so a wrong one faults the device, though never the host.
//! Every operation first returns the process's first fault if there was one, and binds the context
//! to the calling thread. Destructors free nothing after a fault.

mod context;
mod device;
mod fault;
mod folders;
mod graph;
mod host;
mod launch;
mod library;
pub(crate) mod lt;
mod memory;
mod module;
mod nvrtc;
pub(crate) mod operands;
mod stream;
mod symbols;
mod tensor_map;

pub use context::Context;
pub use device::{DeviceInfo, devices};
pub use fault::first_fault;
pub(crate) use fault::give_up;
pub use graph::Graph;
pub use host::{HostPages, PinnedBuffer};
pub use launch::{Args, LaunchConfig};
pub use library::{Libraries, LibraryFound, load, load_cublaslt, load_nvrtc};
pub use memory::{ALIGNMENT, Carver, DeviceMemory, DevicePtr, aligned, download, upload};
pub use module::{Kernel, Module};
pub use nvrtc::{Compiled, compile};
pub use stream::{Event, Stream};
pub use tensor_map::TensorMap;
