//! Messages and gRPC services of Raftwerk, version 1. No decisions are made here.

/// Package `raftwerk.v1`: everything that crosses a wire or is written to the log.
#[allow(clippy::all)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/raftwerk.v1.rs"));
}

/// The encoded descriptor set of all `.proto` files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/raftwerk.descriptors"));

mod counters;
mod split;
mod store_url;
mod versions;
mod wire;
pub use counters::COUNTER_NAMES;
pub use split::{file_split, file_splits};
pub use store_url::{STORE_SCHEMES, StoreAccount, StoreKind, StoreUrl, is_store_url, parse_store_url};
pub use versions::{OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Window, own_entry_format, own_versions};
pub use wire::Wire;
#[cfg(feature = "services")]
pub use wire::WireCodec;

/// Most bytes of what a kernel makes of a survey of its input: it becomes part of the job's spec, and so of a log entry, and is sent to every worker
/// with the stage. Enough for 4096 keys of 64 bytes.
pub const MAX_SURVEY_BYTES: usize = 288 << 10;

/// The URL of an output that stays on the workers.
pub const OUTPUT_ON_WORKERS: &str = "worker:";

/// What begins the path of a file that a client has brought: `upload:<id>/<name>`. In a job file it begins the path of one that it shall bring.
pub const UPLOAD_SCHEME: &str = "upload:";

/// Hexadecimal digits of an upload's id.
pub const UPLOAD_ID_DIGITS: usize = 32;

/// The id of the upload and the name of the file in it, if the path is one of an upload.
pub fn upload_path(path: &str) -> Option<(&str, &str)> {
    let (id, name) = path.strip_prefix(UPLOAD_SCHEME)?.split_at_checked(UPLOAD_ID_DIGITS)?;
    let name = name.strip_prefix('/').filter(|name| !name.is_empty())?;
    is_upload_id(id).then_some((id, name))
}

pub fn is_upload_id(text: &str) -> bool {
    text.len() == UPLOAD_ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A file's path as people and kernels see it: of one that a client has brought its name.
pub fn shown_path(path: &str) -> &str {
    upload_path(path).map_or(path, |(_, name)| name)
}

/// Where a group (a row group, a record batch) of a listed file would begin if all were of one length. Where they really are is known only to
/// whoever reads the file; who cuts it into splits and who reads a split must mean the same groups.
pub fn group_start(file: &v1::InputFile, group: u64) -> u64 {
    let data = file.bytes.saturating_sub(file.data_offset);
    let within = u128::from(data) * u128::from(group) / u128::from(file.groups.max(1));
    file.data_offset.saturating_add(u64::try_from(within).unwrap_or(u64::MAX))
}
