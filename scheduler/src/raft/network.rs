//! The gRPC client side: how this replica reaches the others.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, stream};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::impls::TokioRuntime;
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use raftwerk_proto::v1::{self as pb, raft_client::RaftClient};
use raftwerk_transport::{Identity, MAX_MESSAGE_BYTES, PeerKind, connect_lazy};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::coalesce::{Appending, coalesce};
use super::convert::{
    append_to_pb, appended_from_pb, ask_vote_to_pb, snapshot_meta_to_pb, transfer_to_pb, transferred_from_pb, vote_from_pb, vote_to_pb,
    voted_from_pb,
};
use super::fault::Fault;
use super::server::{REMOVED_KEY, removed_text};
use super::state_machine::StateMachine;
use super::types::{Node, Snapshot, Types, Vote};

/// Bytes of a snapshot in one message.
pub const SNAPSHOT_CHUNK: usize = 1 << 20;

/// The least time a message with entries may take. openraft suggests one heartbeat, but the follower answers only after a flush, and one
/// slow flush must not make the leader send everything again.
pub(super) const LEAST_APPEND_TIME: Duration = Duration::from_secs(1);

type C<S> = Types<S, TokioRuntime>;

/// A connection on which nothing was heard for so long, although something was asked, is made anew. After a repaired cut TCP may wait as
/// long again as the cut lasted before it tries, and HTTP/2's own keep-alive is slower than an election.
const SILENCE: Duration = Duration::from_secs(1);

/// Makes the clients. Replication, heartbeats and votes to one replica share a connection; each snapshot has its own, because on a shared
/// one its megabytes would stand in front of the heartbeats.
pub struct Network {
    id: u64,
    lines: Lines,
    /// Raised when another replica says that this one was taken out of the cluster.
    removed: Fault,
}

/// One connection per replica, shared by everything that is small.
#[derive(Clone)]
pub(super) struct Lines {
    identity: Identity,
    lines: Arc<Mutex<HashMap<u64, Arc<Line>>>>,
}

impl Lines {
    fn to(&self, target: u64, address: &str) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(|e| e.into_inner());
        match lines.get(&target) {
            Some(line) if line.address == address => line.clone(),
            _ => {
                let line = Arc::new(Line::new(address, &self.identity));
                lines.insert(target, line.clone());
                line
            }
        }
    }

    pub(super) fn client(&self, target: u64, address: &str) -> Result<RaftClient<Channel>, String> {
        self.to(target, address).client()
    }
}

impl Network {
    pub fn new(id: u64, identity: Identity) -> Self {
        Network { id, lines: Lines { identity, lines: Arc::default() }, removed: Fault::default() }
    }

    pub(super) fn removed(&self) -> Fault {
        self.removed.clone()
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    fn connection(&self, target: u64, line: Arc<Line>, least_append: Duration) -> Connection {
        Connection { id: self.id, target, line, least_append, removed: self.removed.clone() }
    }
}

impl<S: StateMachine> RaftNetworkFactory<C<S>> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Node) -> Connection {
        let line = self.lines.to(target, &node.address);
        self.connection(target, line, LEAST_APPEND_TIME)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Connection {
        let line = self.lines.to(target, &node.address);
        self.connection(target, line, Duration::ZERO)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> Connection {
        let line = Arc::new(Line::new(&node.address, &self.lines.identity));
        self.connection(target, line, LEAST_APPEND_TIME)
    }
}

/// One connection to an address, as long as it answers.
struct Line {
    address: String,
    identity: Identity,
    now: Mutex<LineNow>,
}

struct LineNow {
    client: Result<RaftClient<Channel>, String>,
    /// Since when questions have been running out of time.
    silent_since: Option<Instant>,
}

impl Line {
    fn new(address: &str, identity: &Identity) -> Self {
        let now = Mutex::new(LineNow { client: dial(address, identity), silent_since: None });
        Line { address: address.to_owned(), identity: identity.clone(), now }
    }

    fn client(&self) -> Result<RaftClient<Channel>, String> {
        self.lock().client.clone()
    }

    fn answered(&self) {
        self.lock().silent_since = None;
    }

    fn silent(&self) {
        let mut now = self.lock();
        if now.silent_since.get_or_insert_with(Instant::now).elapsed() > SILENCE {
            *now = LineNow { client: dial(&self.address, &self.identity), silent_since: None };
        }
    }

    fn lock(&self) -> MutexGuard<'_, LineNow> {
        self.now.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Connects at the first call and again after a failure.
fn dial(address: &str, identity: &Identity) -> Result<RaftClient<Channel>, String> {
    let channel = connect_lazy(address, identity, PeerKind::Scheduler).map_err(|e| e.to_string())?;
    Ok(RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// A client of one other replica.
pub struct Connection {
    id: u64,
    target: u64,
    line: Arc<Line>,
    least_append: Duration,
    removed: Fault,
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
        let client = self.line.client().map_err(|why| RPCError::Unreachable(Unreachable::from_string(why)))?;
        let mut request = Request::new(message);
        request.set_timeout(limit);
        match tokio::time::timeout(limit, call(client, request)).await {
            Ok(Ok(answer)) => {
                self.line.answered();
                Ok(answer.into_inner())
            }
            Ok(Err(status)) if !matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => {
                self.line.answered();
                if status.metadata().contains_key(REMOVED_KEY) {
                    self.removed.raise(removed_text(self.id, &format!("replica {}", self.target)));
                }
                Err(self.unreachable(&status))
            }
            Ok(Err(_)) | Err(_) => {
                self.line.silent();
                Err(RPCError::Timeout(Timeout { action, id: self.id, target: self.target, timeout: limit }))
            }
        }
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

    fn stream_append<'s, I>(&'s mut self, requests: I, option: RPCOption) -> Appending<'s, C<S>>
    where
        I: Stream<Item = AppendEntriesRequest<C<S>>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, coalesce(requests), option)
    }

    async fn vote(&mut self, rpc: VoteRequest<C<S>>, option: RPCOption) -> Result<VoteResponse<C<S>>, RPCError<C<S>>> {
        let message = ask_vote_to_pb(self.target, &rpc);
        let reply =
            self.call(RPCTypes::Vote, option.soft_ttl(), message, |mut client, request| async move { client.vote(request).await }).await?;
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
