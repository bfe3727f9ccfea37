//! The end of a run: its measures, and whether every task was accepted once.

use super::{Live, Run, World};
use crate::bound::Bound;
use crate::outcome::{JobTimes, Outcome};
use raftwerk_core::invariants;

impl World<'_> {
    pub(super) fn finish(self, bound: Bound) -> Run {
        let mut problems = Vec::new();
        if let Err(broken) = invariants::check(&self.state) {
            problems.push(broken);
        }
        let mut tasks = 0;
        for live in &self.jobs {
            let Some(job) = live.id.and_then(|id| self.state.jobs.get(&id)) else { continue };
            for (index, stage) in job.stages.iter().enumerate() {
                if live.done.is_none() {
                    tasks += stage.accepted();
                    continue;
                }
                let n = stage.tasks().len();
                tasks += n;
                let once = u128::from(n) * u128::from(n.saturating_sub(1)) / 2;
                let told: u64 = job.shares.iter().filter(|((s, ..), _)| *s as usize == index).map(|(_, share)| share.tasks).sum();
                // Output that waits on a device is lost with it. After the job's end nobody needs it again, so its tasks may stand open.
                let kept = stage.accepted() == n || job.spec.stages.get(index).is_some_and(|spec| spec.partitions > 0);
                if !kept || stage.tallies != [once] || told < n {
                    problems.push(format!(
                        "job '{}' stage {index}: {} of {n} tasks accepted, {told} reported, their numbers add up to {:?}, expected [{once}]",
                        live.job.name,
                        stage.accepted(),
                        stage.tallies
                    ));
                }
            }
        }
        let times = |live: &Live| JobTimes { name: live.job.name.clone(), arrives: live.job.arrives, done: live.done };
        let jobs: Vec<JobTimes> = if self.scenario.graph.is_empty() {
            self.jobs.iter().map(times).collect()
        } else {
            let named = self.scenario.graph.iter().zip(&self.graph.done);
            named.map(|(task, done)| JobTimes { name: task.name.clone(), arrives: 0, done: *done }).collect()
        };
        let tasks_in_all = match self.scenario.graph.len() as u64 {
            0 => self.scenario.jobs.iter().flat_map(|job| &job.stages).map(|stage| stage.tasks).sum(),
            tasks => tasks,
        };
        let makespan = jobs.iter().all(|job| job.done.is_some()).then_some(self.last_end);
        let outcome = Outcome::of(
            self.scenario,
            bound,
            self.policy.name(),
            makespan,
            makespan.unwrap_or(self.last_event),
            jobs,
            tasks,
            tasks_in_all,
            &self.devices,
            problems,
            &self.effort,
        );
        Run { outcome, effort: self.effort, segments: self.segments.unwrap_or_default() }
    }
}
