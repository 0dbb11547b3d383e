//! Every way in which a device can fail: what ends with the worker, what does not, and that no text
//! is lost, answered twice or answered wrongly.

use std::time::Duration;

use forebay::config::Fallback;
use forebay::{EmbedOptions, Level, StartError, WorkerState};

use crate::driver::FakeDriver;
use crate::support::{GENEROUS, eventually, exists, restarts, start};
use crate::{assert_right, config, embed, gpu, short_texts, shut_down};

/// Texts through a device that fails once in their middle, which is the end of its worker. What is
/// said of that end.
///
/// One failure, not several: a text whose worker dies twice, the second time with nothing else in it,
/// is given up rightly.
fn fails_once(fault: &str, fallback: Fallback) -> String {
    let driver = FakeDriver::new(&[fault, "once 1"]);
    let mut config = config(&driver);
    config.devices.fallback = fallback;
    // Far above what a batch takes here, and short where it is waited for.
    config.cuda.batch_deadline_ms = if fault.starts_with("hang") { 2_000 } else { 60_000 };
    let runtime = start(config);
    runtime.settled();
    assert_eq!(runtime.level(), Level::Gpu(1));
    let texts = short_texts(30);
    let rows = embed(&runtime, &texts);
    assert!(driver.has_failed(0), "{fault} did not happen");
    assert_right(&rows, &texts);
    // One worker was replaced, and its successor serves.
    eventually("the full level", || (runtime.level() == Level::Gpu(1)).then_some(()));
    assert_eq!(restarts(&runtime), 1);
    let end = gpu(&runtime).last_end.expect("an end");
    assert_right(&embed(&runtime, &texts[..4]), &texts[..4]);
    shut_down(runtime);
    end
}

fn assert_one_record(end: &str, said: &[&str]) {
    // The record of what was under way.
    assert_eq!(end.matches("under_way=").count(), 1, "{end}");
    for part in said {
        assert!(end.contains(part), "{part} is not in: {end}");
    }
}

#[test]
fn a_call_that_fails_costs_its_batch_another_run_and_no_worker() {
    // 801 is for the batch alone. Probe and canary launch before the first batch.
    let driver = FakeDriver::new(&["fault cuGraphLaunch 5 801", "once 1"]);
    let runtime = start(config(&driver));
    let texts = short_texts(30);
    let rows = embed(&runtime, &texts);
    assert!(driver.has_failed(0), "the fault did not happen");
    assert_right(&rows, &texts);
    assert_eq!((restarts(&runtime), runtime.level()), (0, Level::Gpu(1)));
    shut_down(runtime);
}

#[test]
fn a_failed_call_that_ends_the_process_replaces_the_worker_and_no_text_is_lost() {
    let end = fails_once("fault cuGraphLaunch 6 719", Fallback::None);
    // Which stage meets it first is chance.
    let said = ["sticky_cuda", "cuGraphLaunch", "(719)", "stage=", "device=cuda:0"];
    assert_one_record(&end, &said);
}

#[test]
fn a_fault_of_a_kernel_shows_in_another_call_and_the_cpu_helps_out() {
    let end = fails_once("fault kernel:pool 7 700", Fallback::Cpu);
    assert_one_record(&end, &["sticky_cuda", "ILLEGAL_ADDRESS", "(700)"]);
}

#[test]
fn a_device_that_never_finishes_is_given_up_at_the_deadline_of_the_batch() {
    // The probe and the canary run three times through six layers.
    let end = fails_once("hang kernel:attention 31", Fallback::None);
    assert!(end.contains("cuda.batch_deadline_ms"), "{end}");
}

#[test]
fn an_end_does_not_wait_for_a_device_that_never_finishes() {
    // The first batch behind the probe, the known answers of the engine and those of the host.
    let driver = FakeDriver::new(&["hang kernel:attention 25"]);
    let runtime = start(config(&driver));
    let pid = gpu(&runtime).pid.expect("it runs");
    let ticket = runtime.submit("a text", &EmbedOptions::default()).expect("accepted");
    assert!(!runtime.shutdown_within(Duration::from_millis(300)).drained);
    let result = ticket.wait(Some(GENEROUS)).expect("answered");
    assert_eq!(result.expect_err("not computed").code(), "shutting_down");
    assert!(!exists(pid), "worker {pid} is left behind");
}

#[test]
fn a_device_that_computes_wrongly_never_serves() {
    // In the probe batch, and in the known answers behind it: six layers with two of these each.
    for (lie, said) in [
        ("lie kernel:pool 1", "probe batch has length"),
        ("lie kernel:gemm_norm 13", "the device must not serve"),
    ] {
        let driver = FakeDriver::new(&[lie]);
        let mut config = config(&driver);
        config.devices.fallback = Fallback::None;
        match forebay::blocking::Runtime::start(config) {
            Err(StartError::Worker { reason }) => assert!(reason.contains(said), "{lie}: {reason}"),
            other => panic!("{lie}: {other:?}"),
        }
    }
}

#[test]
fn without_memory_the_cpu_serves_until_there_is_some() {
    let driver = FakeDriver::new(&["fault cuMemAlloc_v2 1 2", "once 1"]);
    let mut config = config(&driver);
    config.devices.fallback = Fallback::Cpu;
    let runtime = start(config);
    let texts = short_texts(8);
    assert_right(&embed(&runtime, &texts), &texts);
    eventually("the GPU", || (runtime.level() == Level::Gpu(1)).then_some(()));
    let worker = gpu(&runtime);
    assert_eq!(worker.state, WorkerState::Serving);
    let end = worker.last_end.expect("an end");
    assert!(end.contains("OUT_OF_MEMORY") && end.contains("bytes are free"), "{end}");
    assert_right(&embed(&runtime, &texts), &texts);
    shut_down(runtime);
}
