//! Which format of the log a spec needs. A build of an older format would drop what it does not know of a spec in silence, and replicas
//! would differ; so it does not reach the log before its format does.

use crate::spec::SpecError;
use raftwerk_proto::is_store_url;
use raftwerk_proto::v1::{Files, JobSpec, StageSpec, stage_input::Source};

/// First format with rounds, policies and priorities of jobs, outputs in stores, side inputs, reproducible stages, what stages want of devices, input of fixed-size
/// records, and records of which device ran which tasks of a bounded kernel. Footprints and memory needs are of this format as well; they are left out of older entries,
/// because a job does not ask for them.
pub const NEWEST: u32 = 4;

/// Refuses a spec that says more than entries of this format can.
pub fn check(spec: &JobSpec, format: u32) -> Result<(), SpecError> {
    if format >= NEWEST {
        return Ok(());
    }
    let of_stage = |stage: &StageSpec| newest_of(stage).map(|what| format!("stage '{}' {what}", stage.name));
    match of_job(spec).map(str::to_owned).or_else(|| spec.stages.iter().find_map(of_stage)) {
        None => Ok(()),
        Some(what) => Err(SpecError(format!(
            "{what}, which needs entries of format {NEWEST}: not before every replica runs this release; `raftwerk cluster show` tells which does not"
        ))),
    }
}

fn of_job(spec: &JobSpec) -> Option<&'static str> {
    if spec.stages.len() > 2 {
        Some("the job has more than two stages")
    } else if spec.after.is_some() {
        Some("the job starts after others")
    } else if spec.rounds.is_some() {
        Some("the job has rounds")
    } else if !spec.policy.is_empty() {
        Some("the job names a policy")
    } else if spec.priority != 0 {
        Some("the job has a priority")
    } else if spec.wait_for_devices {
        Some("the job is to wait for devices")
    } else if spec.output.as_ref().is_some_and(|output| is_store_url(&output.url)) {
        Some("the job writes to a store")
    } else {
        None
    }
}

/// Also as the listing found it, where the job leaves it to the files' names.
pub(crate) fn is_compressed(files: &Files) -> bool {
    !files.compression.is_empty() || files.listing.iter().any(|file| !file.compression.is_empty())
}

pub(crate) fn is_packed(files: &Files) -> bool {
    files.listing.iter().any(|file| file.pack_files > 0)
}

fn newest_of(stage: &StageSpec) -> Option<&'static str> {
    let reads_records = |source: &Option<Source>| matches!(source, Some(Source::Files(files)) if files.record_bytes != 0);
    if stage.inputs.len() > 1 {
        Some("has a side input")
    } else if stage.reproducible {
        Some("is to be reproducible")
    } else if stage.kernel.as_ref().is_some_and(|kernel| kernel.bounded) {
        Some("has a bounded kernel")
    } else if stage.require.is_some() {
        Some("requires more of its devices than a class")
    } else if stage.prefer.is_some() {
        Some("prefers some devices")
    } else if stage.gang.is_some() {
        Some("begins on several devices at once")
    } else if stage.inputs.iter().any(|input| reads_records(&input.source)) {
        Some("reads records")
    } else if stage.wants_survey || !stage.survey.is_empty() {
        Some("looks at its input before it is cut into partitions")
    } else if stage.inputs.iter().any(|input| matches!(&input.source, Some(Source::Files(files)) if files.table.is_some())) {
        Some("reads tables")
    } else if stage.inputs.iter().any(|input| matches!(&input.source, Some(Source::Files(files)) if is_compressed(files))) {
        Some("reads compressed files")
    } else if stage.inputs.iter().any(|input| matches!(&input.source, Some(Source::Files(files)) if is_packed(files))) {
        Some("reads so many files that they are listed in packs")
    } else if stage.inputs.iter().any(|input| matches!(&input.source, Some(Source::Files(files)) if files.bad_records > 0)) {
        Some("leaves out bad records")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{DeviceMatch, Gang, InputFile, OutputSpec, Rounds, StageInput, StartAfter, TableFormat};

    #[test]
    fn only_a_spec_with_new_fields_needs_a_new_format() {
        assert_eq!(check(&JobSpec::default(), 1), Ok(()));
        let records = Files { record_bytes: 100, ..Files::default() };
        let records = StageInput { name: "input".into(), source: Some(Source::Files(records)) };
        let files = Files { table: Some(TableFormat::default()), ..Files::default() };
        let table = StageInput { source: Some(Source::Files(files)), ..StageInput::default() };
        let packed = |files: Files| StageInput { source: Some(Source::Files(files)), ..StageInput::default() };
        let said = packed(Files { compression: "none".into(), ..Files::default() });
        let file = InputFile { compression: "gzip".into(), ..InputFile::default() };
        let found = packed(Files { listing: vec![InputFile::default(), file], ..Files::default() });
        let pack = packed(Files { listing: vec![InputFile { pack_files: 4096, ..InputFile::default() }], ..Files::default() });
        let bad = packed(Files { bad_records: 1, ..Files::default() });
        let newer = [
            JobSpec { stages: vec![StageSpec { inputs: vec![said], ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { inputs: vec![pack], ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { inputs: vec![bad], ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { inputs: vec![found], ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { inputs: vec![records], ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { wants_survey: true, ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { survey: vec![1].into(), ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { priority: 1, ..JobSpec::default() },
            JobSpec { policy: "random".into(), ..JobSpec::default() },
            JobSpec { rounds: Some(Rounds::default()), ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { reproducible: true, ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { wait_for_devices: true, ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec::default(); 3], ..JobSpec::default() },
            JobSpec { after: Some(StartAfter::default()), ..JobSpec::default() },
            JobSpec { output: Some(OutputSpec { url: "s3://b/out".into(), ..OutputSpec::default() }), ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { require: Some(DeviceMatch::default()), ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { prefer: Some(DeviceMatch::default()), ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { gang: Some(Gang::default()), ..StageSpec::default() }], ..JobSpec::default() },
            JobSpec { stages: vec![StageSpec { inputs: vec![table], ..StageSpec::default() }], ..JobSpec::default() },
        ];
        for spec in newer {
            assert!(check(&spec, NEWEST - 1).is_err_and(|reason| reason.0.contains("format 4")), "{spec:?}");
            assert_eq!(check(&spec, NEWEST), Ok(()));
        }
    }
}
