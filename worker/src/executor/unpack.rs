//! What a compressed file holds, in memory for one task: as it is if that is little, else in a file that the agent gave for it, mapped.
//!
//! Memory stays bounded (the system writes pages of the file out where it needs them), and kernels see one piece of bytes as of any other file.
use super::{input::map_whole, stage::Fault};
use bytes::Bytes;
use memmap2::Advice;
use raftwerk_formats::Compression;
use raftwerk_proto::v1::{FailureClass, Scratch};
use std::{fs::File, os::unix::fs::FileExt};

/// What fits is never written anywhere. Each thread may hold so much.
const IN_MEMORY: usize = 8 << 20;
/// What is begun with.
const PIECE: usize = 1 << 20;
/// How much is written between two looks at what the disk has left.
const LOOK_EVERY: u64 = 64 << 20;

/// Unpacks a file; `path` is for messages. Its bytes go when the last who has them is done.
pub(super) fn unpack(path: &str, with: Compression, packed: &[u8], scratch: File, limits: Scratch) -> Result<Bytes, Fault> {
    // The same bytes are as damaged when somebody else reads them: no attempt is wasted on that.
    let damaged = |error| Fault::new(FailureClass::Input, format!("{path}: {error}"));
    let mut unpacked = with.unpack(packed).map_err(damaged)?;
    let mut target = Target { path, file: &scratch, limits, written: 0, looked_at: None };
    let (mut held, mut filled) = (Vec::new(), 0);
    loop {
        if filled == held.len() {
            held.resize((2 * filled).clamp(PIECE, IN_MEMORY + PIECE), 0);
        }
        let read = unpacked.read(&mut held[filled..]).map_err(damaged)?;
        filled += read;
        target.allows(filled as u64)?;
        if read == 0 {
            break;
        }
        if filled > IN_MEMORY {
            target.write(&held[..filled])?;
            filled = 0;
        }
    }
    if target.written == 0 {
        held.truncate(filled);
        held.shrink_to_fit();
        return Ok(held.into());
    }
    target.write(&held[..filled])?;
    map_whole(&scratch, Advice::Sequential)
        .map_err(|error| Fault::new(FailureClass::Worker, format!("cannot map what {path} holds: {error}")))
}

struct Target<'a> {
    path: &'a str,
    file: &'a File,
    limits: Scratch,
    written: u64,
    looked_at: Option<u64>,
}

impl Target<'_> {
    /// A few bytes may stand for terabytes. Who gave them is to blame, not the machine that they would fill: the task is charged.
    fn allows(&self, more: u64) -> Result<(), Fault> {
        let most = self.limits.most_bytes;
        if most > 0 && self.written + more > most {
            let message = format!(
                "{} holds more than the {most} bytes that the worker gives to data of jobs (--shuffle-quota); give it more, or split the file",
                self.path
            );
            return Err(Fault::new(FailureClass::Task, message));
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.looked_at.is_none_or(|at| self.written - at >= LOOK_EVERY) {
            self.looked_at = Some(self.written);
            // A file system that does not say how much is free says no when it is full.
            let free = rustix::fs::fstatvfs(self.file).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            let least = self.limits.min_free_bytes.saturating_add(LOOK_EVERY);
            if let Some(free) = free.ok().filter(|free| *free < least) {
                let message = format!(
                    "what {} holds does not fit the worker's disk: {free} bytes are free behind the first {} bytes of it; make room, or split the file",
                    self.path, self.written
                );
                return Err(Fault::new(FailureClass::Task, message));
            }
        }
        self.file.write_all_at(bytes, self.written).map_err(|error| {
            let message = format!("cannot write what {} holds to a file in the worker's data directory: {error}", self.path);
            Fault::new(FailureClass::Worker, message)
        })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member of stored blocks, made by hand: what compresses is none of this crate's business.
    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        for (number, block) in text.chunks(0xffff).enumerate() {
            let last = (number + 1) * 0xffff >= text.len();
            file.push(u8::from(last));
            file.extend((block.len() as u16).to_le_bytes());
            file.extend((!(block.len() as u16)).to_le_bytes());
            file.extend(block);
        }
        let mut crc = u32::MAX;
        for byte in text {
            crc ^= u32::from(*byte);
            (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 });
        }
        file.extend((!crc).to_le_bytes());
        file.extend((text.len() as u32).to_le_bytes());
        file
    }

    fn run(packed: &[u8], limits: Scratch) -> (Result<Bytes, Fault>, u64) {
        let scratch = tempfile::tempfile().unwrap();
        let seen = scratch.try_clone().unwrap();
        (unpack("/data/a.gz", Compression::Gzip, packed, scratch, limits), seen.metadata().unwrap().len())
    }

    #[test]
    fn little_stays_in_memory_and_much_goes_through_the_file() {
        let long: Vec<u8> = (0..(IN_MEMORY + 3 * PIECE + 5)).map(|at| (at * 31 % 251) as u8).collect();
        for length in [1, PIECE, IN_MEMORY, IN_MEMORY + 1, long.len()] {
            let (bytes, written) = run(&gzip(&long[..length]), Scratch::default());
            assert_eq!(bytes.unwrap(), &long[..length]);
            assert_eq!(written, if length > IN_MEMORY { length as u64 } else { 0 });
        }
    }

    #[test]
    fn a_file_that_grows_without_end_meets_the_limit() {
        let text = vec![b'a'; 3 * PIECE];
        let (bytes, _) = run(&gzip(&text), Scratch { most_bytes: 2 << 20, ..Scratch::default() });
        let fault = bytes.unwrap_err();
        assert_eq!(fault.class, FailureClass::Task);
        assert!(fault.message.starts_with("/data/a.gz holds more than the 2097152 bytes"), "{}", fault.message);
        let long = vec![b'a'; IN_MEMORY + PIECE];
        let (bytes, written) = run(&gzip(&long), Scratch { min_free_bytes: u64::MAX, ..Scratch::default() });
        let fault = bytes.unwrap_err();
        assert!(fault.class == FailureClass::Task && fault.message.contains("does not fit the worker's disk"), "{}", fault.message);
        assert_eq!(written, 0);
    }

    #[test]
    fn what_is_damaged_is_nobodys_fault_and_named() {
        let mut packed = gzip(b"text");
        let whole = packed.len();
        packed.truncate(whole - 3);
        let fault = run(&packed, Scratch::default()).0.unwrap_err();
        assert_eq!(fault.class, FailureClass::Input);
        assert!(
            fault.message.starts_with("/data/a.gz: its gzip data ends in the middle: the file was cut off at byte "),
            "{}",
            fault.message
        );
    }
}
