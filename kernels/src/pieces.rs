//! A part that is handed out in pieces of a MiB while it is made.

use crate::api::{KernelError, Part, PartWriter, TaskOutput};

const PIECE_BYTES: usize = 1 << 20;

pub(crate) struct Pieces<'a> {
    pub(crate) bytes: Vec<u8>,
    part: &'a mut dyn PartWriter,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(part: &'a mut dyn PartWriter) -> Pieces<'a> {
        Pieces { bytes: Vec::new(), part }
    }

    /// Between two rows.
    pub(crate) fn row_ends(&mut self) -> Result<(), KernelError> {
        if self.bytes.len() >= PIECE_BYTES {
            self.part.write(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), KernelError> {
        self.part.write(&self.bytes)
    }
}

/// The output with its part in memory, for whoever has no file.
pub(crate) fn whole(make: impl FnOnce(&mut dyn PartWriter) -> Result<TaskOutput, KernelError>) -> Result<TaskOutput, KernelError> {
    let mut bytes = Vec::new();
    let mut output = make(&mut bytes)?;
    if let Some(Part { bytes: part, .. }) = &mut output.part {
        *part = bytes;
    }
    Ok(output)
}
