//! What reduce kernels share that put pieces together: no parameters, one format, no GPU twin.

use crate::api::{Accepts, Agreement, Block, Descriptor, Input, KernelError, Kind, ParamSpec, ParamType, StageContext, Task};
use crate::params::Resolved;

/// Of those that write lines or records: the job's input says which.
pub(crate) const RECORD: ParamSpec = ParamSpec {
    name: "record",
    kind: ParamType::U64 { min: 0, max: u32::MAX as u64 },
    default: Some("0"),
    doc: "length of a record, as the job's input says; 0: lines",
};

pub(crate) const fn descriptor(
    name: &'static str,
    summary: &'static str,
    tallies: &'static [&'static str],
    formats: &'static [&'static str],
) -> Descriptor {
    Descriptor {
        name,
        version: 1,
        kind: Kind::Reduce,
        summary,
        accepts: Accepts::Shuffle,
        params: &[],
        tallies,
        shuffles: false,
        formats,
        reduces_with: &[],
        reduce_defaults: &[],
        gpu: false,
        agreement: Agreement::Exact,
    }
}

/// Refuses parameters, and formats that the kernel does not write. None is asked for at submit when a job has no output.
pub(crate) fn check(descriptor: &Descriptor, stage: &StageContext) -> Result<(), KernelError> {
    Resolved::new(descriptor, &stage.params)?;
    if stage.format.is_empty() || descriptor.formats.contains(&stage.format.as_str()) {
        return Ok(());
    }
    let (name, formats) = (descriptor.name, descriptor.formats.join(" or "));
    Err(KernelError::Param(format!("kernel '{name}' writes {formats}, not '{}'", stage.format)))
}

/// The blocks of a partition.
pub(crate) fn blocks<'t, 'a>(descriptor: &Descriptor, task: &'t Task<'a>) -> Result<&'t [Block<'a>], KernelError> {
    match &task.input {
        Input::Blocks(blocks) => Ok(blocks),
        _ => Err(KernelError::Input(format!("{} reads shuffle blocks", descriptor.name))),
    }
}

/// Of a file, for the table of a result: as sizes are written everywhere else.
pub(crate) fn sized(bytes: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 { format!("{value:.0} {}", units[unit]) } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_size_has_its_unit() {
        assert_eq!([0, 1536, 1_172_943].map(super::sized), ["0 B", "1.5 KiB", "1.1 MiB"]);
    }
}
