//! Which format the log must have before a spec may be in it: replicas that read only older formats would drop the newer fields in silence, and
//! states at equal index would differ.

use crate::apply::SHARES;
use raftwerk_proto::v1::JobSpec;

/// Of a spec that every build can say.
pub const ANY: u32 = 1;
/// First format in which a job names its policy.
pub const JOB_POLICY: u32 = 4;

/// The oldest format that can say the whole spec.
pub fn spec_format(spec: &JobSpec) -> u32 {
    let policy = if spec.policy.is_empty() { ANY } else { JOB_POLICY };
    let priority = if spec.priority == 0 { ANY } else { SHARES };
    policy.max(priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_spec_with_new_fields_needs_a_new_format() {
        assert_eq!(spec_format(&JobSpec::default()), ANY);
        assert_eq!(spec_format(&JobSpec { priority: 1, ..JobSpec::default() }), SHARES);
        assert_eq!(spec_format(&JobSpec { policy: "random".into(), ..JobSpec::default() }), JOB_POLICY);
    }
}
