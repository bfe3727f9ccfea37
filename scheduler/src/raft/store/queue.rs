//! Group commit: whatever was queued while the last flush ran goes into the next one, as one transaction.
//!
//! A completion is reported only after the transaction is durable, and completions are reported in the order of the requests. After a
//! failed write nothing is written any more: what the disk holds is unknown, and an entry written after a lost one would leave a hole.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use openraft::storage::IOFlushed;
use openraft::type_config::AsyncRuntime;
use raftwerk_planted::Bug;

use super::StoreError;
use super::log::LogStats;
use super::medium::{Medium, Write, meta};
use super::record::{Kind, Seal};
use super::view::View;
use crate::raft::convert::{entry_to_pb, log_id_to_pb, vote_to_pb};
use crate::raft::fault::{Fault, chain};
use crate::raft::state_machine::StateMachine;
use crate::raft::types::{Entry, LogId, Types, Vote};

/// Rows removed in one transaction. Removing all of a compacted log at once would hold up appends for tens of milliseconds.
const ROWS_PER_REMOVAL: u64 = 4096;

pub(super) enum Request {
    Append {
        entries: Vec<Entry>,
        epoch: u64,
    },
    TruncateFrom(u64),
    Purge(LogId),
    Vote(Vote),
    /// Writes what is pending and gives up the medium.
    Close,
}

struct Queued<S: StateMachine, Rt: AsyncRuntime> {
    request: Request,
    done: IOFlushed<Types<S, Rt>>,
}

struct Pending<S: StateMachine, Rt: AsyncRuntime> {
    requests: VecDeque<Queued<S, Rt>>,
    /// Rides along with the next transaction and costs none of its own: losing it only means that a restarted replica learns it again.
    committed: Option<LogId>,
    failed: Option<String>,
    /// Simulated media only: a task is at work.
    draining: bool,
    /// The last handle is gone.
    abandoned: bool,
}

pub(super) struct Queue<S: StateMachine, Rt: AsyncRuntime> {
    pending: Mutex<Pending<S, Rt>>,
    wake: Condvar,
    writer: Mutex<Writer>,
    medium: Arc<dyn Medium>,
}

impl<S: StateMachine, Rt: AsyncRuntime> Queue<S, Rt> {
    pub fn start(writer: Writer) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Queue {
            pending: Mutex::new(Pending { requests: VecDeque::new(), committed: None, failed: None, draining: false, abandoned: false }),
            wake: Condvar::new(),
            medium: writer.medium.clone(),
            writer: Mutex::new(writer),
        });
        if queue.medium.simulated_flush().is_none() {
            let worker = queue.clone();
            std::thread::Builder::new().name("raft-log".into()).spawn(move || worker.run())?;
        }
        Ok(queue)
    }

    /// Queues a request. It takes effect after all earlier ones; `done` is told when it is durable, or why it never will be.
    pub fn push(self: &Arc<Self>, request: Request, done: IOFlushed<Types<S, Rt>>) -> io::Result<()> {
        let mut pending = self.lock();
        if let Some(why) = &pending.failed {
            return Err(io::Error::other(StoreError::Failed(why.clone())));
        }
        pending.requests.push_back(Queued { request, done });
        match self.medium.simulated_flush() {
            None => self.wake.notify_one(),
            Some(_) if pending.draining => {}
            Some(_) => {
                pending.draining = true;
                drop(pending);
                let queue = self.clone();
                // The handle is not awaited: the task ends when the queue is empty.
                drop(Rt::spawn(async move { queue.drain().await }));
            }
        }
        Ok(())
    }

    pub fn set_committed(&self, committed: LogId) {
        self.lock().committed = Some(committed);
    }

    /// The thread ends once it has written what is queued.
    pub fn abandon(&self) {
        self.lock().abandoned = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending<S, Rt>> {
        self.pending.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The thread of a medium that blocks.
    fn run(&self) {
        loop {
            let (batch, committed) = {
                let mut pending = self.lock();
                while pending.requests.is_empty() {
                    if pending.abandoned {
                        return;
                    }
                    if pending.failed.is_none() && self.writer.lock().unwrap_or_else(|e| e.into_inner()).has_rows_to_remove() {
                        break;
                    }
                    pending = self.wake.wait(pending).unwrap_or_else(|e| e.into_inner());
                }
                (std::mem::take(&mut pending.requests), pending.committed.take())
            };
            if self.write(batch, committed) {
                return;
            }
        }
    }

    /// The same on a simulated medium, where a flush is a sleep of the simulated clock.
    async fn drain(self: Arc<Self>) {
        loop {
            let (batch, committed) = {
                let mut pending = self.lock();
                if pending.requests.is_empty() {
                    pending.draining = false;
                    return;
                }
                (std::mem::take(&mut pending.requests), pending.committed.take())
            };
            if let Some(time) = self.medium.simulated_flush() {
                Rt::sleep(time).await;
            }
            self.write(batch, committed);
        }
    }

    /// Writes one transaction and reports it. True when the medium was closed.
    fn write(&self, batch: VecDeque<Queued<S, Rt>>, committed: Option<LogId>) -> bool {
        let closing = batch.iter().any(|q| matches!(q.request, Request::Close));
        let failed = self.lock().failed.clone(); // not in the match: its lock would be held through the flush
        let result = match failed {
            Some(why) => Err(why),
            None => {
                let mut writer = self.writer.lock().unwrap_or_else(|e| e.into_inner());
                writer.commit(batch.iter().map(|q| &q.request), committed).map_err(|e| {
                    writer.fault.raise_io(&e);
                    chain(&e)
                })
            }
        };
        if let Err(why) = &result {
            self.lock().failed = Some(why.clone());
        }
        if closing {
            self.medium.close();
        }
        for queued in batch {
            queued.done.io_completed(result.clone().map_err(|why| io::Error::other(StoreError::Failed(why))));
        }
        closing
    }
}

/// Turns requests into one transaction.
pub(super) struct Writer {
    pub medium: Arc<dyn Medium>,
    pub seal: Seal,
    pub view: Arc<Mutex<View>>,
    pub stats: Arc<LogStats>,
    pub fault: Fault,
    /// Rows before the purge mark that still take room. They mean nothing: reading starts after the mark.
    pub rows_to_remove: Range<u64>,
}

impl Writer {
    fn has_rows_to_remove(&self) -> bool {
        !self.rows_to_remove.is_empty()
    }

    fn commit<'a>(&mut self, requests: impl Iterator<Item = &'a Request>, committed: Option<LogId>) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        let mut bytes = 0;
        let mut flushed = None;
        for request in requests {
            match request {
                Request::Append { entries, epoch } => {
                    for entry in entries {
                        let record = self.seal.write(Kind::Entry, &entry_to_pb(entry));
                        bytes += record.len() as u64;
                        writes.push(Write::Entry { index: entry.log_id.index, record });
                        flushed = Some((*epoch, entry.log_id.index + 1));
                    }
                }
                Request::TruncateFrom(from) => writes.push(Write::Remove(*from..u64::MAX)),
                Request::Purge(upto) => {
                    writes.push(self.meta(meta::PURGED, Kind::LogId, &log_id_to_pb(upto)));
                    self.rows_to_remove.end = self.rows_to_remove.end.max(upto.index + 1);
                }
                Request::Vote(_) if raftwerk_planted::on(Bug::DropVote) => {}
                Request::Vote(vote) => writes.push(self.meta(meta::VOTE, Kind::Vote, &vote_to_pb(vote))),
                Request::Close => {}
            }
        }
        // After the appends: the log on disk must never end before the entry it calls committed.
        if let Some(committed) = committed {
            writes.push(self.meta(meta::COMMITTED, Kind::LogId, &log_id_to_pb(&committed)));
        }
        let removed = self.rows_to_remove.start..self.rows_to_remove.end.min(self.rows_to_remove.start + ROWS_PER_REMOVAL);
        if !removed.is_empty() {
            writes.push(Write::Remove(removed.clone()));
        }
        if writes.is_empty() {
            return Ok(());
        }
        let entries = writes.iter().filter(|w| matches!(w, Write::Entry { .. })).count() as u64;
        self.medium.commit(&writes)?;
        self.rows_to_remove.start = self.rows_to_remove.start.max(removed.end);
        self.stats.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stats.entries.fetch_add(entries, Ordering::Relaxed);
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        if let Some((epoch, next)) = flushed {
            self.view.lock().unwrap_or_else(|e| e.into_inner()).flushed(epoch, next);
        }
        Ok(())
    }

    fn meta(&self, name: &'static str, kind: Kind, body: &impl raftwerk_proto::Wire) -> Write {
        Write::Meta { name, record: self.seal.write(kind, body) }
    }
}

/// A counter that is only ever read for information.
pub(super) type Counter = AtomicU64;
