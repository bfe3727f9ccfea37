//! `WorkerData`: other workers fetch partitions here, streamed from disk; so do they and clients with parts of results. Clients bring uploads.
use super::{
    copy, packed,
    store::{BlockPlace, Placed, ShuffleStore},
};
use crate::agent::{
    edge::EdgeInput,
    results::{self, store::ResultStore},
    room::Room,
    uploads::{self, Uploads},
};
use bytes::{Bytes, BytesMut};
use raftwerk_proto::v1::{
    CopyUploadProgress, CopyUploadRequest, FetchPartRequest, FetchPartitionRequest, FetchUploadRequest, KeepCopyReply, KeepCopyRequest,
    PartPiece, PutUploadReply, ShuffleBlock, ShuffleBlocks, UploadMessage, worker_data_server::WorkerData,
};
use raftwerk_transport::{PeerKind, require};
use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of data in one message, and read from disk at once.
pub(super) const MESSAGE_BYTES: usize = 512 << 10;
/// Messages made ahead of the network.
const AHEAD: usize = 4;

pub(crate) struct DataService {
    pub(crate) store: Arc<ShuffleStore>,
    pub(crate) results: Arc<ResultStore>,
    pub(crate) room: Arc<Room>,
    pub(crate) uploads: Arc<Uploads>,
    /// Of this process; whoever has a copy here knows with it that the copy is gone when another process answers to this worker's name.
    pub(crate) incarnation: u64,
    pub(crate) edge: mpsc::UnboundedSender<EdgeInput>,
}

#[tonic::async_trait]
impl WorkerData for DataService {
    type FetchPartitionStream = ReceiverStream<Result<ShuffleBlocks, Status>>;
    type FetchPartStream = ReceiverStream<Result<PartPiece, Status>>;
    type CopyUploadStream = ReceiverStream<Result<CopyUploadProgress, Status>>;
    type FetchUploadStream = ReceiverStream<Result<UploadMessage, Status>>;

    async fn put_upload(&self, request: Request<Streaming<UploadMessage>>) -> Result<Response<PutUploadReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        uploads::service::put(&self.uploads, request.into_inner()).await.map(Response::new)
    }

    async fn copy_upload(&self, request: Request<CopyUploadRequest>) -> Result<Response<Self::CopyUploadStream>, Status> {
        require(&request, &[PeerKind::Client])?;
        Ok(Response::new(ReceiverStream::new(uploads::service::copy(self.uploads.clone(), request.into_inner()))))
    }

    async fn fetch_upload(&self, request: Request<FetchUploadRequest>) -> Result<Response<Self::FetchUploadStream>, Status> {
        require(&request, &[PeerKind::Worker])?;
        uploads::service::fetch(&self.uploads, request.get_ref()).map(|pieces| Response::new(ReceiverStream::new(pieces)))
    }

    async fn fetch_partition(&self, request: Request<FetchPartitionRequest>) -> Result<Response<Self::FetchPartitionStream>, Status> {
        require(&request, &[PeerKind::Worker, PeerKind::Client])?;
        let FetchPartitionRequest { job, stage, generation, partition, tasks, lz4 } = request.into_inner();
        let blocks = self.store.blocks(job, &stage, generation, partition, &tasks).map_err(|e| Status::not_found(e.to_string()))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        raftwerk_transport::tasks::blocking(move || {
            if let Err(status) = stream(&blocks, lz4, &sender) {
                let _ = sender.blocking_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch_part(&self, request: Request<FetchPartRequest>) -> Result<Response<Self::FetchPartStream>, Status> {
        let reader = require(&request, &[PeerKind::Worker, PeerKind::Client])?;
        let tell = results::inventory::to_session(&self.edge);
        let pieces = results::service::stream(self.results.clone(), request.into_inner(), reader.kind == PeerKind::Client, tell).await?;
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn keep_copy(&self, request: Request<Streaming<KeepCopyRequest>>) -> Result<Response<KeepCopyReply>, Status> {
        require(&request, &[PeerKind::Worker])?;
        copy::keep(&self.store, &self.room, request.into_inner()).await?;
        Ok(Response::new(KeepCopyReply { incarnation: self.incarnation }))
    }
}

fn stream(blocks: &[(u64, BlockPlace)], lz4: bool, sender: &mpsc::Sender<Result<ShuffleBlocks, Status>>) -> Result<(), Status> {
    let pack = |blocks: Vec<ShuffleBlock>| {
        let message = ShuffleBlocks { blocks, ..ShuffleBlocks::default() };
        if lz4 { packed::pack(message) } else { message }
    };
    let mut reader = BlockReader::default();
    let (mut message, mut bytes) = (Vec::new(), 0);
    loop {
        let pieces = reader.read(blocks).map_err(|error| Status::data_loss(format!("cannot read shuffle data: {error}")))?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            bytes += piece.data.len();
            message.push(piece.of(blocks));
            if bytes >= MESSAGE_BYTES {
                bytes = 0;
                if sender.blocking_send(Ok(pack(std::mem::take(&mut message)))).is_err() {
                    return Ok(()); // the other side has gone
                }
            }
        }
    }
    if !message.is_empty() {
        let _ = sender.blocking_send(Ok(pack(message)));
    }
    Ok(())
}

/// Some of a block, or all of it: what fits a message.
pub(super) struct Piece {
    /// Which of the blocks.
    pub(super) block: usize,
    pub(super) data: Bytes,
    pub(super) last: bool,
}

impl Piece {
    pub(super) fn of(self, blocks: &[(u64, BlockPlace)]) -> ShuffleBlock {
        let (task, place) = &blocks[self.block];
        let whole = self.last && self.data.len() as u64 == place.bytes;
        ShuffleBlock { task: *task, crc32c: place.crc32c, data: self.data, last: self.last, bytes: if whole { 0 } else { place.bytes } }
    }
}

/// Reads blocks one after the other, those that lie back to back with one system call and long ones piece by piece; keeps the last file open, since
/// neighbours share it.
#[derive(Default)]
pub(super) struct BlockReader {
    open: Option<(Arc<PathBuf>, File)>,
    /// The block that comes next, and how much of it was read.
    next: usize,
    within: u64,
}

impl BlockReader {
    /// The pieces that come next of the same blocks as ever, up to about one message of data; none behind the last.
    pub(super) fn read<T: Located>(&mut self, blocks: &[T]) -> io::Result<Vec<Piece>> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while let Some(block) = blocks.get(self.next)
            && bytes < MESSAGE_BYTES
        {
            let place = block.place();
            if place.bytes > MESSAGE_BYTES as u64 {
                if !pieces.is_empty() {
                    break;
                }
                let length = (place.bytes - self.within).min(MESSAGE_BYTES as u64);
                let data = self.read_at(place, self.within, length)?;
                self.within += length;
                let last = self.within == place.bytes;
                pieces.push(Piece { block: self.next, data, last });
                if last {
                    (self.next, self.within) = (self.next + 1, 0);
                }
                break;
            }
            let run = &blocks[self.next..self.next + run_length(&blocks[self.next..])];
            let total = run.iter().map(|block| block.place().bytes).sum();
            let whole = self.read_at(place, 0, total)?;
            let mut at = 0;
            for (block, there) in (self.next..).zip(run) {
                let end = at + there.place().bytes as usize;
                pieces.push(Piece { block, data: whole.slice(at..end), last: true });
                at = end;
            }
            bytes += whole.len();
            self.next += run.len();
        }
        Ok(pieces)
    }

    fn read_at(&mut self, place: &BlockPlace, from: u64, length: u64) -> io::Result<Bytes> {
        let file = match &self.open {
            Some((path, file)) if Arc::ptr_eq(path, &place.file) => file,
            _ => &self.open.insert((place.file.clone(), File::open(&*place.file)?)).1,
        };
        let mut data = BytesMut::zeroed(length as usize);
        file.read_exact_at(&mut data, place.offset + from)?;
        Ok(data.freeze())
    }
}

/// What knows where a block lies.
pub(super) trait Located {
    fn place(&self) -> &BlockPlace;
}

impl Located for (u64, BlockPlace) {
    fn place(&self) -> &BlockPlace {
        &self.1
    }
}

impl Located for Placed {
    fn place(&self) -> &BlockPlace {
        &self.2
    }
}

/// How many of the first blocks lie back to back, up to about one message. At least one.
fn run_length<T: Located>(blocks: &[T]) -> usize {
    let (mut bytes, mut run) = (0, 0);
    for (at, place) in blocks.iter().map(Located::place).enumerate() {
        let follows = at == 0 || {
            let before = blocks[at - 1].place();
            Arc::ptr_eq(&before.file, &place.file) && before.offset + before.bytes == place.offset
        };
        if !follows || (at > 0 && bytes + place.bytes as usize > MESSAGE_BYTES) {
            break;
        }
        bytes += place.bytes as usize;
        run += 1;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of this length, of a few words each.
    fn blocks(dir: &std::path::Path, lengths: &[usize]) -> (Vec<(u64, BlockPlace)>, Vec<u8>) {
        let text: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|at| b"the same few words "[at % 19]).collect();
        let path = Arc::new(dir.join("blocks"));
        std::fs::write(&*path, &text).unwrap();
        let (mut places, mut offset) = (Vec::new(), 0);
        for (task, length) in lengths.iter().enumerate() {
            let crc32c = crc32c::crc32c(&text[offset..offset + length]);
            places.push((task as u64, BlockPlace { file: path.clone(), offset: offset as u64, bytes: *length as u64, crc32c }));
            offset += length;
        }
        (places, text)
    }

    #[test]
    fn whoever_asks_for_it_gets_the_same_blocks_in_fewer_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (places, text) = blocks(dir.path(), &[10, MESSAGE_BYTES * 2 + 5, 0, 7, MESSAGE_BYTES]);
        let messages = |lz4| {
            let (sender, mut receiver) = mpsc::channel(100);
            stream(&places, lz4, &sender).unwrap();
            drop(sender);
            std::iter::from_fn(move || receiver.try_recv().ok()).map(Result::unwrap).collect::<Vec<ShuffleBlocks>>()
        };
        let (plain, packed) = (messages(false), messages(true));
        let length = |messages: &[ShuffleBlocks]| messages.iter().map(prost::Message::encoded_len).sum::<usize>();
        assert!(length(&packed) * 20 < length(&plain), "{} and {}", length(&packed), length(&plain));
        let unpacked: Vec<ShuffleBlocks> = packed.into_iter().map(|message| packed::unpack(message).unwrap()).collect();
        assert_eq!(unpacked, plain);
        let data: Vec<u8> = plain.iter().flat_map(|message| &message.blocks).flat_map(|block| block.data.to_vec()).collect();
        assert_eq!(data, text);
        let said: Vec<u64> = plain.iter().flat_map(|message| &message.blocks).map(|block| block.bytes).collect();
        assert_eq!(said, [0, places[1].1.bytes, places[1].1.bytes, places[1].1.bytes, 0, 0, 0], "what comes in pieces says how long it is");
    }

    #[test]
    fn no_more_than_a_message_is_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (places, text) = blocks(dir.path(), &[3 * MESSAGE_BYTES, MESSAGE_BYTES - 1, 1, 2, 10 * MESSAGE_BYTES + 1]);
        let mut reader = BlockReader::default();
        let mut all = Vec::new();
        loop {
            let pieces = reader.read(&places).unwrap();
            if pieces.is_empty() {
                break;
            }
            let length: usize = pieces.iter().map(|piece| piece.data.len()).sum();
            assert!(length <= MESSAGE_BYTES + 2, "{length}");
            pieces.iter().for_each(|piece| all.extend_from_slice(&piece.data));
        }
        assert!(all == text);
    }
}
