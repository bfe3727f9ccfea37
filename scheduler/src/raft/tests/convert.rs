use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::impls::TokioRuntime;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};
use prost::Message;
use raftwerk_proto::v1 as pb;

use super::Chain;
use crate::raft::convert::*;
use crate::raft::types::{Entry, EntryPayload, Membership, Node, Payload, SnapshotMeta, StoredMembership, Types, Vote, log_id};

type C = Types<Chain, TokioRuntime>;

fn through<M: Message + Default>(message: M) -> M {
    M::decode(Bytes::from(message.encode_to_vec())).unwrap()
}

fn joint_membership() -> Membership {
    let node = |id: u64| (id, Node { name: format!("replica-{id}"), address: format!("10.0.0.{id}:7070") });
    Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])], BTreeMap::from([node(1), node(2), node(3), node(4)])).unwrap()
}

fn entries() -> Vec<Entry> {
    vec![
        Entry { log_id: log_id(0, 0), payload: EntryPayload::Membership(joint_membership()) },
        Entry { log_id: log_id(7, 1), payload: EntryPayload::Blank },
        Entry { log_id: log_id(7, 2), payload: EntryPayload::Normal(Payload(Bytes::from_static(b"payload"))) },
        Entry { log_id: log_id(8, 3), payload: EntryPayload::Normal(Payload(Bytes::new())) },
    ]
}

#[test]
fn votes_log_ids_and_entries_survive_the_wire() {
    for vote in [Vote::new(3, 9), Vote::new_committed(u64::MAX, 1)] {
        assert_eq!(vote_from_pb(&through(vote_to_pb(&vote))), vote);
    }
    for id in [log_id(0, 0), log_id(5, u64::MAX)] {
        assert_eq!(log_id_from_pb(&through(log_id_to_pb(&id))), id);
    }
    for entry in entries() {
        assert_eq!(entry_from_pb(through(entry_to_pb(&entry))).unwrap(), entry);
    }
    assert_eq!(membership_from_pb(&through(membership_to_pb(&Membership::default()))).unwrap(), Membership::default());
}

#[test]
fn requests_survive_the_wire() {
    for (prev, commit) in [(None, None), (Some(log_id(6, 5)), Some(log_id(6, 4)))] {
        let request =
            AppendEntriesRequest::<C> { vote: Vote::new_committed(7, 2), prev_log_id: prev, entries: entries(), leader_commit: commit };
        let message = through(append_to_pb(3, &request));
        assert_eq!(message.to, 3);
        assert_eq!(format!("{:?}", append_from_pb::<Chain, TokioRuntime>(message).unwrap()), format!("{request:?}"));
    }
    let mut request = VoteRequest::<C>::new(Vote::new(4, 1), Some(log_id(3, 2)));
    request.leadership_transfer = true;
    assert_eq!(ask_vote_from_pb::<Chain, TokioRuntime>(&through(ask_vote_to_pb(2, &request))).unwrap(), request);
    let request = TransferLeaderRequest::<C>::new(Vote::new_committed(4, 1), 2, None);
    assert_eq!(transfer_from_pb::<Chain, TokioRuntime>(&through(transfer_to_pb(&request))).unwrap(), request);
}

#[test]
fn replies_survive_the_wire() {
    for reply in [
        AppendEntriesResponse::<C>::Success,
        AppendEntriesResponse::Conflict,
        AppendEntriesResponse::HigherVote(Vote::new(9, 3)),
        AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2))),
    ] {
        assert_eq!(appended_from_pb::<Chain, TokioRuntime>(&through(appended_to_pb(&reply))).unwrap(), reply);
    }
    let reply = VoteResponse::<C>::new(Vote::new(4, 1), None, true);
    assert_eq!(voted_from_pb::<Chain, TokioRuntime>(&through(voted_to_pb(&reply))).unwrap(), reply);
    let asked = TransferLeaderRequest::<C>::new(Vote::new_committed(4, 1), 2, Some(log_id(4, 9)));
    let replies: [TransferLeaderResponse<C>; 3] = [
        Ok(()),
        Err(TransferLeaderError::VoteChanged { expected: *asked.from_leader(), actual: Vote::new(5, 3) }),
        Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(4, 9)), actual: Some(log_id(4, 8)) }),
    ];
    for reply in replies {
        assert_eq!(transferred_from_pb(&asked, &through(transferred_to_pb(&reply))), reply);
    }
}

#[test]
fn snapshot_descriptions_survive_the_wire() {
    for meta in [
        SnapshotMeta::default(),
        SnapshotMeta { last_log_id: Some(log_id(7, 99)), last_membership: StoredMembership::new(Some(log_id(6, 50)), joint_membership()) },
    ] {
        assert_eq!(snapshot_meta_from_pb(&through(snapshot_meta_to_pb(&meta))).unwrap(), meta);
    }
}

#[test]
fn an_entry_of_a_kind_from_the_future_is_refused() {
    let unknown = pb::RaftEntry { log_id: Some(log_id_to_pb(&log_id(1, 1))), payload: None };
    assert_eq!(entry_from_pb(unknown), Err(Malformed("payload of a kind this version knows")));
}
