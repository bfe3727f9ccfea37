//! One stream to one scheduler, as events for the edge.
use super::edge::EdgeInput;
use raftwerk_proto::v1::{WorkerMessage, worker_session_client::WorkerSessionClient};
use raftwerk_transport::{ConnectError, Identity, MAX_MESSAGE_BYTES, PeerKind, Reached, connect, first_of, plain_error, plain_status};
use std::time::Duration;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;

/// A connection that is being made or is open. The number tells its events from those of an earlier one.
pub(crate) struct Connection {
    pub(crate) number: u64,
    /// The one that is asked first, until one has answered.
    pub(crate) address: String,
    /// Present once the channel is up.
    pub(crate) outgoing: Option<mpsc::UnboundedSender<WorkerMessage>>,
    task: JoinHandle<()>,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) reason: String,
    /// Addresses to which there was no connection.
    pub(crate) failed: Vec<Failed>,
}

#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) address: String,
    /// It will never do.
    pub(crate) hopeless: bool,
    pub(crate) reason: String,
}

/// How long a clean end may take to leave.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

impl Connection {
    /// To the address, or to the first of the others that answers while it does not.
    pub(crate) fn open(
        number: u64,
        address: String,
        others: Vec<String>,
        after: Duration,
        identity: Identity,
        edge: mpsc::UnboundedSender<EdgeInput>,
    ) -> Self {
        let all = [address.clone()].into_iter().chain(others).collect();
        let task = raftwerk_transport::tasks::spawn(async move {
            tokio::time::sleep(after).await;
            let ended = run(number, all, &identity, &edge).await;
            let _ = edge.send(EdgeInput::ConnectionEnded(number, ended));
        });
        Self { number, address, outgoing: None, task }
    }

    pub(crate) fn abort(&self) {
        self.task.abort();
    }

    /// Lets out what was sent, then ends.
    pub(crate) async fn finish(mut self) {
        self.outgoing = None;
        let _ = tokio::time::timeout(FLUSH_LIMIT, &mut self.task).await;
        self.task.abort();
    }
}

async fn run(number: u64, addresses: Vec<String>, identity: &Identity, edge: &mpsc::UnboundedSender<EdgeInput>) -> Ended {
    let dial = |address: &String| {
        let (address, identity) = (address.clone(), identity.clone());
        async move { connect(&address, &identity, PeerKind::Scheduler).await }
    };
    let (channel, place) = match first_of(addresses.iter().map(dial).collect::<Vec<_>>()).await {
        Ok(Reached { value, place, .. }) => (value, place),
        Err(failures) => {
            let reasons: Vec<String> = failures.iter().map(|(_, error)| plain_error(error)).collect();
            let failed = failures.into_iter().map(|(place, error)| Failed {
                address: addresses[place].clone(),
                hopeless: !matches!(error, ConnectError::Unreachable { .. }),
                reason: plain_error(&error),
            });
            return Ended { reason: reasons.join("; "), failed: failed.collect() };
        }
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    // Before the call: a scheduler may wait for `Hello` before it answers anything.
    let _ = edge.send(EdgeInput::ConnectionOpen(number, addresses[..=place].to_vec(), sender));
    let mut client =
        WorkerSessionClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let ended = |reason: String| Ended { reason, failed: Vec::new() };
    // No deadline here: the session itself closes a link whose `Hello` is not answered, and one on which nothing is heard for the lease time.
    let mut messages = match client.session(UnboundedReceiverStream::new(receiver)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return ended(plain_status(&status)),
    };
    loop {
        match messages.message().await {
            Ok(Some(message)) => {
                let _ = edge.send(EdgeInput::Message(number, message));
            }
            Ok(None) => return ended("the scheduler closed the session".into()),
            Err(status) => return ended(plain_status(&status)),
        }
    }
}
