//! Compiles `proto/` with protox, so that no `protoc` is needed, and gives every message a `Debug` that prints no content.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const FILES: [&str; 4] = [
    "strongroom/v1/common.proto",
    "strongroom/v1/context.proto",
    "strongroom/v1/root.proto",
    "strongroom/v1/admin.proto",
];
/// The contract of key management plugins. It is no part of what the server describes of itself.
const PLUGIN: &str = "kms/v2/plugin.proto";

#[expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment where to write")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();

    let own = descriptors.file.iter().filter(|file| file.package() == "strongroom.v1");
    let own = own.flat_map(|file| &file.message_type).map(|message| message.name());
    fs::write(out.join("debug.rs"), print_without_content(own)?)?;
    fs::write(out.join("strongroom.bin"), compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .codec_path("crate::proto::Codec")
        .skip_debug(["."])
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    compile_plugin(&out)
}

/// The module that includes it has the `Codec` in scope, so that the tests' plugin can have another one.
fn compile_plugin(out: &Path) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).open_file(PLUGIN)?;
    let descriptors = compiler.file_descriptor_set();
    let messages = descriptors.file.iter().flat_map(|file| &file.message_type).map(|message| message.name());
    fs::write(out.join("kms_debug.rs"), print_without_content(messages)?)?;
    tonic_prost_build::configure()
        .codec_path("super::Codec")
        .skip_debug(["."])
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}

/// A `Debug` for each message that shows its name alone.
fn print_without_content<'m>(messages: impl Iterator<Item = &'m str>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for message in messages {
        writeln!(
            out,
            "impl ::core::fmt::Debug for {message} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) \
             -> ::core::fmt::Result {{ f.debug_struct(\"{message}\").finish_non_exhaustive() }} }}"
        )?;
    }
    Ok(out)
}
