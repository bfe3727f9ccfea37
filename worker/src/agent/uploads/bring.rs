//! An upload from a worker that holds it, for a task that reads it here or for a second copy of it. All of it comes, once, whatever reads it: then it
//! is read like any file, in every format and in every round.
use super::{
    Uploads,
    receive::{ReceiveError, SILENCE, receive},
};
use futures::StreamExt;
use raftwerk_proto::v1::{FailureClass, FetchUploadRequest, UploadSource, worker_data_client::WorkerDataClient};
use raftwerk_transport::{MAX_MESSAGE_BYTES, PeerKind, connect, plain_error, plain_status};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

/// Holders that cannot be reached are tried again for so long: a worker that was stopped starts again within it.
const PATIENCE: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(250);

/// Who may have it.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// For messages.
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum BringError {
    #[error("no worker that holds it is connected")]
    Nobody,
    #[error("{}", .0.iter().map(|(holder, reason)| format!("{holder}: {reason}")).collect::<Vec<_>>().join("; "))]
    Away(BTreeMap<String, String>),
    /// It is this worker that cannot take it.
    #[error(transparent)]
    Here(ReceiveError),
}

impl Uploads {
    /// Has what a lease reads here, and says how long that took; or whose fault it is that it cannot be had, and why.
    pub(crate) async fn for_lease(&self, sources: &[UploadSource], worker: u64) -> Result<Duration, (FailureClass, String)> {
        let began = Instant::now();
        for source in sources {
            let holder = |target: &raftwerk_proto::v1::CopyTarget| Holder {
                name: format!("worker {}", target.worker),
                address: target.address.clone(),
            };
            let holders: Vec<Holder> = source.holders.iter().filter(|target| target.worker != worker).map(holder).collect();
            self.bring(&source.id, &holders, &|_| ()).await.map_err(|error| {
                let class = match &error {
                    BringError::Here(ReceiveError::Full(_)) => FailureClass::Full,
                    BringError::Here(_) => FailureClass::Worker,
                    _ => FailureClass::Task,
                };
                let fix = match class {
                    FailureClass::Task => "; start the workers that hold it again, or submit the job again with its files",
                    _ => "",
                };
                (class, format!("upload {} cannot be had on worker {worker}: {error}{fix}", source.id))
            })?;
        }
        Ok(began.elapsed())
    }

    /// Has an upload here: it comes from the first holder that gives all of it.
    pub(super) async fn bring(&self, id: &str, holders: &[Holder], progress: &(dyn Fn(u64) + Send + Sync)) -> Result<(), BringError> {
        if self.store.touch(id).is_some() {
            return Ok(());
        }
        let turn: Arc<tokio::sync::Mutex<()>> =
            self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default().clone();
        let _turn = turn.lock().await;
        let brought = self.bring_in_turn(id, holders, progress).await;
        // Whoever waits has it in hand; whoever comes later finds the upload.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        brought
    }

    async fn bring_in_turn(&self, id: &str, holders: &[Holder], progress: &(dyn Fn(u64) + Send + Sync)) -> Result<(), BringError> {
        if self.store.touch(id).is_some() {
            return Ok(());
        }
        let began = Instant::now();
        let mut reasons = BTreeMap::new();
        loop {
            let mut hope = false;
            for holder in holders {
                match self.bring_from(id, holder, progress).await {
                    Ok(()) => return Ok(()),
                    Err(Trouble::Here(error)) => return Err(BringError::Here(error)),
                    Err(Trouble::Gone(reason)) => {
                        reasons.insert(holder.name.clone(), reason);
                    }
                    Err(Trouble::Away(reason)) => {
                        hope = true;
                        reasons.insert(holder.name.clone(), reason);
                    }
                }
            }
            if holders.is_empty() {
                return Err(BringError::Nobody);
            }
            if !hope || began.elapsed() + PAUSE > PATIENCE {
                return Err(BringError::Away(reasons));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn bring_from(&self, id: &str, holder: &Holder, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<(), Trouble> {
        let silent = |_| Trouble::Away(format!("nothing came for {} s", SILENCE.as_secs()));
        let channel =
            connect(&holder.address, &self.identity, PeerKind::Worker).await.map_err(|error| Trouble::Away(plain_error(&error)))?;
        let mut client = WorkerDataClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let request = FetchUploadRequest { id: id.to_owned() };
        let response = tokio::time::timeout(SILENCE, client.fetch_upload(request)).await.map_err(silent)?;
        let messages = response.map_err(|status| match status.code() {
            tonic::Code::NotFound | tonic::Code::Unimplemented => Trouble::Gone(status.message().to_owned()),
            _ => Trouble::Away(plain_status(&status)),
        })?;
        let messages = messages.into_inner().boxed();
        receive(self, Some(id), messages, progress).await.map_err(|error| match error {
            // What lies there has changed on its disk.
            ReceiveError::Damaged(_) | ReceiveError::Protocol(_) | ReceiveError::Refused(_) => Trouble::Gone(error.to_string()),
            ReceiveError::Broken(reason) => Trouble::Away(reason),
            here @ (ReceiveError::Full(_) | ReceiveError::Disk { .. }) => Trouble::Here(here),
        })
    }
}

enum Trouble {
    /// It answered, and does not have the upload as it was brought.
    Gone(String),
    Away(String),
    Here(ReceiveError),
}
