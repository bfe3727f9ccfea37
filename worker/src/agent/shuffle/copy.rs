//! A second copy of shuffle data on another worker, made before the tasks are reported: when a task is accepted, both places hold it.
//!
//! ```text
//! progress of a lease --> blocks read from its file --> KeepCopy at the first candidate that takes them --> progress goes on, naming it
//! ```
//! A copy is worth waiting for, but not for ever: when nobody takes it, the tasks are reported with one place, and the job says so.
use super::{
    fetch::Fetcher,
    packed,
    service::{BlockReader, Piece},
    store::{BlockPlace, Placed, ShuffleStore},
};
use crate::{
    agent::{
        edge::EdgeInput,
        prepare::Preparer,
        room::{Reserved, Room},
    },
    fail_point,
    lease::LeaseKey,
    session::Input,
};
use raftwerk_proto::v1::{
    BlockIndex, CopiedAgain, CopiedBlock, CopiedBlocks, CopyAgain, CopyHeader, CopyTarget, KeepCopyReply, KeepCopyRequest, LeaseId,
    LeaseProgress, ShuffleBlock, TaskRange, TaskResults, keep_copy_request::Message, worker_data_client::WorkerDataClient,
};
use raftwerk_transport::{MAX_MESSAGE_BYTES, plain_error, plain_status};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Leases whose data is copied at once.
const COPIES_AT_ONCE: usize = 8;
/// Messages made ahead of the network.
const AHEAD: usize = 4;
/// Progress messages of a lease that are copied in one call when they have gathered.
const MESSAGES_AT_ONCE: usize = 64;
/// A worker that has not taken a copy by then is taken to be away ..
const PATIENCE: Duration = Duration::from_secs(5);
/// .. with a second more for every so many bytes: a slow network is not an absent worker.
const SLOWEST_BYTES_PER_SECOND: u64 = 4 << 20;
/// How long a worker that was away is not asked again. By then it is back, or the cluster has declared it lost and no longer names it.
const AVOID: Duration = Duration::from_secs(10);
/// The same for one that has no room: a smaller copy may fit, and jobs end.
const AVOID_FULL: Duration = Duration::from_secs(1);

/// Sends copies; one per agent.
pub(crate) struct Copier {
    turns: Semaphore,
    /// Workers that are not asked, and until when.
    avoided: Mutex<HashMap<u64, Instant>>,
    /// Addresses of workers whose builds take no compressed copies.
    plain: Mutex<HashSet<String>>,
}

/// Why a worker did not take a copy.
enum Refusal {
    /// It has no room.
    Full(String),
    /// It did not find in the messages what was said to be there.
    Incomplete(String),
    /// It did not answer, or something else is wrong with it.
    Away(String),
}

/// What is the same for all messages of a lease.
#[derive(Clone)]
pub(crate) struct Copied {
    pub(crate) lease: LeaseKey,
    pub(crate) job: u64,
    /// Name of the stage that makes the data.
    pub(crate) stage: String,
    pub(crate) generation: u32,
    pub(crate) file: Arc<PathBuf>,
    pub(crate) targets: Vec<CopyTarget>,
}

impl Default for Copier {
    fn default() -> Self {
        Self { turns: Semaphore::new(COPIES_AT_ONCE), avoided: Mutex::default(), plain: Mutex::default() }
    }
}

/// Copies what each message says is finished and passes the message on behind it, in order, naming who holds the copy.
pub(crate) fn start(
    copier: Arc<Copier>,
    preparer: Arc<Preparer>,
    copied: Copied,
    edge: mpsc::UnboundedSender<EdgeInput>,
) -> mpsc::UnboundedSender<LeaseProgress> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<LeaseProgress>();
    raftwerk_transport::tasks::spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, MESSAGES_AT_ONCE).await > 0 {
            let ranges: Vec<TaskRange> = (batch.iter().flat_map(|progress| &progress.results))
                .map(|results| TaskRange { first_task: results.first_task, task_count: results.task_count })
                .collect();
            let mut blocks: Vec<BlockIndex> = batch.iter_mut().flat_map(|progress| std::mem::take(&mut progress.blocks)).collect();
            if !ranges.is_empty() {
                // In the order of the file, so that neighbours are read at once.
                blocks.sort_by_key(|block| block.offset);
                let holder = copier.copy(&preparer.fetcher, &copied, &ranges, &blocks).await;
                if let Some((worker, incarnation)) = holder {
                    for progress in batch.iter_mut().filter(|progress| !progress.results.is_empty()) {
                        (progress.copy_worker, progress.copy_incarnation) = (worker, incarnation);
                    }
                }
            }
            let _ = edge.send(EdgeInput::Session(Input::Progress(std::mem::take(&mut batch))));
        }
    });
    sender
}

impl Copier {
    async fn copy(&self, fetcher: &Fetcher, copied: &Copied, ranges: &[TaskRange], blocks: &[BlockIndex]) -> Option<(u64, u64)> {
        let place = |block: &BlockIndex| {
            let place = BlockPlace { file: copied.file.clone(), offset: block.offset, bytes: block.bytes, crc32c: block.crc32c };
            (block.partition, block.task, place)
        };
        self.copy_places(fetcher, copied, ranges, &Arc::new(blocks.iter().map(place).collect())).await
    }

    /// Copies what lies here alone, wherever it lies, once more.
    pub(crate) async fn again(&self, fetcher: &Fetcher, store: &ShuffleStore, request: CopyAgain) -> CopiedAgain {
        let CopyAgain { job, stage, stage_name, generation, tasks, targets } = request;
        let mut report = CopiedAgain { job, stage, generation, ..CopiedAgain::default() };
        let ranges: Vec<TaskRange> =
            tasks.iter().map(|piece| TaskRange { first_task: piece.first_task, task_count: piece.task_count }).collect();
        report.tasks = tasks;
        match store.all_blocks(job, &stage_name, generation, &ranges) {
            Ok(places) => {
                let lease = LeaseKey::from(LeaseId::default());
                let copied = Copied { lease, job, stage: stage_name, generation, file: Arc::default(), targets };
                let holder = self.copy_places(fetcher, &copied, &ranges, &Arc::new(places)).await;
                (report.copy_worker, report.copy_incarnation) = holder.unwrap_or_default();
            }
            Err(error) => tracing::warn!(job, %error, "cannot copy shuffle data again"),
        }
        report
    }

    async fn copy_places(&self, fetcher: &Fetcher, copied: &Copied, ranges: &[TaskRange], blocks: &Arc<Vec<Placed>>) -> Option<(u64, u64)> {
        let _turn = self.turns.acquire().await.ok()?;
        for target in copied.targets.iter().filter(|target| !self.is_avoided(target.worker)) {
            let (worker, address) = (target.worker, &target.address);
            let mut lz4 = fetcher.lz4() && !self.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(address);
            let reason = loop {
                let attempt = tokio::time::timeout(patience(blocks), send(fetcher, address, copied, ranges, blocks.clone(), lz4));
                match attempt.await {
                    Ok(Ok(reply)) => return Some((worker, reply.incarnation)),
                    Ok(Err(Refusal::Incomplete(_))) if lz4 => {
                        tracing::info!(worker, address, "it takes no compressed copies of shuffle data; they go there as they are");
                        self.plain.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone());
                        lz4 = false;
                    }
                    Ok(Err(refusal)) => break refusal,
                    Err(_) => break Refusal::Away("it does not answer".into()),
                }
            };
            let until = match reason {
                Refusal::Full(reason) => {
                    tracing::info!(lease = %copied.lease, worker, address, reason, "no room for a second copy of shuffle data there");
                    Instant::now() + AVOID_FULL
                }
                Refusal::Incomplete(reason) | Refusal::Away(reason) => {
                    tracing::warn!(lease = %copied.lease, worker, address, reason, "no second copy of shuffle data there");
                    Instant::now() + AVOID
                }
            };
            self.avoided.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, until);
        }
        tracing::warn!(lease = %copied.lease, candidates = copied.targets.len(), "shuffle data has one place only: no other worker takes a copy");
        None
    }

    fn is_avoided(&self, worker: u64) -> bool {
        let mut avoided = self.avoided.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        avoided.retain(|_, until| *until > now);
        avoided.contains_key(&worker)
    }
}

fn patience(blocks: &[Placed]) -> Duration {
    PATIENCE + Duration::from_secs(bytes_of(blocks) / SLOWEST_BYTES_PER_SECOND)
}

fn bytes_of(blocks: &[Placed]) -> u64 {
    blocks.iter().map(|(_, _, place)| place.bytes).sum()
}

async fn send(
    fetcher: &Fetcher,
    address: &str,
    copied: &Copied,
    ranges: &[TaskRange],
    blocks: Arc<Vec<Placed>>,
    lz4: bool,
) -> Result<KeepCopyReply, Refusal> {
    let channel = fetcher.channel(address).await.map_err(|error| Refusal::Away(plain_error(&error)))?;
    let mut client = WorkerDataClient::new(channel).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let header = CopyHeader {
        job: copied.job,
        stage: copied.stage.clone(),
        generation: copied.generation,
        lease: Some(copied.lease.into()),
        tasks: ranges.to_vec(),
        blocks: blocks.len() as u64,
        bytes: bytes_of(&blocks),
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (job, stage) = (copied.job, copied.stage.clone());
    raftwerk_transport::tasks::blocking(move || {
        if let Err(error) = read_out(header, &blocks, lz4, &sender) {
            // The stream ends short of what the header says, and is refused for it.
            tracing::warn!(job, stage, %error, "cannot read shuffle data back to copy it");
        }
    });
    // No deadline here: who calls this has patience by the bytes of the whole copy.
    let kept = client.keep_copy(ReceiverStream::new(receiver)).await;
    kept.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        tonic::Code::ResourceExhausted => Refusal::Full(status.message().to_owned()),
        tonic::Code::DataLoss => Refusal::Incomplete(status.message().to_owned()),
        _ => Refusal::Away(plain_status(&status)),
    })
}

fn read_out(header: CopyHeader, blocks: &[Placed], lz4: bool, sender: &mpsc::Sender<KeepCopyRequest>) -> io::Result<()> {
    let send = |message| sender.blocking_send(KeepCopyRequest { message: Some(message) }).is_ok();
    if !send(Message::Header(header)) {
        return Ok(()); // the other side says why
    }
    let mut reader = BlockReader::default();
    loop {
        let pieces = reader.read(blocks)?;
        if pieces.is_empty() {
            return Ok(());
        }
        let message = pieces.into_iter().map(|Piece { block, data, last }| {
            let (partition, task, place) = &blocks[block];
            let block = ShuffleBlock { task: *task, crc32c: place.crc32c, data, last, bytes: 0 };
            CopiedBlock { partition: *partition, block: Some(block) }
        });
        let message = CopiedBlocks { blocks: message.collect(), ..CopiedBlocks::default() };
        if !send(Message::Blocks(if lz4 { packed::pack_copied(message) } else { message })) {
            return Ok(());
        }
    }
}

/// The other side: takes a copy if there is room for it, checks every block, and makes it findable when all of it is there.
pub(crate) async fn keep(store: &Arc<ShuffleStore>, room: &Arc<Room>, mut incoming: Streaming<KeepCopyRequest>) -> Result<(), Status> {
    let first = incoming.message().await?.and_then(|request| request.message);
    let Some(Message::Header(header)) = first else { return Err(Status::invalid_argument("a copy begins with its header")) };
    let lease = header.lease.map(LeaseKey::from).ok_or_else(|| Status::invalid_argument("the header of a copy names its lease"))?;
    let mut reserved = room.reserve(header.bytes).map_err(Status::resource_exhausted)?;
    let (shared, job, generation) = (store.clone(), header.job, header.generation);
    let (path, file) = on_disk(move || shared.create_copy(job, generation, lease)).await?;
    let taken = take(&header, &mut incoming, &mut reserved, &path, file).await;
    fail_point::reach("copy.taken");
    match taken {
        Ok(blocks) if !store.is_released(header.job) => {
            let result =
                |range: &TaskRange| TaskResults { first_task: range.first_task, task_count: range.task_count, ..Default::default() };
            let results: Vec<TaskResults> = header.tasks.iter().map(result).collect();
            // Counted from here on, and only then not promised any more: see the end of `reserved`.
            store.add_copy(header.job, &header.stage, header.generation, &path, &results, &blocks);
            Ok(())
        }
        refused => {
            // Nobody will ask for it.
            let _ = on_disk(move || fs::remove_file(&*path)).await;
            Err(refused.err().unwrap_or_else(|| Status::failed_precondition("the job has ended")))
        }
    }
}

async fn take(
    header: &CopyHeader,
    incoming: &mut Streaming<KeepCopyRequest>,
    reserved: &mut Reserved,
    path: &Arc<PathBuf>,
    file: File,
) -> Result<Vec<BlockIndex>, Status> {
    let file = Arc::new(file);
    let (mut index, mut end) = (Vec::new(), 0);
    let (mut crc, mut begun) = (0, 0);
    while let Some(request) = incoming.message().await? {
        let Some(Message::Blocks(message)) = request.message else {
            return Err(Status::invalid_argument("after its header a copy has blocks only"));
        };
        let CopiedBlocks { blocks, .. } = packed::unpack_copied(message).map_err(Status::data_loss)?;
        let mut pieces = Vec::with_capacity(blocks.len());
        for CopiedBlock { partition, block } in blocks {
            let block = block.ok_or_else(|| Status::invalid_argument("a block without its data"))?;
            let inside = |range: &TaskRange| block.task.checked_sub(range.first_task).is_some_and(|at| at < range.task_count);
            if !header.tasks.iter().any(inside) {
                return Err(Status::invalid_argument(format!("task {} is not among those of the header", block.task)));
            }
            crc = crc32c::crc32c_append(crc, &block.data);
            end += block.data.len() as u64;
            pieces.push(block.data);
            if block.last {
                if crc != block.crc32c {
                    let found =
                        format!("the block of task {} came damaged: its checksum is {crc:08x}, not {:08x}", block.task, block.crc32c);
                    return Err(Status::data_loss(found));
                }
                index.push(BlockIndex { task: block.task, partition, offset: begun, bytes: end - begun, crc32c: crc });
                (crc, begun) = (0, end);
            }
        }
        if end > reserved.bytes() {
            reserved.grow(end).map_err(Status::resource_exhausted)?;
        }
        let file = file.clone();
        on_disk(move || pieces.iter().try_for_each(|piece| (&*file).write_all(piece))).await?;
    }
    if index.len() as u64 != header.blocks || begun != end {
        return Err(Status::data_loss(format!("{} of {} blocks came ({})", index.len(), header.blocks, path.display())));
    }
    Ok(index)
}

/// File work, off the runtime's threads. A full disk is this worker's trouble, and another one may take the copy.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Status> {
    let done = raftwerk_transport::tasks::blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
    done.map_err(|error| Status::unavailable(format!("cannot keep a copy: {error}")))
}
