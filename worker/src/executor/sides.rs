//! Arrays that every task of a stage reads whole: mapped when the stage is defined, and for as long as it is known.
use super::{input::Mapped, stage::Fault};
use crate::arrays::{element_bytes, shape};
use memmap2::Advice;
use raftwerk_kernels::SideInput;
use raftwerk_proto::v1::{FailureClass, InputFile, StageInput, stage_input::Source};
use std::{os::fd::OwnedFd, sync::Arc};

/// The elements of a mapped file, behind its header.
struct Elements {
    file: Mapped,
    start: usize,
    end: usize,
}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        self.file.bytes().ok().and_then(|bytes| bytes.get(self.start..self.end)).unwrap_or_default()
    }
}

/// One descriptor per input, in their order.
pub(super) fn map(inputs: &[StageInput], descriptors: Vec<OwnedFd>) -> Result<Vec<SideInput>, Fault> {
    if inputs.len() != descriptors.len() {
        return Err(Fault::new(FailureClass::Worker, format!("the agent sent {} of {} side inputs", descriptors.len(), inputs.len())));
    }
    inputs.iter().zip(descriptors).map(|(input, descriptor)| one(input, descriptor)).collect()
}

fn one(input: &StageInput, descriptor: OwnedFd) -> Result<SideInput, Fault> {
    let fault = |reason: String| Fault::new(FailureClass::Worker, format!("side input '{}': {reason}", input.name));
    let Some(Source::Files(files)) = &input.source else { return Err(fault("it is no file".into())) };
    let listed = files.listing.first().cloned().unwrap_or_default();
    let lengths = shape(&files.format, &listed);
    let InputFile { bytes, data_offset, record_bytes, dtype, path, .. } = listed;
    let file = Mapped::with(descriptor, Advice::WillNeed);
    let found = file.bytes().map_err(&fault)?.len() as u64;
    let records = bytes.saturating_sub(data_offset) / u64::from(record_bytes.max(1));
    if element_bytes(&dtype).is_none() {
        return Err(fault(format!("its elements are of type '{dtype}'")));
    }
    let Some(shape) = lengths.filter(|_| found == bytes) else {
        return Err(fault(format!("it has {found} bytes where {bytes} were listed")));
    };
    let (start, end) = (data_offset as usize, (data_offset + records * u64::from(record_bytes)) as usize);
    Ok(SideInput::new(input.name.clone(), dtype, shape, Arc::new(Elements { file, start, end })).of_file(path))
}
