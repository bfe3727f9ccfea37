//! A disk in memory, sector by sector, that remembers what was written and flushed, and fails when told to: what redb is tested on.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

pub const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub enum Op {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    SetLen(u64),
    Sync,
    /// Put in by the test: everything it calls acknowledged had been acknowledged before the next operation.
    Acknowledged(u64),
}

/// Which operations fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Failing {
    /// Counted from here: this many writes, flushes and changes of length still succeed.
    pub after: u64,
    pub errno: i32,
}

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    ops: Vec<Op>,
    read: Vec<Range<u64>>,
    failing: Option<Failing>,
}

#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    pub fn of(bytes: Vec<u8>) -> Self {
        Disk(Arc::new(Mutex::new(Inner { bytes, ..Inner::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    pub fn ops(&self) -> Vec<Op> {
        self.lock().ops.clone()
    }

    pub fn acknowledge(&self, number: u64) {
        self.lock().ops.push(Op::Acknowledged(number));
    }

    /// Every byte that was ever asked for, in order, each once.
    pub fn places_read(&self) -> Vec<usize> {
        let mut places: Vec<usize> = self.lock().read.iter().flat_map(|r| r.start as usize..r.end as usize).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    pub fn fail(&self, failing: Option<Failing>) {
        self.lock().failing = failing;
    }

    /// Takes one change in, or fails it.
    fn change(&self, op: Op) -> io::Result<()> {
        let mut disk = self.lock();
        match &mut disk.failing {
            Some(Failing { after: 0, errno }) => return Err(io::Error::from_raw_os_error(*errno)),
            Some(failing) => failing.after -= 1,
            None => {}
        }
        apply(&mut disk.bytes, &op);
        disk.ops.push(op);
        Ok(())
    }
}

pub fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { offset, data } => bytes[*offset as usize..*offset as usize + data.len()].copy_from_slice(data),
        Op::SetLen(len) => bytes.resize(*len as usize, 0),
        Op::Sync | Op::Acknowledged(_) => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut disk = self.lock();
        let range = offset..offset + out.len() as u64;
        let Some(bytes) = disk.bytes.get(range.start as usize..range.end as usize) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(bytes);
        disk.read.push(range);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Op::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write { offset, data: data.to_vec() })
    }
}
