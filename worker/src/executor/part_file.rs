//! A part on its way into a file of its own, piece by piece.
use super::stage::Fault;
use crate::lease::OUTPUT_FILE;
use raftwerk_kernels::{KernelError, PartWriter};
use raftwerk_proto::v1::FailureClass;
use std::{fs::File, os::unix::fs::FileExt};

/// What was written of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

pub(super) struct PartFile<'a> {
    file: &'a File,
    written: Written,
    fault: Option<Fault>,
}

impl<'a> PartFile<'a> {
    pub(super) fn new(file: &'a File) -> Self {
        Self { file, written: Written::default(), fault: None }
    }

    /// All of the part; or what went wrong, which a kernel can only pass on in other words.
    pub(super) fn finish(self) -> Result<Written, Fault> {
        self.fault.map_or(Ok(self.written), Err)
    }
}

impl PartWriter for PartFile<'_> {
    fn write(&mut self, piece: &[u8]) -> Result<(), KernelError> {
        if let Err(error) = self.file.write_all_at(piece, self.written.bytes) {
            // A full disk is this worker's trouble, not the task's.
            let message = format!("cannot write {OUTPUT_FILE}: {error}");
            self.fault.get_or_insert(Fault::new(FailureClass::Worker, message.clone()));
            return Err(KernelError::Device(message));
        }
        self.written.bytes += piece.len() as u64;
        self.written.crc32c = crc32c::crc32c_append(self.written.crc32c, piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_lie_behind_each_other_with_one_checksum() {
        let file = tempfile::tempfile().unwrap();
        let mut part = PartFile::new(&file);
        for piece in ["ab", "", "cde"] {
            part.write(piece.as_bytes()).unwrap();
        }
        assert_eq!(part.finish(), Ok(Written { bytes: 5, crc32c: crc32c::crc32c(b"abcde") }));
        let mut bytes = [0; 5];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"abcde");
    }

    #[test]
    fn what_cannot_be_written_is_the_workers_trouble() {
        let null = File::open("/dev/null").unwrap(); // for reading only
        let mut part = PartFile::new(&null);
        assert!(part.write(b"x").is_err());
        assert_eq!(part.finish().unwrap_err().class, FailureClass::Worker);
    }
}
