//! Makes Rust of `proto/tei.proto`, and the descriptors that reflection shows. The compiler of the
//! contract is a crate, so that building needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/tei.proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    let compiler = compiler.include_source_info(true).open_file("tei.proto")?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // Without comments: clients ask for it over the network.
    compiler.include_source_info(true);
    let described = compiler.file_descriptor_set();
    std::fs::write(out.join("tei_descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Written as bytes, which is what they are on the wire.
        .extern_path(".tei.v1.EmbedResponse", "super::EmbedResponse")
        .compile_fds(described)?;
    Ok(())
}
