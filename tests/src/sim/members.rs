//! Replicas come and go: added and removed under load, and replaced when their disk is damaged.

use super::Sim;
use super::audit::audit;
use raftwerk_scheduler::leader::{Input, RequestId};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

const FEWEST: usize = 3;
const MOST: usize = 5;
/// Between two attempts to change the members.
const PAUSE_MS: u64 = 300;

type Done = Arc<Mutex<Option<Result<(), String>>>>;

enum Change {
    Join(u64),
    Remove(u64),
}

pub(super) struct Members {
    voters: BTreeSet<u64>,
    next_id: u64,
    joining: BTreeSet<u64>,
    leaving: BTreeSet<u64>,
    /// Their disks cannot be read any more.
    lost: BTreeSet<u64>,
    /// A bit of their disk was flipped.
    flipped: BTreeSet<u64>,
    change: Option<(Change, Done)>,
    next_attempt: u64,
    /// Out of the membership; the log is still to say that nobody may hear them any more.
    untold: BTreeSet<u64>,
    /// Told so; they run until somebody pulls the plug.
    gone: BTreeSet<u64>,
}

impl Members {
    pub(super) fn new(voters: impl IntoIterator<Item = u64>) -> Members {
        Members {
            voters: voters.into_iter().collect(),
            // Ids are minted, and never used again.
            next_id: 100,
            joining: BTreeSet::new(),
            leaving: BTreeSet::new(),
            lost: BTreeSet::new(),
            flipped: BTreeSet::new(),
            change: None,
            next_attempt: 0,
            untold: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    pub(super) fn is_lost(&self, id: u64) -> bool {
        self.lost.contains(&id)
    }

    pub(super) fn flipped(&self, id: u64) -> bool {
        self.flipped.contains(&id)
    }

    /// It cannot start any more and is to be replaced.
    pub(super) fn lose(&mut self, id: u64) {
        self.lost.insert(id);
        self.leaving.insert(id);
    }

    /// None can be spared.
    pub(super) fn are_fewest(&self) -> bool {
        self.voters.len() <= FEWEST
    }

    /// Nobody is coming, going or damaged.
    fn steady(&self) -> bool {
        self.joining.is_empty() && self.leaving.is_empty() && self.lost.is_empty() && self.untold.is_empty()
    }

    /// Everybody is sound, and nothing is under way.
    pub(super) fn sound(&self) -> bool {
        self.steady() && self.change.is_none() && self.flipped.is_empty() && self.gone.is_empty()
    }

    /// Taken out of the cluster: what becomes of it is no concern of the others.
    pub(super) fn is_out(&self, id: u64) -> bool {
        self.untold.contains(&id) || self.gone.contains(&id)
    }

    /// All others are out, by a forced recovery.
    pub(super) fn left_with(&mut self, survivor: u64) {
        self.voters = BTreeSet::from([survivor]);
    }

    pub(super) fn unsettled(&self) -> Option<String> {
        (!self.steady() || self.change.is_some() || !self.gone.is_empty()).then(|| self.describe())
    }

    pub(super) fn describe(&self) -> String {
        let change = match &self.change {
            Some((Change::Join(id), _)) => format!("{id} is joining"),
            Some((Change::Remove(id), _)) => format!("{id} is being removed"),
            None => "no change under way".into(),
        };
        format!(
            "members {:?}, to join {:?}, to leave {:?}, lost {:?}, out {:?} and {:?}, {change}",
            self.voters, self.joining, self.leaving, self.lost, self.untold, self.gone
        )
    }
}

impl Sim {
    /// Whether one comes: only while nobody else comes or goes.
    pub(super) async fn add_replica(&mut self) -> bool {
        let fits = self.members.steady() && self.members.voters.len() < MOST;
        if fits {
            self.new_replica().await;
        }
        fits
    }

    pub(super) async fn new_replica(&mut self) {
        let id = self.members.next_id;
        self.members.next_id += 1;
        if let Err(error) = self.cluster.add(id).await {
            return audit(|a| a.violate("a_replica_starts_on_its_disk", format!("new replica {id}: {error}")));
        }
        self.say(format!("replica {id} is new"));
        self.watch(id);
        self.members.joining.insert(id);
    }

    /// Whether one goes, under the same condition.
    pub(super) fn remove_replica(&mut self) -> bool {
        if !self.members.steady() || self.members.are_fewest() {
            return false;
        }
        let candidates: Vec<u64> = self.members.voters.iter().copied().collect();
        let id = candidates[self.dice.below(candidates.len() as u64) as usize];
        self.members.leaving.insert(id);
        true
    }

    /// Kills a replica and flips one bit of its disk, if the others can do without it for good; whether it did.
    pub(super) async fn flip_bit(&mut self, bit: u64, down: u64) -> bool {
        let all_there = self.members.voters.iter().all(|id| self.cluster.replica(*id).is_some());
        if !self.members.steady() || !all_there || self.members.change.is_some() || !self.members.flipped.is_empty() {
            return false;
        }
        let candidates: Vec<u64> = self.members.voters.iter().copied().collect();
        let id = candidates[self.dice.below(candidates.len() as u64) as usize];
        self.kill(id).await;
        let flip = self.cluster.disk(id).flip(bit);
        if let Some(flip) = &flip {
            self.say(format!("replica {id}: bit {} of {} is flipped", flip.bit, flip.what));
            self.members.flipped.insert(id);
        }
        let number = self.number();
        self.undo.insert((self.now + down, number), super::Undo::Start(id));
        flip.is_some()
    }

    pub(super) async fn manage_members(&mut self) {
        if let Some((change, done)) = self.members.change.take() {
            let outcome = done.lock().unwrap().take();
            match outcome {
                None => self.members.change = Some((change, done)),
                Some(Ok(())) => self.changed(change).await,
                Some(Err(why)) => {
                    self.say(format!("a change of members failed: {why}"));
                    self.members.next_attempt = self.now + PAUSE_MS;
                }
            }
            return;
        }
        self.tell_who_is_out();
        if self.now < self.members.next_attempt || (self.members.joining.is_empty() && self.members.leaving.is_empty()) {
            return;
        }
        self.members.next_attempt = self.now + PAUSE_MS;
        let Some(leader) = self.leader().and_then(|id| self.cluster.replica(id)) else { return };
        let done = Done::default();
        let told = done.clone();
        if let Some(&id) = self.members.leaving.first() {
            self.members.change = Some((Change::Remove(id), done));
            super::spawn(async move {
                let outcome = if leader.id() == id {
                    // It cannot write down its own end. The next leader does.
                    leader.hand_over().await;
                    Err("the leader itself is to be removed and hands over".to_owned())
                } else {
                    leader.remove_member(id).await.map_err(|e| e.to_string())
                };
                *told.lock().unwrap() = Some(outcome);
            });
        } else if let Some(&id) = self.members.joining.first() {
            if self.cluster.replica(id).is_none() {
                return;
            }
            self.members.change = Some((Change::Join(id), done));
            super::spawn(async move {
                let outcome = leader.add_voter(id, &format!("replica-{id}"), &super::address(id)).await.map_err(|e| e.to_string());
                *told.lock().unwrap() = Some(outcome);
            });
        }
    }

    /// Last of a removal: until it is out of the membership its vote may be needed; from here on it is heard no more.
    fn tell_who_is_out(&mut self) {
        let state = audit(|a| a.latest());
        for id in self.members.untold.clone() {
            if state.as_ref().is_some_and(|s| s.removed_replicas.contains(&id)) {
                self.members.untold.remove(&id);
                self.members.gone.insert(id);
                let on = self.dice.below(4_000);
                let number = self.number();
                self.undo.insert((self.now + on, number), super::Undo::Forget(id));
            } else if self.now >= self.members.next_attempt {
                self.members.next_attempt = self.now + PAUSE_MS;
                let request = RequestId(self.number());
                if let Some(host) = self.leader().and_then(|id| self.leaders.get_mut(&id)) {
                    host.tell(Input::RemoveReplica { request, replica: id });
                }
            }
        }
    }

    /// Somebody pulls its plug.
    pub(super) async fn forget(&mut self, id: u64) {
        self.kill(id).await;
        self.cluster.forget(id);
        self.members.flipped.remove(&id);
        self.members.gone.remove(&id);
        audit(|a| a.counters.replicas_removed += 1);
    }

    async fn changed(&mut self, change: Change) {
        match change {
            Change::Join(id) => {
                self.say(format!("replica {id} is a voter"));
                self.members.joining.remove(&id);
                self.members.voters.insert(id);
            }
            Change::Remove(id) => {
                self.say(format!("replica {id} is removed"));
                self.members.leaving.remove(&id);
                self.members.voters.remove(&id);
                self.members.untold.insert(id);
                if self.members.lost.remove(&id) {
                    audit(|a| a.counters.replicas_replaced += 1);
                    self.new_replica().await;
                }
            }
        }
    }
}
