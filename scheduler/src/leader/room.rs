//! Workers that are full take no tasks that leave data on them: such tasks wait until jobs have ended. When nothing that runs could end, waiting
//! is in vain, and a job gives way.

use super::Leader;
use super::batch::Waiter;
use raftwerk_core::{Job, Phase, State, matching};
use raftwerk_proto::v1::{self as wire, command::Command};

/// Nothing at all has been running for this long, and every worker that could is full.
const IN_VAIN_MS: u64 = 30_000;

#[derive(Default)]
pub(super) struct WaitingForRoom {
    since: Option<u64>,
}

impl Leader {
    /// The youngest job gives way, and the others get the room that its data took.
    pub(super) fn fail_what_waits_for_room_in_vain(&mut self, now: u64, state: &State) {
        let full = self.sessions.full();
        let at_rest = !full.is_empty() && state.leases.is_empty() && state.active_jobs().all(|job| job.phase == Phase::Running);
        let waits = |job: &&Job| {
            let stages = job.stages.iter().zip(&job.spec.stages);
            let mut waiting = stages.filter(|(stage, _)| stage.open && stage.free() > 0).peekable();
            waiting.peek().is_some()
                && waiting.all(|(_, spec)| {
                    let able = matching::candidates(state, spec);
                    spec.partitions > 0 && !able.is_empty() && able.iter().all(|(worker, _)| full.contains(worker))
                })
        };
        let Some(youngest) = state.active_jobs().filter(|_| at_rest).filter(waits).last() else {
            self.waiting_for_room.since = None;
            return;
        };
        let since = *self.waiting_for_room.since.get_or_insert(now);
        if now.saturating_sub(since) < IN_VAIN_MS {
            return;
        }
        self.waiting_for_room.since = None;
        let said = self.sessions.conns.values().find_map(|conn| {
            let reason = conn.load.as_ref().map(|load| load.full.as_str()).filter(|full| !full.is_empty())?;
            Some(format!("worker {}: {reason}", conn.hello.name))
        });
        let cause = format!(
            "no worker has room for its shuffle data, and no job is left whose end would make some ({}); raise the quota, or drop results that \
             are not needed (raftwerk job drop)",
            said.unwrap_or_default()
        );
        self.batch.push(Command::FailJob(wire::FailJob { job: youngest.id.0, cause }), Waiter::Nobody);
    }
}
