//! What shuffle data takes from one worker to another, for `raftwerk-bench shuffle`: the service, the channel and the fetcher of two agents, without a scheduler, a
//! kernel, or another process.
use super::{
    fetch::{Fetcher, Wanted},
    service::DataService,
    store::ShuffleStore,
};
use crate::{
    agent::{
        prepare::{FETCHES, PARTITIONS_AT_ONCE},
        results::store::ResultStore,
        room::{DiskLimits, Room},
        serve_data,
        uploads::{Uploads, store::UploadStore},
    },
    lease::LeaseKey,
};
use anyhow::Context;
use futures::{StreamExt, stream};
use raftwerk_proto::v1::{BlockIndex, ShuffleSource, TaskResults};
use raftwerk_transport::{Authority, PeerKind};
use std::{
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc};

/// So many partitions of so many blocks, each of so many bytes.
#[derive(Clone, Copy, Debug)]
pub struct ShuffleShape {
    pub partitions: u32,
    pub tasks: u64,
    pub block_bytes: u64,
}

impl ShuffleShape {
    pub fn bytes(&self) -> u64 {
        u64::from(self.partitions) * self.tasks * self.block_bytes
    }
}

/// Fetches all partitions as a lease of reduce tasks does; how long that takes, once for each of `runs`. Whatever is written goes below `dir`.
pub async fn measure(dir: &Path, shape: ShuffleShape, lz4: bool, runs: usize) -> anyhow::Result<Vec<Duration>> {
    let (authority, _) = Authority::create("measured")?;
    let stores = ["one", "other"].map(|name| {
        let home = dir.join(name);
        std::fs::create_dir_all(&home)?;
        Ok::<_, std::io::Error>((Arc::new(ShuffleStore::open(&home)?), Arc::new(ResultStore::open(&home)?)))
    });
    let [one, other] = stores;
    let ((store, results), (own, _)) = (one?, other?);
    fill(&store, shape)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let held = Arc::new(UploadStore::open(dir)?);
    let room = Arc::new(Room::new(DiskLimits::default(), dir.to_owned(), store.clone(), results.clone(), held.clone()));
    let (edge, _inputs) = mpsc::unbounded_channel();
    let identity = authority.issue(PeerKind::Worker, 1, "one")?;
    let uploads = Arc::new(Uploads::new(held, room.clone(), identity.clone(), edge.clone()));
    let server = serve_data(listener, &identity, DataService { store, results, room, uploads, incarnation: 1, edge });
    let fetcher = Fetcher::new(authority.issue(PeerKind::Worker, 2, "other")?, own, lz4, None);
    let source = ShuffleSource { worker: 1, address, generation: 1, task_count: shape.tasks, ..ShuffleSource::default() };
    let (stages, sources) = (Arc::new(vec!["map".to_owned()]), Arc::new(vec![source]));
    let mut took = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        let fetches = (0..shape.partitions).map(|partition| {
            let wanted = Wanted { job: 1, stages: stages.clone(), partition, sources: sources.clone() };
            let fetcher = &fetcher;
            async move { fetcher.partition(&wanted).await }
        });
        let mut fetched = stream::iter(fetches).buffer_unordered(PARTITIONS_AT_ONCE.min(FETCHES));
        let mut bytes = 0;
        while let Some(partition) = fetched.next().await {
            bytes += partition?.bytes;
        }
        took.push(began.elapsed());
        anyhow::ensure!(bytes == shape.bytes(), "{bytes} of {} bytes came", shape.bytes());
    }
    drop(server);
    Ok(took)
}

/// Blocks of letters of chance, as a lease of map tasks leaves them.
fn fill(store: &ShuffleStore, shape: ShuffleShape) -> anyhow::Result<()> {
    let lease = LeaseKey { epoch: 0, index: 1, position: 0 };
    let (path, mut file) = store.create(1, 0, 1, lease)?;
    let mut state = 1u64;
    let mut offset = 0;
    for task in 0..shape.tasks {
        let mut blocks = Vec::with_capacity(shape.partitions as usize);
        for partition in 0..shape.partitions {
            let letters = (0..shape.block_bytes).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                b'a' + ((state >> 56) % 26) as u8
            });
            let block: Vec<u8> = letters.collect();
            file.write_all(&block).with_context(|| path.display().to_string())?;
            blocks.push(BlockIndex { task, partition, offset, bytes: shape.block_bytes, crc32c: crc32c::crc32c(&block) });
            offset += shape.block_bytes;
        }
        store.add(1, "map", 1, &path, &[TaskResults { first_task: task, task_count: 1, ..TaskResults::default() }], &blocks);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_of_it_comes_in_every_run() {
        let dir = tempfile::tempdir().unwrap();
        for (block_bytes, lz4) in [(3000, false), (1_300_000, true)] {
            let shape = ShuffleShape { partitions: 3, tasks: 2, block_bytes };
            assert_eq!(measure(dir.path(), shape, lz4, 2).await.unwrap().len(), 2);
        }
    }
}
