//! The gRPC client side: how this replica reaches the others.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::impls::TokioRuntime;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use raftwerk_proto::v1::{self as pb, raft_client::RaftClient};
use raftwerk_transport::{Identity, MAX_MESSAGE_BYTES, PeerKind, connect_lazy};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::convert::{
    append_to_pb, appended_from_pb, ask_vote_to_pb, snapshot_meta_to_pb, transfer_to_pb, transferred_from_pb, vote_from_pb, vote_to_pb,
    voted_from_pb,
};
use super::state_machine::StateMachine;
use super::types::{Node, Snapshot, Types, Vote};

/// Bytes of a snapshot in one message.
pub const SNAPSHOT_CHUNK: usize = 1 << 20;

/// The least time a message with entries may take. openraft suggests one heartbeat, but the follower answers only after a flush, and one
/// slow flush must not make the leader send everything again.
pub(super) const LEAST_APPEND_TIME: Duration = Duration::from_secs(1);

type C<S> = Types<S, TokioRuntime>;

/// Makes the clients. Replication, heartbeats and votes to one replica share a connection; each snapshot has its own, because on a shared
/// one its megabytes would stand in front of the heartbeats.
pub struct Network {
    id: u64,
    identity: Identity,
    channels: HashMap<u64, (String, Result<Channel, String>)>,
}

impl Network {
    pub fn new(id: u64, identity: Identity) -> Self {
        Network { id, identity, channels: HashMap::new() }
    }

    fn dial(&self, address: &str) -> Result<Channel, String> {
        connect_lazy(address, &self.identity, PeerKind::Scheduler).map_err(|e| e.to_string())
    }

    fn shared(&mut self, target: u64, address: &str) -> Result<Channel, String> {
        if let Some((known, channel)) = self.channels.get(&target)
            && known == address
        {
            return channel.clone();
        }
        let channel = self.dial(address);
        self.channels.insert(target, (address.to_owned(), channel.clone()));
        channel
    }

    fn connection(&self, target: u64, channel: Result<Channel, String>, least_append: Duration) -> Connection {
        let client = channel.map(|channel| {
            RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
        });
        Connection { id: self.id, target, client, least_append }
    }
}

impl<S: StateMachine> RaftNetworkFactory<C<S>> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Node) -> Connection {
        let channel = self.shared(target, &node.address);
        self.connection(target, channel, LEAST_APPEND_TIME)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Connection {
        let channel = self.shared(target, &node.address);
        self.connection(target, channel, Duration::ZERO)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> Connection {
        let channel = self.dial(&node.address);
        self.connection(target, channel, LEAST_APPEND_TIME)
    }
}

/// A client of one other replica. tonic connects at the first call and again after a failure.
pub struct Connection {
    id: u64,
    target: u64,
    client: Result<RaftClient<Channel>, String>,
    least_append: Duration,
}

impl Connection {
    /// One call with its deadline, told to the server as well so that it does not work for nobody.
    async fn call<S, M, A, F>(
        &self,
        action: RPCTypes,
        limit: Duration,
        message: M,
        call: impl FnOnce(RaftClient<Channel>, Request<M>) -> F,
    ) -> Result<A, RPCError<C<S>>>
    where
        S: StateMachine,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let client = self.client.clone().map_err(|why| RPCError::Unreachable(Unreachable::from_string(why)))?;
        let mut request = Request::new(message);
        request.set_timeout(limit);
        match tokio::time::timeout(limit, call(client, request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => Err(self.timed_out(action, limit)),
            Ok(Err(status)) => Err(self.unreachable(&status)),
            Err(_) => Err(self.timed_out(action, limit)),
        }
    }

    fn timed_out<S: StateMachine>(&self, action: RPCTypes, timeout: Duration) -> RPCError<C<S>> {
        RPCError::Timeout(Timeout { action, id: self.id, target: self.target, timeout })
    }

    /// Always "unreachable", which makes openraft wait a little before the next try: no status is better answered at once.
    fn unreachable<S: StateMachine>(&self, why: &impl ToString) -> RPCError<C<S>> {
        RPCError::Unreachable(Unreachable::from_string(format!("replica {}: {}", self.target, why.to_string())))
    }
}

impl<S: StateMachine> RaftNetworkV2<C<S>> for Connection {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C<S>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C<S>>, RPCError<C<S>>> {
        let limit = option.soft_ttl().max(self.least_append);
        let message = append_to_pb(self.target, &rpc);
        let reply = self
            .call(RPCTypes::AppendEntries, limit, message, |mut client, request| async move { client.append_entries(request).await })
            .await?;
        appended_from_pb(&reply).map_err(|e| self.unreachable(&e))
    }

    async fn vote(&mut self, rpc: VoteRequest<C<S>>, option: RPCOption) -> Result<VoteResponse<C<S>>, RPCError<C<S>>> {
        let message = ask_vote_to_pb(self.target, &rpc);
        let reply = self
            .call(RPCTypes::Vote, option.soft_ttl(), message, |mut client, request| async move { client.vote(request).await })
            .await?;
        voted_from_pb(&reply).map_err(|e| self.unreachable(&e))
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C<S>>, option: RPCOption) -> Result<VoteResponse<C<S>>, RPCError<C<S>>> {
        let message = ask_vote_to_pb(self.target, &rpc);
        let reply = self
            .call(RPCTypes::Vote, option.soft_ttl(), message, |mut client, request| async move { client.pre_vote(request).await })
            .await?;
        voted_from_pb(&reply).map_err(|e| self.unreachable(&e))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C<S>>, StreamingError<C<S>>> {
        let chunks = stream::iter(chunks(self.target, &vote, snapshot));
        let sent = self.call(RPCTypes::InstallSnapshot, option.soft_ttl(), chunks, |mut client, request| async move {
            client.install_snapshot(request).await
        });
        let reply: pb::SnapshotReply = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = sent => reply?,
        };
        let vote = reply.vote.as_ref().map(vote_from_pb).ok_or_else(|| self.unreachable::<S>(&"it answered without its vote"))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C<S>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C<S>>, RPCError<C<S>>> {
        let message = transfer_to_pb(&req);
        let reply = self
            .call(RPCTypes::TransferLeader, option.soft_ttl(), message, |mut client, request| async move {
                client.transfer_leader(request).await
            })
            .await?;
        Ok(transferred_from_pb(&req, &reply))
    }
}

/// The messages of one snapshot; the bytes are slices of it. An empty state still takes one message.
pub fn chunks(to: u64, vote: &Vote, snapshot: Snapshot) -> impl Iterator<Item = pb::SnapshotChunk> + use<> {
    let Snapshot { meta, snapshot: mut rest } = snapshot;
    let mut head = Some(pb::SnapshotChunk {
        vote: Some(vote_to_pb(vote)),
        meta: Some(snapshot_meta_to_pb(&meta)),
        total_bytes: rest.len() as u64,
        to,
        data: Bytes::new(),
    });
    std::iter::from_fn(move || {
        if head.is_none() && rest.is_empty() {
            return None;
        }
        let mut chunk = head.take().unwrap_or_default();
        chunk.data = rest.split_to(rest.len().min(SNAPSHOT_CHUNK));
        Some(chunk)
    })
}
