//! One upload on its way here: every piece is compared with its checksum, the whole with the name of the upload, and all of it is flushed before it
//! counts. Whatever ends before that leaves nothing.
use super::{Uploads, store};
use crate::upload::{HashedFile, UPLOAD_PIECE_BYTES, UploadRefusal, bytes, check, id};
use futures::{Stream, StreamExt};
use raftwerk_proto::v1::{UploadManifest, UploadMessage, UploadPiece, upload_message};
use raftwerk_transport::plain_status;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, FileTimes},
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tonic::Status;

/// Whoever sends nothing for this long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Why an upload does not come to lie here.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error(transparent)]
    Refused(#[from] UploadRefusal),
    /// What came is not what was announced.
    #[error("{0}")]
    Damaged(String),
    #[error("what was sent ended before the upload did: {0}")]
    Broken(String),
    #[error("no room for an upload: {0}")]
    Full(String),
    #[error("cannot keep an upload in {}: {source}", dir.display())]
    Disk { dir: PathBuf, source: io::Error },
}

impl From<ReceiveError> for Status {
    fn from(error: ReceiveError) -> Self {
        let text = error.to_string();
        match error {
            ReceiveError::Protocol(_) | ReceiveError::Refused(_) => Status::invalid_argument(text),
            ReceiveError::Damaged(_) => Status::data_loss(text),
            ReceiveError::Broken(_) => Status::unavailable(text),
            ReceiveError::Full(_) => Status::resource_exhausted(text),
            ReceiveError::Disk { .. } => Status::internal(text),
        }
    }
}

/// Takes an upload from its manifest on; the upload that it was, or `wanted` and nothing else. `progress` hears how many bytes have come.
pub(super) async fn receive<S>(uploads: &Uploads, wanted: Option<&str>, mut messages: S, progress: impl Fn(u64)) -> Result<(), ReceiveError>
where
    S: Stream<Item = Result<UploadMessage, Status>> + Unpin,
{
    let Some(upload_message::Message::Manifest(manifest)) = next(&mut messages).await? else {
        return Err(ReceiveError::Protocol("an upload begins with its manifest"));
    };
    check(&manifest)?;
    if !raftwerk_proto::is_upload_id(&manifest.id) || wanted.is_some_and(|wanted| wanted != manifest.id) {
        return Err(ReceiveError::Protocol("the manifest is of another upload"));
    }
    if uploads.store.touch(&manifest.id).is_some() {
        return Ok(());
    }
    // Until it is here and counts itself.
    let _reserved = uploads.room.reserve(bytes(&manifest)).map_err(ReceiveError::Full)?;
    let upload = manifest.id.clone();
    let store = uploads.store.clone();
    let mut arrival = on_disk(move || Arrival::begin(store, manifest)).await?;
    while let Some(message) = next(&mut messages).await? {
        let upload_message::Message::Piece(piece) = message else {
            return Err(ReceiveError::Protocol("an upload has one manifest"));
        };
        arrival = on_disk(move || arrival.take(&piece)).await?;
        progress(arrival.bytes);
        #[cfg(debug_assertions)]
        raftwerk_transport::tasks::blocking(|| crate::fail_point::reach("upload.piece")).await.unwrap_or_default();
    }
    on_disk(move || arrival.finish()).await?;
    tracing::info!(upload, "holding an upload");
    uploads.tell();
    Ok(())
}

async fn next<S>(messages: &mut S) -> Result<Option<upload_message::Message>, ReceiveError>
where
    S: Stream<Item = Result<UploadMessage, Status>> + Unpin,
{
    let message = tokio::time::timeout(SILENCE, messages.next()).await;
    let message = message.map_err(|_| ReceiveError::Broken(format!("nothing came for {} s", SILENCE.as_secs())))?;
    match message {
        None => Ok(None),
        Some(Ok(UploadMessage { message: Some(message) })) => Ok(Some(message)),
        Some(Ok(UploadMessage { message: None })) => Err(ReceiveError::Protocol("a message of a kind that this build does not know")),
        Some(Err(status)) => Err(ReceiveError::Broken(plain_status(&status))),
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static) -> Result<T, ReceiveError> {
    let done = raftwerk_transport::tasks::blocking(work).await;
    done.map_err(|error| ReceiveError::Disk { dir: PathBuf::new(), source: io::Error::other(error) })?
}

/// The part of an upload that has come.
struct Arrival {
    store: Arc<store::UploadStore>,
    manifest: UploadManifest,
    dir: PathBuf,
    /// Files that are whole.
    done: Vec<HashedFile>,
    current: Option<Current>,
    bytes: u64,
    sealed: bool,
}

/// The file that the next piece belongs to.
struct Current {
    file: File,
    bytes: u64,
    sha256: Sha256,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // Under a name of its own, made by this process.
        if !self.sealed
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a half upload; the next start of this worker does");
        }
    }
}

impl Arrival {
    fn begin(store: Arc<store::UploadStore>, manifest: UploadManifest) -> Result<Self, ReceiveError> {
        let dir = store.begin(&manifest.id).map_err(|source| disk(store.dir().to_owned(), source))?;
        let mut arrival = Self { store, manifest, dir, done: Vec::new(), current: None, bytes: 0, sealed: false };
        arrival.open_next()?;
        Ok(arrival)
    }

    /// Opens the next file that has content; those before it that have none are whole at once.
    fn open_next(&mut self) -> Result<(), ReceiveError> {
        while let Some(next) = self.manifest.files.get(self.done.len())
            && self.current.is_none()
        {
            let path = self.dir.join(store::file_name(self.done.len(), &next.name));
            let file = File::options().write(true).create_new(true).open(path).map_err(|source| self.disk(source))?;
            self.current = Some(Current { file, bytes: 0, sha256: Sha256::new() });
            if next.bytes == 0 {
                self.close()?;
            }
        }
        Ok(())
    }

    fn take(mut self, piece: &UploadPiece) -> Result<Self, ReceiveError> {
        let length = piece.data.len() as u64;
        if length == 0 || piece.data.len() > 2 * UPLOAD_PIECE_BYTES {
            return Err(ReceiveError::Protocol("a piece of an upload has 1 byte to 1 MiB"));
        }
        let expected = self.manifest.files.get(self.done.len()).map_or(0, |file| file.bytes);
        let Some(current) = self.current.as_mut().filter(|current| current.bytes + length <= expected) else {
            return Err(ReceiveError::Damaged("more came than the manifest says, or a piece reached from one file into the next".into()));
        };
        let crc = crc32c::crc32c(&piece.data);
        if crc != piece.crc32c {
            let at = self.bytes;
            return Err(ReceiveError::Damaged(format!("the piece at byte {at} has checksum {crc:08x} instead of {:08x}", piece.crc32c)));
        }
        current.sha256.update(&piece.data);
        let written = current.file.write_all(&piece.data);
        current.bytes += length;
        let is_whole = current.bytes == expected;
        written.map_err(|source| self.disk(source))?;
        self.bytes += length;
        if is_whole {
            self.close()?;
            self.open_next()?;
        }
        Ok(self)
    }

    /// The current file is whole.
    fn close(&mut self) -> Result<(), ReceiveError> {
        let Some(Current { file, bytes, sha256 }) = self.current.take() else { return Ok(()) };
        let sha256: [u8; 32] = sha256.finalize().into();
        let timed = file.set_times(FileTimes::new().set_modified(store::time_of(sha256))).and_then(|()| file.sync_all());
        timed.map_err(|source| self.disk(source))?;
        let name = self.manifest.files[self.done.len()].name.clone();
        self.done.push(HashedFile { name, bytes, sha256 });
        Ok(())
    }

    fn finish(mut self) -> Result<(), ReceiveError> {
        if self.done.len() < self.manifest.files.len() {
            return Err(ReceiveError::Broken(format!("{} of {} bytes came", self.bytes, bytes(&self.manifest))));
        }
        let found = id(&self.done);
        if found != self.manifest.id {
            let announced = &self.manifest.id;
            return Err(ReceiveError::Damaged(format!("what came is upload {found}, and upload {announced} was announced")));
        }
        let manifest = std::mem::take(&mut self.manifest);
        self.store.finish(manifest, &self.dir).map_err(|source| self.disk(source))?;
        // Of an upload that was there already the half stays behind.
        self.sealed = !self.dir.exists();
        Ok(())
    }

    fn disk(&self, source: io::Error) -> ReceiveError {
        disk(self.store.dir().to_owned(), source)
    }
}

fn disk(dir: PathBuf, source: io::Error) -> ReceiveError {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return ReceiveError::Full(format!("the disk of {} is full: {source}", dir.display()));
    }
    ReceiveError::Disk { dir, source }
}
