//! Which commit of the database was begun last, and which was acknowledged last, in a small file beside it.
//!
//! ```text
//! 0   8  "rwmark 1"
//! 8   8  begun           number of the last commit that was begun, little endian
//! 16  8  acknowledged    number of the last commit that was durable and reported so
//! 24  4  CRC-32C of all bytes before it
//! ```
//! redb, opened after an unclean stop, checks its newest commit and takes the one before it if the newest is damaged. For a write that was
//! cut off in the middle that is right; for one that was acknowledged it would be a vote or an entry forgotten in silence. The number of
//! acknowledged commits tells the two apart, and it also says that there was a tail to cut.
//!
//! The file is written in place and never flushed after it was made: a killed process loses nothing of what it wrote, and a power cut can
//! only leave an earlier number, because a number is written after its commit is durable. It fits one sector, so it is never torn. It is made, and
//! flushed with its name, before the first commit: a database with commits and without the file has lost it by somebody's doing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::snapshots::sync_directory;

const MAGIC: &[u8; 8] = b"rwmark 1";
const BYTES: usize = 28;

pub struct Mark {
    pub path: PathBuf,
    /// Made with the first number.
    file: Option<File>,
    #[cfg(any(test, feature = "sim"))]
    in_memory: bool,
    /// Whether the file was there already, with its content.
    pub found: bool,
    pub begun: u64,
    pub acknowledged: u64,
}

impl Mark {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(StoreError::io("read", path)(e)),
        };
        let mut mark = Mark {
            path: path.to_owned(),
            file: None,
            #[cfg(any(test, feature = "sim"))]
            in_memory: false,
            found: false,
            begun: 0,
            acknowledged: 0,
        };
        // A power cut during the first start may leave the name without its content.
        if bytes.iter().all(|b| *b == 0) {
            return Ok(mark);
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes.len() != BYTES || bytes[..8] != *MAGIC || bytes[24..] != crc32c::crc32c(&bytes[..24]).to_le_bytes() {
            return Err(StoreError::damaged(path, "it is not what this version wrote: its length, first bytes or checksum are wrong"));
        }
        (mark.found, mark.begun, mark.acknowledged) = (true, number(8), number(16));
        mark.file = Some(OpenOptions::new().write(true).open(path).map_err(StoreError::io("open", path))?);
        Ok(mark)
    }

    /// Without a file: of a simulated disk.
    #[cfg(any(test, feature = "sim"))]
    pub fn in_memory(path: &Path, begun: u64, acknowledged: u64) -> Self {
        Mark { path: path.to_owned(), file: None, in_memory: true, found: begun > 0, begun, acknowledged }
    }

    pub fn begin(&mut self, commit: u64) -> Result<(), StoreError> {
        self.begun = commit;
        self.write()
    }

    pub fn acknowledge(&mut self, commit: u64) -> Result<(), StoreError> {
        (self.begun, self.acknowledged) = (commit, commit);
        self.write()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "sim"))]
        if self.in_memory {
            return Ok(());
        }
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.begun.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.acknowledged.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        if let Some(file) = &self.file {
            return file.write_all_at(&bytes, 0).map_err(StoreError::io("write", &self.path));
        }
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&self.path).map_err(StoreError::io("create", &self.path))?;
        file.write_all_at(&bytes, 0).map_err(StoreError::io("write", &self.path))?;
        file.sync_all().map_err(StoreError::io("flush", &self.path))?;
        if let Some(dir) = self.path.parent() {
            sync_directory(dir)?;
        }
        self.file = Some(file);
        Ok(())
    }
}
