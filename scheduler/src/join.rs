//! How a new replica becomes a member: the token buys an identity, the leader makes it a voter.

use crate::config::{SchedulerConfig, StartError};
use crate::services::LEADER_KEY;
use raftwerk_proto::v1::join_client::JoinClient;
use raftwerk_proto::v1::raft_client::RaftClient;
use raftwerk_proto::v1::{AddReplicaRequest, JoinReply, JoinRequest, RaftNode};
use raftwerk_transport::{
    Authority, CALL_DEADLINE, ConnectError, Identity, JoinToken, PeerKind, PendingIdentity, connect, connect_to_join,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tonic::{Code, Request, Status};

/// An election may be under way when a replica knocks.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// Catching up a new replica moves a snapshot.
const ADD_DEADLINE: Duration = Duration::from_secs(60);

/// Whether another try, perhaps elsewhere, can help.
fn passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::FailedPrecondition | Code::DeadlineExceeded | Code::Cancelled)
        && (status.code() != Code::FailedPrecondition || leader_of(status).is_some())
}

fn leader_of(status: &Status) -> Option<String> {
    status.metadata().get(LEADER_KEY)?.to_str().ok().filter(|a| !a.is_empty()).map(str::to_string)
}

/// Asks the addresses in turn, and the leader they name, until one gives an identity.
pub(crate) async fn obtain_identity(
    config: &SchedulerConfig,
    address: &str,
    addresses: &[String],
    token: &JoinToken,
) -> Result<(Identity, Authority, Vec<String>), StartError> {
    let started = Instant::now();
    let mut queue: VecDeque<String> = addresses.iter().cloned().collect();
    let mut last = "no address was given".to_string();
    while started.elapsed() < PATIENCE {
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
                last = error.to_string();
                continue;
            }
            Err(error) => return Err(StartError::Join(error.to_string())),
        };
        let pending = PendingIdentity::new().map_err(|e| StartError::Join(e.to_string()))?;
        let mut request = Request::new(JoinRequest {
            protocol_version: raftwerk_proto::PROTOCOL_VERSION,
            kind: PeerKind::Scheduler.to_string(),
            name: config.name.clone(),
            address: address.to_string(),
            token_secret: token.secret.clone(),
            certificate_request_der: pending.request_der().into(),
        });
        request.set_timeout(CALL_DEADLINE);
        match JoinClient::new(channel).join(request).await {
            Ok(reply) => return complete(pending, reply.into_inner()),
            Err(status) if passing(&status) => {
                last = status.message().to_string();
                if let Some(leader) = leader_of(&status) {
                    queue.push_front(leader);
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(StartError::Join(status.message().to_string())),
        }
    }
    Err(StartError::Unreachable(format!("no scheduler let this replica in within {} s; the last answer: {last}", PATIENCE.as_secs())))
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
    let started = Instant::now();
    let mut queue: VecDeque<String> = addresses.iter().cloned().collect();
    let mut last = String::new();
    while started.elapsed() < PATIENCE + ADD_DEADLINE {
        let Some(next) = queue.pop_front() else {
            tokio::time::sleep(PAUSE).await;
            queue.extend(addresses.iter().cloned());
            continue;
        };
        let channel = match connect(&next, identity, PeerKind::Scheduler).await {
            Ok(channel) => channel,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        let node = RaftNode { id: identity.peer().id, name: name.to_string(), address: address.to_string() };
        let mut request = Request::new(AddReplicaRequest { node: Some(node) });
        request.set_timeout(ADD_DEADLINE);
        match RaftClient::new(channel).add_replica(request).await {
            Ok(_) => return Ok(()),
            Err(status) => {
                last = status.message().to_string();
                if let Some(leader) = leader_of(&status) {
                    queue.push_front(leader);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    Err(StartError::Join(format!("the cluster did not make this replica a voter in time; the last answer: {last}")))
}
