//! Plans go out as log entries, grants go out to workers once they are committed.

use super::batch::Waiter;
use super::patience::Patience;
use super::{Answer, Effect, Leader};
use raftwerk_core::ids::TaskRange;
use raftwerk_core::plan::{Proposal, View, propose};
use raftwerk_core::split::splits_of_tasks;
use raftwerk_core::stage::TaskState;
use raftwerk_core::{Job, Lease, LeaseId, Outcome, State, Timestamp, WorkerId};
use raftwerk_planted::{self as planted, Bug};
use raftwerk_proto::v1::{self as wire, command::Command, scheduler_message as down, stage_input::Source};
use std::collections::BTreeMap;

impl Leader {
    /// One planning round; the placements join the entry that is being made.
    pub(super) fn place(&mut self, state: &State, now: Timestamp) {
        let present = self.sessions.present(self.now);
        let suspects = self.sessions.suspects(state, self.now, self.timing.return_ms());
        let returning = self.sessions.returning(state, self.now, self.timing.return_ms(), self.timing.heartbeat_ms);
        let full = self.sessions.full();
        let submitted = self.batch.submissions();
        let view = View {
            state,
            present: &present,
            suspects: &suspects,
            returning: &returning,
            full: &full,
            now,
            submitted: &submitted,
            policy: self.policy,
        };
        let Proposal { placements, gangs } = propose(&view);
        if !placements.is_empty() {
            self.batch.append(Command::GrantLeases(wire::GrantLeases { placements }), Waiter::Grants);
        }
        for step in gangs {
            let waiter = if matches!(step, Command::StartGang(_)) { Waiter::Grants } else { Waiter::Nobody };
            self.batch.append(step, waiter);
        }
    }

    pub(super) fn on_outcome(&mut self, now: u64, state: &State, waiter: Waiter, outcome: &Outcome, effects: &mut Vec<Effect>) {
        let mut answer = |request, answer| effects.push(Effect::Answer { request, answer });
        match (waiter, outcome) {
            (Waiter::Submit(request), Outcome::Submitted { job, existing }) => {
                answer(request, Answer::Submitted { job: *job, existing: *existing });
            }
            (Waiter::Submit(request), Outcome::IdempotencyConflict { job }) => answer(request, Answer::IdempotencyConflict { job: *job }),
            (Waiter::Submit(request), Outcome::Full(reason)) => answer(request, Answer::Exhausted(reason.clone())),
            (Waiter::Submit(request), Outcome::Refused(reason)) => answer(request, Answer::Refused(reason.clone())),
            (Waiter::Submit(request), Outcome::NotFound(reason)) => answer(request, Answer::NotFound(reason.clone())),
            (Waiter::Submit(request), Outcome::Precondition(reason)) => answer(request, Answer::Precondition(reason.clone())),
            (Waiter::Cancel(request), Outcome::Refused(reason)) => answer(request, Answer::Precondition(reason.clone())),
            (Waiter::Cancel(request), _) => answer(request, Answer::Cancelled),
            (Waiter::Release(request), Outcome::Refused(reason)) => answer(request, Answer::NotFound(reason.clone())),
            (Waiter::Release(request), _) => answer(request, Answer::Released),
            (Waiter::Mint(request), Outcome::Minted(id)) => answer(request, Answer::Minted(*id)),
            (Waiter::Set(request), Outcome::Refused(reason)) => answer(request, Answer::Refused(reason.clone())),
            (Waiter::Set(request), _) => answer(request, Answer::Released),
            (Waiter::Register(conn), Outcome::Registered { session, .. }) => self.on_registered(now, state, conn, *session, effects),
            (Waiter::Reports { conn, sequences }, _) => {
                let message = down::Message::ReportAck(wire::ReportAck { sequences });
                effects.push(Effect::Send { conn, message });
            }
            (Waiter::Grants, Outcome::Granted { leases, .. }) => self.dispatch(state, leases, effects),
            (Waiter::Published(job), _) => {
                self.publishing.forget(job);
                self.keeping.job_changed(job);
            }
            (Waiter::CopiedAgain { job, stage, holder }, _) => self.recopy.recorded(job, stage, holder),
            (Waiter::Kept { worker, parts }, _) => self.keeping.recorded(worker, &parts),
            (Waiter::Missing(parts), _) => self.keeping.missing(&parts),
            (Waiter::Import(request), Outcome::Refused(reason)) => answer(request, Answer::Refused(reason.clone())),
            (Waiter::Import(request), _) => answer(request, Answer::Released),
            (Waiter::Drop(request), Outcome::Refused(reason)) => answer(request, Answer::Precondition(reason.clone())),
            (Waiter::Drop(request), _) => answer(request, Answer::Released),
            (Waiter::Submit(request) | Waiter::Mint(request), other) => {
                answer(request, Answer::Refused(format!("unexpected outcome {other:?}")));
            }
            (Waiter::Register(_) | Waiter::Grants | Waiter::Nobody, _) => {}
        }
    }

    /// Sends committed grants to the workers that hold them. A worker that is not connected gets them at hand-over; by then another lease may have
    /// brought home some of its tasks, which nobody needs to run again.
    pub(super) fn dispatch(&mut self, state: &State, leases: &[LeaseId], effects: &mut Vec<Effect>) {
        let mut messages: BTreeMap<super::ConnId, wire::Grants> = BTreeMap::new();
        let full = self.sessions.full();
        let mut patience = Patience::default();
        for id in leases {
            let Some(lease) = state.leases.get(id) else { continue };
            let Some(job) = state.jobs.get(&lease.job) else { continue };
            let Some(tasks) = still_held(job, *id, lease) else { continue };
            let lease = &Lease { tasks, ..lease.clone() };
            let Some(conn_id) = self.sessions.by_worker.get(&lease.worker).copied() else { continue };
            let Some(conn) = self.sessions.conns.get_mut(&conn_id).filter(|c| c.session == Some(lease.session)) else { continue };
            let grants = messages.entry(conn_id).or_default();
            // What a stage's tasks know changes with the round.
            let round = job.rounds.as_ref().map_or(0, |rounds| rounds.ended.len());
            let known = conn.known_stages.insert((lease.job, lease.stage), round);
            let is_news = if planted::on(Bug::OldRound) { known.is_none() } else { known != Some(round) };
            if is_news {
                grants.stages.push(stage_info(job, lease.stage));
            }
            let (copy_to, patience_ms) = (self.copies.targets(state, &full, job, *id, lease), patience.of(state, job, lease));
            let uploads = self.uploads.sources(state, job, lease.stage, id.index.wrapping_add(u64::from(id.position)));
            grants.grants.push(wire::Grant { copy_to, patience_ms, uploads, ..grant(state, job, *id, lease) });
        }
        for (conn, grants) in messages {
            effects.push(Effect::Send { conn, message: down::Message::Grants(grants) });
        }
    }
}

/// From the first to the last task of the lease that has no result yet. A lease that has nothing left is ended by the entry that took the last.
fn still_held(job: &Job, id: LeaseId, lease: &Lease) -> Option<TaskRange> {
    let held = job.stages.get(lease.stage as usize)?.held_by(lease.tasks, id);
    Some(TaskRange { first: held.first()?.0.first, end: held.last()?.0.end })
}

fn stage_info(job: &Job, stage: u32) -> wire::StageInfo {
    let index = stage as usize;
    let mut spec = job.spec.stages[index].clone();
    // Of side inputs every worker needs the file, which is one.
    for input in spec.inputs.iter_mut().take(1) {
        if let Some(Source::Files(files)) = &mut input.source {
            // Each grant names its own splits; the whole listing would travel for nothing.
            files.listing.clear();
        }
    }
    wire::StageInfo {
        job: job.id.0,
        stage,
        spec: Some(spec),
        output: if index + 1 == job.stages.len() { job.spec.output.clone() } else { None },
        tasks: job.stages[index].tasks().len(),
        round: job.rounds.as_ref().map(|rounds| rounds.info(&job.spec, index)),
    }
}

fn grant(state: &State, job: &Job, id: LeaseId, lease: &Lease) -> wire::Grant {
    let spec = &job.spec.stages[lease.stage as usize];
    let source = spec.inputs.first().and_then(|i| i.source.as_ref());
    let splits = match source {
        Some(Source::Files(files)) => splits_of_tasks(files, lease.tasks),
        _ => Vec::new(),
    };
    let sources = shuffle_sources(state, job, lease);
    wire::Grant {
        lease: Some(id.into()),
        job: lease.job.0,
        stage: lease.stage,
        generation: lease.generation,
        device: lease.device,
        first_task: lease.tasks.first,
        task_count: lease.tasks.count(),
        splits,
        sources,
        ..wire::Grant::default()
    }
}

/// Who holds what the lease's tasks read of other stages, as few ranges as possible. Tasks set aside have left nothing, and are left out. What was
/// lost since the lease was granted is said to be with nobody: whoever looks for it there fails, and nothing goes missing in silence.
fn shuffle_sources(state: &State, job: &Job, lease: &Lease) -> Vec<wire::ShuffleSource> {
    let address_of = |worker| state.workers.get(&worker).map(|w| w.hello.data_address.clone()).unwrap_or_default();
    let mut sources = Vec::new();
    for (input, from) in job.inputs_of(lease.stage as usize).iter().enumerate() {
        let producer = &job.stages[*from];
        let all = TaskRange { first: 0, end: producer.tasks().len() };
        // Of parts each task reads its own.
        let read = if job.reads_parts(lease.stage as usize) { lease.tasks } else { all };
        for (range, task) in producer.tasks().overlapping(read) {
            let (worker, copy, generation) = match task {
                TaskState::SetAside => continue,
                TaskState::Accepted { worker, copy, generation } => (worker, copy, generation),
                _ => (WorkerId(0), WorkerId(0), producer.generation),
            };
            sources.push(wire::ShuffleSource {
                worker: worker.0,
                address: address_of(worker),
                generation,
                first_task: range.first,
                task_count: range.count(),
                copy_worker: copy.0,
                copy_address: address_of(copy),
                input: input as u32,
            });
        }
    }
    sources
}
