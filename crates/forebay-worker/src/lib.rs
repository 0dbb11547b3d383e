//! The worker process of one rung: four stages over an engine, behind one inherited socket.
//!
//! ```text
//! socket ─▶ copy-in ─▶ infer ─▶ pool ─▶ copy-out ─▶ socket
//!           (claims    (encoder, (rows   (gives the
//!            the slot)  1..n      into    slot back)
//!                       threads)  place)
//! ```
//! Each stage is an actor with a thread of its own and a bounded lane; on a GPU each also owns a
//! CUDA stream. One item is one batch and carries its claimed slot along, so a slot has one owner
//! at any time. The stages know nothing of any engine: an [`Engine`] is four steps that they run.
//!
//! The process belongs to its socket. When the socket closes it exits at once, whatever is in
//! flight; when a stage fails it exits with the code that says why. It never retries, never
//! restarts a stage, and never talks to anybody but its host.
//!
//! An application that wants to ship one file calls [`run_if_worker`] first thing in `main`. The
//! same call answers a host that looks for devices, and watches them for it: the driver is opened in
//! processes of their own.

mod engine;

mod faults;
mod link;
mod monitor;
mod os;
mod probe;
mod process;
mod root;
mod stages;
mod work;

pub use engine::{
    Engine, EngineInfo, Injection, Step, StepError, cuda_engine_options, open_cpu_engine,
};
pub use process::{OpenEngine, run_if_worker, run_if_worker_with};
