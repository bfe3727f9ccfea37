//! The types Raft is instantiated with.
//!
//! Leader ids are the standard ones: **one leader per term**. openraft's default lets two nodes lead in one term, and then a term
//! would not be enough to fence a deposed leader. A log id is therefore (term, index).

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::OptionalSend;
use openraft::impls::{BoxedErrorSource, InlineBatch, ProgressResponder, leader_id_std};
use openraft::type_config::AsyncRuntime;

use super::StateMachine;

pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub type LogId = openraft::LogId<CommittedLeaderId>;
pub type Vote = openraft::Vote<LeaderId>;
pub type EntryPayload = openraft::EntryPayload<Payload, u64, Node>;
pub type Entry = openraft::Entry<CommittedLeaderId, EntryPayload>;
pub type Membership = openraft::Membership<u64, Node>;
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Node>;
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Node>;
pub type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Node, Bytes>;

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

/// The state machine `S` on the async runtime `Rt`: tokio in production, the seeded one in simulation.
pub struct Types<S, Rt>(PhantomData<fn() -> (S, Rt)>);

impl<S: StateMachine, Rt: AsyncRuntime> openraft::RaftTypeConfig for Types<S, Rt> {
    type D = Payload;
    type R = Response<S::Outcome>;
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = Rt;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

// Derived implementations would ask the same of `S` and `Rt`, which are names only.
impl<S, Rt> Clone for Types<S, Rt> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S, Rt> Copy for Types<S, Rt> {}
impl<S, Rt> Default for Types<S, Rt> {
    fn default() -> Self {
        Types(PhantomData)
    }
}
impl<S, Rt> fmt::Debug for Types<S, Rt> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<S, Rt> PartialEq for Types<S, Rt> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<S, Rt> Eq for Types<S, Rt> {}
impl<S, Rt> PartialOrd for Types<S, Rt> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<S, Rt> Ord for Types<S, Rt> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// The content of a normal entry; Raft never looks inside. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying one entry answered: `None` for blank and membership entries, which the state machine never sees.
#[derive(Clone, Debug)]
pub struct Response<O>(pub Option<O>);

/// A replica as the others know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub address: String,
}
