//! Which stages read the files of a submission: workers ask the kernels about them, because only workers see what the files are. What they find
//! is in the spec before it is in the log, so every replica has it from there.

use raftwerk_core::cost::MAX_TEXT;
use raftwerk_proto::v1::{JobSpec, StageFindings, StageReads, StageSpec, stage_input::Source};

/// Of all stages that read files, in the order of `files_of`.
pub(super) fn readers(spec: &JobSpec) -> Vec<StageReads> {
    spec.stages.iter().filter_map(reader).collect()
}

fn reader(stage: &StageSpec) -> Option<StageReads> {
    let files = |at: &usize| matches!(stage.inputs[*at].source, Some(Source::Files(_)));
    let inputs: Vec<usize> = (0..stage.inputs.len()).filter(files).collect();
    let first = *inputs.first()?;
    Some(StageReads {
        kernel: stage.kernel.clone(),
        params: stage.params.clone(),
        names: inputs.iter().map(|at| stage.inputs[*at].name.clone()).collect(),
        sides_only: first != 0,
    })
}

/// Takes over what a worker has found of the stages that read files. One of an older release finds nothing.
pub(super) fn learn(spec: &mut JobSpec, findings: Vec<StageFindings>) {
    let reading = spec.stages.iter_mut().filter(|stage| reader(stage).is_some());
    for (stage, found) in reading.zip(findings) {
        let words = [stage.footprint.as_str(), found.footprint.as_str()];
        let footprint = words.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        // What is too long for a key, or no text of one line, is not worth a refusal: costs are shared with like stages then.
        if footprint.len() <= MAX_TEXT && !footprint.chars().any(char::is_control) {
            stage.footprint = footprint;
        }
        if found.memory.is_some() {
            stage.memory = found.memory;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{Files, IndexRange, MemoryNeed, StageInput};

    fn stage(footprint: &str, sources: Vec<Source>) -> StageSpec {
        let inputs = sources.into_iter().enumerate().map(|(at, source)| StageInput { name: at.to_string(), source: Some(source) });
        StageSpec { footprint: footprint.into(), inputs: inputs.collect(), ..StageSpec::default() }
    }

    fn spec() -> JobSpec {
        let (files, range) = (Source::Files(Files::default()), Source::Range(IndexRange::default()));
        let stages = vec![stage("a=1", vec![files.clone()]), stage("", vec![range.clone()]), stage("", vec![range, files])];
        JobSpec { stages, ..JobSpec::default() }
    }

    #[test]
    fn stages_that_read_files_are_named_with_their_inputs() {
        let found: Vec<(Vec<String>, bool)> = readers(&spec()).into_iter().map(|reads| (reads.names, reads.sides_only)).collect();
        assert_eq!(found, [(vec!["0".to_owned()], false), (vec!["1".to_owned()], true)]);
    }

    #[test]
    fn what_is_found_goes_to_the_stages_that_read() {
        let memory = Some(MemoryNeed { fixed_bytes: 7, ..MemoryNeed::default() });
        let found = |footprint: &str| StageFindings { footprint: footprint.into(), memory };
        let mut learnt = spec();
        learn(&mut learnt, vec![found("dtype=u8"), found("n=3")]);
        let footprints: Vec<&str> = learnt.stages.iter().map(|stage| stage.footprint.as_str()).collect();
        assert_eq!(footprints, ["a=1 dtype=u8", "", "n=3"]);
        assert_eq!(learnt.stages.iter().map(|stage| stage.memory).collect::<Vec<_>>(), [memory, None, memory]);
        for nothing in [vec![], vec![StageFindings::default(); 3]] {
            let mut same = spec();
            learn(&mut same, nothing);
            assert_eq!(same, spec());
        }
        for useless in ["x".repeat(MAX_TEXT), "two\nlines".into()] {
            let mut same = spec();
            learn(&mut same, vec![StageFindings { footprint: useless, memory: None }]);
            assert_eq!(same, spec());
        }
    }
}
