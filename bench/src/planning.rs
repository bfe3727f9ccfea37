//! What the scheduler's own decisions cost: the core that ships, on ten thousand virtual devices, on one core of this machine.

use crate::sample::resident;
use raftwerk_core::plan::policy::policy;
use raftwerk_simulate::bound::lower_bound;
use raftwerk_simulate::scenario::{Delays, Group, Job, Kernel, Scenario, Stage, Units};

/// Speeds one to twenty, in groups of the same size, so that ranges of every length are planned.
const SPEEDS: [f64; 4] = [1.0, 2.0, 7.0, 20.0];
const TASK_NS: f64 = 500e6;

fn scenario(devices: u64, tasks: u64) -> Scenario {
    let group = |speed: f64| Group {
        name: format!("x{speed}"),
        count: (devices / SPEEDS.len() as u64).max(1),
        class: "cpu".into(),
        model: format!("x{speed}"),
        parallelism: 1,
        memory_bytes: 0,
        launch: 100_000,
        jitter: 0.0,
        bandwidth: 0.0,
        latency: 0,
        mtbf: 0,
        repair: 0,
        unit_ns: vec![Some(TASK_NS / speed)],
    };
    let stage = Stage { kernel: 0, tasks, units: Units { low: 1.0, high: 1.0 }, input_bytes: 0.0, class: "any".into(), max_lease_tasks: 0 };
    Scenario {
        groups: SPEEDS.map(group).into(),
        kernels: vec![Kernel { name: "k".into(), reduces: false }],
        jobs: vec![Job { name: "bench".into(), arrives: 0, stages: vec![stage], policy: String::new() }],
        graph: Vec::new(),
        troubles: Vec::new(),
        // A round of ten thousand devices takes the leader about as long as it takes the log.
        delays: Delays { commit: 12_000_000, ..Delays::default() },
        noise: 15.0,
        seed: 1,
        costs: Vec::new(),
    }
}

pub fn run(devices: u64, tasks: u64, names: &[String]) -> anyhow::Result<()> {
    println!("## {devices} virtual devices, {tasks} tasks of one job: planning and applying, on one core");
    let scenario = scenario(devices, tasks);
    let bound = lower_bound(&scenario);
    for name in names {
        let policy = policy(name).ok_or_else(|| anyhow::anyhow!("there is no policy {name}"))?;
        let done = raftwerk_simulate::run(&scenario, bound, policy, false)?;
        let effort = done.effort;
        anyhow::ensure!(done.outcome.problems.is_empty(), "{:?}", done.outcome.problems);
        println!(
            "{name}: {:.1} us per granted lease ({} leases: planning {:.1} s, applying {:.1} s); one round {:.2} ms, the longest {:.1} ms ({} rounds)",
            effort.ns_per_lease() as f64 / 1e3,
            effort.leases,
            effort.plan_ns as f64 / 1e9,
            effort.apply_ns as f64 / 1e9,
            effort.plan_ns as f64 / effort.rounds.max(1) as f64 / 1e6,
            effort.longest_round_ns as f64 / 1e6,
            effort.rounds
        );
        println!(
            "    {:.0} s for {:.0} virtual seconds ({:.3} of the lower bound); memory at the most {:.0} MiB",
            effort.wall_ns as f64 / 1e9,
            done.outcome.makespan_s,
            done.outcome.ratio,
            resident(std::process::id()).1 as f64 / (1 << 20) as f64
        );
    }
    Ok(())
}
