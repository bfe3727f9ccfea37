//! What clients and other workers ask of uploads.
use super::{
    Uploads,
    bring::{BringError, Holder},
    receive::receive,
};
use crate::upload::{MAX_UPLOAD_BYTES, UPLOAD_PIECE_BYTES, UploadRefusal};
use raftwerk_proto::v1::{
    CopyUploadProgress, CopyUploadRequest, FetchUploadRequest, PutUploadReply, UploadManifest, UploadMessage, UploadPiece, upload_message,
};
use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Messages made ahead of the network.
const AHEAD: usize = 4;
/// How often whoever waits for a copy hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn put(uploads: &Uploads, messages: Streaming<UploadMessage>) -> Result<PutUploadReply, Status> {
    receive(uploads, None, messages, |_| ()).await?;
    Ok(PutUploadReply {})
}

/// Ends, and what has come is removed, when nobody listens any more.
pub(crate) fn copy(uploads: Arc<Uploads>, request: CopyUploadRequest) -> mpsc::Receiver<Result<CopyUploadProgress, Status>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    raftwerk_transport::tasks::spawn(async move {
        let CopyUploadRequest { id, bytes, holders } = request;
        let come = AtomicU64::new(0);
        let progress = |bytes| come.store(bytes, Ordering::Relaxed);
        let holders: Vec<Holder> = holders.into_iter().map(|address| Holder { name: address.clone(), address }).collect();
        let brought = async {
            if bytes > MAX_UPLOAD_BYTES {
                return Err(Status::invalid_argument(UploadRefusal::Bytes(bytes).to_string()));
            }
            uploads.bring(&id, &holders, &progress).await.map_err(|error| refusal(&id, error))
        };
        tokio::pin!(brought);
        let last = loop {
            tokio::select! {
                brought = &mut brought => break brought,
                () = tokio::time::sleep(TELL_EVERY) => {
                    let told = CopyUploadProgress { bytes: come.load(Ordering::Relaxed), held: false };
                    if sender.send(Ok(told)).await.is_err() {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
        };
        let _ = sender.send(last.map(|()| CopyUploadProgress { bytes, held: true })).await;
    });
    receiver
}

fn refusal(id: &str, error: BringError) -> Status {
    match error {
        BringError::Nobody => Status::not_found(format!("upload {id} is not held on this worker")),
        BringError::Away(_) => Status::unavailable(error.to_string()),
        BringError::Here(error) => error.into(),
    }
}

pub(crate) fn fetch(uploads: &Uploads, request: &FetchUploadRequest) -> Result<mpsc::Receiver<Result<UploadMessage, Status>>, Status> {
    let not_here = || Status::not_found(format!("upload {} is not held on this worker", request.id));
    let manifest = uploads.store.touch(&request.id).ok_or_else(not_here)?;
    let paths = uploads.store.files(&manifest);
    let (sender, receiver) = mpsc::channel(AHEAD);
    raftwerk_transport::tasks::blocking(move || {
        let id = manifest.id.clone();
        if let Err(error) = stream(manifest, paths, &sender) {
            let _ = sender.blocking_send(Err(Status::data_loss(format!("cannot read upload {id}: {error}"))));
        }
    });
    Ok(receiver)
}

/// An error of this worker's disk; that the other side has gone is none.
fn stream(manifest: UploadManifest, paths: Vec<PathBuf>, sender: &mpsc::Sender<Result<UploadMessage, Status>>) -> io::Result<()> {
    let message = |message| Ok(UploadMessage { message: Some(message) });
    if sender.blocking_send(message(upload_message::Message::Manifest(manifest))).is_err() {
        return Ok(());
    }
    for path in paths {
        let mut file = File::open(path)?;
        loop {
            let mut data = Vec::with_capacity(UPLOAD_PIECE_BYTES);
            if file.by_ref().take(UPLOAD_PIECE_BYTES as u64).read_to_end(&mut data)? == 0 {
                break;
            }
            let piece = UploadPiece { crc32c: crc32c::crc32c(&data), data: data.into() };
            if sender.blocking_send(message(upload_message::Message::Piece(piece))).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
