//! Faults on request, through the CUDA engine as it is: its own kernels break, its own allocation
//! fails, its own weights change. Only the device is a fake.

use forebay::blocking::Runtime;
use forebay::config::{Device, Fallback};
use forebay::{Fault, Level};

use crate::driver::FakeDriver;
use crate::support::reference::{Reference, cosine};
use crate::support::{eventually, restarts, start};
use crate::{assert_right, config, embed, gpu, short_texts, shut_down};

const GPU: Device = Device::Cuda(0);

/// A runtime on the fake device, beside the CPU if it is to help out, with faults enabled.
fn runtime(driver: &FakeDriver, fallback: Fallback) -> (Runtime, Vec<Reference>) {
    let mut config = config(driver);
    config.devices.fallback = fallback;
    config.faults.enabled = true;
    config.worker.batch_deadline_ms = 2_000;
    // The fake computes on the CPU: on a busy machine honest batches are late.
    config.hedge.floor_ms = 1_000;
    let runtime = start(config);
    runtime.settled();
    assert_eq!(runtime.level(), Level::Gpu(1));
    let texts = short_texts(12);
    assert_right(&embed(&runtime, &texts), &texts);
    (runtime, texts)
}

fn inject(runtime: &Runtime, fault: Fault) {
    let injected = runtime.inject(Some(GPU), fault);
    injected.unwrap_or_else(|error| panic!("{fault}: {error}"));
}

/// Injects a fault that ends the worker: no text is lost, and its successor serves.
fn ends_its_worker(fault: Fault, said: &[&str]) {
    let driver = FakeDriver::new(&["trace 1"]);
    let (runtime, texts) = runtime(&driver, Fallback::Cpu);
    inject(&runtime, fault);
    assert_right(&embed(&runtime, &texts), &texts);
    eventually("the end of the worker", || (restarts(&runtime) == 1).then_some(()));
    eventually("the full level", || (runtime.level() == Level::Gpu(1)).then_some(()));
    let end = gpu(&runtime).last_end.expect("an end");
    for part in said {
        assert!(end.contains(part), "{fault}: {part} is not in: {end}");
    }
    let launched = driver.calls().into_iter().filter(|(_, call)| call.starts_with("kernel fault_"));
    assert_eq!(launched.count(), 1, "{fault}");
    assert_right(&embed(&runtime, &texts), &texts);
    assert_eq!(restarts(&runtime), 1, "{fault}");
    shut_down(runtime);
}

#[test]
fn a_trap_ends_the_worker_with_the_code_of_a_cuda_error() {
    ends_its_worker(Fault::Trap, &["sticky_cuda", "(719)", "under_way="]);
}

#[test]
fn an_illegal_address_ends_the_worker_with_the_code_of_a_cuda_error() {
    ends_its_worker(Fault::IllegalAddress, &["sticky_cuda", "ILLEGAL_ADDRESS", "(700)"]);
}

#[test]
fn an_endless_kernel_is_given_up_at_the_deadline_of_the_batch() {
    ends_its_worker(Fault::EndlessKernel, &["worker.batch_deadline_ms"]);
}

#[test]
fn a_refusal_of_the_driver_costs_one_batch_and_no_worker() {
    let driver = FakeDriver::new(&[]);
    let (runtime, texts) = runtime(&driver, Fallback::None);
    inject(&runtime, Fault::DeviceOutOfMemory);
    assert_right(&embed(&runtime, &texts), &texts);
    assert_eq!((restarts(&runtime), runtime.level()), (0, Level::Gpu(1)));
    shut_down(runtime);
}

#[test]
fn a_flipped_weight_changes_every_row_and_leaves_each_a_sound_one() {
    let driver = FakeDriver::new(&[]);
    let (runtime, texts) = runtime(&driver, Fallback::None);
    let before = embed(&runtime, &texts);
    inject(&runtime, Fault::FlipWeightBit);
    // Rows that are not finite or not of unit length would not come back.
    let after = embed(&runtime, &texts);
    for ((before, after), text) in before.iter().zip(&after).zip(&texts) {
        let alike = cosine(before, after);
        // Right rows are within 0.9999 of each other on any device.
        assert!(alike < 0.998, "{alike} for the {} text {:?}", text.kind, text.text);
    }
    // It is the worker's memory that is wrong, and goes with it.
    inject(&runtime, Fault::Kill);
    eventually("the end of the worker", || (restarts(&runtime) == 1).then_some(()));
    eventually("the full level", || (runtime.level() == Level::Gpu(1)).then_some(()));
    assert_right(&embed(&runtime, &texts), &texts);
    shut_down(runtime);
}

#[test]
fn a_flipped_output_bit_is_found_by_its_checksum() {
    let driver = FakeDriver::new(&[]);
    let (runtime, texts) = runtime(&driver, Fallback::None);
    let before = embed(&runtime, &texts);
    inject(&runtime, Fault::FlipOutputBit);
    let after = embed(&runtime, &texts);
    assert_eq!(before, after, "one bit is not within rounding");
    assert_eq!(restarts(&runtime), 0);
    shut_down(runtime);
}
