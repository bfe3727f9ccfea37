//! Getting one partition together.
//!
//! Blocks of other workers are checked and put into one file without a name. Blocks that this worker made itself go to the executor where they lie,
//! with their checksums, and are checked there; unless a copy elsewhere could stand in for a damaged one, or all of it is little.
use super::{
    packed,
    service::BlockReader,
    store::{BlockPlace, ShuffleStore},
};
use crate::agent::prepare::FETCHES;
use bytes::Bytes;
use futures::{StreamExt, stream};
use raftwerk_proto::v1::{BlockRange, FetchPartitionRequest, ShuffleBlock, ShuffleSource, TaskRange, worker_data_client::WorkerDataClient};
use raftwerk_transport::{ConnectError, Identity, MAX_MESSAGE_BYTES, PeerKind, plain_error, plain_status};
use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tonic::transport::Channel;

/// Pauses before the second and third attempt: long enough for a dropped connection to be made again, short enough that the
/// scheduler, which can have the data made again, hears of it soon.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// Bytes kept in memory before they are written. A partition smaller than this never touches a disk, unless memory is limited.
const MEMORY_BYTES: usize = 1 << 20;
/// Where memory is limited, so much of it for what is being fetched, ..
const LIMITED_SHARE: u64 = 32;
/// .. of which one partition takes about this: what was read of it at once, and what waits to be written.
const FETCH_BYTES: u64 = 1 << 20;
/// Less is not worth a write.
const MEMORY_LEAST: usize = 64 << 10;
/// Sources read at once for one partition.
const SOURCES_AT_ONCE: usize = 4;
/// Files of this worker's own leases that one partition is read from where it lies. Each is a descriptor that travels and a mapping in the executor.
pub(crate) const FILES_MAPPED: usize = 120;
/// Less is copied faster than it is mapped, or read from many places.
const MAPPED_BYTES: u64 = 1 << 20;
/// A peer that sends nothing for this long is treated as gone.
const SILENCE: Duration = Duration::from_secs(10);
const SILENCE_WITH_CHOICE: Duration = Duration::from_secs(2);

/// What is wanted: one partition of the output of a stage, or of two that are joined.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) job: u64,
    /// Names of the producing stages, in the order of the reading stage's inputs.
    pub(crate) stages: Arc<Vec<String>>,
    pub(crate) partition: u32,
    pub(crate) sources: Arc<Vec<ShuffleSource>>,
}

/// A worker that holds some of it.
struct Place {
    worker: u64,
    address: String,
}

/// A partition, its blocks by task.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    /// Those that its blocks name. None when nobody wrote anything for it.
    pub(crate) files: Vec<OwnedFd>,
    pub(crate) blocks: Vec<BlockRange>,
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    /// Shuffle data of that worker could not be read.
    #[error("shuffle data of worker {worker}: {reason}")]
    Source { worker: u64, reason: String },
    /// This worker could not store it.
    #[error("cannot keep shuffle data in {}: {reason}", dir.display())]
    Here { dir: PathBuf, reason: String },
}

pub(crate) struct Fetcher {
    worker: u64,
    identity: Identity,
    store: Arc<ShuffleStore>,
    dir: PathBuf,
    /// Other workers are asked to compress what they send.
    lz4: bool,
    /// What this worker may take of memory, if that is limited.
    memory: Option<u64>,
    channels: tokio::sync::Mutex<HashMap<String, Channel>>,
}

impl Fetcher {
    pub(crate) fn new(identity: Identity, store: Arc<ShuffleStore>, lz4: bool, memory: Option<u64>) -> Self {
        Self {
            worker: identity.peer().id,
            identity,
            dir: store.dir().to_owned(),
            store,
            lz4,
            memory,
            channels: tokio::sync::Mutex::default(),
        }
    }

    /// Partitions that may be fetched at once.
    pub(crate) fn at_once(memory: Option<u64>, most: usize) -> usize {
        let fitting = |memory: u64| (memory / LIMITED_SHARE / FETCH_BYTES) as usize;
        memory.map_or(most, |memory| fitting(memory).clamp(1, most))
    }

    /// Whether data between workers is to be compressed on its way.
    pub(crate) fn lz4(&self) -> bool {
        self.lz4
    }

    pub(crate) async fn partition(&self, wanted: &Wanted) -> Result<Partition, FetchError> {
        // One request per place (or pair of places) and generation, however the leases were cut.
        type Request = (Vec<Place>, Vec<TaskRange>);
        let mut by_source: BTreeMap<(u32, u64, u64, u32), Request> = BTreeMap::new();
        let Partition { mut files, mut blocks, .. } = self.own(wanted).await.unwrap_or_default();
        let own = !files.is_empty();
        for source in wanted.sources.iter().filter(|source| !own || !self.is_alone_here(source)) {
            let entry = by_source
                .entry((source.input, source.worker, source.copy_worker, source.generation))
                .or_insert_with(|| (self.places(source), Vec::new()));
            entry.1.push(TaskRange { first_task: source.first_task, task_count: source.task_count });
        }
        let sink = tokio::sync::Mutex::new(Sink::new(self.dir.clone(), self.memory));
        let fetches = by_source.into_iter().map(|((input, worker, _, generation), (places, mut ranges))| {
            ranges.sort_by_key(|range| range.first_task);
            let request = FetchPartitionRequest {
                job: wanted.job,
                stage: wanted.stages.get(input as usize).cloned().unwrap_or_default(),
                generation,
                partition: wanted.partition,
                tasks: ranges,
                lz4: self.lz4,
            };
            let sink = &sink;
            async move {
                let mut blocks = self.read_source(worker, places, request, sink).await?;
                blocks.iter_mut().for_each(|block| block.input = input);
                Ok(blocks)
            }
        });
        let fetched: Vec<Result<Vec<BlockRange>, FetchError>> = stream::iter(fetches).buffer_unordered(SOURCES_AT_ONCE).collect().await;
        let descriptor = files.len() as u32;
        for result in fetched {
            blocks.extend(result?.into_iter().map(|block| BlockRange { descriptor, ..block }));
        }
        blocks.sort_by_key(|block| (block.input, block.task));
        let bytes = blocks.iter().map(|block| block.bytes).sum();
        files.extend(sink.into_inner().finish().await.map_err(|error| self.here(&error))?);
        Ok(Partition { files, blocks, bytes })
    }

    /// Made here, and nowhere else to be had.
    fn is_alone_here(&self, source: &ShuffleSource) -> bool {
        source.worker == self.worker && source.copy_worker == 0
    }

    /// What lies here alone, as it lies; nothing when it is to be read like everything else. So what is missing or too short is found as ever.
    async fn own(&self, wanted: &Wanted) -> Option<Partition> {
        let mut by_generation: BTreeMap<(u32, u32), Vec<TaskRange>> = BTreeMap::new();
        for source in wanted.sources.iter().filter(|source| self.is_alone_here(source)) {
            let range = TaskRange { first_task: source.first_task, task_count: source.task_count };
            by_generation.entry((source.input, source.generation)).or_default().push(range);
        }
        let mut places: Vec<Own> = Vec::new();
        for ((input, generation), ranges) in by_generation {
            let stage = wanted.stages.get(input as usize)?;
            let blocks = self.store.blocks(wanted.job, stage, generation, wanted.partition, &ranges).ok()?;
            places.extend(blocks.into_iter().map(|(task, place)| Own { input, task, place }));
        }
        if places.iter().map(|own| own.place.bytes).sum::<u64>() < MAPPED_BYTES {
            return None;
        }
        raftwerk_transport::tasks::blocking(move || open(&places)).await.ok().flatten()
    }

    fn here(&self, error: &io::Error) -> FetchError {
        FetchError::Here { dir: self.dir.clone(), reason: error.to_string() }
    }

    /// Where the data lies, in the order to try: this worker's own disk before the network, the original before its copy.
    fn places(&self, source: &ShuffleSource) -> Vec<Place> {
        let mut places = vec![Place { worker: source.worker, address: source.address.clone() }];
        if source.copy_worker != 0 {
            places.push(Place { worker: source.copy_worker, address: source.copy_address.clone() });
        }
        places.sort_by_key(|place| place.worker != self.worker);
        places
    }

    /// Reads from the first place that has it whole. `worker`, the holder of the original, is blamed when none has.
    async fn read_source(
        &self,
        worker: u64,
        mut places: Vec<Place>,
        request: FetchPartitionRequest,
        sink: &tokio::sync::Mutex<Sink>,
    ) -> Result<Vec<BlockRange>, FetchError> {
        let mut pauses = RETRY_PAUSES.iter();
        let mut reasons = Vec::new();
        loop {
            reasons.clear();
            let mut gone = Vec::new();
            // With another place to turn to, a silent one is not waited for so long, unless all were silent twice: then they may just be slow.
            let silence = if places.len() > 1 && pauses.len() > 0 { SILENCE_WITH_CHOICE } else { SILENCE };
            for place in &places {
                let result = if place.worker == self.worker {
                    self.read_disk(request.clone(), sink).await
                } else {
                    self.read_peer(&place.address, silence, request.clone(), sink).await
                };
                match result {
                    Ok(blocks) => return Ok(blocks),
                    Err(Failure::Here(error)) => return Err(self.here(&error)),
                    // What is gone does not come back by asking again.
                    Err(Failure::Gone(reason)) => {
                        gone.push(place.worker);
                        reasons.push(reason);
                    }
                    Err(Failure::Source(reason)) => reasons.push(reason),
                }
                tracing::debug!(worker = place.worker, address = place.address, reason = reasons.last(), "fetching shuffle data failed");
            }
            places.retain(|place| !gone.contains(&place.worker));
            match pauses.next() {
                Some(pause) if !places.is_empty() => tokio::time::sleep(*pause).await,
                _ => return Err(FetchError::Source { worker, reason: reasons.join("; ") }),
            }
        }
    }

    async fn read_disk(&self, request: FetchPartitionRequest, sink: &tokio::sync::Mutex<Sink>) -> Result<Vec<BlockRange>, Failure> {
        let blocks = self.store.blocks(request.job, &request.stage, request.generation, request.partition, &request.tasks);
        let blocks = blocks.map_err(|error| Failure::Gone(error.to_string()))?;
        let mut taken = Taken::default();
        let mut reader = BlockReader::default();
        let blocks = Arc::new(blocks);
        loop {
            let shared = blocks.clone();
            let read = move || {
                let pieces = reader.read(&shared);
                (reader, pieces)
            };
            let (back, pieces) = raftwerk_transport::tasks::blocking(read).await.map_err(|error| Failure::Source(error.to_string()))?;
            reader = back;
            let pieces = pieces.map_err(|error| Failure::Source(error.to_string()))?;
            if pieces.is_empty() {
                return Ok(taken.ranges);
            }
            for piece in pieces {
                taken.piece(piece.of(&blocks), sink).await?;
            }
        }
    }

    async fn read_peer(
        &self,
        address: &str,
        silence: Duration,
        request: FetchPartitionRequest,
        sink: &tokio::sync::Mutex<Sink>,
    ) -> Result<Vec<BlockRange>, Failure> {
        let failed = |error: tonic::Status| match error.code() {
            tonic::Code::NotFound | tonic::Code::DataLoss => Failure::Gone(error.message().to_owned()),
            _ => Failure::Source(format!("{address}: {}", plain_status(&error))),
        };
        let channel = self.channel(address).await.map_err(|error| Failure::Source(plain_error(&error)))?;
        let mut client = WorkerDataClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let silent = |_| Failure::Source(format!("{address}: nothing came for {} s", silence.as_secs()));
        let response = tokio::time::timeout(silence, client.fetch_partition(request)).await.map_err(silent)?;
        let mut messages = response.map_err(failed)?.into_inner();
        let mut taken = Taken::default();
        while let Some(message) = tokio::time::timeout(silence, messages.message()).await.map_err(silent)?.map_err(failed)? {
            let message = packed::unpack(message).map_err(|reason| Failure::Source(format!("{address}: {reason}")))?;
            for block in message.blocks {
                taken.piece(block, sink).await?;
            }
        }
        if taken.is_between_blocks() {
            Ok(taken.ranges)
        } else {
            Err(Failure::Source(format!("{address}: the stream ended within a block")))
        }
    }

    /// One channel per worker; it reconnects by itself.
    pub(crate) async fn channel(&self, address: &str) -> Result<Channel, ConnectError> {
        let mut channels = self.channels.lock().await;
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = raftwerk_transport::connect_lazy(address, &self.identity, PeerKind::Worker)?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

#[derive(Debug)]
enum Failure {
    Source(String),
    Gone(String),
    Here(io::Error),
}

/// What has come of one source.
#[derive(Default)]
struct Taken {
    ranges: Vec<BlockRange>,
    /// Of the block that is on its way: its checksum so far, and what waits for the rest of it.
    crc: u32,
    pieces: Vec<Bytes>,
    /// Or where it goes piece by piece, and how much has.
    place: Option<BlockRange>,
    placed: u64,
}

impl Taken {
    /// A block that says how long it is takes its place at once and is never in memory as a whole.
    async fn piece(&mut self, block: ShuffleBlock, sink: &tokio::sync::Mutex<Sink>) -> Result<(), Failure> {
        let ShuffleBlock { task, crc32c, data, last, bytes } = block;
        self.crc = crc32c::crc32c_append(self.crc, &data);
        if self.place.is_none() && self.pieces.is_empty() && !last && bytes > 0 {
            self.place = Some(sink.lock().await.reserve(task, bytes).await.map_err(Failure::Here)?);
        }
        match &self.place {
            Some(place) => {
                let wrong = || Failure::Source(format!("the block of task {task} has another length than {} bytes", place.bytes));
                let at = self.placed;
                self.placed = at + data.len() as u64;
                if self.placed > place.bytes || (last && self.placed < place.bytes) {
                    return Err(wrong());
                }
                // The lock is held for the naming of the file alone.
                let write = sink.lock().await.write_at(place.offset + at, data);
                write.await.map_err(Failure::Here)?;
            }
            None => self.pieces.push(data),
        }
        if last {
            check(task, crc32c, std::mem::take(&mut self.crc))?;
            self.placed = 0;
            self.ranges.push(match self.place.take() {
                Some(place) => place,
                None => sink.lock().await.append(task, std::mem::take(&mut self.pieces)).await.map_err(Failure::Here)?,
            });
        }
        Ok(())
    }

    fn is_between_blocks(&self) -> bool {
        self.place.is_none() && self.pieces.is_empty()
    }
}

fn check(task: u64, expected: u32, found: u32) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(Failure::Source(format!("the block of task {task} is damaged: its checksum is {found:08x}, not {expected:08x}")))
}

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// A block of this worker's own, and which of the stage's inputs it belongs to.
struct Own {
    input: u32,
    task: u64,
    place: BlockPlace,
}

/// Blocks by the files that hold them, if these are few, there, and long enough.
fn open(places: &[Own]) -> Option<Partition> {
    let mut partition = Partition::default();
    let mut opened: HashMap<&Path, (u32, u64)> = HashMap::new();
    for Own { input, task, place } in places {
        let (descriptor, length) = match opened.get(place.file.as_path()) {
            Some(there) => *there,
            None if opened.len() == FILES_MAPPED => return None,
            None => {
                let file = File::open(&*place.file).ok()?;
                let there = (partition.files.len() as u32, file.metadata().ok()?.len());
                partition.files.push(file.into());
                opened.insert(&place.file, there);
                there
            }
        };
        if place.offset.checked_add(place.bytes).is_none_or(|end| end > length) {
            return None;
        }
        let BlockPlace { offset, bytes, crc32c, .. } = *place;
        partition.blocks.push(BlockRange { task: *task, offset, bytes, input: *input, descriptor, unchecked: true, crc32c });
    }
    Some(partition)
}

/// Collects blocks: in memory while they are few, then in a file without a name.
struct Sink {
    dir: PathBuf,
    file: Option<Arc<File>>,
    buffer: Vec<Bytes>,
    buffered: usize,
    /// Of the whole; the last `buffered` bytes of it are not in the file yet.
    end: u64,
    /// So much is buffered, ..
    most: usize,
    /// .. and if all is less than that, it stays in memory.
    stays: bool,
}

impl Sink {
    fn new(dir: PathBuf, memory: Option<u64>) -> Self {
        let fitting = |memory: u64| usize::try_from(memory / LIMITED_SHARE / FETCHES as u64).unwrap_or(MEMORY_BYTES);
        let most = memory.map_or(MEMORY_BYTES, |memory| fitting(memory).clamp(MEMORY_LEAST, MEMORY_BYTES));
        // Partitions that wait for their turn may be many.
        Self { dir, file: None, buffer: Vec::new(), buffered: 0, end: 0, most, stays: memory.is_none() }
    }

    async fn append(&mut self, task: u64, pieces: Vec<Bytes>) -> io::Result<BlockRange> {
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        let range = BlockRange { task, offset: self.end, bytes: bytes as u64, ..BlockRange::default() };
        self.end += range.bytes;
        self.buffered += bytes;
        self.buffer.extend(pieces);
        if self.buffered >= self.most {
            self.write().await?;
        }
        Ok(range)
    }

    /// A place for a block that comes piece by piece ([`Sink::write_at`]).
    async fn reserve(&mut self, task: u64, bytes: u64) -> io::Result<BlockRange> {
        self.write().await?;
        let range = BlockRange { task, offset: self.end, bytes, ..BlockRange::default() };
        let end = self.end.checked_add(bytes).ok_or_else(|| io::Error::other(format!("a block of {bytes} bytes")));
        self.end = end?;
        Ok(range)
    }

    /// Others may append meanwhile.
    fn write_at(&self, offset: u64, data: Bytes) -> impl Future<Output = io::Result<()>> + use<> {
        let file = self.file.clone();
        async move {
            let file = file.ok_or_else(|| io::Error::other("a place in no file"))?;
            let written = raftwerk_transport::tasks::blocking(move || file.write_all_at(&data, offset));
            written.await.map_err(io::Error::other)?
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        let (buffer, file, dir) = (std::mem::take(&mut self.buffer), self.file.take(), self.dir.clone());
        let mut at = self.end - std::mem::take(&mut self.buffered) as u64;
        let write = move || {
            let file = file.map_or_else(|| nameless_file(&dir).map(Arc::new), Ok)?;
            for bytes in buffer {
                file.write_all_at(&bytes, at)?;
                at += bytes.len() as u64;
            }
            Ok::<_, io::Error>(file)
        };
        self.file = Some(raftwerk_transport::tasks::blocking(write).await.map_err(io::Error::other)??);
        Ok(())
    }

    async fn finish(mut self) -> io::Result<Option<OwnedFd>> {
        if self.end == 0 {
            return Ok(None);
        }
        if self.file.is_none() && self.stays {
            // Memory only: nothing here can block.
            let memory = rustix::fs::memfd_create("raftwerk-partition", rustix::fs::MemfdFlags::CLOEXEC)?;
            let mut file = File::from(memory);
            for bytes in &self.buffer {
                file.write_all(bytes)?;
            }
            return Ok(Some(file.into()));
        }
        if !self.buffer.is_empty() {
            self.write().await?;
        }
        // Whoever wrote a piece of it is done.
        let file = self.file.and_then(Arc::into_inner);
        file.map(OwnedFd::from).map(Some).ok_or_else(|| io::Error::other("the file of a partition is still being written"))
    }
}

/// A file that vanishes with its last descriptor, whatever happens to this process.
pub(crate) fn nameless_file(dir: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = dir.join(format!(".nameless-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(task: u64, whole: &[u8], range: std::ops::Range<usize>, bytes: u64) -> ShuffleBlock {
        let data = Bytes::copy_from_slice(&whole[range.clone()]);
        ShuffleBlock { task, crc32c: crc32c::crc32c(whole), data, last: range.end == whole.len(), bytes }
    }

    async fn whole(sink: Sink) -> Vec<u8> {
        let file = File::from(sink.finish().await.unwrap().unwrap());
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[tokio::test]
    async fn long_blocks_take_their_place_piece_by_piece_while_others_come() {
        let dir = tempfile::tempdir().unwrap();
        let [long, other, short]: [Vec<u8>; 3] =
            [(100_000, 3), (70_000, 5), (10, 7)].map(|(length, step)| (0..length).map(|at| (at * step) as u8).collect());
        for memory in [None, Some(32 << 20)] {
            let sink = tokio::sync::Mutex::new(Sink::new(dir.path().to_owned(), memory));
            let (mut a, mut b) = (Taken::default(), Taken::default());
            a.piece(piece(1, &short, 0..10, 0), &sink).await.unwrap();
            a.piece(piece(2, &long, 0..60_000, 100_000), &sink).await.unwrap();
            b.piece(piece(3, &other, 0..1, 70_000), &sink).await.unwrap();
            assert!(!a.is_between_blocks() && sink.lock().await.buffered == 0, "nothing of it waits");
            // As a build sends it that does not say how long it is.
            let mut c = Taken::default();
            c.piece(piece(4, &short, 0..4, 0), &sink).await.unwrap();
            b.piece(piece(3, &other, 1..70_000, 70_000), &sink).await.unwrap();
            a.piece(piece(2, &long, 60_000..100_000, 100_000), &sink).await.unwrap();
            c.piece(piece(4, &short, 4..10, 0), &sink).await.unwrap();
            assert!(a.is_between_blocks() && b.is_between_blocks() && c.is_between_blocks());
            let ranges = [a.ranges, b.ranges, c.ranges].concat();
            let bytes = whole(sink.into_inner()).await;
            for (range, expected) in ranges.iter().zip([&short, &long, &other, &short]) {
                let place = range.offset as usize..(range.offset + range.bytes) as usize;
                assert!(bytes[place] == expected[..], "the block of task {}", range.task);
            }
        }
    }

    #[tokio::test]
    async fn a_block_of_another_length_or_other_bytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let block: Vec<u8> = (0..5000).map(|at| at as u8).collect();
        let sink = tokio::sync::Mutex::new(Sink::new(dir.path().to_owned(), None));
        for said in [4999, 5001] {
            let mut taken = Taken::default();
            taken.piece(piece(1, &block, 0..100, said), &sink).await.unwrap();
            let refused = taken.piece(piece(1, &block, 100..5000, said), &sink).await;
            assert!(matches!(refused, Err(Failure::Source(reason)) if reason.contains("another length")));
        }
        let mut taken = Taken::default();
        taken.piece(piece(1, &block, 0..100, 5000), &sink).await.unwrap();
        let damaged = ShuffleBlock { crc32c: 7, ..piece(1, &block, 100..5000, 5000) };
        assert!(matches!(taken.piece(damaged, &sink).await, Err(Failure::Source(reason)) if reason.contains("damaged")));
    }

    #[test]
    fn a_small_worker_fetches_few_partitions_at_once() {
        assert_eq!(Fetcher::at_once(None, 16), 16);
        assert_eq!(Fetcher::at_once(Some(1 << 30), 16), 16);
        assert_eq!(Fetcher::at_once(Some(256 << 20), 16), 8);
        assert_eq!(Fetcher::at_once(Some(0), 16), 1);
    }
}
