//! Which format entries are written in.
//!
//! While a cluster is upgraded, replicas of the former release get every entry too, and one that they cannot read would stop them. So the leader
//! writes the old format until every replica has said that it reads the new one; from then on the log itself says so
//! ([`State::log_format`]), and there is no way back.

use super::batch::Waiter;
use super::{Answer, Effect, Leader, RequestId};
use raftwerk_core::apply::{DRAINING, ENTRY_FORMAT, KEPT_DATA, KEPT_LOSSES, LEARNING, SHARES, UNMARKED_FORMAT};
use raftwerk_core::spec::SpecError;
use raftwerk_core::{State, WorkerId, spec_format};
use raftwerk_proto::v1::{CostRecord, DrainWorker, ImportCosts, JobSpec, command::Command};

pub(super) struct Format {
    /// What every replica reads, as far as is known.
    common: u32,
    /// The log is to say so even if there is nothing else to say.
    announce: bool,
}

impl Default for Format {
    fn default() -> Format {
        Format { common: ENTRY_FORMAT, announce: false }
    }
}

impl Format {
    pub(super) fn up_to(common: u32) -> Format {
        Format { common: common.min(ENTRY_FORMAT), announce: true }
    }

    pub(super) fn raise(&mut self, common: u32) {
        self.common = self.common.max(common.min(ENTRY_FORMAT));
        self.announce = true;
    }

    fn now(&self, state: &State) -> u32 {
        self.common.max(state.log_format).max(UNMARKED_FORMAT)
    }

    /// And whether the entry is to be written even if it is empty.
    pub(super) fn of_next_entry(&self, state: &State) -> (u32, bool) {
        let now = self.now(state);
        (now, self.announce && now > state.log_format)
    }
}

impl Leader {
    /// Whether every replica knows results on workers, copies that are made again, and full workers.
    pub(super) fn all_know_kept_data(&self, state: &State) -> bool {
        self.format.now(state) >= KEPT_DATA
    }

    /// Whether every replica knows of keepers that have lost their parts.
    pub(super) fn all_know_kept_losses(&self, state: &State) -> bool {
        self.format.now(state) >= KEPT_LOSSES
    }

    /// Whether every replica knows shares and priorities.
    pub(super) fn all_know_shares(&self, state: &State) -> bool {
        self.format.now(state) >= SHARES
    }

    /// Whether every replica knows all that the spec says.
    pub(super) fn format_allows(&self, state: &State, spec: &JobSpec) -> Result<(), SpecError> {
        spec_format::check(spec, self.format.now(state))
    }

    /// Whether every replica knows costs, and what goes with them.
    pub(super) fn all_know_costs(&self, state: &State) -> bool {
        self.format.now(state) >= LEARNING
    }

    pub(super) fn on_import_costs(&mut self, state: &State, request: RequestId, costs: Vec<CostRecord>, effects: &mut Vec<Effect>) {
        if self.all_know_costs(state) {
            return self.batch.push(Command::ImportCosts(ImportCosts { costs }), Waiter::Import(request));
        }
        let answer = Answer::Precondition(format!(
            "not before every replica runs this release: one of them may not read the entry yet (format {LEARNING}); `raftwerk cluster show` \
             tells which"
        ));
        effects.push(Effect::Answer { request, answer });
    }

    pub(super) fn on_drain(&mut self, state: &State, request: RequestId, worker: WorkerId, effects: &mut Vec<Effect>) {
        let answer = if self.format.now(state) < DRAINING {
            Answer::Precondition(format!(
                "not before every replica runs this release: one of them may not read the entry yet (format {DRAINING}); `raftwerk cluster show` \
                 tells which"
            ))
        } else if !state.workers.contains_key(&worker) {
            Answer::NotFound(format!("there is no worker {worker}"))
        } else {
            return self.batch.push(Command::DrainWorker(DrainWorker { worker: worker.0 }), Waiter::Release(request));
        };
        effects.push(Effect::Answer { request, answer });
    }
}
