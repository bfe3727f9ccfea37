//! Hands out parts that are kept here, streamed from disk at the reader's pace. What turns out to be missing or damaged is told to the scheduler.
use super::{
    inventory::{Wrong, unlike},
    store::ResultStore,
};
use crate::fail_point;
use raftwerk_proto::v1::{FetchPartRequest, PartPiece, PartsMissing};
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
    tell: impl Fn(PartsMissing) + Send + 'static,
) -> Result<mpsc::Receiver<Result<PartPiece, Status>>, Status> {
    let FetchPartRequest { job, staged_name, offset } = request;
    let not_here = format!("part {staged_name} of job {job} is not kept on this worker");
    let path = store.path(job, &staged_name).ok_or_else(|| Status::not_found(&not_here))?;
    let open = move || {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset))?;
        Ok::<_, io::Error>((file, bytes))
    };
    let expected = store.inventory().expected(job, &staged_name);
    let (shared, name) = (store.clone(), staged_name.clone());
    let missing = move |wrong: Wrong| shared.inventory().wrong(job, &name, wrong).into_iter().for_each(&tell);
    let opened = raftwerk_transport::tasks::blocking(open).await.map_err(|error| Status::internal(error.to_string()))?;
    let (mut file, bytes) = opened.map_err(|error| {
        Wrong::of(&error).into_iter().for_each(&missing);
        match error.kind() {
            io::ErrorKind::NotFound => Status::not_found(not_here),
            _ => Status::data_loss(format!("cannot read part {staged_name} of job {job}: {error}")),
        }
    })?;
    // What is longer or shorter is not read to its end by everybody.
    if let Some(expected) = expected.filter(|(expected, _)| *expected != bytes) {
        missing(unlike((bytes, 0), expected));
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    raftwerk_transport::tasks::blocking(move || {
        let (mut read, mut crc) = (0, 0);
        loop {
            let mut data = Vec::with_capacity(PIECE_BYTES);
            let piece = match file.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut data) {
                Ok(0) => {
                    if let Some(expected) = expected.filter(|expected| offset == 0 && *expected != (read, crc)) {
                        missing(unlike((read, crc), expected));
                    }
                    return;
                }
                Ok(_) => {
                    crc = crc32c::crc32c_append(crc, &data);
                    read += data.len() as u64;
                    Ok(PartPiece { data: data.into() })
                }
                Err(error) => {
                    Wrong::of(&error).into_iter().for_each(&missing);
                    Err(Status::data_loss(format!("cannot read part {staged_name} of job {job}: {error}")))
                }
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
