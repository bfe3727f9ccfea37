//! Between Raft's types and their protobuf messages, which are the form on the wire and, inside a record, on disk.

use std::collections::{BTreeMap, BTreeSet};

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use openraft::type_config::AsyncRuntime;
use raftwerk_proto::v1 as pb;

use super::StateMachine;
use super::types::{Entry, EntryPayload, LogId, Membership, Node, Payload, SnapshotMeta, StoredMembership, Types, Vote, log_id};

/// A message that lacks what it must have: damage, or a peer of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message has no valid {0}")]
pub struct Malformed(pub &'static str);

type Decoded<T> = Result<T, Malformed>;

// ---- Votes and log ids ----

pub fn vote_to_pb(vote: &Vote) -> pb::RaftVote {
    pb::RaftVote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

pub fn vote_from_pb(vote: &pb::RaftVote) -> Vote {
    if vote.committed { Vote::new_committed(vote.term, vote.node) } else { Vote::new(vote.term, vote.node) }
}

fn required_vote(vote: &Option<pb::RaftVote>) -> Decoded<Vote> {
    vote.as_ref().map(vote_from_pb).ok_or(Malformed("vote"))
}

pub fn log_id_to_pb(id: &LogId) -> pb::RaftLogId {
    pb::RaftLogId { term: id.leader_id.term, index: id.index }
}

pub fn log_id_from_pb(id: &pb::RaftLogId) -> LogId {
    log_id(id.term, id.index)
}

fn some_log_id_to_pb(id: &Option<LogId>) -> Option<pb::RaftLogId> {
    id.as_ref().map(log_id_to_pb)
}

fn some_log_id_from_pb(id: &Option<pb::RaftLogId>) -> Option<LogId> {
    id.as_ref().map(log_id_from_pb)
}

// ---- Membership ----

pub fn membership_to_pb(membership: &Membership) -> pb::RaftMembership {
    pb::RaftMembership {
        configs: membership.get_joint_config().iter().map(|voters| pb::VoterSet { voters: voters.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(id, node)| node_to_pb(*id, node)).collect(),
    }
}

pub fn membership_from_pb(membership: &pb::RaftMembership) -> Decoded<Membership> {
    let configs: Vec<BTreeSet<u64>> = membership.configs.iter().map(|set| set.voters.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, Node> =
        membership.nodes.iter().map(|n| (n.id, Node { name: n.name.clone(), address: n.address.clone() })).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default()); // the membership before the first one, which a constructor refuses
    }
    Membership::new(configs, nodes).map_err(|_| Malformed("membership"))
}

pub fn node_to_pb(id: u64, node: &Node) -> pb::RaftNode {
    pb::RaftNode { id, name: node.name.clone(), address: node.address.clone() }
}

// ---- Entries ----

pub fn entry_to_pb(entry: &Entry) -> pb::RaftEntry {
    use pb::raft_entry::Payload as P;
    let payload = match &entry.payload {
        EntryPayload::Blank => P::Blank(true),
        EntryPayload::Normal(payload) => P::Normal(payload.0.clone()),
        EntryPayload::Membership(membership) => P::Membership(membership_to_pb(membership)),
    };
    pb::RaftEntry { log_id: Some(log_id_to_pb(&entry.log_id)), payload: Some(payload) }
}

/// The payload keeps the buffer that the message was decoded from; nothing is copied.
pub fn entry_from_pb(entry: pb::RaftEntry) -> Decoded<Entry> {
    use pb::raft_entry::Payload as P;
    let log_id = some_log_id_from_pb(&entry.log_id).ok_or(Malformed("log id"))?;
    let payload = match entry.payload.ok_or(Malformed("payload of a kind this version knows"))? {
        P::Blank(_) => EntryPayload::Blank,
        P::Normal(bytes) => EntryPayload::Normal(Payload(bytes)),
        P::Membership(membership) => EntryPayload::Membership(membership_from_pb(&membership)?),
    };
    Ok(Entry { log_id, payload })
}

// ---- Snapshots ----

pub fn snapshot_meta_to_pb(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log_id: some_log_id_to_pb(&meta.last_log_id),
        membership_log_id: some_log_id_to_pb(meta.last_membership.log_id()),
        membership: Some(membership_to_pb(meta.last_membership.membership())),
    }
}

pub fn snapshot_meta_from_pb(meta: &pb::SnapshotMeta) -> Decoded<SnapshotMeta> {
    let membership = membership_from_pb(meta.membership.as_ref().ok_or(Malformed("membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: some_log_id_from_pb(&meta.last_log_id),
        last_membership: StoredMembership::new(some_log_id_from_pb(&meta.membership_log_id), membership),
    })
}

// ---- Requests and replies ----

pub fn append_to_pb<S: StateMachine, Rt: AsyncRuntime>(to: u64, r: &AppendEntriesRequest<Types<S, Rt>>) -> pb::AppendEntriesRequest {
    pb::AppendEntriesRequest {
        vote: Some(vote_to_pb(&r.vote)),
        prev_log_id: some_log_id_to_pb(&r.prev_log_id),
        entries: r.entries.iter().map(entry_to_pb).collect(),
        leader_commit: some_log_id_to_pb(&r.leader_commit),
        to,
    }
}

pub fn append_from_pb<S: StateMachine, Rt: AsyncRuntime>(r: pb::AppendEntriesRequest) -> Decoded<AppendEntriesRequest<Types<S, Rt>>> {
    Ok(AppendEntriesRequest {
        vote: required_vote(&r.vote)?,
        prev_log_id: some_log_id_from_pb(&r.prev_log_id),
        leader_commit: some_log_id_from_pb(&r.leader_commit),
        entries: r.entries.into_iter().map(entry_from_pb).collect::<Decoded<_>>()?,
    })
}

pub fn appended_to_pb<S: StateMachine, Rt: AsyncRuntime>(r: &AppendEntriesResponse<Types<S, Rt>>) -> pb::AppendEntriesReply {
    use pb::append_entries_reply::Result as R;
    let result = match r {
        AppendEntriesResponse::Success => R::Success(true),
        AppendEntriesResponse::Conflict => R::Conflict(true),
        AppendEntriesResponse::HigherVote(vote) => R::HigherVote(vote_to_pb(vote)),
        // Nothing accepted is what a conflict says, and the protocol never answers so.
        AppendEntriesResponse::PartialSuccess(None) => R::Conflict(true),
        AppendEntriesResponse::PartialSuccess(Some(id)) => R::Partial(log_id_to_pb(id)),
    };
    pb::AppendEntriesReply { result: Some(result) }
}

pub fn appended_from_pb<S: StateMachine, Rt: AsyncRuntime>(r: &pb::AppendEntriesReply) -> Decoded<AppendEntriesResponse<Types<S, Rt>>> {
    use pb::append_entries_reply::Result as R;
    Ok(match r.result.as_ref().ok_or(Malformed("result"))? {
        R::Success(_) => AppendEntriesResponse::Success,
        R::Conflict(_) => AppendEntriesResponse::Conflict,
        R::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_pb(vote)),
        R::Partial(id) => AppendEntriesResponse::PartialSuccess(Some(log_id_from_pb(id))),
    })
}

pub fn ask_vote_to_pb<S: StateMachine, Rt: AsyncRuntime>(to: u64, r: &VoteRequest<Types<S, Rt>>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_pb(&r.vote)),
        last_log_id: some_log_id_to_pb(&r.last_log_id),
        leadership_transfer: r.leadership_transfer,
        to,
    }
}

pub fn ask_vote_from_pb<S: StateMachine, Rt: AsyncRuntime>(r: &pb::VoteRequest) -> Decoded<VoteRequest<Types<S, Rt>>> {
    let mut request = VoteRequest::new(required_vote(&r.vote)?, some_log_id_from_pb(&r.last_log_id));
    request.leadership_transfer = r.leadership_transfer;
    Ok(request)
}

pub fn voted_to_pb<S: StateMachine, Rt: AsyncRuntime>(r: &VoteResponse<Types<S, Rt>>) -> pb::VoteReply {
    pb::VoteReply { vote: Some(vote_to_pb(&r.vote)), granted: r.vote_granted, last_log_id: some_log_id_to_pb(&r.last_log_id) }
}

pub fn voted_from_pb<S: StateMachine, Rt: AsyncRuntime>(r: &pb::VoteReply) -> Decoded<VoteResponse<Types<S, Rt>>> {
    Ok(VoteResponse::new(required_vote(&r.vote)?, some_log_id_from_pb(&r.last_log_id), r.granted))
}

pub fn transfer_to_pb<S: StateMachine, Rt: AsyncRuntime>(r: &TransferLeaderRequest<Types<S, Rt>>) -> pb::TransferLeaderRequest {
    pb::TransferLeaderRequest {
        from: Some(vote_to_pb(r.from_leader())),
        to: *r.to_node_id(),
        last_log_id: r.last_log_id().map(log_id_to_pb),
    }
}

pub fn transfer_from_pb<S: StateMachine, Rt: AsyncRuntime>(r: &pb::TransferLeaderRequest) -> Decoded<TransferLeaderRequest<Types<S, Rt>>> {
    Ok(TransferLeaderRequest::new(required_vote(&r.from)?, r.to, some_log_id_from_pb(&r.last_log_id)))
}

pub fn transferred_to_pb<S: StateMachine, Rt: AsyncRuntime>(r: &TransferLeaderResponse<Types<S, Rt>>) -> pb::TransferLeaderReply {
    use pb::transfer_leader_reply::Refused as R;
    let refused = match r {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => Some(R::VoteChanged(vote_to_pb(actual))),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            Some(R::LogNotFlushed(pb::LogNotFlushed { actual: some_log_id_to_pb(actual) }))
        }
    };
    pb::TransferLeaderReply { refused }
}

/// `asked` is the request this replies to: a refusal repeats what was expected.
pub fn transferred_from_pb<S: StateMachine, Rt: AsyncRuntime>(
    asked: &TransferLeaderRequest<Types<S, Rt>>,
    r: &pb::TransferLeaderReply,
) -> TransferLeaderResponse<Types<S, Rt>> {
    use pb::transfer_leader_reply::Refused as R;
    match &r.refused {
        None => Ok(()),
        Some(R::VoteChanged(actual)) => {
            Err(TransferLeaderError::VoteChanged { expected: *asked.from_leader(), actual: vote_from_pb(actual) })
        }
        Some(R::LogNotFlushed(l)) => {
            Err(TransferLeaderError::LogNotFlushed { expected: asked.last_log_id().copied(), actual: some_log_id_from_pb(&l.actual) })
        }
    }
}
