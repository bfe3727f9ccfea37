//! Compiles the .proto files with `protox`, so that no `protoc` has to be installed.
use prost::Message;
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<PathBuf> = fs::read_dir("raftwerk/v1")?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|p| p.extension().is_some_and(|x| x == "proto"));
    files.sort();
    println!("cargo:rerun-if-changed=raftwerk/v1");
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("raftwerk.descriptors"), descriptors.encode_to_vec())?;
    let messages: Vec<&str> = descriptors.file.iter().flat_map(|file| &file.message_type).map(|message| message.name()).collect();
    fs::write(out.join("messages.rs"), format!("wire! {{ {} }}", messages.join(" ")))?;
    let services = env::var_os("CARGO_FEATURE_SERVICES").is_some();
    tonic_prost_build::configure()
        .build_client(services)
        .build_server(services)
        .codec_path("crate::WireCodec")
        .bytes(".raftwerk.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
