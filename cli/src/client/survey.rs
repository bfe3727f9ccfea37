//! What the replicas say of the cluster and of themselves, each asked on its own.
//!
//! One replica alone cannot tell: a follower goes on naming a leader that has died until there is another one, which without a majority is
//! never.

use std::collections::BTreeMap;
use std::time::Duration;

use raftwerk_proto::v1::client_client::ClientClient;
use raftwerk_proto::v1::{ClusterView, ReplicaView, ShowClusterRequest};
use raftwerk_transport::{Identity, MAX_MESSAGE_BYTES, PeerKind, connect, plain_error, plain_status};
use tokio::task::JoinSet;
use tonic::Request;

use super::{CallError, Cluster};

/// A replica that is up answers from memory; one that is not should not hold up the picture of the others.
const ASK: Duration = Duration::from_secs(2);

pub struct Survey {
    /// Of the replica that knows most: the leader, or else the one with the highest term and commit.
    pub view: ClusterView,
    /// By replica; `Err` says why it gave no answer.
    pub answers: BTreeMap<u64, Result<ClusterView, String>>,
}

impl Cluster {
    /// Asks every replica of the cluster at once.
    pub async fn survey(&mut self) -> Result<Survey, CallError> {
        let first = self.view().await?;
        // The address that answered is still the preferred one.
        let asked = self.current().to_owned();
        self.adopt(&asked, &first);
        let mut answers = BTreeMap::from([(first.answered_by, Ok(first.clone()))]);
        let mut view = first;
        // The first to answer may have slept through a change of the membership; whoever knows better names the others.
        loop {
            let missing: Vec<ReplicaView> = view.replicas.iter().filter(|known| !answers.contains_key(&known.replica)).cloned().collect();
            if missing.is_empty() {
                return Ok(Survey { view, answers });
            }
            // Whatever becomes of a question, it is not asked again.
            answers.extend(missing.iter().map(|replica| (replica.replica, Err("not asked".to_owned()))));
            let mut questions: JoinSet<_> = missing.into_iter().map(|replica| ask(self.identity.clone(), replica)).collect();
            while let Some(answer) = questions.join_next().await {
                answers.extend(answer);
            }
            if let Some(best) = answers.values().flatten().max_by_key(|view| (leads(view), view.term, view.committed_index)) {
                view = best.clone();
            }
        }
    }
}

async fn ask(identity: Identity, replica: ReplicaView) -> (u64, Result<ClusterView, String>) {
    let answer = tokio::time::timeout(ASK, async {
        let channel = connect(&replica.address, &identity, PeerKind::Scheduler)
            .await
            .map_err(|error| without_address(&plain_error(&error), &replica.address))?;
        let mut client = ClientClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = Request::new(ShowClusterRequest {});
        request.set_timeout(ASK);
        client.show_cluster(request).await.map_err(|status| plain_status(&status))
    });
    let answer = match answer.await {
        Ok(answer) => answer.map(tonic::Response::into_inner).and_then(|view| named(view, &replica)),
        Err(_) => Err(format!("no answer within {} s", ASK.as_secs())),
    };
    (replica.replica, answer)
}

/// The address stands in its own column.
fn without_address(reason: &str, address: &str) -> String {
    reason.strip_prefix(&format!("cannot reach {address}: ")).unwrap_or(reason).to_owned()
}

/// Another replica may have taken over the address of one that is gone.
fn named(view: ClusterView, replica: &ReplicaView) -> Result<ClusterView, String> {
    if view.answered_by == replica.replica { Ok(view) } else { Err(format!("replica {} answers there", view.answered_by)) }
}

fn leads(view: &ClusterView) -> bool {
    view.leader != 0 && view.leader == view.answered_by
}

impl Survey {
    /// The replica that says itself that it leads; of several, that of the highest term, for the others are deposed and do not know it yet.
    pub fn leader(&self) -> Option<u64> {
        self.answers.values().flatten().filter(|view| leads(view)).max_by_key(|view| view.term).map(|view| view.leader)
    }

    /// When nobody leads: whom the others followed last.
    pub fn last_leader(&self) -> Option<u64> {
        let named = self.answers.values().flatten().filter(|view| view.leader != 0).max_by_key(|view| view.term).map(|view| view.leader);
        named.filter(|_| self.leader().is_none())
    }

    pub fn voters(&self) -> usize {
        self.view.replicas.iter().filter(|replica| replica.voter).count()
    }

    pub fn answering_voters(&self) -> usize {
        self.view.replicas.iter().filter(|replica| replica.voter && self.answer(replica.replica).is_ok()).count()
    }

    pub fn needed(&self) -> usize {
        self.voters() / 2 + 1
    }

    pub fn has_majority(&self) -> bool {
        self.answering_voters() >= self.needed()
    }

    pub fn answer(&self, replica: u64) -> Result<&ClusterView, &str> {
        match self.answers.get(&replica) {
            Some(Ok(view)) => Ok(view),
            Some(Err(reason)) => Err(reason),
            None => Err("not asked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `claims`: whom each replica names as leader, in which term; `None` for one that does not answer.
    fn survey(claims: &[Option<(u64, u64)>]) -> Survey {
        let replicas: Vec<ReplicaView> =
            (1..=claims.len() as u64).map(|replica| ReplicaView { replica, voter: true, ..ReplicaView::default() }).collect();
        let answers: BTreeMap<u64, Result<ClusterView, String>> = (1..)
            .zip(claims)
            .map(|(answered_by, claim)| match claim {
                Some((leader, term)) => (
                    answered_by,
                    Ok(ClusterView { answered_by, leader: *leader, term: *term, replicas: replicas.clone(), ..ClusterView::default() }),
                ),
                None => (answered_by, Err("gone".into())),
            })
            .collect();
        Survey { view: ClusterView { replicas, ..ClusterView::default() }, answers }
    }

    #[test]
    fn a_follower_that_names_a_dead_leader_is_not_believed() {
        let lonely = survey(&[None, None, Some((1, 7))]);
        assert_eq!((lonely.leader(), lonely.last_leader(), lonely.has_majority()), (None, Some(1), false));
        let electing = survey(&[None, Some((1, 7)), Some((0, 8))]);
        assert_eq!((electing.leader(), electing.last_leader(), electing.has_majority()), (None, Some(1), true));
    }

    #[test]
    fn of_two_that_claim_to_lead_the_later_term_does() {
        let survey = survey(&[Some((1, 7)), Some((2, 9)), Some((2, 9))]);
        assert_eq!((survey.leader(), survey.last_leader()), (Some(2), None));
    }
}
