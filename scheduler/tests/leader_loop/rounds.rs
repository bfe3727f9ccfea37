//! What workers are told of the rounds of a job.

use crate::host::Host;
use crate::host::*;
use raftwerk_core::{JobId, Phase};
use raftwerk_proto::v1::scheduler_message::Message as Down;
use raftwerk_proto::v1::*;

/// The stages that were described, with their rounds, and the grants.
fn told(effects: &[raftwerk_scheduler::leader::Effect]) -> (Vec<(u32, RoundInfo)>, Vec<Grant>) {
    let grants = grants(effects);
    let stages = grants.iter().flat_map(|g| &g.stages).map(|stage| (stage.stage, stage.round.clone().expect("a round"))).collect();
    (stages, grants.into_iter().flat_map(|g| g.grants).collect())
}

fn reduced(grant: &Grant, sequence: u64, round: u32, state: &[u8]) -> Report {
    let round_end = Some(RoundEnd { round, state: state.to_vec().into(), ..RoundEnd::default() });
    let mut report = Report { stage: 1, round_end, ..result(grant, sequence) };
    report.results[0].tallies.clear();
    report
}

#[test]
fn what_a_round_has_left_goes_to_a_worker_once_for_each_stage_and_again_after_a_change_of_leader() {
    let mut host = Host::new();
    host.connect(1, 7);
    let mut spec = with_shuffle();
    spec.stages[0].inputs[0].source = Some(stage_input::Source::Range(IndexRange { start: 0, count: 3, tasks: 3 }));
    spec.stages[0].max_lease_tasks = 1;
    host.submit(1, JobSpec { rounds: Some(Rounds { max: 3, all: false }), ..spec });
    let mut effects = host.commit();
    let mut described = Vec::new();
    let mut sequence = 0;
    for round in 1..=3u32 {
        let mut left = 3 + 1;
        while left > 0 {
            let (stages, granted) = told(&effects);
            described.extend(stages.into_iter().map(|(stage, info)| (stage, info.number, info.state.to_vec(), info.last)));
            assert!(!granted.is_empty(), "round {round}");
            effects.clear();
            for grant in granted {
                sequence += 1;
                left -= 1;
                let report = if grant.stage == 0 { result(&grant, sequence) } else { reduced(&grant, sequence, round, &[round as u8]) };
                host.up(1, reports(report));
                effects.extend(host.commit());
            }
        }
        if round == 1 {
            // The new leader knows nothing of what the one before has said, and describes with the grants what they need.
            host.change_leader();
            effects = host.connect(1, 7);
            effects.extend(host.wait(1_000));
        }
    }
    described.dedup();
    let expected: Vec<(u32, u32, Vec<u8>, bool)> = vec![
        (0, 1, vec![], false),
        (1, 1, vec![], false),
        (0, 2, vec![1], false),
        (1, 2, vec![1], false),
        (0, 3, vec![2], true),
        (1, 3, vec![2], true),
    ];
    assert_eq!(described, expected, "not with every lease");
    let phase = &host.state.jobs[&JobId(1)].phase;
    assert!(matches!(phase, Phase::Done { .. }), "{phase:?}");
    assert!(sent(&effects).any(|(_, message)| matches!(message, Down::Release(_))));
}
