//! The leader: what has gathered becomes an entry with the placements it allows, is applied after the log's delay, and what it granted goes out.

use super::event::Event;
use super::graph::told_by;
use super::{RunError, World, device_of};
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::plan::{View, plan};
use raftwerk_core::{Applied, Event as Fact, Outcome as Answer, Timestamp};
use raftwerk_proto::v1::{Command as Wrapped, EntryBody, GrantLeases, JobSpec, command::Command};
use std::collections::BTreeSet;
use std::time::Instant;

impl World<'_> {
    /// Proposes what has gathered, with the placements it allows, unless an entry is in flight.
    pub(super) fn flush(&mut self) {
        if self.flying.is_some() || (self.pending.is_empty() && !self.replan) {
            return;
        }
        let mut commands = std::mem::take(&mut self.pending);
        let submitted = std::mem::take(&mut self.submitted);
        let at_ms = self.stamp();
        if self.replan || !submitted.is_empty() {
            self.replan = false;
            let placements = self.plan(&commands, at_ms);
            if !placements.is_empty() {
                commands.push(Command::GrantLeases(GrantLeases { placements }));
            }
        }
        if commands.is_empty() {
            return;
        }
        let commands = commands.into_iter().map(|command| Wrapped { command: Some(command) }).collect();
        self.flying = Some((EntryBody { format: ENTRY_FORMAT, at_ms, commands }, submitted));
        self.at(self.now + self.scenario.delays.commit, Event::Commit);
    }

    pub(super) fn plan(&mut self, commands: &[Command], at_ms: u64) -> Vec<raftwerk_proto::v1::Placement> {
        let submitted: Vec<(u32, &JobSpec)> = commands
            .iter()
            .enumerate()
            .filter_map(|(position, command)| match command {
                Command::SubmitJob(submit) => submit.spec.as_ref().map(|spec| (position as u32, spec)),
                _ => None,
            })
            .collect();
        if self.state.active_count() == 0 && submitted.is_empty() {
            return Vec::new();
        }
        let nobody = BTreeSet::new();
        let view = View {
            state: &self.state,
            present: &self.present,
            suspects: &nobody,
            returning: &nobody,
            full: &nobody,
            now: Timestamp(at_ms),
            submitted: &submitted,
            policy: self.policy,
        };
        let begun = Instant::now();
        let placements = plan(&view);
        self.effort.round(begun.elapsed().as_nanos() as u64);
        placements
    }

    pub(super) fn apply(&mut self, commands: Vec<Command>) -> Result<Applied, RunError> {
        let commands = commands.into_iter().map(|command| Wrapped { command: Some(command) }).collect();
        self.apply_body(EntryBody { format: ENTRY_FORMAT, at_ms: self.stamp(), commands })
    }

    pub(super) fn apply_body(&mut self, body: EntryBody) -> Result<Applied, RunError> {
        let begun = Instant::now();
        let applied = self.state.apply(self.state.applied_index + 1, body)?;
        self.effort.entry(begun.elapsed().as_nanos() as u64);
        Ok(applied)
    }

    pub(super) fn on_commit(&mut self) -> Result<(), RunError> {
        let Some((body, submitted)) = self.flying.take() else { return Ok(()) };
        self.last_change = self.now;
        let told = if self.graph.tasks.is_empty() { Vec::new() } else { told_by(&body) };
        let applied = self.apply_body(body)?;
        self.replan = true;
        self.on_registered(&applied);
        let mut submitted = submitted.into_iter();
        for outcome in &applied.outcomes {
            match outcome {
                Answer::Submitted { job: id, .. } => {
                    if let Some(job) = submitted.next() {
                        self.jobs[job as usize].id = Some(*id);
                        self.by_id.insert(*id, job);
                    }
                }
                Answer::Refused(reason) => {
                    let job = submitted.next().map(|j| self.jobs[j as usize].job.name.clone()).unwrap_or_default();
                    return Err(RunError::Refused { job, reason: reason.clone() });
                }
                Answer::Granted { leases, stale } => {
                    self.effort.leases += leases.len() as u64;
                    self.effort.stale += u64::from(*stale);
                    if self.first_grant.is_none() && !leases.is_empty() {
                        self.first_grant = Some(self.now);
                    }
                    for id in leases {
                        if let Some(lease) = self.state.leases.get(id) {
                            let device = device_of(lease.worker);
                            self.at(self.now + self.scenario.delays.network, Event::Arrive { device, lease: *id });
                        }
                    }
                }
                _ => {}
            }
        }
        for fact in &applied.events {
            match fact {
                Fact::LeaseEnded { id, lease } => {
                    let device = device_of(lease.worker);
                    self.at(self.now + self.scenario.delays.network, Event::Revoke { device, lease: *id });
                }
                Fact::JobEnded { job } => self.on_job_ended(*job),
                _ => {}
            }
        }
        self.advance_graph(told);
        Ok(())
    }
}
