//! What Raft asks of the replicated state, and the adapter that feeds committed entries into it.
//!
//! The state lives in memory only. A restarted replica loads its newest snapshot and applies the log from there.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::AsyncRuntime;
use openraft::{OptionalSend, RaftSnapshotBuilder};
use raftwerk_planted::Bug;

use super::fault::Fault;
use super::store::SnapshotStore;
use super::types::{EntryPayload, LogId, Response, Snapshot, SnapshotMeta, StoredMembership, Types};

/// The replicated state. Replicas that applied the same entries must be equal, whatever clock, machine or hash seed they run with.
///
/// `Clone` is how a snapshot gets a view of one moment: the copy is made under the lock, the encoding happens outside it. A state too
/// large to copy in a few milliseconds will want shared structure inside, so that a copy stays cheap.
pub trait StateMachine: Clone + Send + Sync + 'static {
    /// The answer of one applied normal entry; it reaches the replica that proposed the entry.
    type Outcome: Clone + Send + Sync + Debug + 'static;

    /// Applies one committed entry. An error is damage or a command this version does not know: the replica stops.
    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<Self::Outcome, ApplyError>;

    /// The whole state as bytes whose format outlives this version of the code. They name the cluster.
    fn snapshot(&self) -> Vec<u8>;

    /// The state a snapshot holds. An error is damage, another cluster, or a format this version does not know.
    fn restore(cluster: &str, bytes: &[u8]) -> Result<Self, ApplyError>
    where
        Self: Sized;

    fn empty(cluster: &str) -> Self
    where
        Self: Sized;

    /// Whether this replica was taken out of the cluster for good. Nothing it says is heard any more.
    fn is_removed(&self, _replica: u64) -> bool {
        false
    }

    /// Newest format among the entries applied so far, if they have one.
    fn log_format(&self) -> u32 {
        0
    }

    /// Newest format of entries that this version of the code applies.
    fn reads() -> u32
    where
        Self: Sized,
    {
        0
    }
}

/// A committed entry or a snapshot that this replica cannot take in. It stops rather than skip it, because a skipped entry would make
/// its state silently differ from the others'.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

/// Entries applied under one write lock. Readers wait for at most this many.
const ENTRIES_PER_LOCK: usize = 128;

/// How far the state is. Changed only while the state's write lock is held, so that a reader of both sees one moment.
#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    membership: StoredMembership,
}

/// Feeds entries into `S`, and makes and installs its snapshots.
pub struct Machine<S, Rt> {
    cluster: Arc<str>,
    state: Arc<RwLock<S>>,
    applied: Arc<Mutex<Applied>>,
    snapshots: Arc<SnapshotStore>,
    fault: Fault,
    runtime: PhantomData<fn() -> Rt>,
}

impl<S: StateMachine, Rt: AsyncRuntime> Machine<S, Rt> {
    pub(super) fn new(cluster: &str, snapshots: Arc<SnapshotStore>, fault: Fault) -> Self {
        Machine {
            cluster: cluster.into(),
            state: Arc::new(RwLock::new(S::empty(cluster))),
            applied: Arc::default(),
            snapshots,
            fault,
            runtime: PhantomData,
        }
    }

    pub(super) fn state(&self) -> Arc<RwLock<S>> {
        self.state.clone()
    }

    /// Applies some entries under one lock and answers their proposers after it is released.
    fn apply_some(&mut self, entries: Vec<EntryResponder<Types<S, Rt>>>) -> Result<(), ApplyError> {
        let mut answers = Vec::new();
        {
            let mut state = self.state.write().unwrap_or_else(|e| e.into_inner());
            let mut applied = self.applied.lock().unwrap_or_else(|e| e.into_inner());
            for (entry, responder) in entries {
                let outcome = match &entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Normal(payload) => Some(
                        state
                            .apply(entry.log_id.index, &payload.0)
                            .map_err(|e| ApplyError(format!("log entry {} cannot be applied: {e}", entry.log_id.index)))?,
                    ),
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                        None
                    }
                };
                applied.last = Some(entry.log_id);
                if let Some(responder) = responder {
                    answers.push((responder, Response(outcome)));
                }
            }
        }
        for (responder, response) in answers {
            responder.send(response);
        }
        Ok(())
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> RaftStateMachine<Types<S, Rt>> for Machine<S, Rt> {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder<S, Rt>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.applied.lock().unwrap_or_else(|e| e.into_inner());
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types<S, Rt>>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.try_ready_chunks(ENTRIES_PER_LOCK);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| e.1)?;
            self.apply_some(chunk).map_err(|e| self.fault.raise_io(e))?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        // The copy is made here, between two applies, and under the read lock only.
        let state = self.state.read().unwrap_or_else(|e| e.into_inner()).clone();
        let applied = self.applied.lock().unwrap_or_else(|e| e.into_inner()).clone();
        Builder { view: Some((state, applied)), snapshots: self.snapshots.clone(), fault: self.fault.clone(), runtime: PhantomData }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let (snapshots, cluster, meta_saved) = (self.snapshots.clone(), self.cluster.clone(), meta.clone());
        let restored = self
            .snapshots
            .off_thread::<Rt, _>(move || {
                // Restored first: bytes this version cannot read must not become the newest file.
                let state = S::restore(&cluster, &snapshot).map_err(|e| {
                    ApplyError(format!(
                        "the snapshot up to log entry {:?} cannot be restored: {e}",
                        meta_saved.last_log_id.map(|id| id.index)
                    ))
                })?;
                snapshots.save(&meta_saved, &snapshot).map_err(|e| ApplyError(e.to_string()))?;
                Ok::<S, ApplyError>(state)
            })
            .await?
            .map_err(|e| self.fault.raise_io(e))?;
        let replaced = {
            let mut state = self.state.write().unwrap_or_else(|e| e.into_inner());
            let mut applied = self.applied.lock().unwrap_or_else(|e| e.into_inner());
            *applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
            std::mem::replace(&mut *state, restored)
        };
        drop(replaced); // outside the lock: freeing a large state takes time
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let newest = self.snapshots.off_thread::<Rt, _>(move || snapshots.newest()).await?.map_err(|e| self.fault.raise_io(e))?;
        Ok(newest.map(|(mut meta, snapshot)| {
            if raftwerk_planted::on(Bug::SkipEntry)
                && let Some(last) = &mut meta.last_log_id
            {
                last.index += 1;
            }
            Snapshot { meta, snapshot }
        }))
    }
}

/// Encodes and saves the copy of the state that it was made with.
pub struct Builder<S, Rt> {
    view: Option<(S, Applied)>,
    snapshots: Arc<SnapshotStore>,
    fault: Fault,
    runtime: PhantomData<fn() -> Rt>,
}

impl<S: StateMachine, Rt: AsyncRuntime> RaftSnapshotBuilder<Types<S, Rt>> for Builder<S, Rt> {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (state, applied) = self.view.take().ok_or_else(|| io::Error::other("a snapshot builder builds once"))?;
        let snapshots = self.snapshots.clone();
        self.snapshots
            .off_thread::<Rt, _>(move || {
                let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership };
                let bytes = Bytes::from(state.snapshot());
                snapshots.save(&meta, &bytes)?;
                Ok(Snapshot { meta, snapshot: bytes })
            })
            .await?
            .map_err(|e: super::store::StoreError| self.fault.raise_io(e))
    }
}
