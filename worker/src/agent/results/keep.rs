//! Keeping what the leader asks for: a part that is not here is fetched from a worker that keeps it, checked and flushed before it is told.
use super::store::ResultStore;
use crate::agent::{publish, room::Room, shuffle::fetch::Fetcher};
#[cfg(debug_assertions)]
use crate::fail_point;
use bytes::Bytes;
use futures::{StreamExt, stream};
use raftwerk_proto::v1::{FetchPartRequest, KeepParts, PartName, PartNotKept, PartToKeep, PartsKept, worker_data_client::WorkerDataClient};
use raftwerk_transport::{MAX_MESSAGE_BYTES, plain_error, plain_status};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Parts of one request that are fetched at once.
const AT_ONCE: usize = 4;
/// A worker that sends nothing for this long is treated as gone.
const SILENCE: Duration = Duration::from_secs(10);

/// Why a source did not give the part.
enum Failure {
    /// It answered, and does not have the part as it was made.
    Gone(String),
    /// It may have it.
    Away(String),
    /// It is this worker that cannot take it.
    Here(String),
}

pub(crate) async fn answer(store: Arc<ResultStore>, room: &Arc<Room>, fetcher: &Fetcher, request: KeepParts) -> PartsKept {
    let KeepParts { job, request: number, .. } = request;
    #[cfg(debug_assertions)]
    raftwerk_transport::tasks::blocking(|| fail_point::reach("keep.asked")).await.unwrap_or_default();
    let kept = stream::iter(request.parts).map(|part| {
        let store = store.clone();
        async move { (keep(&store, room, fetcher, job, &part).await, part) }
    });
    let mut report = PartsKept { job, request: number, ..PartsKept::default() };
    let mut kept = kept.buffer_unordered(AT_ONCE);
    while let Some((outcome, part)) = kept.next().await {
        let name = PartName { partition: part.partition, staged_name: part.staged_name.clone() };
        match outcome {
            Ok(()) => {
                store.inventory().has(job, name.partition, &name.staged_name, (part.bytes, part.crc32c));
                report.kept.push(name);
            }
            Err((gone_at, reason)) => report.failed.push(PartNotKept { part: Some(name), gone_at, reason }),
        }
    }
    report
}

/// The sources that have it no more are named only when there is no other reason to hope for.
async fn keep(
    store: &Arc<ResultStore>,
    room: &Arc<Room>,
    fetcher: &Fetcher,
    job: u64,
    part: &PartToKeep,
) -> Result<(), (Vec<u64>, String)> {
    if is_here(store, job, part).await {
        return Ok(());
    }
    if is_brought(store, job, part).await.map_err(|error| (Vec::new(), format!("cannot take in a part: {error}")))? {
        return Ok(());
    }
    // Until it is here and counts itself.
    let _reserved = room.reserve(part.bytes).map_err(|reason| (Vec::new(), reason))?;
    let (mut gone, mut reasons) = (Vec::new(), Vec::new());
    for source in &part.sources {
        match fetch(store, fetcher, job, part, &source.address).await {
            Ok(()) => return Ok(()),
            Err(Failure::Here(reason)) => return Err((Vec::new(), reason)),
            Err(Failure::Away(reason)) => reasons.push(format!("worker {}: {reason}", source.worker)),
            Err(Failure::Gone(reason)) => {
                gone.push(source.worker);
                reasons.push(format!("worker {}: {reason}", source.worker));
            }
        }
    }
    if part.sources.is_empty() {
        reasons.push("it is not on this worker, and nobody else is known to keep it".into());
    }
    Err((gone, reasons.join("; ")))
}

async fn is_here(store: &Arc<ResultStore>, job: u64, part: &PartToKeep) -> bool {
    let Some(path) = store.path(job, &part.staged_name) else { return false };
    let (bytes, crc) = (part.bytes, part.crc32c);
    let found = raftwerk_transport::tasks::blocking(move || publish::checksum(File::open(path)?, bytes)).await;
    matches!(found, Ok(Ok(found)) if found == (bytes, crc))
}

async fn is_brought(store: &Arc<ResultStore>, job: u64, part: &PartToKeep) -> io::Result<bool> {
    let (store, part) = (store.clone(), part.clone());
    on_disk(move || store.adopt(job, &part)).await
}

async fn fetch(store: &Arc<ResultStore>, fetcher: &Fetcher, job: u64, part: &PartToKeep, address: &str) -> Result<(), Failure> {
    let here = |error: io::Error| Failure::Here(format!("cannot keep a part: {error}"));
    let (shared, name) = (store.clone(), part.staged_name.clone());
    let (half, file) = on_disk(move || shared.begin(job, &name)).await.map_err(here)?;
    let got = pull(fetcher, job, part, address, file).await;
    let kept = match got {
        Ok(()) => {
            let (shared, name, half) = (store.clone(), part.staged_name.clone(), half.clone());
            on_disk(move || shared.finish(job, &name, &half)).await.map_err(here)
        }
        failed => failed,
    };
    if kept.is_err() {
        remove(&half).await;
    }
    kept
}

async fn remove(half: &Path) {
    let half = half.to_owned();
    let _ = on_disk(move || fs::remove_file(half)).await;
}

/// The whole part into the file, checked and flushed.
async fn pull(fetcher: &Fetcher, job: u64, part: &PartToKeep, address: &str, file: File) -> Result<(), Failure> {
    let channel = fetcher.channel(address).await.map_err(|error| Failure::Away(plain_error(&error)))?;
    let mut client = WorkerDataClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let silent = |_| Failure::Away(format!("{address}: nothing came for {} s", SILENCE.as_secs()));
    let failed = |status: tonic::Status| match status.code() {
        tonic::Code::NotFound | tonic::Code::DataLoss => Failure::Gone(status.message().to_owned()),
        _ => Failure::Away(format!("{address}: {}", plain_status(&status))),
    };
    let request = FetchPartRequest { job, staged_name: part.staged_name.clone(), offset: 0 };
    let response = tokio::time::timeout(SILENCE, client.fetch_part(request)).await.map_err(silent)?;
    let mut pieces = response.map_err(failed)?.into_inner();
    let (file, mut bytes, mut crc) = (Arc::new(file), 0u64, 0);
    while let Some(piece) = tokio::time::timeout(SILENCE, pieces.message()).await.map_err(silent)?.map_err(failed)? {
        crc = crc32c::crc32c_append(crc, &piece.data);
        bytes += piece.data.len() as u64;
        if bytes > part.bytes {
            break;
        }
        write(&file, piece.data).await?;
    }
    if (bytes, crc) != (part.bytes, part.crc32c) {
        return Err(Failure::Gone(format!(
            "part {} is damaged: {bytes} bytes with checksum {crc:08x} instead of {} with {:08x}",
            part.staged_name, part.bytes, part.crc32c
        )));
    }
    on_disk(move || file.sync_all()).await.map_err(|error| Failure::Here(format!("cannot keep a part: {error}")))
}

async fn write(file: &Arc<File>, data: Bytes) -> Result<(), Failure> {
    let file = file.clone();
    on_disk(move || (&*file).write_all(&data)).await.map_err(|error| Failure::Here(format!("cannot keep a part: {error}")))
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    raftwerk_transport::tasks::blocking(work).await.map_err(io::Error::other)?
}
