//! Files of columns in a store: their ends, when they are listed, and of their groups what a task reads. Nothing else of them is fetched.
use super::{
    StoreError,
    fetch::{Object, Objects, in_memory},
    listing::read_all,
};
use crate::table;
use raftwerk_formats::Columnar;
use raftwerk_proto::v1::{InputFile, Split};
use std::{fs::File, ops::Range, os::unix::fs::FileExt};

/// The first look at an end; that of most files is shorter.
const END_BYTES: u64 = 64 << 10;
/// No end is longer. One that says it is has nothing behind it that anybody wants to wait for.
const MOST_BYTES: u64 = 256 << 20;

fn broken(file: &InputFile, kind: Columnar, reason: impl ToString) -> StoreError {
    let format = match kind {
        Columnar::Parquet => "parquet",
        Columnar::Arrow => "arrow",
    };
    StoreError::Content { url: file.path.clone(), format: format.into(), reason: reason.to_string() }
}

/// The part of the first look that says how long the end is.
fn tail(looked: &[u8]) -> &[u8] {
    &looked[looked.len().saturating_sub(Columnar::TAIL_BYTES as usize)..]
}

fn end(file: &InputFile, kind: Columnar, tail: &[u8]) -> Result<Range<u64>, StoreError> {
    let bytes = kind.end_bytes(tail);
    match bytes <= MOST_BYTES.min(file.bytes) {
        true => Ok(file.bytes - bytes..file.bytes),
        false => Err(broken(file, kind, format!("it says that its footer has {bytes} bytes; it is damaged, or no such file"))),
    }
}

/// Of each object a file as long as it, with what its footer can be read from; asked for together.
pub(crate) fn ends(files: &[InputFile], kind: Columnar) -> Result<Vec<File>, StoreError> {
    let first = files.iter().map(|file| file.bytes.saturating_sub(END_BYTES)..file.bytes);
    let looked = asked(files.iter().zip(first.clone()))?;
    let mut targets = Vec::with_capacity(files.len());
    let mut more: Vec<(&InputFile, Range<u64>)> = Vec::new();
    for ((file, first), bytes) in files.iter().zip(first).zip(looked) {
        let target = in_memory(file.bytes)?;
        target.write_all_at(&bytes, first.start)?;
        targets.push(target);
        let end = end(file, kind, tail(&bytes))?;
        more.push((file, end.start..first.start.max(end.start)));
    }
    bring(&more, &targets)?;
    let mut more = Vec::new();
    let mut of = Vec::new();
    for (file, target) in files.iter().zip(&targets) {
        for place in kind.places(target, 0..0, &[]).map_err(|error| broken(file, kind, error))? {
            more.push((file, place));
            of.push(target.try_clone()?);
        }
    }
    bring(&more, &of)?;
    Ok(targets)
}

fn asked<'a>(places: impl Iterator<Item = (&'a InputFile, Range<u64>)>) -> Result<Vec<Vec<u8>>, StoreError> {
    read_all(places.map(|(file, place)| (file.path.clone(), place.start, place.end - place.start)).collect())
}

fn bring(places: &[(&InputFile, Range<u64>)], targets: &[File]) -> Result<(), StoreError> {
    let brought = asked(places.iter().cloned())?;
    for (((_, place), target), bytes) in places.iter().zip(targets).zip(brought) {
        target.write_all_at(&bytes, place.start)?;
    }
    Ok(())
}

impl Objects {
    /// The end of an object, and of the groups of these splits the columns of these names.
    pub(super) async fn groups_of(
        &self,
        object: &Object<'_>,
        kind: Columnar,
        columns: &[String],
        splits: &[Split],
    ) -> Result<(), StoreError> {
        let file = object.file;
        let first = file.bytes.saturating_sub(END_BYTES);
        self.pieces_of(object, first..file.bytes).await?;
        let at = file.bytes.saturating_sub(Columnar::TAIL_BYTES);
        let mut tail = vec![0; (file.bytes - at) as usize];
        object.target.read_exact_at(&mut tail, at)?;
        let end = end(file, kind, &tail)?;
        self.pieces_of(object, end.start..first.max(end.start)).await?;
        for split in splits {
            let groups = table::groups(file, split.offset, split.bytes);
            for place in kind.places(&object.target, groups, columns).map_err(|error| broken(file, kind, error))? {
                // What the end brought along need not be fetched again.
                self.pieces_of(object, place.start..place.end.min(end.start).max(place.start)).await?;
            }
        }
        Ok(())
    }
}
