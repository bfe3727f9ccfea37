//! Measures of a run.

use crate::bound::Bound;
use crate::device::Device;
use crate::rate::Ns;
use crate::scenario::Scenario;
use serde::Serialize;

/// What a run came to. Depends on the scenario, the policy and the seed alone.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub policy: String,
    /// No number (in JSON: null) when jobs are left that nothing can end.
    pub makespan_s: f64,
    /// Until when something happened: the makespan, or when the last device fell still.
    pub reached_s: f64,
    pub bound: Bound,
    /// Makespan against the lower bound; 1 is what nothing can beat. No number without a makespan.
    pub ratio: f64,
    pub jobs: usize,
    /// Jobs that nothing can run any more, by name, at most ten.
    pub unfinished: Vec<String>,
    /// Those that were accepted, of all there are.
    pub tasks: u64,
    pub tasks_in_all: u64,
    /// From the arrival of a job to its end; of a graph: from the beginning to the end of a task. Of those that ended; no number if none did.
    pub mean_completion_s: f64,
    pub p95_completion_s: f64,
    /// Busy thread time against thread time until `reached_s`, of all devices.
    pub utilisation: f64,
    pub groups: Vec<GroupUse>,
    /// One by one, in the order of the groups. Of many thousands it is long, so it is in the JSON only when it is asked for.
    #[serde(skip)]
    pub devices: Vec<DeviceUse>,
    pub leases: u64,
    pub stale_placements: u64,
    pub entries: u64,
    pub rounds: u64,
    /// Promises that did not hold; empty, or something is wrong with the core.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct GroupUse {
    pub name: String,
    pub devices: u64,
    pub tasks: u64,
    pub leases: u64,
    pub utilisation: f64,
    /// Lowest and highest of a single device.
    pub lowest: f64,
    pub highest: f64,
    /// Part of the busy time that was in vain: revoked leases, devices that died.
    pub wasted: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct DeviceUse {
    pub group: String,
    /// In its group, from 0.
    pub index: u64,
    pub tasks: u64,
    pub leases: u64,
    /// Thread time, and the part of it that was in vain.
    pub busy_s: f64,
    pub in_vain_s: f64,
    pub utilisation: f64,
}

pub struct JobTimes {
    pub name: String,
    pub arrives: Ns,
    pub done: Option<Ns>,
}

/// What the run cost the machine that ran it; differs from run to run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Effort {
    pub events: u64,
    pub rounds: u64,
    pub plan_ns: u64,
    pub longest_round_ns: u64,
    pub entries: u64,
    pub apply_ns: u64,
    pub leases: u64,
    pub stale: u64,
    pub wall_ns: u64,
}

impl Effort {
    pub(crate) fn round(&mut self, ns: u64) {
        self.rounds += 1;
        self.plan_ns += ns;
        self.longest_round_ns = self.longest_round_ns.max(ns);
    }

    pub(crate) fn entry(&mut self, ns: u64) {
        self.entries += 1;
        self.apply_ns += ns;
    }

    /// Of planning and applying, per granted lease.
    pub fn ns_per_lease(&self) -> u64 {
        (self.plan_ns + self.apply_ns) / self.leases.max(1)
    }
}

fn seconds(ns: Ns) -> f64 {
    ns as f64 / 1e9
}

impl Outcome {
    #[expect(clippy::too_many_arguments, reason = "called once, with everything that a finished run has")]
    pub(crate) fn of(
        scenario: &Scenario,
        bound: Bound,
        policy: &str,
        makespan: Option<Ns>,
        reached: Ns,
        jobs: Vec<JobTimes>,
        tasks: u64,
        tasks_in_all: u64,
        devices: &[Device],
        problems: Vec<String>,
        effort: &Effort,
    ) -> Outcome {
        let mut taken: Vec<f64> = jobs.iter().filter_map(|job| job.done.map(|done| seconds(done.saturating_sub(job.arrives)))).collect();
        taken.sort_by(f64::total_cmp);
        let mean = if taken.is_empty() { f64::NAN } else { taken.iter().sum::<f64>() / taken.len() as f64 };
        // The smallest time that 95 of 100 do not exceed.
        let p95 = (taken.len() * 95).div_ceil(100).checked_sub(1).and_then(|place| taken.get(place)).copied().unwrap_or(f64::NAN);
        let use_of = |device: &Device| device.busy as f64 / (reached.max(1) as f64 * f64::from(device.parallelism.max(1)));
        let groups = scenario.groups.iter().enumerate().map(|(place, group)| {
            let own: Vec<&Device> = devices.iter().filter(|d| d.group as usize == place).collect();
            let uses: Vec<f64> = own.iter().map(|d| use_of(d)).collect();
            let (busy, wasted) = own.iter().fold((0u64, 0u64), |(b, w), d| (b + d.busy, w + d.wasted));
            GroupUse {
                name: group.name.clone(),
                devices: group.count,
                tasks: own.iter().map(|d| d.tasks).sum(),
                leases: own.iter().map(|d| d.leases).sum(),
                utilisation: uses.iter().sum::<f64>() / uses.len().max(1) as f64,
                lowest: uses.iter().copied().reduce(f64::min).unwrap_or(0.0),
                highest: uses.iter().copied().fold(0.0, f64::max),
                wasted: if busy == 0 { 0.0 } else { wasted as f64 / busy as f64 },
            }
        });
        let groups: Vec<GroupUse> = groups.collect();
        let numbered = scenario.groups.iter().flat_map(|group| (0..group.count).map(|index| (group.name.clone(), index)));
        let one_by_one = devices.iter().zip(numbered).map(|(device, (group, index))| DeviceUse {
            group,
            index,
            tasks: device.tasks,
            leases: device.leases,
            busy_s: seconds(device.busy),
            in_vain_s: seconds(device.wasted),
            utilisation: use_of(device),
        });
        let one_by_one: Vec<DeviceUse> = one_by_one.collect();
        let threads: f64 = devices.iter().map(|d| f64::from(d.parallelism.max(1))).sum();
        let busy: f64 = devices.iter().map(|d| d.busy as f64).sum();
        let makespan_s = makespan.map_or(f64::NAN, seconds);
        Outcome {
            policy: policy.to_owned(),
            makespan_s,
            reached_s: seconds(reached),
            ratio: match bound.seconds {
                none if none.is_infinite() => f64::NAN,
                some if some > 0.0 || makespan.is_none() => makespan_s / some,
                _ => 1.0,
            },
            bound,
            jobs: jobs.len(),
            unfinished: jobs.iter().filter(|j| j.done.is_none()).map(|j| j.name.clone()).take(10).collect(),
            tasks,
            tasks_in_all,
            mean_completion_s: mean,
            p95_completion_s: p95,
            utilisation: busy / (threads * reached.max(1) as f64),
            groups,
            devices: one_by_one,
            leases: effort.leases,
            stale_placements: effort.stale,
            entries: effort.entries,
            rounds: effort.rounds,
            problems,
        }
    }
}
