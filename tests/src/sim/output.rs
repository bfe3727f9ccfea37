//! The file system that all workers share: parts are prepared there, some get lost, and an output becomes visible by one act.

use super::Sim;
use super::agent::Finished;
use super::audit::audit;
use super::faults::Fault;
use raftwerk_core::{JobId, LeaseId};
use raftwerk_proto::v1::{LostPart, Publish, PublishReport};
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct SharedFiles {
    /// Job and name of every prepared part.
    prepared: BTreeSet<(u64, String)>,
    /// Jobs whose output readers see.
    visible: BTreeSet<u64>,
    /// So many times a part will be gone when somebody comes to publish it.
    pub(super) losses: u64,
}

/// One name per attempt, so that two never write the same file.
pub(super) fn staged_name(task: u64, lease: LeaseId) -> String {
    format!("part-{task}.{lease}")
}

impl SharedFiles {
    pub(super) fn is_visible(&self, job: JobId) -> bool {
        self.visible.contains(&job.0)
    }
}

impl Sim {
    /// A reduce task has written and flushed its part.
    pub(super) fn prepare(&mut self, agent: usize, task: &Finished) {
        if task.on_workers {
            self.keep_own(agent, task);
        } else if task.with_parts {
            self.files.prepared.insert((task.job, staged_name(task.task, task.lease)));
        }
    }

    /// What a publisher does and finds.
    pub(super) fn publish(&mut self, publish: &Publish) -> PublishReport {
        audit(|a| a.publishes(JobId(publish.job), publish.parts.len()));
        let report = PublishReport { job: publish.job, ..PublishReport::default() };
        // Another publisher has been here before.
        if self.files.visible.contains(&publish.job) {
            return report;
        }
        if self.files.losses > 0 && !publish.parts.is_empty() {
            self.files.losses -= 1;
            let part = &publish.parts[self.dice.below(publish.parts.len() as u64) as usize];
            self.say(format!("part {} of job {} is lost", part.staged_name, publish.job));
            self.files.prepared.remove(&(publish.job, part.staged_name.clone()));
            audit(|a| a.counters.fault(Fault::LosePart.kind()));
        }
        let mut lost: Vec<LostPart> = Vec::new();
        // A machine on which the file system is not mounted sees none of them.
        let blind = !self.calm && self.dice.below(16) == 0;
        for part in publish.parts.iter().filter(|p| blind || !self.files.prepared.contains(&(publish.job, p.staged_name.clone()))) {
            lost.push(LostPart { partition: part.partition, staged_name: part.staged_name.clone(), reason: "is missing".into() });
        }
        if !lost.is_empty() {
            return PublishReport { error: "parts are lost or not seen here".into(), retryable: true, lost, ..report };
        }
        if !self.calm && self.dice.below(8) == 0 {
            return PublishReport { error: "the store does not answer".into(), retryable: true, ..report };
        }
        self.files.visible.insert(publish.job);
        report
    }
}
