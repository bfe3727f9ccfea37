//! Two CPU workers, one of them throttled to a part of a core by a control group, on one compute-bound job: how much of the summed speed of each
//! alone they reach together.

use crate::sample::{Sample, seconds};
use anyhow::Context;
use raftwerk_tests::cluster::{Cluster, Launch};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Of one core, in percent.
const SPEEDS: [u32; 2] = [100, 30];
const PERIOD_US: u32 = 100_000;
/// Said where no control group can be made: the customary code of a check that was skipped.
pub const SKIPPED: i32 = 77;

/// Writes a file that is there: in a directory that is no control group it is not.
fn set(file: &Path, value: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// A control group of the CPU controller that goes with this value.
struct Group(PathBuf);

impl Group {
    fn new(parent: &Path, version: u32, name: &str, percent: u32) -> std::io::Result<Group> {
        let group = Group(parent.join(format!("raftwerk-bench-{}-{name}", std::process::id())));
        fs::create_dir(&group.0)?;
        let quota_us = PERIOD_US / 100 * percent;
        if version == 2 {
            set(&group.0.join("cpu.max"), &format!("{quota_us} {PERIOD_US}"))?;
        } else {
            set(&group.0.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
            set(&group.0.join("cpu.cfs_quota_us"), &quota_us.to_string())?;
        }
        Ok(group)
    }

    /// A process that joins it and then becomes the worker.
    fn launch(&self) -> Launch {
        let join = format!("echo $$ > '{}' && exec \"$@\"", self.0.join("cgroup.procs").display());
        Launch { through: ["sh", "-c", &join, "sh"].map(String::from).to_vec(), ..Launch::default() }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group can go once its last process has; they were killed a moment ago.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("the control group {} is left over", self.0.display());
    }
}

/// Version, groups for both workers.
fn groups() -> Result<(u32, [Group; 2]), String> {
    let mut reasons = Vec::new();
    for (version, parent) in [(2, "/sys/fs/cgroup"), (1, "/sys/fs/cgroup/cpu"), (1, "/sys/fs/cgroup/cpu,cpuacct")] {
        let own = |name: &str, percent: u32| Group::new(Path::new(parent), version, name, percent);
        match own("fast", SPEEDS[0]).and_then(|fast| Ok([fast, own("slow", SPEEDS[1])?])) {
            Ok(groups) => return Ok((version, groups)),
            Err(error) => reasons.push(format!("version {version} in {parent}: {error}")),
        }
    }
    Err(reasons.join("; "))
}

pub fn run(runs: usize, samples: u64) -> anyhow::Result<()> {
    let (version, groups) = match groups() {
        Ok(groups) => groups,
        Err(reasons) => {
            eprintln!("skipped: no control group with a CPU quota can be made here ({reasons}); run it as root where cgroups are writable");
            std::process::exit(SKIPPED);
        }
    };
    println!(
        "## two CPU workers of one thread, {} % and {} % of a core (cgroup version {version}, period {} ms), monte_carlo_pi of {samples} samples in 1000 tasks",
        SPEEDS[0],
        SPEEDS[1],
        PERIOD_US / 1000
    );
    let mut cluster = Cluster::empty();
    cluster.add_scheduler(1);
    for (n, group) in groups.iter().enumerate() {
        cluster.launch_worker(n + 1, &["--cpus", "1", "--no-gpu"], &group.launch());
    }
    cluster.wait_for_workers(2);
    let job = format!(
        "[job]\nname = \"pi\"\n[input]\nrange = {{ start = 0, count = {samples}, tasks = 1000 }}\n[map]\nkernel = \"monte_carlo_pi\"\n"
    );
    let file = cluster.job_file("pi.toml", &job);
    let speed = |idle: Option<&str>| -> anyhow::Result<f64> {
        if let Some(idle) = idle {
            cluster.json(&["worker", "drain", idle]);
        }
        let view = cluster.wait_done(cluster.submit(&file, &[]));
        if let Some(idle) = idle {
            cluster.json(&["worker", "release", idle]);
        }
        let counted =
            view["tallies"].as_array().and_then(|all| all.iter().find(|t| t["name"] == "samples")).context("a count of samples")?;
        anyhow::ensure!(counted["total"].as_str() == Some(&samples.to_string()), "every sample once: {counted}");
        Ok(samples as f64 / seconds(&view))
    };
    // Costs are learnt from the first run, as they are on a cluster in use.
    speed(None)?;
    let (mut parts, mut against_best) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (both, fast, slow) = (speed(None)?, speed(Some("worker-2"))?, speed(Some("worker-1"))?);
        println!("together {:.1} M samples/s, alone {:.1} and {:.1}", both / 1e6, fast / 1e6, slow / 1e6);
        parts.push(both / (fast + slow));
        against_best.push(both / fast.max(slow));
    }
    let (parts, against_best) = (Sample::new(parts), Sample::new(against_best));
    println!(
        "together against the sum of each alone: median {:.3} ({:.3} - {:.3}, {runs} runs; goal 0.95); against the best alone: median {:.3}, least {:.3} (goal 1)",
        parts.median(),
        parts.min(),
        parts.max(),
        against_best.median(),
        against_best.min()
    );
    drop(cluster);
    drop(groups);
    Ok(())
}
