//! Messages and gRPC services of Raftwerk, version 1. No decisions are made here.

/// Package `raftwerk.v1`: everything that crosses a wire or is written to the log.
#[allow(clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/raftwerk.v1.rs"));
}

/// The encoded descriptor set of all `.proto` files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/raftwerk.descriptors"));

mod versions;
pub use versions::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Window, own_entry_format, own_versions};

/// Most bytes of what a kernel makes of a survey of its input: it becomes part of the job's spec, and so of a log entry, and is sent to every worker
/// with the stage. Enough for 4096 keys of 64 bytes.
pub const MAX_SURVEY_BYTES: usize = 288 << 10;

/// The URL of an output that stays on the workers.
pub const OUTPUT_ON_WORKERS: &str = "worker:";
