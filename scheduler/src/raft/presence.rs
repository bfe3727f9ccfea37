//! A leader whose process or machine has gone is missed at once, not after an election time-out.
//!
//! Every follower holds a stream open at the leader. When the leader's process dies, its host closes the connection and the stream breaks;
//! the follower then asks for pre-votes until the leader's lease is over and somebody grants them. While the leader lives nothing is lost by
//! asking: its heartbeats renew the lease, and a pre-vote that is refused leaves no trace. Silence without a broken connection (a pulled
//! cable, a stopped process) is still found by the election time-out.
//!
//! Followers take turns by their rank, because two that ask in the same moment would each vote for themselves.

use std::time::Duration;

use futures::{Stream, stream};
use openraft::impls::TokioRuntime;
use raftwerk_proto::v1::{self as pb, raft_client::RaftClient};
use raftwerk_transport::{Identity, PeerKind, connect};
use tokio::sync::watch;
use tonic::{Request, Status};

use super::leadership::Leadership;
use super::replica::Replica;
use super::state_machine::StateMachine;

/// Between two attempts of one follower: more than a round of pre-votes takes.
const TURN: Duration = Duration::from_millis(40);
/// After this the ordinary time-out has called elections of its own.
const PERSISTENCE: Duration = Duration::from_secs(2);
/// Before the stream is opened again after it could not be.
const PAUSE: Duration = Duration::from_millis(500);

/// The leader's side: one message, and silence for as long as `id` leads.
pub(super) fn shown(leadership: watch::Receiver<Leadership>, id: u64) -> impl Stream<Item = Result<pb::PresenceReply, Status>> + Send {
    enum Say {
        Here,
        Gone,
    }
    stream::unfold((leadership, Say::Here), move |(mut leadership, say)| async move {
        let leads = |l: &Leadership| l.leader.as_ref().is_some_and(|(leader, _)| *leader == id);
        match say {
            Say::Here if leads(&leadership.borrow()) => Some((Ok(pb::PresenceReply {}), (leadership, Say::Gone))),
            Say::Here => Some((Err(Status::failed_precondition("this replica does not lead")), (leadership, Say::Gone))),
            Say::Gone => {
                // An error means that the replica has stopped.
                let _ = leadership.wait_for(|l| !leads(l)).await;
                None
            }
        }
    })
}

/// The followers' side. Ends with the replica.
pub(super) async fn watch<S: StateMachine>(
    replica: impl Fn() -> Option<Replica<S, TokioRuntime>>,
    mut leadership: watch::Receiver<Leadership>,
    id: u64,
    identity: Identity,
) {
    loop {
        let leader = leadership.borrow_and_update().leader.clone();
        let Some((leader, address)) = leader.filter(|(leader, address)| *leader != id && !address.is_empty()) else {
            if leadership.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = until_gone(leader, &address, &identity) => {
                tracing::debug!(leader, address, "the connection to the leader broke");
                if tokio::time::timeout(PERSISTENCE, replace(&replica, &leadership, leader)).await == Ok(None) {
                    return;
                }
            }
        }
    }
}

/// Returns when a stream to the leader has stood and broken. An orderly end is not the leader's death: it tells that it leads no longer.
async fn until_gone(leader: u64, address: &str, identity: &Identity) {
    loop {
        if let Ok(channel) = connect(address, identity, PeerKind::Scheduler).await
            && let Ok(answer) = RaftClient::new(channel).presence(Request::new(pb::PresenceRequest { to: leader })).await
        {
            let mut stream = answer.into_inner();
            if stream.message().await.is_ok_and(|first| first.is_some()) && stream.message().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks for pre-votes in turn until another leads; `None` once the replica has stopped.
async fn replace<S: StateMachine>(
    replica: &impl Fn() -> Option<Replica<S, TokioRuntime>>,
    leadership: &watch::Receiver<Leadership>,
    gone: u64,
) -> Option<()> {
    let Some(rank) = replica()?.rank_without(gone) else { return Some(()) };
    // Half a turn apart for two; more share it out.
    tokio::time::sleep(TURN * rank.min(4) as u32 / 2).await;
    while leadership.borrow().leader.as_ref().is_some_and(|(leader, _)| *leader == gone) {
        replica()?.call_election().await;
        tokio::time::sleep(TURN).await;
    }
    Some(())
}
