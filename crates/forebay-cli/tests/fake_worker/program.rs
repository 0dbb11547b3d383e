//! A worker that computes nothing and misbehaves on demand. It is the real worker process, with its
//! stages and its protocol, over an engine that makes rows out of token ids; breaches of the
//! protocol, which the real one cannot commit, are in [`rogue`].

#![expect(clippy::expect_used, reason = "a test tool: what it cannot rely on fails the test")]

mod engine;
mod rogue;
#[path = "../support/script.rs"]
#[allow(dead_code, reason = "shared with the tests, which use other parts")]
mod script;
#[path = "../support/vector.rs"]
mod vector;

use std::process::ExitCode;
use std::time::Duration;

use script::{Script, Start};

/// Exit code of a worker that ends without a word; no worker chooses it otherwise.
const SILENT_EXIT: u8 = 3;

fn main() -> ExitCode {
    let Some(hello) = rogue::peek() else {
        // No worker is wanted but a monitor of devices, which is the real one.
        return forebay_worker::run_if_worker_with(engine::open).unwrap_or(ExitCode::FAILURE);
    };
    let script = Script::read(&hello.worker.model, &hello.worker.device, hello.incarnation);
    // A test may want to hold it; where that needs no leave, there is none to give.
    rustix::process::set_ptracer(rustix::process::PTracer::Any).ok();
    engine::note_pid(&hello.worker.model);
    std::thread::sleep(Duration::from_millis(script.start_delay_ms));
    if script.start == Start::Exit {
        return SILENT_EXIT.into();
    }
    if let Some(breach) = script.rogue {
        rogue::serve(&hello, breach);
        return ExitCode::SUCCESS;
    }
    engine::use_script(script);
    forebay_worker::run_if_worker_with(engine::open).unwrap_or(ExitCode::FAILURE)
}
