//! Data that stays on the device between dispatches, such as what all tasks of a stage read.

use super::Gpu;
use super::need::Held;
use super::plan::{Parts, whole_words};
use super::pool::size_class;
use crate::api::KernelError;

/// A read-only buffer. Its memory is given back when this is dropped and no dispatch uses it any more.
#[derive(Debug)]
pub(crate) struct Resident {
    pub(super) buffer: wgpu::Buffer,
    /// Of the content; the buffer may be larger.
    pub(super) bytes: u64,
    _memory: Held,
}

impl Resident {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Gpu {
    /// Uploads `parts`, which may not be empty, and keeps them.
    pub(crate) fn keep(&self, parts: Parts<'_>) -> Result<Resident, KernelError> {
        if parts.iter().all(|part| part.is_empty()) {
            return Err(self.error("a resident buffer without content"));
        }
        let bytes = parts.iter().map(|part| whole_words(part.len()) as u64).sum();
        let memory = self.ledger.hold(size_class(bytes, self.report().max_buffer_bytes));
        let buffer = self.guarded(|| self.upload(parts))?;
        Ok(Resident { buffer, bytes, _memory: memory })
    }

    /// The largest buffer that a shader may read; offsets in one are 32 bits wide.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.report().max_binding_bytes.min(self.report().max_buffer_bytes).min(u64::from(u32::MAX))
    }
}
