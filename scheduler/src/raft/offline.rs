//! Changes to a data directory that no process runs on: the forced recovery of a survivor, and the beginning of a replica from a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::RaftLogReader;
use openraft::impls::TokioRuntime;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::{AsyncRuntime, TypeConfigExt};

use super::fault::Fault;
use super::replica::{OpenError, Storage};
use super::state_machine::StateMachine;
use super::status::{Member, members};
use super::store::{DataDir, LogStore, SnapshotStore, StoreError, Unmarked};
use super::types::{Entry, EntryPayload, Membership, Node, Payload, SnapshotMeta, StoredMembership, Types, Vote, log_id};

/// What a data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub replica: u64,
    pub term: u64,
    pub last_log_index: u64,
    /// Term of the last entry: of two survivors the one with the larger (term, index) has more of what was acknowledged.
    pub last_log_term: u64,
    pub members: Vec<Member>,
}

pub(super) struct Opened<S: StateMachine, Rt: AsyncRuntime> {
    _dir: Option<DataDir>,
    log: LogStore<S, Rt>,
    snapshots: SnapshotStore,
}

impl<S: StateMachine> Opened<S, TokioRuntime> {
    fn open(path: &Path, cluster: &str, id: u64, unmarked: Unmarked) -> Result<Self, StoreError> {
        let dir = DataDir::take(path)?;
        let medium = Arc::new(dir.database_with(unmarked)?);
        let storage = Storage { medium, snapshots: SnapshotStore::open(cluster, &dir.snapshots())?, dir: None };
        let opened = Opened::on(storage, cluster, id)?;
        dir.seal(cluster, id)?;
        Ok(Opened { _dir: Some(dir), ..opened })
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> Opened<S, Rt> {
    pub(super) fn on(storage: Storage, cluster: &str, id: u64) -> Result<Self, StoreError> {
        let log = LogStore::open(storage.medium, cluster, id, Fault::default())?;
        Ok(Opened { _dir: storage.dir, log, snapshots: storage.snapshots })
    }

    pub(super) async fn close(self) {
        self.log.close().await;
    }

    async fn append(&mut self, entries: Vec<Entry>) -> std::io::Result<()> {
        let (done, flushed) = Types::<S, Rt>::oneshot();
        self.log.append(entries, IOFlushed::signal(done)).await?;
        flushed.await.map_err(|e| std::io::Error::other(e.to_string()))?
    }

    pub(super) async fn survey(&mut self, replica: u64) -> Result<(Survey, Membership), OpenError> {
        let failed = |e: std::io::Error| OpenError::Recover(e.to_string());
        let newest = self.snapshots.newest()?;
        let mut membership = newest.map(|(meta, _)| meta.last_membership.membership().clone()).unwrap_or_default();
        for entry in self.log.try_get_log_entries(..).await.map_err(failed)? {
            if let EntryPayload::Membership(later) = entry.payload {
                membership = later;
            }
        }
        let last = self.log.get_log_state().await.map_err(failed)?.last_log_id;
        let vote = self.log.read_vote().await.map_err(failed)?;
        let survey = Survey {
            replica,
            term: vote.map_or(0, |v| v.leader_id.term),
            last_log_index: last.map_or(0, |id| id.index),
            last_log_term: last.map_or(0, |id| id.leader_id.term),
            members: members(&membership, |_| None),
        };
        Ok((survey, membership))
    }

    /// `place` is what an error calls it.
    pub(super) async fn recover(&mut self, id: u64, place: &str, entry: impl FnOnce(&[u64]) -> Bytes) -> Result<Survey, OpenError> {
        let failed = |e: std::io::Error| OpenError::Recover(e.to_string());
        let (survey, membership) = self.survey(id).await?;
        let Some(node) = membership.get_node(&id).cloned() else {
            return Err(OpenError::Recover(format!(
                "replica {id} is no member of the cluster that {place} remembers; recover on another survivor"
            )));
        };
        let others: Vec<u64> = survey.members.iter().map(|m| m.id).filter(|other| *other != id).collect();
        let term = survey.term.max(survey.last_log_term) + 1;
        let next = survey.last_log_index + 1;
        // The vote first: from now on no leader of an earlier term can write here, whatever happens to the rest.
        self.log.save_vote(&Vote::new(term, id)).await.map_err(failed)?;
        let entries = vec![
            Entry { log_id: log_id(term, next), payload: EntryPayload::Membership(alone(id, node)?) },
            Entry { log_id: log_id(term, next + 1), payload: EntryPayload::Normal(Payload(entry(&others))) },
        ];
        self.append(entries).await.map_err(failed)?;
        Ok(survey)
    }
}

fn alone(id: u64, node: Node) -> Result<Membership, OpenError> {
    Membership::new(vec![BTreeSet::from([id])], BTreeMap::from([(id, node)])).map_err(|e| OpenError::Recover(e.to_string()))
}

/// What the directory of replica `id` holds. Changes nothing.
pub async fn survey<S: StateMachine>(path: &Path, cluster: &str, id: u64) -> Result<Survey, OpenError> {
    let mut opened = Opened::<S, TokioRuntime>::open(path, cluster, id, Unmarked::Refuse)?;
    let (survey, _) = opened.survey(id).await?;
    opened.log.close().await;
    Ok(survey)
}

/// Makes this replica the only member, by two entries of a new term at the end of its log: the membership, and the one that `entry` makes
/// from the ids of the others, which are out from there on.
pub async fn recover<S: StateMachine>(
    path: &Path,
    cluster: &str,
    id: u64,
    entry: impl FnOnce(&[u64]) -> Bytes,
) -> Result<Survey, OpenError> {
    let mut opened = Opened::<S, TokioRuntime>::open(path, cluster, id, Unmarked::Accept)?;
    let survey = opened.recover(id, &path.display().to_string(), entry).await?;
    opened.close().await;
    Ok(survey)
}

/// Begins the log of replica `id`, the only member, with a state as of `index` and one entry after it.
pub async fn begin<S: StateMachine>(
    path: &Path,
    cluster: &str,
    id: u64,
    node: Node,
    (index, state): (u64, Bytes),
    entry: Bytes,
) -> Result<(), OpenError> {
    const TERM: u64 = 1;
    let failed = |e: std::io::Error| OpenError::Recover(e.to_string());
    let mut opened = Opened::<S, TokioRuntime>::open(path, cluster, id, Unmarked::Refuse)?;
    // The membership counts as made by the last entry that the state stands for.
    let at = log_id(TERM, index);
    let meta = SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), alone(id, node)?) };
    opened.snapshots.save(&meta, &state)?;
    opened.log.save_vote(&Vote::new(TERM, id)).await.map_err(failed)?;
    opened.log.purge(at).await.map_err(failed)?;
    let entry = Entry { log_id: log_id(TERM, index + 1), payload: EntryPayload::Normal(Payload(entry)) };
    opened.append(vec![entry]).await.map_err(failed)?;
    opened.log.close().await;
    Ok(())
}
