//! What users are shown of the state.

use crate::ids::JobId;
use crate::job::{Job, Phase};
use crate::stage::Stage;
use crate::state::State;
use raftwerk_proto::v1::{
    BadRecord, FailedAttempts, JobState, JobView, NamespaceUse, NamespaceView, SetAside, StageSpec, StageView, TallyTotal,
};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        self.jobs.get(&id).map(job_view)
    }
}

impl State {
    /// Namespaces that have terms, or had a job lately.
    pub fn namespace_views(&self) -> Vec<NamespaceView> {
        let mut views: BTreeMap<&str, NamespaceView> = BTreeMap::new();
        let view = |name: &str| NamespaceView { name: name.to_owned(), ..NamespaceView::default() };
        for (name, namespace) in &self.namespaces {
            let used = namespace.used.iter().map(|(class, ns)| NamespaceUse { class: class.clone(), device_ns: *ns }).collect();
            views.insert(name, NamespaceView { terms: namespace.terms, used, ..view(name) });
        }
        for job in self.active_jobs() {
            let name = job.spec.namespace.as_str();
            views.entry(name).or_insert_with(|| view(name)).active_jobs += 1;
        }
        let mut devices = BTreeSet::new();
        for (worker, device, job, _) in self.stage_uses().keys() {
            if let Some(job) = self.jobs.get(job)
                && devices.insert((job.spec.namespace.as_str(), *worker, *device))
                && let Some(view) = views.get_mut(job.spec.namespace.as_str())
            {
                view.devices += 1;
            }
        }
        views.into_values().collect()
    }
}

pub fn job_state(phase: &Phase) -> JobState {
    match phase {
        Phase::Running => JobState::Running,
        Phase::Publishing => JobState::Publishing,
        Phase::Done { .. } => JobState::Done,
        Phase::Failed { .. } => JobState::Failed,
        Phase::Cancelled { .. } => JobState::Cancelled,
    }
}

/// Sums as two 64-bit halves, with the names the kernel gave them.
pub(crate) fn tally_totals(job: &Job, stage: usize) -> Vec<TallyTotal> {
    let spec = &job.spec.stages[stage];
    let names = spec.kernel.iter().flat_map(|k| &k.tallies);
    names
        .zip(&job.stages[stage].tallies)
        .map(|(name, sum)| TallyTotal { stage: spec.name.clone(), name: name.clone(), low: *sum as u64, high: (*sum >> 64) as u64 })
        .collect()
}

/// Tasks set aside, with their evidence.
pub(crate) fn set_aside_records(job: &Job, stage: usize) -> Vec<SetAside> {
    let records = job.stages[stage].evidence.values().map(|e| SetAside {
        stage: job.spec.stages[stage].name.clone(),
        first_task: e.tasks.first,
        task_count: e.tasks.count(),
        attempts: e.attempts,
        workers: e.workers.iter().map(|w| w.0).collect(),
        message: e.message.clone(),
        at_ms: e.at.0,
    });
    records.collect()
}

/// The first ones of each stage.
fn bad_records(job: &Job) -> impl Iterator<Item = BadRecord> + '_ {
    let of_stage = |(stage, spec): (&'_ Stage, &'_ StageSpec)| {
        let name = spec.name.clone();
        stage.bad_records.values().map(move |record| BadRecord { stage: name.clone(), ..record.clone() }).collect::<Vec<_>>()
    };
    job.stages.iter().zip(&job.spec.stages).flat_map(of_stage)
}

/// The newest ones of each stage.
fn failures(job: &Job) -> impl Iterator<Item = FailedAttempts> + '_ {
    let of_stage = |(stage, spec): (&'_ Stage, &'_ StageSpec)| {
        let name = spec.name.clone();
        stage.failures.iter().map(move |failed| FailedAttempts { stage: name.clone(), ..failed.clone() }).collect::<Vec<_>>()
    };
    job.stages.iter().zip(&job.spec.stages).flat_map(of_stage)
}

fn job_view(job: &Job) -> JobView {
    let stages = job.stages.iter().zip(&job.spec.stages).map(|(stage, spec)| StageView {
        name: spec.name.clone(),
        tasks: stage.tasks().len(),
        ready: stage.free(),
        leased: stage.leased(),
        accepted: stage.accepted(),
        generation: stage.generation,
        open: stage.open,
        complete: stage.is_complete(),
        failed_attempts: stage.failed_attempts,
        leases: stage.leases,
        fenced: stage.fenced,
        waiting: stage.counts().waiting,
        set_aside: stage.set_aside(),
        speculated: stage.speculated,
        speculative_wins: stage.speculative_wins,
        counters: Some(stage.counters),
    });
    JobView {
        job: job.id.0,
        spec: Some(job.spec.clone()),
        state: job_state(&job.phase).into(),
        cause: job.phase.cause().to_owned(),
        submitted_at_ms: job.submitted_at.0,
        finished_at_ms: job.phase.ended_at().map_or(0, |t| t.0),
        stages: stages.collect(),
        tallies: (0..job.stages.len()).flat_map(|i| tally_totals(job, i)).collect(),
        parts: job.parts.values().cloned().collect(),
        shares: job.shares.values().cloned().collect(),
        idempotency_key: job.idempotency_key.clone(),
        set_aside: (0..job.stages.len()).flat_map(|i| set_aside_records(job, i)).collect(),
        shuffle_copies: job.shuffle_copies(),
        rounds: job.rounds.as_ref().map(|rounds| rounds.view(&job.spec)),
        waiting_for: job.waiting_for.iter().map(|job| job.0).collect(),
        bad_records: bad_records(job).collect(),
        failures: failures(job).collect(),
        // Not of every job of a list: it takes a look at every device.
        waits: String::new(),
    }
}
