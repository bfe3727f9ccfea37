//! Workers that hold an upload: the client brings it to one, and a second one fetches it from there. Nothing of it goes through a scheduler.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use raftwerk_proto::v1::worker_data_client::WorkerDataClient;
use raftwerk_proto::v1::{CopyUploadRequest, UploadMessage, UploadPiece, WorkerView, upload_message};
use raftwerk_transport::{Identity, MAX_MESSAGE_BYTES, PeerKind, connect, plain_error, plain_status};
use raftwerk_worker::upload::UPLOAD_PIECE_BYTES;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Upload;
use super::bar::Bar;
use crate::client::Cluster;
use crate::console::Console;
use crate::failure::{Exit, Failure};

/// Workers that shall hold it.
const COPIES: usize = 2;
/// A worker with which nothing moves for this long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// When all has been sent, a worker writes what its disk has not got yet.
const FLUSH_BYTES_PER_SECOND: u64 = 5_000_000;
/// Times that every worker is tried; in between one may come back.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Messages read ahead of the network.
const AHEAD: usize = 4;

pub struct Holder {
    pub worker: u64,
    pub name: String,
    address: String,
}

/// Where an upload lies.
pub struct Placed {
    pub holders: Vec<Holder>,
    /// Whether any of it had to be sent.
    pub sent: bool,
    /// Why there is one copy only, if so.
    pub alone: Option<String>,
}

/// Why one worker does not hold it.
enum Trouble {
    /// The client's own file, or a request that nobody will take.
    Final(Failure),
    /// Nothing but room, or another release, helps there.
    Hopeless(String),
    Away(String),
}

pub async fn place(console: &Console, cluster: &mut Cluster, upload: &Upload) -> Result<Placed, Failure> {
    let identity = cluster.identity().clone();
    let mut reasons: BTreeMap<String, String> = BTreeMap::new();
    let mut hopeless: BTreeSet<u64> = BTreeSet::new();
    let mut known = 0;
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let candidates = candidates(cluster.workers().await?, &upload.manifest.id);
        known = candidates.len();
        for first in &candidates {
            if hopeless.contains(&first.worker) {
                continue;
            }
            match bring(console, &identity, first, upload).await {
                Ok(sent) => {
                    let others = candidates.iter().filter(|other| other.worker != first.worker);
                    return copies(console, &identity, upload, first, others, sent).await;
                }
                Err(Trouble::Final(failure)) => return Err(failure),
                Err(Trouble::Hopeless(reason)) => {
                    hopeless.insert(first.worker);
                    reasons.insert(named(first), reason);
                }
                Err(Trouble::Away(reason)) => {
                    reasons.insert(named(first), reason);
                }
            }
        }
        if hopeless.len() == known && known > 0 {
            break;
        }
    }
    if known == 0 {
        let failure = Failure::say(Exit::Refused, "the cluster has no worker that could take the upload");
        return Err(failure.fix("start one with 'raftwerk worker start', and submit again"));
    }
    let reasons: Vec<String> = reasons.into_iter().map(|(worker, reason)| format!("{worker}: {reason}")).collect();
    let failure =
        Failure::say(Exit::Refused, format!("no worker takes the upload ({}):\n    {}", upload.summary(), reasons.join("\n    ")));
    Err(failure.fix(
        "make room on a worker (its disk, --shuffle-quota and --min-free-disk; ended jobs give theirs back), or lay the files where all workers see them; \
         a worker's address must be one that this machine reaches (worker start --advertise)",
    ))
}

fn named(worker: &WorkerView) -> String {
    format!("worker {} ({})", worker.worker, worker.name)
}

fn holder(worker: &WorkerView) -> Holder {
    Holder { worker: worker.worker, name: worker.name.clone(), address: worker.address.clone() }
}

/// Workers that are there, in an order that the upload alone gives them: whoever brings it again finds it where it is. Those that get no new work last.
fn candidates(workers: Vec<WorkerView>, id: &str) -> Vec<WorkerView> {
    let rank = |worker: &WorkerView| <[u8; 32]>::from(Sha256::digest(format!("{id} {}", worker.worker)));
    let mut there: Vec<WorkerView> =
        workers.into_iter().filter(|worker| worker.liveness == "alive" && !worker.address.is_empty()).collect();
    there.sort_by_cached_key(|worker| (worker.drained, rank(worker)));
    there
}

/// Has the upload copied to others. That nobody takes a copy is told, and no error.
async fn copies(
    console: &Console,
    identity: &Identity,
    upload: &Upload,
    first: &WorkerView,
    others: impl Iterator<Item = &WorkerView>,
    sent: bool,
) -> Result<Placed, Failure> {
    let mut placed = Placed { holders: vec![holder(first)], sent, alone: None };
    let mut reasons = Vec::new();
    for other in others {
        let bar = Bar::new(console, "copying");
        bar.expect(upload.bytes);
        let from: Vec<String> = placed.holders.iter().map(|holder| holder.address.clone()).collect();
        let copied = copy(identity, other, upload, from, &bar).await;
        bar.finish();
        match copied {
            Ok(()) => placed.holders.push(holder(other)),
            Err(status) => reasons.push(format!("{}: {}", named(other), plain_status(&status))),
        }
        if placed.holders.len() >= COPIES {
            return Ok(placed);
        }
    }
    placed.alone = Some(match reasons.is_empty() {
        true => "no other worker is there".to_owned(),
        false => reasons.join("; "),
    });
    Ok(placed)
}

async fn data_client(identity: &Identity, worker: &WorkerView) -> Result<WorkerDataClient<Channel>, Trouble> {
    let channel = connect(&worker.address, identity, PeerKind::Worker).await.map_err(|error| Trouble::Away(plain_error(&error)))?;
    Ok(WorkerDataClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Whether it had to be sent.
async fn bring(console: &Console, identity: &Identity, worker: &WorkerView, upload: &Upload) -> Result<bool, Trouble> {
    let bar = Bar::new(console, "uploading");
    bar.expect(upload.bytes);
    match copy(identity, worker, upload, Vec::new(), &bar).await {
        Ok(()) => return Ok(false),
        Err(status) if status.code() == Code::NotFound => {}
        Err(status) => return Err(trouble(&status)),
    }
    let sent = send(identity, worker, upload, &bar).await;
    bar.finish();
    sent.map(|()| true)
}

fn trouble(status: &Status) -> Trouble {
    let reason = plain_status(status);
    match status.code() {
        Code::Unimplemented => Trouble::Hopeless("it runs a release that takes no uploads".to_owned()),
        Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated => Trouble::Hopeless(reason),
        Code::InvalidArgument => Trouble::Final(Failure::say(Exit::Refused, reason)),
        Code::DataLoss => Trouble::Final(
            Failure::say(Exit::BadUsage, format!("a file changed while it was uploaded: {reason}"))
                .fix("submit again when nobody writes into the files"),
        ),
        _ => Trouble::Away(reason),
    }
}

/// Has the worker hold it; without `from`, only asks whether it does.
async fn copy(identity: &Identity, worker: &WorkerView, upload: &Upload, from: Vec<String>, bar: &Bar) -> Result<(), Status> {
    let silent = |_| Status::deadline_exceeded(format!("nothing was heard of it for {} s", SILENCE.as_secs()));
    let mut client = data_client(identity, worker).await.map_err(|trouble| match trouble {
        Trouble::Away(reason) => Status::unavailable(reason),
        _ => Status::internal("no connection"),
    })?;
    let request = CopyUploadRequest { id: upload.manifest.id.clone(), bytes: upload.bytes, holders: from };
    let mut progress = tokio::time::timeout(SILENCE, client.copy_upload(request)).await.map_err(silent)??.into_inner();
    while let Some(told) = tokio::time::timeout(SILENCE, progress.message()).await.map_err(silent)?? {
        if told.held {
            return Ok(());
        }
        bar.set(told.bytes);
    }
    Err(Status::unavailable("it ended before the copy was there"))
}

async fn send(identity: &Identity, worker: &WorkerView, upload: &Upload, bar: &Bar) -> Result<(), Trouble> {
    let mut client = data_client(identity, worker).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (sent, broken) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
    let manifest = UploadMessage { message: Some(upload_message::Message::Manifest(upload.manifest.clone())) };
    let (files, counter, slot) = (upload.files.clone(), sent.clone(), broken.clone());
    raftwerk_transport::tasks::blocking(move || {
        if sender.blocking_send(manifest).is_err() {
            return;
        }
        for file in files.iter() {
            if let Err(error) = file.open().and_then(|opened| read_out(&opened, file.hashed.bytes, &sender, &counter)) {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((file.hashed.name.clone(), error));
                return;
            }
        }
    });
    // No deadline here: how long it takes depends on the length of the files; the loop below ends it when nothing moves.
    let call = client.put_upload(ReceiverStream::new(receiver));
    tokio::pin!(call);
    let (mut last, mut moved) = (0, Instant::now());
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                let now = sent.load(Ordering::Relaxed);
                bar.set(now);
                if now > last {
                    (last, moved) = (now, Instant::now());
                }
                let flush = if now == upload.bytes { Duration::from_secs(now / FLUSH_BYTES_PER_SECOND) } else { Duration::ZERO };
                if moved.elapsed() > SILENCE + flush {
                    return Err(Trouble::Away(format!("nothing moved for {} s", moved.elapsed().as_secs())));
                }
            }
        }
    };
    // What happened here explains what the other side saw.
    if let Some((name, error)) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(Trouble::Final(Failure::say(Exit::BadUsage, format!("cannot read {name} any more: {error}"))));
    }
    answer.map(|_| ()).map_err(|status| trouble(&status))
}

fn read_out(file: &std::fs::File, bytes: u64, sender: &mpsc::Sender<UploadMessage>, sent: &AtomicU64) -> io::Result<()> {
    let mut at = 0;
    while at < bytes {
        let mut data = vec![0; UPLOAD_PIECE_BYTES.min(usize::try_from(bytes - at).unwrap_or(usize::MAX))];
        match file.read_exact_at(&mut data, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(io::Error::other("it has become shorter")),
            read => read?,
        }
        at += data.len() as u64;
        let (length, crc32c) = (data.len() as u64, crc32c::crc32c(&data));
        let piece = UploadPiece { data: data.into(), crc32c };
        if sender.blocking_send(UploadMessage { message: Some(upload_message::Message::Piece(piece)) }).is_err() {
            // The other side has answered already.
            return Ok(());
        }
        sent.fetch_add(length, Ordering::Relaxed);
    }
    Ok(())
}
