//! Hands out parts that are kept here, streamed from disk at the reader's pace.
use super::store::ResultStore;
use crate::fail_point;
use raftwerk_proto::v1::{FetchPartRequest, PartPiece};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};
use tokio::sync::mpsc;
use tonic::Status;

/// Bytes in one message.
const PIECE_BYTES: usize = 512 << 10;
/// Messages made ahead of the network.
const AHEAD: usize = 4;

/// The pieces of a part from an offset on.
pub(crate) async fn stream(
    store: Arc<ResultStore>,
    request: FetchPartRequest,
    to_client: bool,
) -> Result<mpsc::Receiver<Result<PartPiece, Status>>, Status> {
    let FetchPartRequest { job, staged_name, offset } = request;
    let not_here = format!("part {staged_name} of job {job} is not kept on this worker");
    let path = store.path(job, &staged_name).ok_or_else(|| Status::not_found(&not_here))?;
    let open = move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok::<_, io::Error>(file)
    };
    let opened = tokio::task::spawn_blocking(open).await.map_err(|error| Status::internal(error.to_string()))?;
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(not_here),
        _ => Status::data_loss(format!("cannot read part {staged_name} of job {job}: {error}")),
    })?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut data = Vec::with_capacity(PIECE_BYTES);
            let piece = match file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut data) {
                Ok(0) => return,
                Ok(_) => Ok(PartPiece { data: data.into() }),
                Err(error) => Err(Status::data_loss(format!("cannot read part {staged_name} of job {job}: {error}"))),
            };
            let last = piece.is_err();
            if sender.blocking_send(piece).is_err() || last {
                return; // the other side has gone
            }
            if to_client {
                fail_point::reach("part.piece.client");
            }
        }
    });
    Ok(receiver)
}
