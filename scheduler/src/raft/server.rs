//! The gRPC server side: what other replicas may ask of this one. Schedulers only.

use std::pin::Pin;

use futures::Stream;
use openraft::impls::TokioRuntime;
use raftwerk_proto::v1::{self as pb, raft_server::Raft};
use raftwerk_transport::{PeerKind, require};
use tonic::{Request, Response, Status, Streaming};

use super::handle::Refused;
use super::presence;
use super::replica::{ProposeError, Replica};
use super::state_machine::StateMachine;
use super::types::Node;
use crate::versions::cannot_read;

pub struct RaftService<S: StateMachine>(pub(super) Replica<S, TokioRuntime>);

/// Metadata key on the refusal of a replica that was taken out of the cluster for good.
pub const REMOVED_KEY: &str = "raftwerk-removed";

/// What such a replica tells its operator.
pub(crate) fn removed_text(id: u64, says: &str) -> String {
    format!(
        "replica {id} was taken out of the cluster, says {says}. Its data directory cannot be used again: move it away, and start a new \
         replica in an empty one with `raftwerk scheduler start --join ADDRESS --token-file FILE`"
    )
}

/// The sender's replica id, from its certificate.
fn sender<T>(request: &Request<T>) -> Result<u64, Status> {
    Ok(require(request, &[PeerKind::Scheduler])?.id)
}

impl From<Refused> for Status {
    fn from(why: Refused) -> Self {
        let text = why.to_string();
        match why {
            Refused::Malformed(_) | Refused::CutShort { .. } => Status::invalid_argument(text),
            Refused::NotHere { .. } => Status::failed_precondition(text),
            Refused::NotTheSender { .. } => Status::permission_denied(text),
            Refused::Stopped(_) => Status::unavailable(text),
            Refused::Removed(_) => {
                let mut status = Status::permission_denied(text);
                status.metadata_mut().insert(REMOVED_KEY, tonic::metadata::MetadataValue::from_static("true"));
                status
            }
        }
    }
}

#[tonic::async_trait]
impl<S: StateMachine> Raft for RaftService<S> {
    async fn append_entries(&self, request: Request<pb::AppendEntriesRequest>) -> Result<Response<pb::AppendEntriesReply>, Status> {
        let sender = sender(&request)?;
        Ok(Response::new(self.0.handler().append(sender, request.into_inner()).await?))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let sender = sender(&request)?;
        Ok(Response::new(self.0.handler().vote(sender, request.into_inner()).await?))
    }

    async fn pre_vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteReply>, Status> {
        let sender = sender(&request)?;
        Ok(Response::new(self.0.handler().pre_vote(sender, request.into_inner()).await?))
    }

    async fn install_snapshot(&self, request: Request<Streaming<pb::SnapshotChunk>>) -> Result<Response<pb::SnapshotReply>, Status> {
        let sender = sender(&request)?;
        let mut chunks = request.into_inner();
        let head = chunks.message().await?.ok_or_else(|| Status::invalid_argument("a snapshot without a first chunk"))?;
        let mut incoming = self.0.handler().begin_snapshot(sender, head)?;
        while let Some(chunk) = chunks.message().await? {
            incoming.add(chunk.data);
        }
        Ok(Response::new(self.0.handler().install(incoming).await?))
    }

    async fn transfer_leader(&self, request: Request<pb::TransferLeaderRequest>) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let sender = sender(&request)?;
        Ok(Response::new(self.0.handler().transfer(sender, request.into_inner()).await?))
    }

    type PresenceStream = Pin<Box<dyn Stream<Item = Result<pb::PresenceReply, Status>> + Send>>;

    async fn presence(&self, request: Request<pb::PresenceRequest>) -> Result<Response<Self::PresenceStream>, Status> {
        sender(&request)?;
        let (id, to) = (self.0.id(), request.into_inner().to);
        if to != id {
            return Err(Refused::NotHere { to, here: id }.into());
        }
        Ok(Response::new(Box::pin(presence::shown(self.0.leadership(), self.0.versions()))))
    }

    async fn add_replica(&self, request: Request<pb::AddReplicaRequest>) -> Result<Response<pb::AddReplicaReply>, Status> {
        let sender = sender(&request)?;
        let pb::AddReplicaRequest { node, versions } = request.into_inner();
        let node = node.ok_or_else(|| Status::invalid_argument("the request names no replica"))?;
        if node.id != sender {
            return Err(Refused::NotTheSender { claimed: node.id, sender }.into());
        }
        if self.0.is_removed(sender) {
            return Err(Refused::Removed(sender).into());
        }
        let joining = self.0.peers().admit(node.id, pb::Versions::reads(versions.as_ref()), self.0.log_format());
        let _joining = joining.map_err(|needed| Status::invalid_argument(cannot_read(needed, versions.as_ref())))?;
        match self.0.add_voter(node.id, &node.name, &node.address).await {
            Ok(()) => {}
            Err(ProposeError::NotLeader { leader: Some((id, address)) }) => {
                let leader = Node { name: String::new(), address };
                return Ok(Response::new(pb::AddReplicaReply {
                    members: Vec::new(),
                    leader: Some(super::convert::node_to_pb(id, &leader)),
                }));
            }
            Err(e) => return Err(Status::unavailable(e.to_string())),
        }
        let members = self.0.status().members.into_iter();
        let members = members.map(|m| pb::RaftNode { id: m.id, name: m.name, address: m.address }).collect();
        Ok(Response::new(pb::AddReplicaReply { members, leader: None }))
    }
}
