//! A result that was published to a store, for whoever wants it elsewhere: the command line, with the credentials of its own environment.
//!
//! ```text
//! s3://bucket/out/manifest.json   must be the job's own     s3://bucket/out/part-..csv   each as long as the job's record says, with its checksum
//! ```
use super::{
    StoreError, StoredResultError,
    address::Address,
    client::{self, Patience, again, explain},
    output::manifest_at,
};
use crate::agent::publish::MANIFEST;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectStore};
use raftwerk_proto::v1::OutputPart;
use std::{fs::File, io::Write, ops::Range, sync::Arc};

/// One request brings so much; more of them are under way at once, and all are in memory until those before them have come.
const PIECE_BYTES: u64 = 8 << 20;
const PIECES_AT_ONCE: usize = 2;

/// The output of one job in a store, after its manifest was looked at.
pub struct StoredResult {
    store: Arc<dyn ObjectStore>,
    address: Address,
}

impl StoredResult {
    /// Looks at the manifest under `url`, which must be that of this job and name the objects of these parts.
    ///
    /// # Errors
    /// [`StoredResultError`]; that the store cannot be reached, or has no keys to be asked with, is said after some seconds.
    pub async fn open(url: &str, cluster: &str, job: u64, parts: &[OutputPart]) -> Result<Self, StoredResultError> {
        let address = Address::parse(url)?;
        let at = address.child(MANIFEST);
        let quick = client::open(&address, Patience::Question)?;
        let manifest = again(Patience::Question, || manifest_at(&*quick, &at)).await?;
        let manifest = manifest.ok_or_else(|| StoredResultError::Missing { object: at.to_string() })?;
        let different = |found: &str| StoredResultError::Different { object: at.to_string(), found: found.into() };
        if manifest["job"] != job || manifest["cluster"] != cluster {
            return Err(different("it is the manifest of another job"));
        }
        let named: Vec<&str> = manifest["parts"].as_array().into_iter().flatten().filter_map(|part| part["name"].as_str()).collect();
        if named.len() != parts.len() || !parts.iter().all(|part| named.contains(&part.staged_name.as_str())) {
            return Err(different("it names other objects than the job's record"));
        }
        Ok(Self { store: client::open(&address, Patience::Work)?, address })
    }

    /// Writes the object of this part to the end of `to`. What is there after an error is of no use.
    ///
    /// # Errors
    /// [`StoredResultError`]; a store that does not answer is asked again for half a minute for each piece.
    pub async fn bring(&self, part: &OutputPart, to: &mut File) -> Result<(), StoredResultError> {
        let at = self.address.child(&part.staged_name);
        let starts = (0..part.bytes).step_by(PIECE_BYTES as usize);
        let pieces = starts.map(|start| {
            let range = start..part.bytes.min(start + PIECE_BYTES);
            let at = &at;
            async move { again(Patience::Work, || piece(&*self.store, at, range.clone(), part.bytes)).await }
        });
        let mut pieces = stream::iter(pieces).buffered(PIECES_AT_ONCE);
        let mut crc = 0;
        while let Some(bytes) = pieces.try_next().await? {
            crc = crc32c::crc32c_append(crc, &bytes);
            to.write_all(&bytes).map_err(StoredResultError::Local)?;
        }
        if part.bytes == 0 {
            again(Patience::Work, || empty(&*self.store, &at)).await?;
        }
        if crc == part.crc32c {
            return Ok(());
        }
        let found = format!("its checksum is {crc:08x} instead of {:08x}", part.crc32c);
        Err(StoredResultError::Different { object: at.to_string(), found })
    }
}

/// Of an object that must be as long as the record says. What breaks off is asked for again as a whole: a piece is short.
async fn piece(store: &dyn ObjectStore, at: &Address, range: Range<u64>, whole: u64) -> Result<Vec<u8>, StoreError> {
    let wanted = range.end - range.start;
    let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    let got = store.get_opts(&client::key(at)?, options).await.map_err(|error| explain(at, error))?;
    if got.meta.size != whole {
        return Err(StoreError::OtherLength { url: at.to_string(), bytes: got.meta.size, expected: whole });
    }
    let bytes = got.bytes().await.map_err(|error| explain(at, error))?;
    match bytes.len() as u64 == wanted {
        true => Ok(bytes.into()),
        false => {
            let reason = format!("an answer ended after {} of {wanted} bytes", bytes.len());
            Err(StoreError::Unreachable { url: at.to_string(), reason })
        }
    }
}

/// No range can be asked of an object without bytes.
async fn empty(store: &dyn ObjectStore, at: &Address) -> Result<(), StoreError> {
    let options = GetOptions { head: true, ..GetOptions::default() };
    let bytes = store.get_opts(&client::key(at)?, options).await.map_err(|error| explain(at, error))?.meta.size;
    if bytes == 0 { Ok(()) } else { Err(StoreError::OtherLength { url: at.to_string(), bytes, expected: 0 }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
    use std::{io::Read, io::Seek};

    async fn brought(object: Option<&[u8]>, expected: &[u8]) -> Result<Vec<u8>, StoredResultError> {
        let store = Arc::new(InMemory::new());
        if let Some(bytes) = object {
            store.put(&Path::from("out/part-0-c-1-0-2-3.csv"), bytes.to_vec().into()).await.unwrap();
        }
        let part = OutputPart {
            staged_name: "part-0-c-1-0-2-3.csv".into(),
            bytes: expected.len() as u64,
            crc32c: crc32c::crc32c(expected),
            ..OutputPart::default()
        };
        let mut file = tempfile::tempfile().unwrap();
        let stored = StoredResult { store, address: Address::parse("s3://b/out").unwrap() };
        stored.bring(&part, &mut file).await?;
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[tokio::test]
    async fn an_object_comes_as_the_jobs_record_has_it_or_not_at_all() {
        let long: Vec<u8> = (0..20u32 << 20).map(|at| (at % 251) as u8).collect();
        for bytes in [&b""[..], b"result", &long] {
            assert!(brought(Some(bytes), bytes).await.unwrap() == bytes, "{} bytes", bytes.len());
        }
        let said = |error: StoredResultError| error.to_string();
        assert_eq!(said(brought(None, b"result").await.unwrap_err()), "s3://b/out/part-0-c-1-0-2-3.csv is not there");
        assert_eq!(said(brought(None, b"").await.unwrap_err()), "s3://b/out/part-0-c-1-0-2-3.csv is not there");
        let other = said(brought(Some(b"resulT"), b"result").await.unwrap_err());
        assert!(other.contains("is not what the job made: its checksum is ") && other.contains(" instead of "), "{other}");
        for (there, expected) in [(&b"result and more"[..], &b"result"[..]), (b"res", b"result"), (b"x", b"")] {
            let other = said(brought(Some(there), expected).await.unwrap_err());
            assert!(other.contains(&format!("it has {} bytes instead of {}", there.len(), expected.len())), "{other}");
        }
    }
}
