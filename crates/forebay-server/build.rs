//! Makes Rust of `proto/tei.proto`, and the descriptors that reflection shows. The compiler of the
//! contract is a crate, so that building needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/tei.proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.open_file("tei.proto")?;
    // Comments are for readers of the code; clients that ask for the contract do without.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("tei_descriptors.bin"), compiler.encode_file_descriptor_set())?;
    compiler.include_source_info(true);
    tonic_prost_build::configure()
        .build_transport(false)
        // Written as bytes, which is what it is on the wire.
        .extern_path(".tei.v1.EmbedResponse", "super::EmbedResponse")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
