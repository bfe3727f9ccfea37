//! How a new replica becomes a member: the token buys an identity, the leader makes it a voter.

use crate::config::{SchedulerConfig, StartError};
use crate::machine::Replicated;
use crate::raft::{REMOVED_KEY, StateMachine, removed_text};
use crate::services::LEADER_KEY;
use raftwerk_proto::v1::join_client::JoinClient;
use raftwerk_proto::v1::raft_client::RaftClient;
use raftwerk_proto::v1::{AddReplicaRequest, JoinReply, JoinRequest, RaftNode, Versions};
use raftwerk_proto::{Window, own_versions};
use raftwerk_transport::{
    Authority, CALL_DEADLINE, ConnectError, Identity, JoinToken, PeerKind, PendingIdentity, connect, connect_to_join, plain_error,
    plain_status,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use tonic::{Code, Request, Status};

/// An election may be under way when a replica knocks.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Catching up a new replica moves a snapshot.
const ADD_DEADLINE: Duration = Duration::from_secs(60);

fn versions() -> Option<Versions> {
    own_versions(<Replicated as StateMachine>::reads())
}

/// Whether another try, perhaps elsewhere, can help.
fn passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::FailedPrecondition | Code::DeadlineExceeded | Code::Cancelled)
        && (status.code() != Code::FailedPrecondition || leader_of(status).is_some())
}

fn leader_of(status: &Status) -> Option<String> {
    status.metadata().get(LEADER_KEY)?.to_str().ok().filter(|a| !a.is_empty()).map(str::to_string)
}

/// What was asked, and what came of it, told while the asking goes on: a person who mistyped an address should not wait for the end of our
/// patience to read which one.
struct Knocking {
    doing: &'static str,
    until: Instant,
    answers: BTreeMap<String, String>,
}

impl Knocking {
    fn new(doing: &'static str, addresses: &[String], patience: Duration) -> Knocking {
        tracing::info!("{doing} through {}; giving up after {} s", addresses.join(", "), patience.as_secs());
        Knocking { doing, until: Instant::now() + patience, answers: BTreeMap::new() }
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn failed(&mut self, address: &str, reason: String) {
        if self.answers.get(address) != Some(&reason) {
            let left = self.until.saturating_duration_since(Instant::now()).as_secs();
            tracing::warn!("{}: {}; trying on for {left} s", self.doing, named(address, &reason));
        }
        self.answers.insert(address.to_string(), reason);
    }

    /// The last word of each address.
    fn said(&self) -> String {
        if self.answers.is_empty() {
            return "no address was given".into();
        }
        self.answers.iter().map(|(address, reason)| named(address, reason)).collect::<Vec<_>>().join("; ")
    }
}

/// A reason that names the address needs no heading.
fn named(address: &str, reason: &str) -> String {
    if reason.contains(address) { reason.to_string() } else { format!("{address}: {reason}") }
}

/// Asks the addresses in turn, and the leader they name, until one gives an identity.
pub(crate) async fn obtain_identity(
    config: &SchedulerConfig,
    address: &str,
    addresses: &[String],
    token: &JoinToken,
) -> Result<(Identity, Authority, Vec<String>), StartError> {
    let mut knocking = Knocking::new("joining the cluster", addresses, PATIENCE);
    let mut queue: VecDeque<String> = addresses.iter().cloned().collect();
    while knocking.goes_on() {
        let Some(next) = queue.pop_front() else {
            tokio::time::sleep(PAUSE).await;
            queue.extend(addresses.iter().cloned());
            if queue.is_empty() {
                break;
            }
            continue;
        };
        let channel = match connect_to_join(&next, token).await {
            Ok(channel) => channel,
            Err(error @ ConnectError::Unreachable { .. }) => {
                knocking.failed(&next, plain_error(&error));
                continue;
            }
            Err(error) => return Err(StartError::Join(plain_error(&error))),
        };
        let pending = PendingIdentity::new().map_err(|e| StartError::Join(e.to_string()))?;
        let mut request = Request::new(JoinRequest {
            protocol_version: Window::own().oldest,
            kind: PeerKind::Scheduler.to_string(),
            name: config.name.clone(),
            address: address.to_string(),
            token_secret: token.secret.clone(),
            certificate_request_der: pending.request_der().into(),
            versions: versions(),
        });
        request.set_timeout(CALL_DEADLINE);
        match JoinClient::new(channel).join(request).await {
            Ok(reply) => return complete(pending, reply.into_inner()),
            Err(status) if passing(&status) => {
                // Being sent on to the leader is the way in, not a failure.
                match leader_of(&status) {
                    Some(leader) => queue.push_front(leader),
                    None => knocking.failed(&next, plain_status(&status)),
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(StartError::Join(plain_status(&status))),
        }
    }
    Err(StartError::Unreachable(format!("no scheduler let this replica in within {} s: {}", PATIENCE.as_secs(), knocking.said())))
}

fn complete(pending: PendingIdentity, reply: JoinReply) -> Result<(Identity, Authority, Vec<String>), StartError> {
    let failed = |e: raftwerk_transport::IdentityError| StartError::Join(e.to_string());
    let identity = pending.complete(&reply.cluster, &reply.certificate_der, &reply.ca_certificate_der).map_err(failed)?;
    let authority =
        Authority::from_parts(&reply.cluster, &reply.ca_certificate_der, &reply.ca_key_pkcs8_der, &reply.token_sha256).map_err(failed)?;
    Ok((identity, authority, reply.scheduler_addresses))
}

/// Asks the leader to make this running replica a voter. Repeatable.
pub(crate) async fn become_voter(identity: &Identity, name: &str, address: &str, addresses: &[String]) -> Result<(), StartError> {
    let mut knocking = Knocking::new("becoming a voter of the cluster", addresses, PATIENCE + ADD_DEADLINE);
    let mut queue: VecDeque<String> = addresses.iter().cloned().collect();
    while knocking.goes_on() {
        let Some(next) = queue.pop_front() else {
            tokio::time::sleep(PAUSE).await;
            queue.extend(addresses.iter().cloned());
            continue;
        };
        let channel = match connect(&next, identity, PeerKind::Scheduler).await {
            Ok(channel) => channel,
            Err(error) => {
                knocking.failed(&next, plain_error(&error));
                continue;
            }
        };
        let node = RaftNode { id: identity.peer().id, name: name.to_string(), address: address.to_string() };
        let mut request = Request::new(AddReplicaRequest { node: Some(node), versions: versions() });
        request.set_timeout(ADD_DEADLINE);
        match RaftClient::new(channel).add_replica(request).await {
            Ok(reply) => match reply.into_inner().leader.map(|leader| leader.address).filter(|address| !address.is_empty()) {
                None => return Ok(()),
                // Nothing was done there: only the leader adds replicas.
                Some(leader) => {
                    queue.push_front(leader);
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Err(status) if status.metadata().contains_key(REMOVED_KEY) => {
                return Err(StartError::Removed(removed_text(identity.peer().id, &format!("the replica at {next}"))));
            }
            // It will not read the log tomorrow either.
            Err(status) if status.code() == Code::InvalidArgument => return Err(StartError::Join(plain_status(&status))),
            Err(status) => {
                match leader_of(&status) {
                    Some(leader) => queue.push_front(leader),
                    None => knocking.failed(&next, plain_status(&status)),
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Err(StartError::Join(format!("the cluster did not make this replica a voter in time: {}", knocking.said())))
}
