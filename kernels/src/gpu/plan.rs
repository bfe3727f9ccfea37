//! What the device does for a lease, as data: buffers, the dispatches over them in order, and which buffers come back.
//!
//! A plan is made without a device and submitted as one command buffer ([`Gpu::submit`](super::Gpu)), so what lies between two of its
//! dispatches never leaves the device. Each dispatch says of each buffer how much of it it moves, so that the bytes moved per element
//! follow from the plan: [`Plan::traffic`].

use super::pool::size_class;
use super::{Program, Resident};

/// Contents of one buffer: parts, each filled up with zeros to whole words. Tasks' inputs go to the device without being joined first.
pub(crate) type Parts<'a> = &'a [&'a [u8]];

#[derive(Default)]
pub(crate) struct Plan<'a> {
    pub(super) buffers: Vec<Contents<'a>>,
    pub(super) steps: Vec<Step>,
    pub(super) results: Vec<Slot>,
}

/// A buffer of the plan that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(usize);

pub(super) enum Contents<'a> {
    Parts(Vec<&'a [u8]>),
    Bytes(Vec<u8>),
    /// On the device already, and staying there.
    Resident(&'a Resident),
    Zeros(u64),
    /// Written before it is read, so it need not be cleared.
    Scratch(u64),
}

/// One dispatch. Groups are numbered in one dimension; the dispatch folds them into two when they exceed the limit of one, so a shader
/// computes `group.y * group_count.x + group.x` and returns when that lies beyond its list of work.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) wgsl: Vec<&'static str>,
    pub(super) constants: Vec<(&'static str, u32)>,
    pub(super) uses: Vec<Use>,
    pub(super) groups: u32,
}

impl Step {
    pub(super) fn program(&self) -> Program<'_> {
        Program { name: self.name, wgsl: &self.wgsl, constants: &self.constants }
    }
}

/// A buffer as one dispatch uses it, in the order of the bindings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    pub(super) slot: Slot,
    access: Access,
    /// `None`: the whole buffer once.
    bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Update,
}

impl Use {
    pub(crate) fn read(slot: Slot) -> Use {
        Use { slot, access: Access::Read, bytes: None }
    }

    pub(crate) fn write(slot: Slot) -> Use {
        Use { slot, access: Access::Write, bytes: None }
    }

    /// Read and written: in place, or by atomic operations.
    pub(crate) fn update(slot: Slot) -> Use {
        Use { slot, access: Access::Update, bytes: None }
    }

    /// Where the dispatch moves more or less than the buffer once: all its groups together move this much.
    pub(crate) fn moving(self, bytes: u64) -> Use {
        Use { bytes: Some(bytes), ..self }
    }
}

/// Bytes between the device's memory and its cores, without what caches save or waste.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub read: u64,
    pub written: u64,
}

impl Traffic {
    pub fn total(self) -> u64 {
        self.read + self.written
    }

    /// This much since `before`.
    pub fn since(self, before: Traffic) -> Traffic {
        Traffic { read: self.read - before.read, written: self.written - before.written }
    }
}

impl<'a> Plan<'a> {
    pub(crate) fn upload(&mut self, parts: &[&'a [u8]]) -> Slot {
        self.buffer(Contents::Parts(parts.to_vec()))
    }

    pub(crate) fn upload_bytes(&mut self, bytes: Vec<u8>) -> Slot {
        self.buffer(Contents::Bytes(bytes))
    }

    pub(crate) fn resident(&mut self, resident: &'a Resident) -> Slot {
        self.buffer(Contents::Resident(resident))
    }

    pub(crate) fn zeros(&mut self, bytes: u64) -> Slot {
        self.buffer(Contents::Zeros(bytes))
    }

    pub(crate) fn scratch(&mut self, bytes: u64) -> Slot {
        self.buffer(Contents::Scratch(bytes))
    }

    fn buffer(&mut self, contents: Contents<'a>) -> Slot {
        self.buffers.push(contents);
        Slot(self.buffers.len() - 1)
    }

    pub(crate) fn run(&mut self, program: &Program<'_>, uses: &[Use], groups: u32) {
        self.steps.push(Step {
            name: program.name,
            wgsl: program.wgsl.to_vec(),
            constants: program.constants.to_vec(),
            uses: uses.to_vec(),
            groups,
        });
    }

    /// Brings this buffer back; several come back one behind the other, in the order of the calls.
    pub(crate) fn result(&mut self, slot: Slot) {
        self.results.push(slot);
    }

    /// The size of a buffer, in whole words.
    pub(crate) fn bytes(&self, slot: Slot) -> u64 {
        match &self.buffers[slot.0] {
            Contents::Parts(parts) => parts.iter().map(|part| whole_words(part.len()) as u64).sum(),
            Contents::Bytes(bytes) => whole_words(bytes.len()) as u64,
            Contents::Resident(resident) => resident.bytes,
            Contents::Zeros(bytes) | Contents::Scratch(bytes) => bytes.next_multiple_of(4),
        }
    }

    /// What its buffers take, the one for reading back included, on a device whose largest buffer has `most` bytes. What lies on the device
    /// already is not the plan's.
    pub(super) fn held(&self, most: u64) -> u64 {
        let own = |at: &usize| !matches!(self.buffers[*at], Contents::Resident(_));
        let buffers: u64 = (0..self.buffers.len()).filter(own).map(|at| size_class(self.bytes(Slot(at)), most)).sum();
        buffers + size_class(self.results.iter().map(|slot| self.bytes(*slot)).sum(), most)
    }

    /// What all dispatches move, upload and read-back aside.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::default();
        for moved in self.steps.iter().flat_map(|step| &step.uses) {
            let bytes = moved.bytes.unwrap_or_else(|| self.bytes(moved.slot));
            if moved.access != Access::Write {
                traffic.read += bytes;
            }
            if moved.access != Access::Read {
                traffic.written += bytes;
            }
        }
        traffic
    }
}

impl Slot {
    pub(super) fn index(self) -> usize {
        self.0
    }
}

pub(super) fn whole_words(bytes: usize) -> usize {
    bytes.next_multiple_of(4)
}
