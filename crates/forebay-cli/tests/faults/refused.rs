//! Requests for faults that are refused, and change nothing.

use forebay::config::Device;
use forebay::{EmbedOptions, Fault, InjectError, Level};

use crate::load::{GPU, OTHER, alone, config};
use crate::support::tiny::TinyModel;
use crate::support::{assert_right, eventually, restarts, start};

#[test]
fn nothing_is_injected_where_it_is_not_enabled() {
    let _alone = alone();
    let model = TinyModel::new();
    let mut config = config(&model);
    config.faults.enabled = false;
    let runtime = start(config);
    runtime.settled();
    for fault in Fault::ALL {
        let refused = runtime.inject(Some(GPU), fault).expect_err("not enabled");
        assert_eq!(refused, InjectError::NotEnabled { fault });
        assert!(refused.to_string().contains("faults.enabled"), "{refused}");
    }
    assert_right("w1", &runtime.embed("w1", &EmbedOptions::default()));
    assert_eq!((restarts(&runtime), runtime.level()), (0, Level::Gpu(2)));
    assert!(runtime.shutdown().drained);
}

#[test]
fn a_request_says_what_is_missing() {
    let _alone = alone();
    let model = TinyModel::new();
    let runtime = start(config(&model));
    runtime.settled();
    let refused = |device, fault| runtime.inject(device, fault).expect_err("refused");
    let fault = Fault::Trap;
    assert_eq!(refused(None, fault), InjectError::NoDevice { fault });
    let unknown = InjectError::UnknownDevice { device: "cuda:7".to_owned() };
    assert_eq!(refused(Some(Device::Cuda(7)), fault), unknown);
    // A rung that cannot start has no worker to ask.
    runtime.inject(Some(GPU), Fault::FailStarts(1_000)).expect("injected");
    runtime.inject(Some(GPU), Fault::Kill).expect("injected");
    eventually("a lower level", || (runtime.level() == Level::Gpu(1)).then_some(()));
    let gone = InjectError::NoWorker { device: GPU.to_string() };
    assert_eq!(refused(Some(GPU), fault), gone);
    assert_right("w1", &runtime.embed("w1", &EmbedOptions::default()));
    runtime.inject(Some(GPU), Fault::FailStarts(0)).expect("injected");
    eventually("the full level", || (runtime.level() == Level::Gpu(2)).then_some(()));
    runtime.inject(Some(OTHER), Fault::Slow(1)).expect("there is a worker");
    assert!(runtime.shutdown().drained);
}
