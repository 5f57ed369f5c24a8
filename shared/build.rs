//! Turns `proto/` into Rust. protox parses the files, so no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    println!("cargo:rerun-if-changed={}", proto.display());
    let descriptors = protox::compile(["chatbox/v1/model.proto", "chatbox/v1/link.proto"], [&proto])?;
    tonic_prost_build::configure().bytes(".chatbox.v1.Deliver.message").compile_fds(descriptors)?;
    Ok(())
}
