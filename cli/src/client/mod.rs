//! A cluster as its user sees it: one thing that answers, whichever replica leads at the moment.
//!
//! A call is tried on one replica after another until one answers or patience ends. That is safe because every call may be repeated.

mod call_error;
mod follow;
mod survey;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use raftwerk_proto::v1::client_client::ClientClient;
use raftwerk_proto::v1::*;
use raftwerk_transport::{ConnectError, Identity, MAX_MESSAGE_BYTES, PeerKind, connect, plain_error, plain_status};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::failure::Exit;
pub use call_error::CallError;
pub use follow::{Sighting, Standstill, ended};
pub use survey::Survey;
use verdict::Verdict;

/// Between rounds over all addresses: short, since an election takes a fraction of a second; doubled up to the second value so that
/// a cluster that is down is not hammered.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// One replica's time for a call before another one is asked, so that a replica that hangs does not use up the patience.
const ATTEMPT: Duration = Duration::from_secs(4);

/// A submit waits while a worker lists the input files, which for many files on a slow mount takes longer than any other call.
const SUBMIT: Duration = Duration::from_secs(60);

type Client = ClientClient<Channel>;

pub struct Cluster {
    identity: Identity,
    /// Known replicas; a leader learned from a redirect is added.
    addresses: Vec<String>,
    /// The one to ask first: the leader, as far as known.
    preferred: usize,
    channels: BTreeMap<String, Channel>,
    patience: Duration,
}

/// What became of one attempt.
enum Attempt<T> {
    Answer(T),
    Refusal(Status),
    /// Ask the next address (the preferred one may have changed).
    Redirected,
    Failed(String),
    /// No attempt at this address with this identity will succeed.
    Hopeless(String, Exit),
}

impl Cluster {
    pub fn new(addresses: Vec<String>, identity: Identity, patience: Duration) -> Self {
        Self { identity, addresses, preferred: 0, channels: BTreeMap::new(), patience }
    }

    pub async fn submit(&mut self, spec: JobSpec, idempotency_key: String) -> Result<SubmitReply, CallError> {
        let request = SubmitRequest { spec: Some(spec), idempotency_key };
        self.call_within(self.patience, SUBMIT, request, |mut client, request| async move { client.submit(request).await }).await
    }

    pub async fn job(&mut self, job: u64) -> Result<JobView, CallError> {
        self.call(GetJobRequest { job }, |mut client, request| async move { client.get_job(request).await }).await
    }

    pub async fn jobs(&mut self, namespace: String, limit: u32) -> Result<Vec<JobView>, CallError> {
        let request = ListJobsRequest { namespace, limit };
        let reply = self.call(request, |mut client, request| async move { client.list_jobs(request).await }).await?;
        Ok(reply.jobs)
    }

    pub async fn cancel(&mut self, job: u64) -> Result<JobView, CallError> {
        self.call(CancelJobRequest { job }, |mut client, request| async move { client.cancel_job(request).await }).await
    }

    pub async fn logs(&mut self, job: u64) -> Result<Vec<WorkerLogs>, CallError> {
        let reply = self.call(JobLogsRequest { job }, |mut client, request| async move { client.job_logs(request).await }).await?;
        Ok(reply.workers)
    }

    pub async fn workers(&mut self) -> Result<Vec<WorkerView>, CallError> {
        let reply = self.call(ListWorkersRequest {}, |mut client, request| async move { client.list_workers(request).await }).await?;
        Ok(reply.workers)
    }

    pub async fn release_worker(&mut self, worker: u64) -> Result<(), CallError> {
        let release = |mut client: Client, request| async move { client.release_worker(request).await };
        self.call(ReleaseWorkerRequest { worker }, release).await.map(|_| ())
    }

    /// Waits until so many workers are alive in the leader's eyes; whether they are in time.
    pub async fn wait_for_workers(&mut self, count: usize, limit: Duration) -> Result<bool, CallError> {
        let started = Instant::now();
        loop {
            let alive = self.workers().await?.iter().filter(|worker| worker.liveness == "alive").count();
            if alive >= count || started.elapsed() >= limit {
                return Ok(alive >= count);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn view(&mut self) -> Result<ClusterView, CallError> {
        self.call(ShowClusterRequest {}, |mut client, request| async move { client.show_cluster(request).await }).await
    }

    async fn call<Q, R, M, F>(&mut self, request: Q, method: M) -> Result<R, CallError>
    where
        Q: Clone,
        M: Fn(Client, Request<Q>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.call_within(self.patience, if self.addresses.len() > 1 { ATTEMPT } else { self.patience }, request, method).await
    }

    /// Asks one replica after another until one answers or `patience` ends. `limit` is for one attempt; it may be longer than the
    /// patience, which is about finding a replica that answers, not about its work.
    async fn call_within<Q, R, M, F>(&mut self, patience: Duration, limit: Duration, request: Q, method: M) -> Result<R, CallError>
    where
        Q: Clone,
        M: Fn(Client, Request<Q>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let mut pause = PAUSE.0;
        let mut tried: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let (mut hope, mut hopeless) = (false, None);
            // One round: the preferred replica, then the others. A redirect may lengthen the round by the address it adds.
            let mut asked = 0;
            while asked < self.addresses.len().max(1) {
                asked += 1;
                let address = self.current().to_owned();
                match self.attempt(&address, limit, request.clone(), &method).await {
                    Attempt::Answer(answer) => return Ok(answer),
                    Attempt::Refusal(status) => return Err(CallError::Refused(Box::new(status))),
                    Attempt::Redirected => {
                        tried.insert(address, "is not the leader".to_owned());
                        hope = true;
                        continue;
                    }
                    Attempt::Failed(reason) => {
                        tried.insert(address, reason);
                        hope = true;
                    }
                    Attempt::Hopeless(reason, exit) => {
                        tried.insert(address, reason);
                        hopeless = Some(exit);
                    }
                }
                self.preferred = (self.preferred + 1) % self.addresses.len().max(1);
            }
            let tried_list = || tried.clone().into_iter().collect();
            if let Some(exit) = hopeless.filter(|_| !hope) {
                return Err(CallError::Hopeless { tried: tried_list(), exit });
            }
            if started.elapsed() + pause >= patience {
                return Err(CallError::Unreachable { patience, tried: tried_list() });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn current(&self) -> &str {
        self.addresses.get(self.preferred).map_or("", String::as_str)
    }

    async fn attempt<Q, R, M, F>(&mut self, address: &str, deadline: Duration, request: Q, method: &M) -> Attempt<R>
    where
        M: Fn(Client, Request<Q>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let client = match self.client(address, deadline.min(self.patience)).await {
            Ok(client) => client,
            Err(attempt) => return attempt,
        };
        let mut request = Request::new(request);
        // The other side should stop working on it, too, when nobody waits any more.
        request.set_timeout(deadline);
        let status = match tokio::time::timeout(deadline, method(client, request)).await {
            Ok(Ok(response)) => return Attempt::Answer(response.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer in time"),
        };
        match self.judge(address, &status) {
            Verdict::Final => Attempt::Refusal(status),
            Verdict::AskLeader(_) => Attempt::Redirected,
            Verdict::TryAnother => Attempt::Failed(plain_status(&status)),
        }
    }

    /// Draws the consequences of an unsuccessful answer for where to ask next.
    fn judge(&mut self, address: &str, status: &Status) -> Verdict {
        let verdict = verdict::of(status);
        match &verdict {
            Verdict::AskLeader(leader) if leader == address => return Verdict::TryAnother,
            Verdict::AskLeader(leader) => {
                self.preferred = match self.addresses.iter().position(|known| known == leader) {
                    Some(position) => position,
                    None => {
                        self.addresses.push(leader.clone());
                        self.addresses.len() - 1
                    }
                };
            }
            // The connection may be the cause; the next attempt makes a new one.
            Verdict::TryAnother => {
                self.channels.remove(address);
            }
            Verdict::Final => {}
        }
        verdict
    }

    async fn client<T>(&mut self, address: &str, deadline: Duration) -> Result<Client, Attempt<T>> {
        let channel = match self.channels.get(address) {
            Some(channel) => channel.clone(),
            None => match tokio::time::timeout(deadline, connect(address, &self.identity, PeerKind::Scheduler)).await {
                Ok(Ok(channel)) => {
                    self.channels.insert(address.to_owned(), channel.clone());
                    channel
                }
                Ok(Err(error)) => {
                    let reason = plain_error(&error);
                    return Err(match error {
                        ConnectError::Unreachable { .. } => Attempt::Failed(reason),
                        ConnectError::BadAddress { .. } => Attempt::Hopeless(reason, Exit::BadUsage),
                        _ => Attempt::Hopeless(reason, Exit::Refused),
                    });
                }
                Err(_) => return Err(Attempt::Failed("no connection in time".to_owned())),
            },
        };
        Ok(ClientClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}
