//! One part of an output, from a file on this worker into an object.
use super::{StoreError, address::Address, client, client::explain};
use object_store::{Attribute, Attributes, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, WriteMultipart};
use raftwerk_proto::v1::BlockRange;
use std::{borrow::Cow, fs::File, os::unix::fs::FileExt};

/// In what pieces longer parts go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pieces {
    bytes: u64,
    /// Under way, while one more is read.
    at_once: usize,
}

impl Pieces {
    const MANY: Self = Self { bytes: 8 << 20, at_once: 3 };
    /// Stores take no smaller ones.
    const FEW: Self = Self { bytes: 5 << 20, at_once: 1 };

    /// For a worker that may take so much memory, if that is limited.
    pub(super) fn within(memory: Option<u64>) -> Self {
        const ENOUGH: u64 = 1 << 30;
        if memory.is_some_and(|memory| memory < ENOUGH) { Self::FEW } else { Self::MANY }
    }
}

/// Stores take ten thousand pieces of one object.
const MOST_PIECES: u64 = 9_000;
/// Under this name the store keeps the checksum that the part was accepted with, in letters that every store takes.
const CHECKSUM: &str = "raftwerkcrc32c";

fn checksum_key() -> Attribute {
    Attribute::Metadata(Cow::Borrowed(CHECKSUM))
}

fn attributes(crc32c: u32) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(checksum_key(), format!("{crc32c:08x}").into());
    attributes
}

/// The checksum that an object was uploaded with.
pub(super) fn checksum_of(attributes: &Attributes) -> Option<u32> {
    attributes.get(&checksum_key()).and_then(|text| u32::from_str_radix(text.as_ref(), 16).ok())
}

/// Returns when the store has all of it. What was cut off in the middle is never visible.
pub(super) async fn upload(
    store: &dyn ObjectStore,
    at: &Address,
    source: &File,
    range: &BlockRange,
    expected: u32,
    pieces: Pieces,
) -> Result<(), StoreError> {
    let failed = |error| explain(at, error);
    let key = client::key(at)?;
    let mut reader = Reader { source, range, at: 0, crc: 0 };
    if range.bytes <= pieces.bytes {
        let bytes = reader.next(range.bytes)?;
        reader.check(at, expected)?;
        let options = PutOptions { attributes: attributes(expected), ..PutOptions::default() };
        return store.put_opts(&key, PutPayload::from(bytes), options).await.map(drop).map_err(failed);
    }
    let options = PutMultipartOptions { attributes: attributes(expected), ..PutMultipartOptions::default() };
    let upload = store.put_multipart_opts(&key, options).await.map_err(failed)?;
    let piece = pieces.bytes.max(range.bytes.div_ceil(MOST_PIECES));
    let mut writing = WriteMultipart::new_with_chunk_size(upload, piece as usize);
    match send(&mut writing, &mut reader, piece, pieces.at_once).await {
        Ok(()) if reader.crc == expected => writing.finish().await.map(drop).map_err(failed),
        sent => {
            // Pieces that nobody puts together cost money until they are removed.
            if let Err(error) = writing.abort().await {
                tracing::warn!(object = %at, %error, "cannot remove the pieces of an upload that failed");
            }
            sent.and_then(|()| reader.check(at, expected)).and(Err(StoreError::Checksum { part: at.to_string() }))
        }
    }
}

async fn send(writing: &mut WriteMultipart, reader: &mut Reader<'_>, piece: u64, at_once: usize) -> Result<(), StoreError> {
    while reader.at < reader.range.bytes {
        let bytes = reader.next(piece)?;
        writing
            .wait_for_capacity(at_once)
            .await
            .map_err(|error| StoreError::Unreachable { url: "the store of the output".into(), reason: error.to_string() })?;
        writing.put(bytes.into());
    }
    Ok(())
}

struct Reader<'a> {
    source: &'a File,
    range: &'a BlockRange,
    at: u64,
    crc: u32,
}

impl Reader<'_> {
    fn next(&mut self, most: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; most.min(self.range.bytes - self.at) as usize];
        self.source.read_exact_at(&mut bytes, self.range.offset + self.at)?;
        self.at += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        Ok(bytes)
    }

    fn check(&self, at: &Address, expected: u32) -> Result<(), StoreError> {
        if self.crc == expected { Ok(()) } else { Err(StoreError::Checksum { part: at.to_string() }) }
    }
}
