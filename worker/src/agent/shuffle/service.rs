//! `WorkerData`: other workers fetch partitions here, streamed from disk; so do they and clients with parts of results.
use super::{
    copy, packed,
    store::{BlockPlace, ShuffleStore},
};
use crate::agent::{
    edge::EdgeInput,
    results::{self, store::ResultStore},
    room::Room,
};
use bytes::{Bytes, BytesMut};
use raftwerk_proto::v1::{
    FetchPartRequest, FetchPartitionRequest, KeepCopyReply, KeepCopyRequest, PartPiece, ShuffleBlock, ShuffleBlocks,
    worker_data_server::WorkerData,
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
    /// Of this process; whoever has a copy here knows with it that the copy is gone when another process answers to this worker's name.
    pub(crate) incarnation: u64,
    pub(crate) edge: mpsc::UnboundedSender<EdgeInput>,
}

#[tonic::async_trait]
impl WorkerData for DataService {
    type FetchPartitionStream = ReceiverStream<Result<ShuffleBlocks, Status>>;
    type FetchPartStream = ReceiverStream<Result<PartPiece, Status>>;

    async fn fetch_partition(&self, request: Request<FetchPartitionRequest>) -> Result<Response<Self::FetchPartitionStream>, Status> {
        require(&request, &[PeerKind::Worker, PeerKind::Client])?;
        let FetchPartitionRequest { job, stage, generation, partition, tasks, lz4 } = request.into_inner();
        let blocks = self.store.blocks(job, &stage, generation, partition, &tasks).map_err(|e| Status::not_found(e.to_string()))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
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
    let mut rest = blocks;
    while !rest.is_empty() {
        let data = reader.read(rest).map_err(|error| Status::data_loss(format!("cannot read shuffle data: {error}")))?;
        let (now, later) = rest.split_at(data.len());
        rest = later;
        for ((task, place), block) in now.iter().zip(data) {
            // A block longer than a message goes out in pieces of the size of one.
            let pieces = block.len().div_ceil(MESSAGE_BYTES).max(1);
            for piece in 0..pieces {
                let from = piece * MESSAGE_BYTES;
                let data = block.slice(from..block.len().min(from + MESSAGE_BYTES));
                bytes += data.len();
                message.push(ShuffleBlock { task: *task, crc32c: place.crc32c, data, last: piece + 1 == pieces });
                if bytes >= MESSAGE_BYTES {
                    bytes = 0;
                    if sender.blocking_send(Ok(pack(std::mem::take(&mut message)))).is_err() {
                        return Ok(()); // the other side has gone
                    }
                }
            }
        }
    }
    if !message.is_empty() {
        let _ = sender.blocking_send(Ok(pack(message)));
    }
    Ok(())
}

/// Reads blocks that lie back to back with one system call; keeps the last file open, since neighbours share it.
#[derive(Default)]
pub(super) struct BlockReader {
    open: Option<(Arc<PathBuf>, File)>,
}

impl BlockReader {
    /// The first blocks, up to about one message of data and at least one block.
    pub(super) fn read(&mut self, blocks: &[(u64, BlockPlace)]) -> io::Result<Vec<Bytes>> {
        let (mut data, mut bytes) = (Vec::new(), 0);
        while data.len() < blocks.len() && bytes < MESSAGE_BYTES {
            let run = run_length(&blocks[data.len()..]);
            let places = &blocks[data.len()..data.len() + run];
            let whole = self.read_run(places)?;
            bytes += whole.len();
            let mut at = 0;
            data.extend(places.iter().map(|(_, place)| {
                at += place.bytes as usize;
                whole.slice(at - place.bytes as usize..at)
            }));
        }
        Ok(data)
    }

    fn read_run(&mut self, run: &[(u64, BlockPlace)]) -> io::Result<Bytes> {
        let Some((_, first)) = run.first() else { return Ok(Bytes::new()) };
        let total: u64 = run.iter().map(|(_, place)| place.bytes).sum();
        let file = match &self.open {
            Some((path, file)) if Arc::ptr_eq(path, &first.file) => file,
            _ => &self.open.insert((first.file.clone(), File::open(&*first.file)?)).1,
        };
        let mut data = BytesMut::zeroed(total as usize);
        file.read_exact_at(&mut data, first.offset)?;
        Ok(data.freeze())
    }
}

/// How many of the first blocks lie back to back, up to about one message. At least one.
fn run_length(blocks: &[(u64, BlockPlace)]) -> usize {
    let (mut bytes, mut run) = (0, 0);
    for (at, (_, place)) in blocks.iter().enumerate() {
        let follows = at == 0 || {
            let before = &blocks[at - 1].1;
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
    }
}
