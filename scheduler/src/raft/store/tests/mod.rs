mod conformance;
mod crash;
mod damage;
mod golden;
mod kills;
mod replica;

use std::sync::Arc;

use bytes::Bytes;
use openraft::RaftLogReader;
use openraft::impls::TokioRuntime;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;

use super::{LogStore, Medium, StoreError};
use crate::raft::fault::Fault;
use crate::raft::tests::Chain;
use crate::raft::types::{Entry, EntryPayload, LogId, Payload, Types, Vote, log_id};

const CLUSTER: &str = "house";

type Log = LogStore<Chain, TokioRuntime>;

fn open(medium: Arc<dyn Medium>) -> Result<Log, StoreError> {
    LogStore::open(medium, CLUSTER, 1, Fault::default())
}

fn entry(term: u64, index: u64, text: &str) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Payload(Bytes::copy_from_slice(text.as_bytes()))) }
}

/// Returns once the entries are durable.
async fn append(log: &mut Log, entries: Vec<Entry>) -> std::io::Result<()> {
    let (done, flushed) = Types::<Chain, TokioRuntime>::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    flushed.await.map_err(std::io::Error::other)?
}

/// Everything that a restarted replica finds.
#[derive(Debug, PartialEq)]
struct Contents {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    entries: Vec<Entry>,
}

async fn contents(log: &mut Log) -> std::io::Result<Contents> {
    Ok(Contents {
        vote: log.read_vote().await?,
        purged: log.get_log_state().await?.last_purged_log_id,
        committed: log.read_committed().await?,
        entries: log.try_get_log_entries(..).await?,
    })
}
