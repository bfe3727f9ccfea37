//! What a replica does with a message from another one, whatever carried it: gRPC or the simulated network.

use std::fmt;
use std::sync::{Arc, RwLock};

use bytes::{Bytes, BytesMut};
use openraft::Raft;
use openraft::type_config::AsyncRuntime;
use raftwerk_proto::v1 as pb;

use super::convert::{
    Malformed, append_from_pb, appended_to_pb, ask_vote_from_pb, snapshot_meta_from_pb, transfer_from_pb, transferred_to_pb, vote_from_pb,
    vote_to_pb, voted_to_pb,
};
use super::state_machine::{Machine, StateMachine};
use super::types::{Snapshot, SnapshotMeta, Types, Vote};

/// Why a message was not acted on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// An address was given to another replica; acting for it would count one replica's disk twice.
    #[error("the message is for replica {to}, this is replica {here}")]
    NotHere { to: u64, here: u64 },
    #[error("the message speaks for replica {claimed}, but its sender is replica {sender}")]
    NotTheSender { claimed: u64, sender: u64 },
    #[error("the snapshot ended after {got} of {total} bytes")]
    CutShort { got: u64, total: u64 },
    #[error("this replica has stopped: {0}")]
    Stopped(String),
    /// The sender reads this and stops.
    #[error("replica {0} was taken out of the cluster and must not take part any more")]
    Removed(u64),
}

pub(super) struct Handler<S: StateMachine, Rt: AsyncRuntime> {
    pub id: u64,
    pub raft: Raft<Types<S, Rt>, Machine<S, Rt>>,
    pub state: Arc<RwLock<S>>,
}

impl<S: StateMachine, Rt: AsyncRuntime> Clone for Handler<S, Rt> {
    fn clone(&self) -> Self {
        Handler { id: self.id, raft: self.raft.clone(), state: self.state.clone() }
    }
}

fn stopped(e: impl fmt::Display) -> Refused {
    Refused::Stopped(e.to_string())
}

impl<S: StateMachine, Rt: AsyncRuntime> Handler<S, Rt> {
    /// `sender` is who the channel says it is. A replica speaks for itself only, so a vote must be its own.
    fn check(&self, to: u64, vote: &Option<pb::RaftVote>, sender: u64) -> Result<(), Refused> {
        // After a forced recovery its old membership would still count this replica's vote, and its log undo the recovery.
        if self.state.read().unwrap_or_else(|e| e.into_inner()).is_removed(sender) {
            return Err(Refused::Removed(sender));
        }
        if to != self.id {
            return Err(Refused::NotHere { to, here: self.id });
        }
        match vote {
            Some(vote) if vote.node != sender => Err(Refused::NotTheSender { claimed: vote.node, sender }),
            _ => Ok(()),
        }
    }

    pub async fn append(&self, sender: u64, request: pb::AppendEntriesRequest) -> Result<pb::AppendEntriesReply, Refused> {
        self.check(request.to, &request.vote, sender)?;
        let answer = self.raft.append_entries(append_from_pb(request)?).await.map_err(stopped)?;
        Ok(appended_to_pb(&answer))
    }

    pub async fn vote(&self, sender: u64, request: pb::VoteRequest) -> Result<pb::VoteReply, Refused> {
        self.check(request.to, &request.vote, sender)?;
        let answer = self.raft.vote(ask_vote_from_pb(&request)?).await.map_err(stopped)?;
        Ok(voted_to_pb(&answer))
    }

    pub async fn pre_vote(&self, sender: u64, request: pb::VoteRequest) -> Result<pb::VoteReply, Refused> {
        self.check(request.to, &request.vote, sender)?;
        let answer = self.raft.pre_vote(ask_vote_from_pb(&request)?).await.map_err(stopped)?;
        Ok(voted_to_pb(&answer))
    }

    pub async fn transfer(&self, sender: u64, request: pb::TransferLeaderRequest) -> Result<pb::TransferLeaderReply, Refused> {
        // `to` is the next leader. The current one tells every replica, so that they all let the election happen.
        self.check(self.id, &request.from, sender)?;
        let answer = self.raft.handle_transfer_leader(transfer_from_pb(&request)?).await.map_err(stopped)?;
        Ok(transferred_to_pb(&answer))
    }

    /// The first chunk of a snapshot says whose and what it is.
    pub fn begin_snapshot(&self, sender: u64, head: pb::SnapshotChunk) -> Result<Incoming, Refused> {
        self.check(head.to, &head.vote, sender)?;
        let vote = vote_from_pb(head.vote.as_ref().ok_or(Malformed("vote"))?);
        let meta = snapshot_meta_from_pb(head.meta.as_ref().ok_or(Malformed("snapshot description"))?)?;
        let mut incoming = Incoming { vote, meta, total: head.total_bytes, bytes: BytesMut::new() };
        incoming.add(head.data);
        Ok(incoming)
    }

    pub async fn install(&self, incoming: Incoming) -> Result<pb::SnapshotReply, Refused> {
        let Incoming { vote, meta, total, bytes } = incoming;
        if bytes.len() as u64 != total {
            return Err(Refused::CutShort { got: bytes.len() as u64, total });
        }
        let snapshot = Snapshot { meta, snapshot: bytes.freeze() };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(pb::SnapshotReply { vote: Some(vote_to_pb(&answer.vote)) })
    }
}

/// A snapshot on its way in.
pub(super) struct Incoming {
    vote: Vote,
    meta: SnapshotMeta,
    total: u64,
    bytes: BytesMut,
}

impl Incoming {
    pub fn add(&mut self, data: Bytes) {
        self.bytes.extend_from_slice(&data);
    }
}
