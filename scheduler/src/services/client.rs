//! What the command line asks.

use super::job_list::{page, shorten};
use super::{membership, not_leader, propose_error, worker_session};
use crate::edge::Shared;
use crate::leader::{self, Answer, Input};
use raftwerk_core::{JobId, WorkerId};
use raftwerk_proto::v1::client_server::Client;
use raftwerk_proto::v1::{
    BackupChunk, BackupRequest, CancelJobRequest, ClusterView, CostsView, DrainWorkerReply, DrainWorkerRequest, DropResultRequest,
    GetJobRequest, ImportCostsReply, ImportCostsRequest, JobLogsReply, JobLogsRequest, JobView, ListCostsRequest, ListJobsReply,
    ListJobsRequest, ListNamespacesReply, ListNamespacesRequest, ListWorkersReply, ListWorkersRequest, ReleaseWorkerReply,
    ReleaseWorkerRequest, RemoveReplicaReply, RemoveReplicaRequest, ReplicaView, SetNamespaceReply, SetNamespaceRequest,
    ShowClusterRequest, SubmitReply, SubmitRequest,
};
use raftwerk_transport::{PeerKind, require};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Between two views of a watched job: at most ten a second.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// A voter that is there answers the leader within this time: many heartbeats.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Keys are kept for a day at least.
const MAX_KEY_BYTES: usize = 256;
/// Bytes of a backup in one message.
const BACKUP_CHUNK: usize = 1 << 20;

#[derive(Clone)]
pub(crate) struct ClientService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cluster: String,
    pub(crate) replica_id: u64,
}

impl ClientService {
    /// A view of the job as of a moment after the call began.
    pub(super) async fn fresh_view(&self, job: JobId) -> Result<JobView, Status> {
        self.barrier().await?;
        self.view(job).ok_or_else(|| {
            let known = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner()).0.has_had(job);
            Status::not_found(match known {
                true => format!("job {job} ended long ago and is no longer kept"),
                false => format!("there is no job {job}"),
            })
        })
    }

    fn view(&self, job: JobId) -> Option<JobView> {
        let state = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner());
        let mut view = state.0.job_view(job)?;
        view.waits = state.0.waits_for(job);
        shorten(&mut view);
        Some(view)
    }

    async fn barrier(&self) -> Result<(), Status> {
        self.shared.replica.read_barrier().await.map_err(|e| propose_error(&self.shared, &e))
    }

    /// A no that rests on what this replica knows counts only from one that still leads: a successor may know the job, the worker or the device that is
    /// missing here. A yes to a change is an entry in the log.
    async fn ask(&self, make: impl FnOnce(crate::leader::RequestId) -> Input) -> Result<Answer, Status> {
        let answer = self.shared.ask(make).await.ok_or_else(|| not_leader(&self.shared))?;
        if matches!(answer, Answer::NotFound(_) | Answer::Precondition(_) | Answer::Exhausted(_) | Answer::IdempotencyConflict { .. }) {
            self.barrier().await?;
        }
        Ok(answer)
    }
}

fn refusal(answer: Answer) -> Status {
    match answer {
        Answer::Refused(reason) => Status::invalid_argument(reason),
        Answer::Precondition(reason) => Status::failed_precondition(reason),
        Answer::Unavailable(reason) => Status::unavailable(reason),
        Answer::Exhausted(reason) => Status::resource_exhausted(reason),
        Answer::NotFound(reason) => Status::not_found(reason),
        Answer::IdempotencyConflict { job } => Status::already_exists(format!(
            "the idempotency key belongs to job {job}, which was submitted with another payload; use a new key for a new job"
        )),
        other => Status::internal(format!("unexpected answer {other:?}")),
    }
}

#[tonic::async_trait]
impl Client for ClientService {
    type BackupStream = tokio_stream::Iter<std::vec::IntoIter<Result<BackupChunk, Status>>>;
    type WatchJobStream = ReceiverStream<Result<JobView, Status>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let submit = request.into_inner();
        let spec = submit.spec.ok_or_else(|| Status::invalid_argument("the request has no job spec"))?;
        if submit.idempotency_key.len() > MAX_KEY_BYTES {
            return Err(Status::invalid_argument(format!("an idempotency key has at most {MAX_KEY_BYTES} bytes")));
        }
        if submit.only_existing {
            self.barrier().await?;
            let found =
                leader::existing(&self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner()).0, &spec, &submit.idempotency_key);
            return match found {
                Some(Answer::Submitted { job, existing }) => Ok(Response::new(SubmitReply { job: job.0, existing })),
                Some(other) => Err(refusal(other)),
                None => Err(Status::not_found("no job was submitted with this key")),
            };
        }
        match self.ask(|request| Input::Submit { request, spec, idempotency_key: submit.idempotency_key }).await? {
            Answer::Submitted { job, existing } => Ok(Response::new(SubmitReply { job: job.0, existing })),
            other => Err(refusal(other)),
        }
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<JobView>, Status> {
        require(&request, &[PeerKind::Client])?;
        self.fresh_view(JobId(request.into_inner().job)).await.map(Response::new)
    }

    async fn watch_job(&self, request: Request<GetJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        require(&request, &[PeerKind::Client])?;
        let job = JobId(request.into_inner().job);
        // Subscribe before the first view: a change in between must wake the watcher.
        let mut changed = self.shared.changed.subscribe();
        changed.mark_unchanged();
        // Every view is of committed state and final states are final, so a watcher may begin behind; only "there is no such job" has to be
        // asked of a majority. That spares the watched job a round of messages at the moment it is busiest.
        let first = match self.view(job).filter(|_| self.shared.inbox().is_some()) {
            Some(view) => view,
            None => self.fresh_view(job).await?,
        };
        let mut leadership = self.shared.replica.leadership();
        leadership.mark_unchanged();
        let (sender, views) = mpsc::channel(4);
        let service = self.clone();
        raftwerk_transport::tasks::spawn(async move {
            let mut last = first;
            loop {
                let over = last.finished_at_ms != 0;
                if sender.send(Ok(last.clone())).await.is_err() || over {
                    return;
                }
                // A job's end is told at once; what lies between is told at most ten times a second.
                let pause = tokio::time::sleep(WATCH_PAUSE);
                tokio::pin!(pause);
                let mut rested = false;
                let next = loop {
                    tokio::select! {
                        () = &mut pause, if !rested => rested = true,
                        alive = changed.changed() => if alive.is_err() { return },
                        _ = leadership.changed() => {
                            let _ = sender.send(Err(not_leader(&service.shared))).await;
                            return;
                        }
                        () = sender.closed() => return,
                    }
                    let Some(view) = service.view(job) else { return };
                    if view != last && (rested || view.finished_at_ms != 0) {
                        break view;
                    }
                };
                last = next;
            }
        });
        Ok(Response::new(ReceiverStream::new(views)))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let wanted = request.into_inner();
        self.barrier().await?;
        let state = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner());
        Ok(Response::new(page(&state.0, &wanted)))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<JobView>, Status> {
        require(&request, &[PeerKind::Client])?;
        let job = JobId(request.into_inner().job);
        match self.ask(|request| Input::Cancel { request, job }).await? {
            Answer::Cancelled => self.fresh_view(job).await.map(Response::new),
            other => Err(refusal(other)),
        }
    }

    async fn drop_result(&self, request: Request<DropResultRequest>) -> Result<Response<JobView>, Status> {
        require(&request, &[PeerKind::Client])?;
        let job = JobId(request.into_inner().job);
        self.fresh_view(job).await?;
        match self.ask(|request| Input::DropResult { request, job }).await? {
            Answer::Released => self.fresh_view(job).await.map(Response::new),
            other => Err(refusal(other)),
        }
    }

    async fn job_logs(&self, request: Request<JobLogsRequest>) -> Result<Response<JobLogsReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let job = JobId(request.into_inner().job);
        match self.ask(|request| Input::Logs { request, job }).await? {
            Answer::Logs(workers) => Ok(Response::new(JobLogsReply { workers })),
            other => Err(refusal(other)),
        }
    }

    async fn list_workers(&self, request: Request<ListWorkersRequest>) -> Result<Response<ListWorkersReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let workers = worker_session::workers(&self.shared).await?;
        Ok(Response::new(ListWorkersReply { workers }))
    }

    async fn release_worker(&self, request: Request<ReleaseWorkerRequest>) -> Result<Response<ReleaseWorkerReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let worker = WorkerId(request.into_inner().worker);
        match self.ask(|request| Input::Release { request, worker }).await? {
            Answer::Released => Ok(Response::new(ReleaseWorkerReply {})),
            other => Err(refusal(other)),
        }
    }

    async fn drain_worker(&self, request: Request<DrainWorkerRequest>) -> Result<Response<DrainWorkerReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let worker = WorkerId(request.into_inner().worker);
        match self.ask(|request| Input::Drain { request, worker }).await? {
            Answer::Released => Ok(Response::new(DrainWorkerReply {})),
            other => Err(refusal(other)),
        }
    }

    async fn set_namespace(&self, request: Request<SetNamespaceRequest>) -> Result<Response<SetNamespaceReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let SetNamespaceRequest { name, terms } = request.into_inner();
        let terms = terms.unwrap_or_default();
        match self.ask(|request| Input::SetNamespace { request, name, terms }).await? {
            Answer::Released => Ok(Response::new(SetNamespaceReply {})),
            other => Err(refusal(other)),
        }
    }

    async fn list_namespaces(&self, request: Request<ListNamespacesRequest>) -> Result<Response<ListNamespacesReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        self.barrier().await?;
        let namespaces = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner()).0.namespace_views();
        Ok(Response::new(ListNamespacesReply { namespaces }))
    }

    async fn remove_replica(&self, request: Request<RemoveReplicaRequest>) -> Result<Response<RemoveReplicaReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let id = request.into_inner().replica;
        let replica = &self.shared.replica;
        self.barrier().await?;
        let members = replica.status().members;
        if members.iter().any(|m| m.id == id) {
            membership::check_removal(&members, &replica.answering_voters(ANSWER_WAIT).await, id).map_err(Status::failed_precondition)?;
            if id == self.replica_id {
                // It cannot write down its own end. The next leader does, when the caller asks there.
                replica.hand_over().await;
                return Err(Status::unavailable("the leader itself is to be removed and hands over; ask the next one"));
            }
            replica.remove_member(id).await.map_err(|e| propose_error(&self.shared, &e))?;
        } else if !replica.is_removed(id) {
            let ids: Vec<String> = members.iter().map(|m| m.id.to_string()).collect();
            return Err(Status::not_found(format!("there is no replica {id}; there are {}", ids.join(", "))));
        }
        // Last: a replica that is told so stops, and until it is out of the membership its vote may be needed.
        match self.ask(|request| Input::RemoveReplica { request, replica: id }).await? {
            Answer::Released => Ok(Response::new(RemoveReplicaReply {})),
            other => Err(refusal(other)),
        }
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        require(&request, &[PeerKind::Client])?;
        self.barrier().await?;
        let state = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner()).0.clone();
        let (index, record) = raftwerk_transport::tasks::blocking(move || (state.applied_index, crate::backup::record(&state)))
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        let total = record.len() as u64;
        let mut first = Some((total, index));
        let mut rest = bytes::Bytes::from(record);
        let chunks = std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (total_bytes, applied_index) = first.take().unwrap_or_default();
            Some(Ok(BackupChunk { total_bytes, applied_index, data: rest.split_to(rest.len().min(BACKUP_CHUNK)) }))
        });
        Ok(Response::new(tokio_stream::iter(chunks.collect::<Vec<_>>())))
    }

    async fn list_costs(&self, request: Request<ListCostsRequest>) -> Result<Response<CostsView>, Status> {
        require(&request, &[PeerKind::Client])?;
        self.barrier().await?;
        let state = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner());
        Ok(Response::new(super::costs::view(&state.0)))
    }

    async fn import_costs(&self, request: Request<ImportCostsRequest>) -> Result<Response<ImportCostsReply>, Status> {
        require(&request, &[PeerKind::Client])?;
        let costs = request.into_inner().costs;
        let bytes: usize = costs.iter().map(prost::Message::encoded_len).sum();
        if bytes > super::costs::IMPORT_BYTES {
            return Err(Status::invalid_argument(format!(
                "{bytes} bytes of costs are more than fit into one entry of the log ({}); import them in parts",
                super::costs::IMPORT_BYTES
            )));
        }
        if let Some(reason) = super::costs::unlikely(&costs) {
            return Err(Status::invalid_argument(reason));
        }
        let taken = costs.len() as u64;
        match self.ask(|request| Input::ImportCosts { request, costs }).await? {
            Answer::Released => Ok(Response::new(ImportCostsReply { taken })),
            other => Err(refusal(other)),
        }
    }

    async fn show_cluster(&self, request: Request<ShowClusterRequest>) -> Result<Response<ClusterView>, Status> {
        require(&request, &[PeerKind::Client])?;
        // Any replica answers with what it knows itself: this is the call for a cluster that has lost its leader.
        let status = self.shared.replica.status();
        let (state_hash, epoch, applied, log_format) = {
            let state = self.shared.replica.state().read().unwrap_or_else(|e| e.into_inner()).0.clone();
            (state.hash(), state.epoch, state.applied_index, state.log_format)
        };
        let leader = status.leader.unwrap_or_default();
        let replicas = status.members.iter().map(|m| ReplicaView {
            replica: m.id,
            name: m.name.clone(),
            address: m.address.clone(),
            voter: m.voter,
            leader: m.id == leader,
            matched_index: m.matched.unwrap_or_default(),
        });
        Ok(Response::new(ClusterView {
            cluster: self.cluster.clone(),
            leader,
            term: status.term,
            last_log_index: status.last_log_index,
            committed_index: status.committed,
            applied_index: applied.max(status.applied),
            snapshot_index: status.snapshot,
            purged_index: status.purged,
            state_hash,
            replicas: replicas.collect(),
            answered_by: self.replica_id,
            version: env!("CARGO_PKG_VERSION").into(),
            epoch,
            log_bytes_written: status.log_bytes_written,
            log_format,
            versions: self.shared.replica.versions(),
            policy: self.shared.policy.name().into(),
        }))
    }
}
