//! Who holds which files that clients have brought. Soft state: every worker says so when it comes, and with its heartbeats; the log only has the names,
//! in the specs of jobs. What is not here any more when a task wants it, that task's worker says.

use super::Leader;
use raftwerk_core::{Job, State, WorkerId};
use raftwerk_proto::v1::{self as wire, JobSpec, StageSpec, stage_input::Source};
use raftwerk_proto::{is_upload_id, upload_path};
use std::collections::{BTreeMap, BTreeSet};

/// Uploads of one worker beyond these are not heard of.
const PER_WORKER: usize = 10_000;
/// Holders named to one lease.
const NAMED: usize = 4;
/// All jobs are looked through for what they read at most this often.
const LOOK_EVERY_MS: u64 = 1_000;

#[derive(Default)]
pub(super) struct Uploads {
    held: BTreeMap<WorkerId, BTreeSet<String>>,
    /// What jobs that have not ended read, as of `looked_at`.
    needed: BTreeSet<String>,
    looked_at: Option<u64>,
}

impl Uploads {
    /// All that the worker holds.
    pub(super) fn told(&mut self, worker: WorkerId, ids: Vec<String>) {
        let ids: BTreeSet<String> = ids.into_iter().filter(|id| is_upload_id(id)).take(PER_WORKER).collect();
        if ids.is_empty() {
            self.held.remove(&worker);
        } else {
            self.held.insert(worker, ids);
        }
    }

    pub(super) fn gone(&mut self, worker: WorkerId) {
        self.held.remove(&worker);
    }

    /// Those that the stage reads, each with some of its holders: other ones for each `turn`, so that not all go to the same.
    pub(super) fn sources(&self, state: &State, job: &Job, stage: u32, turn: u64) -> Vec<wire::UploadSource> {
        let Some(spec) = job.spec.stages.get(stage as usize) else { return Vec::new() };
        let ids: BTreeSet<&str> = read_by(spec).collect();
        let source = |id: &str| {
            let mut holders: Vec<WorkerId> = self.held.iter().filter(|(_, ids)| ids.contains(id)).map(|(worker, _)| *worker).collect();
            let begin = turn as usize % holders.len().max(1);
            holders.rotate_left(begin);
            let target = |worker: WorkerId| {
                let address = state.workers.get(&worker)?.hello.data_address.clone();
                Some(wire::CopyTarget { worker: worker.0, address })
            };
            wire::UploadSource { id: id.to_owned(), holders: holders.into_iter().filter_map(target).take(NAMED).collect() }
        };
        ids.into_iter().map(source).collect()
    }
}

impl Leader {
    /// What the worker holds and no job that has not ended reads.
    pub(super) fn unneeded_uploads(&mut self, now: u64, state: &State, worker: WorkerId) -> Vec<String> {
        let Some(held) = self.uploads.held.get(&worker) else { return Vec::new() };
        if self.uploads.looked_at.is_none_or(|at| now.saturating_sub(at) >= LOOK_EVERY_MS) {
            self.uploads.looked_at = Some(now);
            let active = state.jobs.values().filter(|job| job.is_active());
            self.uploads.needed = active.flat_map(|job| read_by_job(&job.spec)).map(str::to_owned).collect();
        }
        held.difference(&self.uploads.needed).cloned().collect()
    }
}

fn read_by_job(spec: &JobSpec) -> impl Iterator<Item = &str> {
    spec.stages.iter().flat_map(read_by)
}

/// Ids of uploads, some more than once.
fn read_by(stage: &StageSpec) -> impl Iterator<Item = &str> {
    let files = stage.inputs.iter().filter_map(|input| match &input.source {
        Some(Source::Files(files)) => Some(files),
        _ => None,
    });
    files.flat_map(|files| &files.patterns).filter_map(|pattern| upload_path(pattern).map(|(id, _)| id))
}
