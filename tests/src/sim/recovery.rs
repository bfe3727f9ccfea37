//! All replicas but one are lost for good: the survivor is recovered by force, a new epoch begins, and the cluster grows again.

use super::Sim;
use super::audit::audit;
use prost::Message;
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_proto::v1::{Command, EntryBody, NewEpoch, command::Command as Do};

/// Replicas of the cluster that grows from the survivor.
const GROWN: usize = 3;

impl Sim {
    /// The survivor is the replica that has most of the log, so that nothing acknowledged is lost and every promise can still be checked;
    /// what is new is that all leases end and nobody hears the others any more. Whether it was done: only where all run and are sound.
    pub(super) async fn recover_by_force(&mut self) -> bool {
        let ids = self.cluster.ids();
        let all_run = ids.iter().all(|id| self.cluster.replica(*id).is_some());
        if !all_run || !self.members.sound() || !self.failing.is_empty() {
            return false;
        }
        for id in &ids {
            self.kill(*id).await;
        }
        let mut best = None;
        for id in ids.iter().copied() {
            match self.cluster.survey(id).await {
                Ok(survey) => best = best.max(Some((survey.last_log_term, survey.last_log_index, id))),
                Err(error) => {
                    audit(|a| a.violate("a_replica_starts_on_its_disk", format!("survey of replica {id}: {error}")));
                    return true;
                }
            }
        }
        let Some((_, _, survivor)) = best else { return true };
        let entry = |others: &[u64]| {
            let command = Do::NewEpoch(NewEpoch { removed_replicas: others.to_vec(), forget_workers: false });
            let body = EntryBody { format: ENTRY_FORMAT, at_ms: 0, commands: vec![Command { command: Some(command) }] };
            body.encode_to_vec().into()
        };
        if let Err(error) = self.cluster.recover(survivor, entry).await {
            audit(|a| a.violate("a_survivor_can_be_recovered", format!("replica {survivor}: {error}")));
            return true;
        }
        self.say(format!("replica {survivor} is recovered by force"));
        for other in ids.into_iter().filter(|id| *id != survivor) {
            self.cluster.forget(other);
        }
        self.members.left_with(survivor);
        self.start(survivor).await;
        for _ in 1..GROWN {
            self.new_replica().await;
        }
        true
    }
}
