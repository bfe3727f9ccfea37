//! Three replicas, two workers, one seed: the leader dies in the middle, and the job ends with every task counted once.
//!
//! `SEED=n cargo test -p raftwerk-tests --test simulation` replays one run.

use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{IndexRange, JobSpec, KernelKind, KernelRef, OutputSpec, StageInput, StageOutput, StageSpec};
use raftwerk_scheduler::raft::sim;
use raftwerk_tests::sim::{Outcome, Sim};

fn kernel(name: &str, kind: KernelKind, tallies: &[&str]) -> Option<KernelRef> {
    Some(KernelRef { name: name.into(), version: 1, kind: kind.into(), tallies: tallies.iter().map(|t| t.to_string()).collect() })
}

fn numbers(tasks: u64, partitions: u32) -> JobSpec {
    let range = IndexRange { start: 0, count: tasks, tasks };
    let mut spec = JobSpec {
        name: "numbers".into(),
        namespace: "default".into(),
        stages: vec![StageSpec {
            name: "map".into(),
            kernel: kernel("number", KernelKind::Map, &["value"]),
            inputs: vec![StageInput { name: "input".into(), source: Some(Source::Range(range)) }],
            partitions,
            ..StageSpec::default()
        }],
        ..JobSpec::default()
    };
    if partitions > 0 {
        spec.stages.push(StageSpec {
            name: "reduce".into(),
            kernel: kernel("gather", KernelKind::Reduce, &[]),
            inputs: vec![StageInput { name: "map".into(), source: Some(Source::Stage(StageOutput { stage: "map".into() })) }],
            ..StageSpec::default()
        });
        spec.output = Some(OutputSpec { url: "file:///out".into(), format: "csv".into(), ..OutputSpec::default() });
    }
    spec
}

fn leader_dies_in_the_middle(seed: u64) -> Outcome {
    sim::run(seed, async move {
        let mut world = Sim::new(seed, 2).await;
        world.submit(numbers(400, 0));
        world.submit(numbers(60, 3));
        while world.accepted() < 40 {
            assert!(world.now < 60_000, "nothing starts");
            world.step().await;
        }
        let leader = world.leader().expect("a leader");
        world.kill(leader).await;
        for _ in 0..seed % 700 {
            world.step().await;
        }
        world.kill_worker((seed % 2) as usize);
        for _ in 0..1500 {
            world.step().await;
        }
        world.restart(leader).await;
        world.revive_worker((seed % 2) as usize);
        let outcome = world.run_to_the_end(120_000).await;
        world.assert_replicas_agree().await;
        world.assert_counted_once();
        assert!(outcome.leaderships >= 2, "the leader's death was not noticed");
        outcome
    })
}

/// A seed from the environment, or a few fixed ones.
fn seeds() -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => vec![1, 2, 3, 8841],
    }
}

#[test]
fn a_job_survives_the_death_of_its_leader_and_of_a_worker() {
    for seed in seeds() {
        println!("replay: SEED={seed} cargo test -p raftwerk-tests --test simulation");
        let outcome = leader_dies_in_the_middle(seed);
        println!("seed {seed}: {} simulated ms, {} leaderships", outcome.took_ms, outcome.leaderships);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let seed = seeds()[0];
    assert_eq!(leader_dies_in_the_middle(seed), leader_dies_in_the_middle(seed));
    assert_ne!(leader_dies_in_the_middle(seed).trace, leader_dies_in_the_middle(seed + 1).trace, "the seed decides nothing");
}
