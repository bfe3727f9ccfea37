//! A file of columns says at its end which columns it has, and how many groups of rows.
use super::{listing::ListingError, store};
use raftwerk_formats::{Columnar, FormatError};
use raftwerk_proto::v1::InputFile;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Objects whose ends are asked for together, and held together.
const AT_ONCE: usize = 32;

/// Looks at the ends of all files, for these columns and their groups.
pub(super) fn read(listing: &mut [InputFile], kind: Columnar, columns: &[String], worker: &str) -> Result<(), ListingError> {
    // Objects stand behind all files.
    let objects = listing.iter().position(|file| store::is_url(&file.path)).unwrap_or(listing.len());
    let (files, objects) = listing.split_at_mut(objects);
    for file in files {
        let unreadable = |source| ListingError::Unreadable { path: PathBuf::from(&file.path), worker: worker.into(), source };
        let opened = File::open(&file.path).map_err(unreadable)?;
        tell(file, kind, columns, &opened)?;
    }
    for some in objects.chunks_mut(AT_ONCE) {
        let ends = store::ends(some, kind)?;
        some.iter_mut().zip(ends).try_for_each(|(file, end)| tell(file, kind, columns, &end))?;
    }
    Ok(())
}

fn tell(file: &mut InputFile, kind: Columnar, columns: &[String], opened: &File) -> Result<(), ListingError> {
    let wrong = |source: FormatError| ListingError::Table { path: Path::new(&file.path).to_owned(), source };
    let footer = kind.footer(opened).map_err(wrong)?;
    footer.check_columns(columns.iter().map(String::as_str)).map_err(wrong)?;
    file.groups = footer.groups;
    if file.groups == 0 {
        // A table without a row makes no split.
        file.data_offset = file.bytes;
    }
    Ok(())
}
