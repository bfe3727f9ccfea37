//! Tasks that wait for others. The core has no such thing, so they are held back here: when the results of all that come before a task are accepted,
//! it is submitted; tasks of one kernel that are free at the same moment become one job.

use super::{Live, World};
use crate::rate::Ns;
use crate::scenario::{GraphTask, Job, Stage, Units};
use raftwerk_core::JobId;
use raftwerk_core::stage::TaskState;
use raftwerk_proto::v1::{EntryBody, command::Command};
use std::collections::BTreeMap;

/// What is left to wait for, of each task of the graph.
pub(super) struct Graph<'s> {
    pub tasks: &'s [GraphTask],
    pub followers: Vec<Vec<u32>>,
    pub missing: Vec<u32>,
    pub done: Vec<Option<Ns>>,
}

impl<'s> Graph<'s> {
    pub fn new(tasks: &'s [GraphTask]) -> Graph<'s> {
        let mut followers = vec![Vec::new(); tasks.len()];
        for (number, task) in tasks.iter().enumerate() {
            task.after.iter().for_each(|before| followers[*before as usize].push(number as u32));
        }
        Graph { tasks, followers, missing: tasks.iter().map(|t| t.after.len() as u32).collect(), done: vec![None; tasks.len()] }
    }
}

impl World<'_> {
    /// Marks what was accepted of the graph and submits what is free now.
    pub(super) fn advance_graph(&mut self, told: Vec<(JobId, u64, u64)>) {
        let mut free = Vec::new();
        for (id, first, count) in told {
            let Some(live) = self.by_id.get(&id).map(|job| &self.jobs[*job as usize]) else { continue };
            let Some(stage) = self.state.jobs.get(&id).and_then(|job| job.stages.first()) else { continue };
            for task in first..first.saturating_add(count) {
                let Some(&place) = live.graph.get(task as usize) else { continue };
                let accepted = matches!(stage.state_of(task), Some(TaskState::Accepted { .. }));
                if !accepted || self.graph.done[place as usize].is_some() {
                    continue;
                }
                self.graph.done[place as usize] = Some(self.now);
                self.unfinished -= 1;
                for &next in &self.graph.followers[place as usize] {
                    self.graph.missing[next as usize] -= 1;
                    if self.graph.missing[next as usize] == 0 {
                        free.push(next);
                    }
                }
            }
        }
        self.release(free);
    }

    /// Submits tasks that wait for nothing any more: one job for those of one kernel.
    pub(super) fn release(&mut self, mut free: Vec<u32>) {
        free.sort_unstable();
        let mut by_kernel: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for task in free {
            by_kernel.entry(self.graph.tasks[task as usize].kernel).or_default().push(task);
        }
        for (kernel, graph) in by_kernel {
            let stage = Stage {
                kernel,
                tasks: graph.len() as u64,
                units: Units { low: 1.0, high: 1.0 },
                input_bytes: 0.0,
                class: "any".into(),
                max_lease_tasks: 0,
            };
            let job =
                Job { name: self.scenario.kernels[kernel].name.clone(), arrives: self.now, stages: vec![stage], policy: String::new() };
            self.jobs.push(Live { job, graph, weights: vec![self.scenario.graph_weights()], id: None, done: None });
            self.submit(self.jobs.len() as u32 - 1);
        }
    }
}

/// Tasks that reports of the entry brought: job, first task, how many.
pub(super) fn told_by(body: &EntryBody) -> Vec<(JobId, u64, u64)> {
    let mut told = Vec::new();
    for command in &body.commands {
        let Some(Command::ReportResults(reports)) = &command.command else { continue };
        for report in &reports.reports {
            told.extend(report.results.iter().map(|r| (JobId(report.job), r.first_task, r.task_count)));
        }
    }
    told
}
