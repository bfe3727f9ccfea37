//! One bidirectional stream per worker.

use super::not_leader;
use crate::edge::{Arrival, Outgoing, Shared};
use crate::leader::{ConnId, Input};
use raftwerk_core::WorkerId;
use raftwerk_proto::v1::worker_session_server::WorkerSession;
use raftwerk_proto::v1::{Redirect, SchedulerMessage, WorkerMessage, scheduler_message, worker_message};
use raftwerk_transport::{PeerKind, require};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

const HELLO_WAIT: Duration = Duration::from_secs(10);
/// A worker that has lost its leader waits here for the next one. Well below the time that it waits for an answer.
const ELECTION_WAIT: Duration = Duration::from_secs(2);
/// Messages waiting for one worker. A worker that lets more than this pile up does not read; its session is closed.
const OUTBOX: usize = 4096;

pub(crate) struct WorkerSessionService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl WorkerSession for WorkerSessionService {
    type SessionStream = ReceiverStream<Outgoing>;

    async fn session(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        let peer = require(&request, &[PeerKind::Worker])?;
        let mut incoming = request.into_inner();
        let shared = self.0.clone();
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        // Answer the call at once: the worker sends its hello only when the stream stands.
        raftwerk_transport::tasks::spawn(async move {
            let first = tokio::time::timeout(HELLO_WAIT, incoming.message()).await;
            let Ok(Ok(Some(WorkerMessage { message: Some(worker_message::Message::Hello(hello)) }))) = first else {
                let _ = outbox.send(Err(Status::invalid_argument("the first message of a session must be a hello"))).await;
                return;
            };
            let inbox = match shared.inbox_or_leader(&hello.left_leader, ELECTION_WAIT).await {
                Ok(inbox) => inbox,
                Err(leader_address) => {
                    let message = Some(scheduler_message::Message::Redirect(Redirect { leader_address }));
                    let _ = outbox.send(Ok(SchedulerMessage { message })).await;
                    return;
                }
            };
            let conn = ConnId(shared.number());
            let input = Input::WorkerConnected { conn, worker: WorkerId(peer.id), hello };
            if inbox.send(Arrival::Connected { input, conn, outbox }).await.is_err() {
                return;
            }
            let end = loop {
                match incoming.message().await {
                    Ok(Some(WorkerMessage { message: Some(message) })) => {
                        if inbox.send(Arrival::Plain(Input::FromWorker { conn, message })).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(WorkerMessage { message: None })) => {
                        tracing::warn!(worker = peer.id, "a message of an unknown kind; the worker is newer than this scheduler");
                    }
                    // Closed, or reset by somebody who goes on without it: a process that dies says neither.
                    Ok(None) => break Input::WorkerLeft { conn },
                    Err(status) => {
                        let error = raftwerk_transport::plain_status(&status);
                        tracing::debug!(worker = peer.id, error, "the session of a worker broke");
                        // What this end could not read is no sign of death either.
                        let io = matches!(status.code(), Code::Unknown | Code::Unavailable);
                        break if io { Input::WorkerDisconnected { conn } } else { Input::WorkerLeft { conn } };
                    }
                }
            };
            // The leadership may be over already; then nobody waits for this.
            let _ = inbox.send(Arrival::Plain(end)).await;
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Used by services that need the leader's loop.
pub(crate) async fn workers(shared: &Shared) -> Result<Vec<raftwerk_proto::v1::WorkerView>, Status> {
    let inbox = shared.inbox().ok_or_else(|| not_leader(shared))?;
    let (reply, answer) = tokio::sync::oneshot::channel();
    inbox.send(Arrival::Workers { reply }).await.map_err(|_| not_leader(shared))?;
    answer.await.map_err(|_| not_leader(shared))
}
