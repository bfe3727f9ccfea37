//! What a listed `.npy` file holds.
use raftwerk_proto::v1::InputFile;

/// Size of an element of a listed file; its type's name ends in it: "u1", "f4".
pub(crate) fn element_bytes(dtype: &str) -> Option<usize> {
    dtype.get(1..)?.parse().ok().filter(|bytes| *bytes > 0)
}

/// Lengths of its dimensions as tasks see it: rows and columns of "npy-rows", else all elements in one.
pub(crate) fn shape(format: &str, file: &InputFile) -> Option<Vec<u64>> {
    let element = element_bytes(&file.dtype)? as u64;
    let record = u64::from(file.record_bytes);
    let records = file.bytes.saturating_sub(file.data_offset).checked_div(record)?;
    Some(if format == "npy-rows" { vec![records, record / element] } else { vec![records] })
}
