//! Devices and libraries as the program finds them.

use std::process::{Command, Output};

use forebay::StartError;

use crate::config;
use crate::driver::FakeDriver;
use crate::support::{forebay, output, real_library, real_model};

/// The program over the fake driver, whatever devices the machine shows.
fn program(driver: &FakeDriver, arguments: &[&str]) -> Command {
    let mut command = forebay(arguments);
    command
        .env("FOREBAY_CUDA__LIBRARIES", driver.folder())
        .env("FOREBAY_CUDA__CACHE", driver.file("cache"))
        .env("FOREBAY_ONNXRUNTIME", real_library())
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("CUDA_DEVICE_ORDER");
    command
}

fn assert_says(command: &mut Command, code: i32, said: &[&str]) {
    let Output { status, stdout, stderr } = output(command);
    let all = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(status.code(), Some(code), "{all}");
    for part in said {
        assert!(all.contains(part), "{part:?} is not in: {all}");
    }
}

#[test]
fn doctor_finds_two_gpus_and_each_worker_has_its_own() {
    let driver = FakeDriver::new(&["devices 2"]);
    let mut command = program(&driver, &["doctor", "--device", "cuda:0,cuda:1"]);
    command.arg("--model").arg(real_model());
    let said = [
        "serves CUDA 13.0",
        "cuda:0 Forebay fake GPU 0",
        "cuda:1 Forebay fake GPU 1",
        "gpu: Forebay fake GPU 0",
        "gpu: Forebay fake GPU 1",
        "canary: passed",
        "gpu(2)",
        "ended in order",
    ];
    assert_says(&mut command, 0, &said);
}

#[test]
fn a_driver_without_a_device_is_told_apart_from_no_driver() {
    let driver = FakeDriver::new(&["devices 0"]);
    match forebay::blocking::Runtime::start(config(&driver)) {
        Err(StartError::Worker { reason }) => {
            assert!(reason.contains("the driver sees no device"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_self_test_accepts_the_fake_kernels() {
    let driver = FakeDriver::new(&[]);
    let arguments = ["selftest", "--quick", "--device", "cuda:0", "--precision", "bf16"];
    assert_says(&mut program(&driver, &arguments), 0, &["gemm_norm_bf16", "0 failed"]);
}
