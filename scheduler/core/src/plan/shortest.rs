//! Of the jobs of one namespace and priority the one that has least left goes first, and the others have what it leaves.
//!
//! Two jobs that share every device evenly both end late; one after the other, the first ends in half of the time and the second no later. Of all ways
//! to share one machine, serving whoever has least left has the least mean completion time (shortest remaining processing time: Schrage, A proof of
//! the optimality of the shortest remaining processing time discipline, Operations Research 16, 1968). What is left of a job is taken to be what all
//! devices together would need for it, by what such work has cost.
//!
//! So that nobody starves beside a stream of shorter jobs: when a job has had less than a quarter of its even share since it was submitted, all jobs of the
//! namespace share evenly until it has. Shares of namespaces are what they were: this is among the jobs of each.

use super::costs::At;
use super::order::Claim;
use super::{QUEUE_NS, Round, policy_of};
use crate::job::Job;
use std::collections::BTreeMap;

/// Jobs of a namespace that are compared; with more of them all share evenly.
const MAX_COMPARED: usize = 64;
/// The part of its even share that no job falls below.
const LEAST_SHARE: u128 = 4;
/// Speeds are lanes in 2^60 ns; of at most 2^20 lanes of a kind it stays far below 2^128.
const SPEED_BITS: u32 = 60;
const FS_PER_NS: u128 = 1_000_000;

/// Work in time of all devices together.
struct Work {
    left_ns: u128,
    /// Done, or out on devices.
    had_ns: u128,
}

impl<'a> Round<'a> {
    /// Orders the claims of one priority, which come in the order of even shares.
    pub(super) fn shortest_first(&mut self, level: &mut [Claim<'a>]) {
        for claims in level.chunk_by_mut(|a, b| a.namespace == b.namespace) {
            let by_cost = |claim: &Claim<'_>| policy_of(self.view, &claim.job.spec).goes_by_cost();
            if !(2..=MAX_COMPARED).contains(&claims.len()) || !claims.iter().all(by_cost) {
                continue;
            }
            let kinds = self.lanes_by_kind();
            let mut left = BTreeMap::new();
            for claim in claims.iter() {
                match self.work(&kinds, claim.job) {
                    Some(work) if !self.is_behind(claim, &work) => {
                        left.insert(claim.job.id, work.left_ns);
                    }
                    // Nothing is known of it, or it has had too little.
                    _ => break,
                }
            }
            if left.len() < claims.len() {
                continue;
            }
            claims.sort_by_key(|claim| (left[&claim.job.id], claim.job.id));
            let all = claims.iter().map(|claim| claim.permille).sum();
            for (place, claim) in claims.iter_mut().enumerate() {
                claim.permille = if place == 0 { all } else { 0 };
            }
        }
    }

    fn is_behind(&self, claim: &Claim<'_>, work: &Work) -> bool {
        let age_ns = u128::from(self.view.now.0.saturating_sub(claim.job.submitted_at.0)) * 1_000_000;
        // `permille` is its even share.
        age_ns * u128::from(claim.permille) / (1000 * LEAST_SHARE) > work.had_ns + u128::from(QUEUE_NS)
    }

    /// One device of each kind that takes work, which speaks for all of them, and how many lanes they have together.
    fn lanes_by_kind(&mut self) -> Vec<(At, u64)> {
        self.look_at_devices();
        let mut kinds: BTreeMap<usize, (At, u64)> = BTreeMap::new();
        for (_, slot) in self.slots.iter() {
            kinds.entry(slot.kind).or_insert((slot.at(), 0)).1 += slot.parallelism;
        }
        kinds.into_values().collect()
    }

    /// Of all rounds and stages, as far as it is known; nothing where it is not known of a stage that is open.
    fn work(&mut self, groups: &[(At, u64)], job: &'a Job) -> Option<Work> {
        let (mut left_ns, mut had_ns, mut all_ns) = (0u128, 0u128, 0u128);
        for (index, stage) in job.stages.iter().enumerate() {
            let Some(task_fs) = self.task_fs(groups, job, index as u32) else {
                if stage.open {
                    return None;
                }
                continue;
            };
            let (tasks, counts) = (stage.tasks().len(), stage.counts());
            let of_tasks = |tasks: u64| task_fs.saturating_mul(u128::from(tasks)) / FS_PER_NS;
            left_ns += of_tasks(tasks.saturating_sub(counts.accepted + counts.set_aside));
            had_ns += of_tasks(counts.leased + counts.accepted);
            all_ns += of_tasks(tasks);
        }
        if let Some((rounds, spec)) = job.rounds.as_ref().zip(job.spec.rounds.as_ref()) {
            let ended = rounds.ended.len() as u64;
            // It may end before; until then it is a job of so many.
            left_ns = left_ns.saturating_add(all_ns.saturating_mul(u128::from(u64::from(spec.max).saturating_sub(ended + 1))));
            had_ns = had_ns.saturating_add(all_ns.saturating_mul(u128::from(ended)));
        }
        Some(Work { left_ns, had_ns })
    }

    /// Time of all devices together for one task; nothing before all kinds of them are known, so that nobody waits while costs are found out.
    fn task_fs(&mut self, groups: &[(At, u64)], job: &'a Job, index: u32) -> Option<u128> {
        let costs = self.costs.of(job, index)?;
        let kinds = self.kinds.as_ref()?;
        let fit = kinds.that_fit(&job.spec.stages[index as usize]);
        let mut speed = 0u128;
        for (at, lanes) in groups.iter().filter(|(at, _)| fit[at.kind]) {
            speed += (u128::from(*lanes) << SPEED_BITS) / u128::from(costs.own_or_lent(*at, kinds)?.task_ns());
        }
        (speed > 0).then(|| (FS_PER_NS << SPEED_BITS) / speed)
    }
}
