//! The envelope of everything durable.
//!
//! ```text
//! 0   2  format, little endian          1
//! 2   1  kind                           what the body is
//! 3   1  zero
//! 4   8  cluster fingerprint            first 8 bytes of the SHA-256 of the cluster id
//! 12  4  length n of the body, little endian
//! 16  n  body                           a protobuf message
//! ..  4  CRC-32C of all bytes before it, little endian
//! ```
//! Format and fingerprint come before the checksum is tested, so that a record of another version or cluster is named as such.

use std::path::Path;

use bytes::Bytes;
use raftwerk_proto::Wire;
use sha2::{Digest, Sha256};

use super::StoreError;

pub const FORMAT: u16 = 1;
const HEADER: usize = 16;
const CHECKSUM: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Entry = 1,
    Vote = 2,
    LogId = 3,
    Identity = 4,
    Snapshot = 5,
}

/// Writes and reads the records of one cluster.
#[derive(Clone)]
pub struct Seal {
    cluster: String,
    fingerprint: [u8; 8],
}

impl Seal {
    pub fn new(cluster: &str) -> Self {
        let digest = Sha256::digest(cluster.as_bytes());
        let mut fingerprint = [0; 8];
        fingerprint.copy_from_slice(&digest[..8]);
        Seal { cluster: cluster.to_owned(), fingerprint }
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn write(&self, kind: Kind, body: &impl Wire) -> Vec<u8> {
        let length = body.wire_bytes();
        let mut record = Vec::with_capacity(HEADER + length + CHECKSUM);
        record.extend_from_slice(&FORMAT.to_le_bytes());
        record.extend_from_slice(&[kind as u8, 0]);
        record.extend_from_slice(&self.fingerprint);
        let length = u32::try_from(length).expect("a record of 4 GiB or more: entries are at most 1 MiB, snapshots far below");
        record.extend_from_slice(&length.to_le_bytes());
        body.append_to(&mut record);
        let checksum = crc32c::crc32c(&record);
        record.extend_from_slice(&checksum.to_le_bytes());
        record
    }

    /// The body of a record that must be of `kind`. `file` and `what` say in an error where it lies.
    pub fn read<M: Wire>(&self, kind: Kind, record: &[u8], file: &Path, what: &dyn Fn() -> String) -> Result<M, StoreError> {
        let body = body(kind, record, file, what)?;
        if record[4..12] != self.fingerprint {
            return Err(StoreError::OtherCluster {
                file: file.to_owned(),
                expected: self.cluster.clone(),
                found: format!("{} bears the fingerprint of one", what()),
            });
        }
        decode(body, file, what)
    }
}

/// Reads a record of any cluster: only the identity is read so, to be able to name the other cluster.
pub fn read_of_any_cluster<M: Wire>(kind: Kind, record: &[u8], file: &Path, what: &dyn Fn() -> String) -> Result<M, StoreError> {
    decode(body(kind, record, file, what)?, file, what)
}

/// A backup is the record of a snapshot, of any cluster.
pub fn write_backup(cluster: &str, body: &impl Wire) -> Vec<u8> {
    Seal::new(cluster).write(Kind::Snapshot, body)
}

pub fn read_backup<M: Wire>(record: &[u8], file: &Path) -> Result<M, StoreError> {
    read_of_any_cluster(Kind::Snapshot, record, file, &|| "the backup".into())
}

fn decode<M: Wire>(body: &[u8], file: &Path, what: &dyn Fn() -> String) -> Result<M, StoreError> {
    // One copy, of which the payloads of the message are slices.
    M::from_wire(Bytes::copy_from_slice(body)).map_err(|e| StoreError::damaged(file, format!("{} does not decode: {e}", what())))
}

fn body<'a>(kind: Kind, record: &'a [u8], file: &Path, what: &dyn Fn() -> String) -> Result<&'a [u8], StoreError> {
    let damaged = |why: &str| StoreError::damaged(file, format!("{} {why}", what()));
    if record.len() < HEADER + CHECKSUM {
        return Err(damaged("is shorter than a record can be"));
    }
    let format = u16::from_le_bytes([record[0], record[1]]);
    let (sealed, checksum) = record.split_at(record.len() - CHECKSUM);
    let intact = crc32c::crc32c(sealed).to_le_bytes() == *checksum;
    if format != FORMAT {
        // A later format may put its checksum elsewhere, so an intact checksum is not asked for.
        return Err(StoreError::UnknownFormat { file: file.to_owned(), what: what(), found: format, known: FORMAT });
    }
    if !intact {
        return Err(damaged("fails its checksum"));
    }
    let length = u32::from_le_bytes([record[12], record[13], record[14], record[15]]) as usize;
    if length != sealed.len() - HEADER {
        return Err(damaged("has another length than it says"));
    }
    if record[2] != kind as u8 {
        return Err(damaged("is a record of another kind"));
    }
    Ok(&sealed[HEADER..])
}
