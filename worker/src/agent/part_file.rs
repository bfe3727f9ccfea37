//! Files for the parts of an output: without a name until the part is whole, so that nothing has to be cleaned up after anybody, and where the part
//! will be, so that it only has to be named.
use super::shuffle::fetch::nameless_file;
use raftwerk_proto::v1::BlockRange;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, linkat},
    io::Errno,
};
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
    sync::Arc,
};
use tokio::sync::OwnedSemaphorePermit;

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// The file of one part. It counts as a descriptor until the part has its name.
#[derive(Debug)]
pub(crate) struct PartFile {
    pub(crate) file: File,
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// Where the parts of a lease are: each in a file of its own, or all in the lease's.
#[derive(Default)]
pub(crate) struct PartFiles {
    pub(crate) own: HashMap<u32, Arc<PartFile>>,
    pub(crate) lease: Option<Arc<File>>,
}

impl PartFiles {
    pub(crate) fn of(&self, partition: u32) -> io::Result<&File> {
        let own = self.own.get(&partition).map(|part| &part.file);
        own.or(self.lease.as_deref()).ok_or_else(|| io::Error::other(format!("part {partition} has no file")))
    }
}

/// A new file, on the file system of the output if that can be: else in `otherwise`, from where the part is copied.
pub(crate) fn create(output: Option<&Path>, otherwise: &Path) -> io::Result<File> {
    // The directory of the output itself is made later, by renaming, and those above it may not be there yet.
    let near = output.and_then(|path| path.ancestors().skip(1).find(|dir| dir.is_dir()));
    if let Some(file) = near.and_then(|dir| unnamed(dir).ok()) {
        return Ok(file);
    }
    unnamed(otherwise).or_else(|_| nameless_file(otherwise))
}

/// Some file systems cannot do it.
fn unnamed(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666))?))
}

/// Puts one part under its path, flushed: by giving its file that name where it is alone in it and on the same file system, else by copying it.
pub(crate) fn place(source: &File, range: &BlockRange, expected: u32, path: &Path) -> io::Result<()> {
    let alone = range.offset == 0 && source.metadata().is_ok_and(|file| file.len() == range.bytes && file.nlink() == 0);
    if alone && link(source, path).is_ok() {
        return source.sync_all();
    }
    copy(source, range, expected, path)
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    let there = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, there.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW) {
        // What an earlier try of the same lease has left.
        Err(Errno::EXIST) => {
            fs::remove_file(path)?;
            Ok(linkat(CWD, there.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
        }
        linked => Ok(linked?),
    }
}

/// One part out of a file, flushed under its path.
fn copy(source: &File, range: &BlockRange, expected: u32, path: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let mut buffer = vec![0; COPY_BYTES.min(range.bytes as usize)];
    let (mut at, mut crc) = (0, 0);
    while at < range.bytes {
        let piece = &mut buffer[..COPY_BYTES.min((range.bytes - at) as usize)];
        source.read_exact_at(piece, range.offset + at)?;
        crc = crc32c::crc32c_append(crc, piece);
        target.write_all(piece)?;
        at += piece.len() as u64;
    }
    if crc != expected {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the part's checksum changed between executor and agent"));
    }
    target.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(offset: u64, bytes: u64) -> BlockRange {
        BlockRange { offset, bytes, ..BlockRange::default() }
    }

    #[test]
    fn a_part_alone_in_its_file_is_named_and_others_are_copied() {
        let dir = tempfile::tempdir().unwrap();
        if unnamed(dir.path()).is_err() {
            return eprintln!("skipped: the file system has no files without a name");
        }
        let file = create(Some(&dir.path().join("not/yet/out")), Path::new("/nowhere")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name yet");
        file.write_all_at(b"abcdef", 0).unwrap();
        let (whole, piece) = (dir.path().join("whole"), dir.path().join("piece"));
        place(&file, &range(2, 3), crc32c::crc32c(b"cde"), &piece).unwrap();
        assert_eq!(fs::read(&piece).unwrap(), b"cde");
        fs::write(&whole, "of an earlier try").unwrap();
        place(&file, &range(0, 6), crc32c::crc32c(b"abcdef"), &whole).unwrap();
        assert_eq!(fs::read(&whole).unwrap(), b"abcdef");
        assert_eq!(whole.metadata().unwrap().ino(), file.metadata().unwrap().ino(), "nothing was copied");
        let again = dir.path().join("again");
        place(&file, &range(0, 6), crc32c::crc32c(b"abcdef"), &again).unwrap();
        assert_ne!(again.metadata().unwrap().ino(), file.metadata().unwrap().ino(), "a file that has a name is nobody's to give away");
    }

    #[test]
    fn a_copy_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let source = tempfile::tempfile().unwrap();
        source.write_all_at(b"abc", 0).unwrap();
        let error = place(&source, &range(1, 2), 7, &dir.path().join("part")).unwrap_err();
        assert!(error.to_string().contains("checksum changed"), "{error}");
    }

    #[test]
    fn where_the_output_cannot_have_files_the_other_directory_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = create(Some(Path::new("/proc/out")), dir.path()).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        place(&file, &range(0, 1), crc32c::crc32c(b"x"), &dir.path().join("part")).unwrap();
        assert!(create(None, Path::new("/nowhere")).is_err());
    }
}
