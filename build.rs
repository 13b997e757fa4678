//! Compiles `proto/` with protox, so that no `protoc` is needed, and gives every message a `Debug` that prints no content.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

const FILES: [&str; 3] =
    ["strongroom/v1/common.proto", "strongroom/v1/context.proto", "strongroom/v1/admin.proto"];

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment where to write")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();

    let mut debug = String::new();
    for file in descriptors.file.iter().filter(|file| file.package() == "strongroom.v1") {
        for message in &file.message_type {
            print_without_content(&mut debug, message.name())?;
        }
    }
    fs::write(out.join("debug.rs"), debug)?;
    fs::write(out.join("strongroom.bin"), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .codec_path("crate::proto::Codec")
        .skip_debug(["."])
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}

fn print_without_content(out: &mut String, message: &str) -> std::fmt::Result {
    writeln!(
        out,
        "impl ::core::fmt::Debug for {message} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) \
         -> ::core::fmt::Result {{ f.debug_struct(\"{message}\").finish_non_exhaustive() }} }}"
    )
}
