//! What a replica says about itself, for people and metrics.

use super::types::Membership;
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub id: u64,
    pub term: u64,
    pub leader: Option<u64>,
    /// Indexes are 0 where there is nothing yet; entry 0 is the first membership.
    pub last_log_index: u64,
    /// What this replica knows a majority to have.
    pub committed: u64,
    pub applied: u64,
    /// The last entry of the newest snapshot, and the last one dropped from the log.
    pub snapshot: u64,
    pub purged: u64,
    pub members: Vec<Member>,
    /// Written to the log since the process started; entries per commit is how well group commit works.
    pub log_bytes_written: u64,
    pub log_entries_written: u64,
    pub log_commits: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    pub name: String,
    pub address: String,
    pub voter: bool,
    /// How much of the log it has, as far as the leader knows; only the leader does.
    pub matched: Option<u64>,
}

pub(super) fn members(membership: &Membership, matched: impl Fn(u64) -> Option<u64>) -> Vec<Member> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let member = |(id, node): (&u64, &super::types::Node)| Member {
        id: *id,
        name: node.name.clone(),
        address: node.address.clone(),
        voter: voters.contains(id),
        matched: matched(*id),
    };
    membership.nodes().map(member).collect()
}
