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
//! only leave an earlier number, because a number is written after its commit is durable. It fits one sector, so it is never torn.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::snapshots::sync_directory;

const MAGIC: &[u8; 8] = b"rwmark 1";
const BYTES: usize = 28;

pub struct Mark {
    path: PathBuf,
    file: File,
    /// Whether the file was there already.
    pub found: bool,
    pub begun: u64,
    pub acknowledged: u64,
}

impl Mark {
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(StoreError::io("open", path))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut bytes).map_err(StoreError::io("read", path))?;
        let mut mark = Mark { path: path.to_owned(), file, found: false, begun: 0, acknowledged: 0 };
        // A power cut during the first start may leave the name without its content.
        if bytes.iter().all(|b| *b == 0) {
            mark.write()?;
            mark.file.sync_all().map_err(StoreError::io("flush", path))?;
            if let Some(dir) = path.parent() {
                sync_directory(dir)?;
            }
            return Ok(mark);
        }
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes.len() != BYTES || bytes[..8] != *MAGIC || bytes[24..] != crc32c::crc32c(&bytes[..24]).to_le_bytes() {
            return Err(StoreError::damaged(path, "it is not what this version wrote: its length, first bytes or checksum are wrong"));
        }
        (mark.found, mark.begun, mark.acknowledged) = (true, number(8), number(16));
        Ok(mark)
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
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&self.begun.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.acknowledged.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        self.file.write_all_at(&bytes, 0).map_err(StoreError::io("write", &self.path))
    }
}
