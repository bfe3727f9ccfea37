//! Which format of the log a spec needs. A build of an older format would drop what it does not know of a spec in silence, and replicas
//! would differ; so it does not reach the log before its format does.

use crate::spec::SpecError;
use raftwerk_proto::v1::{JobSpec, StageSpec};

/// First format with side inputs, reproducible stages, and records of which device ran which tasks of a bounded kernel.
pub const SIDES_AND_TWINS: u32 = 4;

/// Refuses a spec that says more than entries of this format can.
pub fn check(spec: &JobSpec, format: u32) -> Result<(), SpecError> {
    if format >= SIDES_AND_TWINS {
        return Ok(());
    }
    match spec.stages.iter().find_map(|stage| Some((stage, newest_of(stage)?))) {
        None => Ok(()),
        Some((stage, what)) => Err(SpecError(format!(
            "stage '{}' {what}, which needs entries of format {SIDES_AND_TWINS}: not before every replica runs this release; `raftwerk cluster \
             show` tells which does not",
            stage.name
        ))),
    }
}

fn newest_of(stage: &StageSpec) -> Option<&'static str> {
    if stage.inputs.len() > 1 {
        Some("has a side input")
    } else if stage.reproducible {
        Some("is to be reproducible")
    } else if stage.kernel.as_ref().is_some_and(|kernel| kernel.bounded) {
        Some("has a bounded kernel")
    } else {
        None
    }
}
