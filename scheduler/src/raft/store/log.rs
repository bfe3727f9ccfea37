//! The log store that openraft writes to and reads from.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::{AsyncRuntime, TypeConfigExt};
use openraft::{LogState, OptionalSend, RaftLogReader};
use raftwerk_proto::v1 as pb;

use super::StoreError;
use super::medium::{Medium, Write, meta};
use super::queue::{Counter, Queue, Request, Writer};
use super::record::{Kind, Seal, read_of_any_cluster};
use super::view::{View, next_index, size};
use crate::raft::convert::{entry_from_pb, log_id_from_pb, vote_from_pb};
use crate::raft::fault::Fault;
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Entry, LogId, Types, Vote};

/// Entries in one replication message stop here, or at the first entry: an entry alone may be larger, a message never is (see the
/// limit on an entry in `propose`).
pub const REPLICATION_BYTES: usize = 1 << 20;

/// What was written, since the start of the process.
#[derive(Default)]
pub struct LogStats {
    pub bytes: Counter,
    pub entries: Counter,
    pub commits: Counter,
}

pub struct LogStore<S: StateMachine, Rt: AsyncRuntime>(Arc<Shared<S, Rt>>);

impl<S: StateMachine, Rt: AsyncRuntime> Clone for LogStore<S, Rt> {
    fn clone(&self) -> Self {
        LogStore(self.0.clone())
    }
}

struct Shared<S: StateMachine, Rt: AsyncRuntime> {
    medium: Arc<dyn Medium>,
    seal: Seal,
    view: Arc<Mutex<View>>,
    queue: Arc<Queue<S, Rt>>,
    stats: Arc<LogStats>,
    fault: Fault,
}

impl<S: StateMachine, Rt: AsyncRuntime> Drop for Shared<S, Rt> {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> LogStore<S, Rt> {
    /// Opens the log of replica `node` of `cluster`, and makes it if the medium is empty. Every record is read and checked.
    pub(in crate::raft) fn open(medium: Arc<dyn Medium>, cluster: &str, node: u64, fault: Fault) -> Result<Self, StoreError> {
        let seal = Seal::new(cluster);
        check_identity(&*medium, &seal, node)?;
        let recovered = recover(&*medium, &seal)?;
        let rows_to_remove = recovered.first_row..next_index(&recovered.view.purged).max(recovered.first_row);
        let view = Arc::new(Mutex::new(recovered.view));
        let stats = Arc::new(LogStats::default());
        let writer = Writer {
            medium: medium.clone(),
            seal: seal.clone(),
            view: view.clone(),
            stats: stats.clone(),
            fault: fault.clone(),
            rows_to_remove,
        };
        let queue = Queue::start(writer).map_err(StoreError::io("start the writer thread of", medium.file()))?;
        Ok(LogStore(Arc::new(Shared { medium, seal, view, queue, stats, fault })))
    }

    pub fn stats(&self) -> Arc<LogStats> {
        self.0.stats.clone()
    }

    /// Everything before this index was dropped from the log; 0 if nothing was.
    pub(in crate::raft) fn first_index(&self) -> u64 {
        next_index(&self.view().purged)
    }

    /// Writes what is pending and gives up the file, so that another process can open it.
    pub async fn close(&self) {
        let (tx, rx) = Types::<S, Rt>::oneshot();
        if self.0.queue.push(Request::Close, IOFlushed::signal(tx)).is_ok() {
            let _ = rx.await;
        } else {
            self.0.medium.close();
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.0.view.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The entries of `start..end`, oldest first, ending early once they have passed `limit` bytes.
    fn read(&self, start: u64, end: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let (start, end, split, recent) = {
            let view = self.view();
            let (start, end) = view.clamp(start, end);
            if start >= end {
                return Ok(Vec::new());
            }
            let (split, recent) = view.recent(start, end, limit);
            (start, end.min(split + recent.len() as u64).max(split), split, recent)
        };
        if split <= start {
            return Ok(recent);
        }
        // What is not in memory is on disk and changes no more, except that its front may be purged while it is read.
        let mut entries = Vec::new();
        let mut bytes = 0;
        let file = self.0.medium.file();
        self.0.medium.scan(start..split, &mut |index, record| {
            let entry = read_entry(&self.0.seal, file, index, record)?;
            let expected = entries.last().map_or(index, |e: &Entry| e.log_id.index + 1);
            if index != expected {
                return Err(hole(file, expected));
            }
            bytes += size(&entry);
            entries.push(entry);
            Ok(bytes < limit)
        })?;
        let purged = next_index(&self.view().purged);
        match entries.first() {
            Some(first) if first.log_id.index > start.max(purged) => return Err(hole(file, start)),
            None if split > purged => return Err(hole(file, start)),
            _ => {}
        }
        let complete = entries.last().is_none_or(|e| e.log_id.index + 1 == split);
        if !complete && bytes < limit {
            return Err(hole(file, next_index(&entries.last().map(|e| e.log_id))));
        }
        if complete && bytes < limit {
            entries.extend(recent);
        }
        debug_assert!(entries.last().is_none_or(|e| e.log_id.index < end));
        Ok(entries)
    }

    fn fail(&self, error: StoreError) -> io::Error {
        self.0.fault.raise_io(error)
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> RaftLogReader<Types<S, Rt>> for LogStore<S, Rt> {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX).map_err(|e| self.fail(e))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, REPLICATION_BYTES).map_err(|e| self.fail(e))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.view().vote)
    }
}

impl<S: StateMachine, Rt: AsyncRuntime> RaftLogStorage<Types<S, Rt>> for LogStore<S, Rt> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types<S, Rt>>, io::Error> {
        let view = self.view();
        Ok(LogState { last_purged_log_id: view.purged, last_log_id: view.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (tx, rx) = Types::<S, Rt>::oneshot();
        self.0.queue.push(Request::Vote(*vote), IOFlushed::signal(tx))?;
        rx.await.map_err(|_| io::Error::other("the log writer is gone"))??;
        self.view().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.0.queue.set_committed(committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.view().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<S, Rt>>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let epoch = {
            let mut view = self.view();
            entries.iter().for_each(|entry| view.push(entry.clone()));
            view.epoch
        };
        self.0.queue.push(Request::Append { entries, epoch }, callback)
    }

    // Neither of these waits for the disk: requests are written in order, and until then the old log is a correct one.

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = self.view().truncate_after(last_log_id);
        self.0.queue.push(Request::TruncateFrom(from), IOFlushed::noop())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.view().purge(log_id);
        self.0.queue.push(Request::Purge(log_id), IOFlushed::noop())
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(x) => *x,
        Bound::Excluded(x) => x + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(x) => x + 1,
        Bound::Excluded(x) => *x,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn hole(file: &Path, index: u64) -> StoreError {
    StoreError::damaged(file, format!("log entry {index} is missing"))
}

fn read_entry(seal: &Seal, file: &Path, index: u64, record: &[u8]) -> Result<Entry, StoreError> {
    let what = || format!("log entry {index}");
    let entry = entry_from_pb(seal.read::<pb::RaftEntry>(Kind::Entry, record, file, &what)?)
        .map_err(|e| StoreError::damaged(file, format!("log entry {index}: {e}")))?;
    if entry.log_id.index != index {
        return Err(StoreError::damaged(file, format!("log entry {} lies at the place of entry {index}", entry.log_id.index)));
    }
    Ok(entry)
}

/// An empty medium becomes this replica's; any other must already be.
fn check_identity(medium: &dyn Medium, seal: &Seal, node: u64) -> Result<(), StoreError> {
    let file = medium.file();
    let Some(record) = medium.meta(meta::IDENTITY)? else {
        let mut rows = 0;
        medium.scan(0..u64::MAX, &mut |_, _| {
            rows += 1;
            Ok(false)
        })?;
        if rows > 0 || medium.meta(meta::VOTE)?.is_some() || medium.meta(meta::PURGED)?.is_some() {
            return Err(StoreError::damaged(file, "it holds a log, but not whose it is"));
        }
        let identity = pb::RaftIdentity { cluster: seal.cluster().to_owned(), node };
        return medium.commit(&[Write::Meta { name: meta::IDENTITY, record: seal.write(Kind::Identity, &identity) }]);
    };
    let identity: pb::RaftIdentity = read_of_any_cluster(Kind::Identity, &record, file, &|| "the identity".into())?;
    if identity.cluster != seal.cluster() {
        return Err(StoreError::OtherCluster { file: file.to_owned(), expected: seal.cluster().to_owned(), found: identity.cluster });
    }
    if identity.node != node {
        return Err(StoreError::OtherReplica { file: file.to_owned(), expected: node, found: identity.node });
    }
    Ok(())
}

struct Recovered {
    view: View,
    first_row: u64,
}

/// Reads and checks everything that counts. Takes about a second per gigabyte of log.
fn recover(medium: &dyn Medium, seal: &Seal) -> Result<Recovered, StoreError> {
    let file = medium.file();
    let vote = match medium.meta(meta::VOTE)? {
        Some(record) => Some(vote_from_pb(&seal.read(Kind::Vote, &record, file, &|| "the vote".into())?)),
        None => None,
    };
    let mark = |name: &'static str| match medium.meta(name)? {
        Some(record) => Ok(Some(log_id_from_pb(&seal.read(Kind::LogId, &record, file, &|| format!("the mark `{name}`"))?))),
        None => Ok(None),
    };
    let (purged, committed) = (mark(meta::PURGED)?, mark(meta::COMMITTED)?);
    let mut view = View::new(vote, purged, committed);
    let mut first_row = None;
    medium.scan(0..u64::MAX, &mut |index, record| {
        first_row.get_or_insert(index);
        let next = next_index(&view.last);
        if index < next && next == next_index(&purged) {
            return Ok(true); // purged, its removal was cut short
        }
        if index != next {
            return Err(hole(file, next));
        }
        let entry = read_entry(seal, file, index, record)?;
        if view.last.is_some_and(|last| last.leader_id > entry.log_id.leader_id) {
            return Err(StoreError::damaged(file, format!("log entry {index} is of an earlier term than the one before it")));
        }
        view.remember(entry);
        Ok(true)
    })?;
    // A snapshot from the leader moves the mark past the end of the log, and the log catches up a moment later. A stop in between leaves
    // the mark pointing at nothing; the snapshot then speaks for it.
    if view.committed > view.last {
        view.committed = None;
    }
    let first_row = first_row.unwrap_or(next_index(&purged));
    Ok(Recovered { view, first_row })
}
