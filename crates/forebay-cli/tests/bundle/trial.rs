//! A bundle whose files are as its manifest says, and which does not work here.

use std::fs;

use crate::{Shop, assert_found, reseal};

#[test]
fn what_does_not_work_here_is_named() {
    let shop = Shop::new();
    let bundle = shop.made("folder");
    let lib = fs::read_dir(bundle.join("lib")).expect("a folder").next();
    let lib = lib.expect("a library").expect("an entry").path();

    let library = fs::read(&lib).expect("reads");
    fs::write(&lib, "no library").expect("writes");
    reseal(&bundle, str::to_owned);
    assert_found(&bundle, &["library and model", "libonnxruntime"]);
    fs::write(&lib, library).expect("writes");

    let models = fs::read_dir(bundle.join("models")).expect("a folder").next();
    let model = models.expect("a model").expect("an entry").path();
    let weights = fs::read(model.join("model.safetensors")).expect("reads");
    fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).expect("writes");
    reseal(&bundle, str::to_owned);
    assert_found(&bundle, &["library and model", "model.safetensors"]);
    fs::write(model.join("model.safetensors"), weights).expect("writes");

    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    reseal(&bundle, |text| text.replace(&format!("{arch}-unknown-{os}"), "riscv64-unknown-linux"));
    assert_found(&bundle, &["it is for riscv64-unknown-linux"]);
    reseal(&bundle, |text| text.replace("riscv64-unknown-linux", &format!("{arch}-unknown-{os}")));

    fs::write(bundle.join("bin/forebay"), "\x7fELF and nothing that belongs there")
        .expect("writes");
    reseal(&bundle, str::to_owned);
    assert_found(&bundle, &["it does not run"]);
    let script = "#!/bin/sh\necho \"version 'GLIBC_9.99' not found\" >&2\nexit 1\n";
    fs::write(bundle.join("bin/forebay"), script).expect("writes");
    reseal(&bundle, str::to_owned);
    assert_found(&bundle, &["GLIBC_9.99", "this system's C library is older"]);
}
