//! A leader whose process or machine has gone is missed at once, not after an election time-out.
//!
//! Replicas hold a stream open at one another. When the leader's process dies, its host closes the connection and the stream breaks;
//! a follower then asks for pre-votes until the leader's lease is over and somebody grants them. While the leader lives nothing is lost by
//! asking: its heartbeats renew the lease, and a pre-vote that is refused leaves no trace. Silence without a broken connection (a pulled
//! cable, a stopped process) is still found by the election time-out.
//!
//! The streams run on the connections that votes use, and so those stand before they are needed: in the moment in which a leader has died, a
//! new connection would wait among those of all its workers.
//!
//! Followers take turns by their rank, because two that ask in the same moment would each vote for themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use openraft::impls::TokioRuntime;
use openraft::type_config::AsyncRuntime;
use raftwerk_proto::v1 as pb;
use raftwerk_transport::CALL_DEADLINE;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::{Request, Status, Streaming};

use super::fault::Fault;
use super::leadership::Leadership;
use super::network::Lines;
use super::replica::Replica;
use super::state_machine::StateMachine;
use super::versions::Peers;
use crate::versions::misfits;

/// Between two attempts of one follower: more than a round of pre-votes takes.
const TURN: Duration = Duration::from_millis(40);
/// After this the ordinary time-out has called elections of its own.
pub(super) const PERSISTENCE: Duration = Duration::from_secs(10);
/// Before a stream is opened again after it could not be, and between two looks at who is a member.
const PAUSE: Duration = Duration::from_millis(500);
/// A replica that is older than this has found its place; whoever comes now has to fit it.
const START: Duration = Duration::from_secs(10);

/// The answering side: one message, and then nothing until this replica stops.
pub(super) fn shown(
    leadership: watch::Receiver<Leadership>,
    versions: Option<pb::Versions>,
) -> impl Stream<Item = Result<pb::PresenceReply, Status>> + Send {
    stream::unfold((leadership, Some(pb::PresenceReply { versions })), |(mut leadership, reply)| async move {
        if let Some(reply) = reply {
            return Some((Ok(reply), (leadership, None)));
        }
        while leadership.changed().await.is_ok() {}
        None
    })
}

/// The asking side. Ends with the replica.
pub(super) async fn watch<S: StateMachine>(
    replica: impl Fn() -> Option<Replica<S, TokioRuntime>>,
    mut leadership: watch::Receiver<Leadership>,
    lines: Lines,
    misfit: Fault,
) {
    let begun = Instant::now();
    let (gone, mut news) = mpsc::unbounded_channel();
    let mut watches: BTreeMap<u64, (String, JoinSet<()>)> = BTreeMap::new();
    loop {
        let Some((others, peers)) = replica().map(|r| (r.others(), r.peers().clone())) else { return };
        watches.retain(|id, (address, _)| others.get(id) == Some(address));
        for (id, address) in others {
            watches.entry(id).or_insert_with(|| {
                let mut task = JoinSet::new();
                let other = Other { id, address: address.clone(), lines: lines.clone(), peers: peers.clone() };
                let misfit = Misfit { until: begun + START, reads: S::reads(), raise: misfit.clone() };
                task.spawn(watch_one(other, misfit, gone.clone()));
                (address, task)
            });
        }
        let lost = tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return } else { None },
            lost = news.recv() => lost,
            () = tokio::time::sleep(PAUSE) => None,
        };
        let Some(lost) = lost.filter(|lost| leads(&leadership, *lost)) else { continue };
        tracing::debug!(leader = lost, "the connection to the leader broke");
        let leads = || leads(&leadership, lost);
        if tokio::time::timeout(PERSISTENCE, replace(&replica, leads, lost)).await == Ok(None) {
            return;
        }
    }
}

fn leads(leadership: &watch::Receiver<Leadership>, id: u64) -> bool {
    leadership.borrow().leader.as_ref().is_some_and(|(leader, _)| *leader == id)
}

/// A replica that is watched.
struct Other {
    id: u64,
    address: String,
    lines: Lines,
    peers: Peers,
}

/// A replica that is just starting looks whether its release fits the ones that run, and gives way if not.
struct Misfit {
    until: Instant,
    reads: u32,
    raise: Fault,
}

impl Misfit {
    fn look(&self, other: &Other, said: Option<&pb::Versions>) {
        if Instant::now() < self.until
            && let Some(why) = misfits(self.reads, &format!("replica {} at {}", other.id, other.address), said)
        {
            self.raise.raise(why);
        }
    }
}

/// Tells whenever a stream to the replica has stood and broken. An orderly end tells that it stops, and that it is no leader any more.
async fn watch_one(other: Other, misfit: Misfit, gone: mpsc::UnboundedSender<u64>) {
    loop {
        // It may stand for days; that the other host is there is asked by HTTP/2 pings.
        if let Some((mut stream, said)) = open(other.id, &other.address, &other.lines).await {
            misfit.look(&other, said.as_ref());
            let heard = other.peers.hear(other.id, said);
            let end = stream.message().await;
            drop(heard);
            if end.is_err() && gone.send(other.id).is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A stream whose first message has come, and what it says.
async fn open(id: u64, address: &str, lines: &Lines) -> Option<(Streaming<pb::PresenceReply>, Option<pb::Versions>)> {
    let mut client = lines.client(id, address).ok()?;
    let opened = tokio::time::timeout(CALL_DEADLINE, client.presence(Request::new(pb::PresenceRequest { to: id }))).await;
    let mut stream = opened.ok()?.ok()?.into_inner();
    let first = tokio::time::timeout(CALL_DEADLINE, stream.message()).await.ok()?.ok()??;
    Some((stream, first.versions))
}

/// Asks for pre-votes in turn until another leads; `None` once the replica has stopped.
pub(super) async fn replace<S: StateMachine, Rt: AsyncRuntime>(
    replica: &impl Fn() -> Option<Replica<S, Rt>>,
    leads: impl Fn() -> bool,
    gone: u64,
) -> Option<()> {
    let Some(rank) = replica()?.rank_without(gone) else { return Some(()) };
    // Half a turn apart for two; more share it out.
    Rt::sleep(TURN * rank.min(4) as u32 / 2).await;
    while leads() {
        replica()?.call_election().await;
        Rt::sleep(TURN).await;
    }
    Some(())
}
