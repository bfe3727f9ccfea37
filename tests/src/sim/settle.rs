//! Faults have stopped: what must be true before the seed ends, and what it looks like when it is not.

use super::Sim;
use super::audit::{self, audit};
use raftwerk_core::stage::TaskState;
use raftwerk_core::{Phase, kept};

impl Sim {
    /// What is missing until everything is as it must be once faults have stopped.
    pub(super) fn unsettled(&self) -> Option<String> {
        if let Some(what) = self.members.unsettled() {
            return Some(what);
        }
        let replicas: Vec<_> = self.cluster.running().collect();
        if replicas.len() != self.cluster.ids().len() {
            return Some("a replica is down".into());
        }
        let leading: Vec<u64> = replicas.iter().filter(|r| r.leadership_watch().current().leading.is_some()).map(|r| r.id()).collect();
        if leading.len() != 1 {
            return Some(format!("replicas {leading:?} lead"));
        }
        if let Some(client) = self.clients.iter().position(|c| !c.is_content()) {
            return Some(format!("the submit of client {client} is not acknowledged"));
        }
        let Some(state) = audit(|a| a.latest()) else { return Some("no entry was applied".into()) };
        if let Some(job) = state.jobs.values().find(|j| j.phase.ended_at().is_none()) {
            return Some(format!("job {} is {:?}", job.id, job.phase));
        }
        if let Some(what) = self.left_of_dropped(&state) {
            return Some(what);
        }
        if !state.leases.is_empty() {
            return Some(format!("{} leases live", state.leases.len()));
        }
        if let Some(what) = self.counted_without_its_part(&state) {
            return Some(what);
        }
        replicas
            .iter()
            .any(|r| r.status().applied < replicas.iter().map(|r| r.status().last_log_index).max().unwrap_or(0))
            .then(|| "a replica is behind".into())
    }

    /// Every job that is done has counted each task once; a job that must fail has failed, with a cause.
    pub(super) fn check_results(&self) {
        let Some(state) = audit(|a| a.latest()) else { return };
        let last = self.clients.last().and_then(|c| state.jobs.get(&c.job?));
        if let Some(job) = last.filter(|j| !matches!(j.phase, Phase::Done { .. })) {
            audit(|a| a.violate("a_cluster_without_faults_finishes_a_job", format!("job {} is {:?}", job.id, job.phase)));
        }
        for job in state.jobs.values() {
            if let Phase::Failed { cause, .. } = &job.phase
                && cause.is_empty()
            {
                audit(|a| a.violate("failed_jobs_have_a_cause", format!("job {}", job.id)));
            }
            if !matches!(job.phase, Phase::Done { .. }) {
                continue;
            }
            for (index, stage) in job.stages.iter().enumerate().filter(|(_, stage)| !stage.tallies.is_empty()) {
                let tasks = stage.tasks().iter().filter(|(_, state)| *state != TaskState::SetAside);
                let expected: u128 =
                    tasks.flat_map(|(range, _)| range.first..range.end).map(|task| u128::from(audit::value_of(task))).sum();
                if stage.tallies[0] != expected {
                    audit(|a| a.violate("tallies_are_exact", format!("job {} stage {index}: {}", job.id, stage.tallies[0])));
                }
            }
            if kept::on_workers(&job.spec) {
                self.check_kept(&state, job);
            } else if job.spec.output.is_some() && !self.files.is_visible(job.id) {
                audit(|a| a.violate("done_jobs_are_visible", format!("nobody sees the output of job {}", job.id)));
            }
            if job.spec.output.is_some() && job.parts.len() as u64 != job.stages.last().map_or(0, |s| s.tasks().len()) {
                audit(|a| a.violate("outputs_are_whole", format!("job {} has {} parts", job.id, job.parts.len())));
            }
        }
    }

    /// All replicas applied the same entries, so their states have the same hash.
    pub(super) fn check_hashes(&self) {
        let hashes: Vec<String> = self.cluster.running().map(|r| r.state().read().unwrap().state().hash()).collect();
        if hashes.windows(2).any(|w| w[0] != w[1]) {
            audit(|a| a.violate("equal_index_means_equal_state", format!("at the end: {hashes:?}")));
        }
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for replica in self.cluster.running() {
            let s = replica.status();
            let voters: Vec<u64> = s.members.iter().filter(|m| m.voter).map(|m| m.id).collect();
            let stopped = self.cluster.is_stopped(s.id);
            lines.push(format!(
                "replica {} term {} leader {:?} last {} committed {} applied {} snapshot {} voters {voters:?} stopped {stopped}",
                s.id, s.term, s.leader, s.last_log_index, s.committed, s.applied, s.snapshot
            ));
        }
        if let Some(state) = audit(|a| a.latest()) {
            for job in state.jobs.values() {
                let stages: Vec<_> = job.stages.iter().map(|s| (s.ready(), s.leased(), s.accepted(), s.generation)).collect();
                lines.push(format!("job {} {:?} {stages:?}", job.id, job.phase));
            }
            lines.extend(state.leases.iter().map(|(id, l)| format!("lease {id} {:?} of job {} on {}", l.tasks, l.job, l.worker)));
            lines.extend(state.workers.iter().map(|(id, w)| format!("record of worker {id}: session {} lost {}", w.session, w.lost)));
        }
        lines.extend(self.agents.iter().map(|a| a.describe()));
        lines.push(self.members.describe());
        lines
    }
}
