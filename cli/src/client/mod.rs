//! A cluster as its user sees it: one thing that answers, whichever replica leads at the moment.
//!
//! A call is tried on one replica after another until one answers or patience ends. That is safe because every call may be repeated.

mod call_error;
mod follow;
mod learn;
mod survey;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raftwerk_proto::v1::client_client::ClientClient;
use raftwerk_proto::v1::*;
use raftwerk_transport::{
    ConnectError, Identity, MAX_MESSAGE_BYTES, PeerKind, Reached, connect, first_of, is_mere_silence, plain_error, plain_status,
};
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

/// For the connection to one of several replicas: the kernel of a paused process still completes TCP, so only this tells it from a slow one.
/// Doubled every round up to the second value, for machines that really are that slow.
const CONNECTING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(8));

/// A replica that works on a long call is asked so often whether it is still there, and has so long to say so.
const VIGIL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// The least that an attempt gets when patience is nearly over.
const LAST_ATTEMPT: Duration = Duration::from_millis(200);

type Client = ClientClient<Channel>;

pub struct Cluster {
    identity: Identity,
    /// Known replicas; a leader learned from a redirect is added.
    addresses: Vec<String>,
    /// The one to ask first: the leader, as far as known.
    preferred: usize,
    channels: BTreeMap<String, Channel>,
    patience: Duration,
    /// The context that the addresses come from.
    source: Option<learn::Source>,
}

/// How long the answer to a call may take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Short,
    /// Longer than it takes to see that a replica is gone: the replica has to show now and then that it is there and leads.
    Long,
}

/// Of one attempt at one replica.
#[derive(Clone, Copy)]
struct Limits {
    connecting: Duration,
    answering: Duration,
    /// Give up early when the replica gives no sign of life, or does not show within this time that it leads a majority.
    watched: Option<Duration>,
}

/// What is known of an attempt that failed.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The replica may have taken the request all the same.
    doubt: bool,
    /// It led a majority while it worked on it.
    led: bool,
}

/// What became of one attempt.
enum Attempt<T> {
    Answer(T),
    Refusal(Status),
    /// Ask the next address (the preferred one may have changed).
    Redirected,
    Failed(String, Known),
    /// No attempt at this address with this identity will succeed.
    Hopeless(String, Exit),
}

impl Cluster {
    pub fn new(addresses: Vec<String>, identity: Identity, patience: Duration) -> Self {
        Self { identity, addresses, preferred: 0, channels: BTreeMap::new(), patience, source: None }
    }

    pub async fn submit(&mut self, spec: JobSpec, idempotency_key: String) -> Result<SubmitReply, CallError> {
        let request = SubmitRequest { spec: Some(spec), idempotency_key, only_existing: false };
        self.call_within(Work::Long, request, |mut client, request| async move { client.submit(request).await }).await
    }

    /// What this submission made when it was sent before, if it was.
    pub async fn submitted_before(&mut self, spec: JobSpec, idempotency_key: String) -> Result<Option<SubmitReply>, CallError> {
        let request = SubmitRequest { spec: Some(spec), idempotency_key, only_existing: true };
        match self.call(request, |mut client, request| async move { client.submit(request).await }).await {
            Err(CallError::Refused(status)) if status.code() == tonic::Code::NotFound => Ok(None),
            answered => answered.map(Some),
        }
    }

    pub async fn job(&mut self, job: u64) -> Result<JobView, CallError> {
        self.call(GetJobRequest { job }, |mut client, request| async move { client.get_job(request).await }).await
    }

    /// The newest `limit` jobs, at least one, in as many calls as it takes.
    pub async fn jobs(&mut self, namespace: String, limit: u32) -> Result<Vec<JobView>, CallError> {
        let mut jobs: Vec<JobView> = Vec::new();
        loop {
            let left = limit.saturating_sub(jobs.len() as u32);
            let before = jobs.last().map_or(0, |j| j.job);
            let request = ListJobsRequest { namespace: namespace.clone(), limit: left, before };
            let page = self.call(request, |mut client, request| async move { client.list_jobs(request).await }).await?;
            let ends = !page.more || page.jobs.is_empty();
            jobs.extend(page.jobs);
            if ends || jobs.len() >= limit as usize {
                return Ok(jobs);
            }
        }
    }

    pub async fn cancel(&mut self, job: u64) -> Result<JobView, CallError> {
        self.call(CancelJobRequest { job }, |mut client, request| async move { client.cancel_job(request).await }).await
    }

    pub async fn drop_result(&mut self, job: u64) -> Result<JobView, CallError> {
        self.call(DropResultRequest { job }, |mut client, request| async move { client.drop_result(request).await }).await
    }

    /// For connections of one's own, to the workers.
    pub fn identity(&self) -> &Identity {
        &self.identity
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

    pub async fn drain_worker(&mut self, worker: u64) -> Result<(), CallError> {
        let drain = |mut client: Client, request| async move { client.drain_worker(request).await };
        self.call(DrainWorkerRequest { worker }, drain).await.map(|_| ())
    }

    pub async fn set_namespace(&mut self, name: String, terms: NamespaceTerms) -> Result<(), CallError> {
        let set = |mut client: Client, request| async move { client.set_namespace(request).await };
        self.call(SetNamespaceRequest { name, terms: Some(terms) }, set).await.map(|_| ())
    }

    pub async fn namespaces(&mut self) -> Result<Vec<NamespaceView>, CallError> {
        let list = |mut client: Client, request| async move { client.list_namespaces(request).await };
        Ok(self.call(ListNamespacesRequest {}, list).await?.namespaces)
    }

    pub async fn costs(&mut self) -> Result<CostsView, CallError> {
        self.call(ListCostsRequest {}, |mut client, request| async move { client.list_costs(request).await }).await
    }

    /// How many were taken.
    pub async fn import_costs(&mut self, costs: Vec<CostRecord>) -> Result<u64, CallError> {
        let import = |mut client: Client, request| async move { client.import_costs(request).await };
        self.call(ImportCostsRequest { costs }, import).await.map(|reply| reply.taken)
    }

    pub async fn remove_replica(&mut self, replica: u64) -> Result<(), CallError> {
        let remove = |mut client: Client, request| async move { client.remove_replica(request).await };
        self.call_within(Work::Long, RemoveReplicaRequest { replica }, remove).await.map(|_| ())
    }

    /// The bytes of a backup file.
    pub async fn backup(&mut self) -> Result<Vec<u8>, CallError> {
        // The pieces are gathered inside the attempt, so that a leader that goes away in the middle is replaced by the next one.
        let all = |mut client: Client, request| async move {
            let mut pieces = client.backup(request).await?.into_inner();
            let (mut bytes, mut total) = (Vec::new(), None);
            while let Some(piece) = pieces.message().await? {
                total.get_or_insert(piece.total_bytes);
                bytes.extend_from_slice(&piece.data);
            }
            if total != Some(bytes.len() as u64) {
                return Err(Status::unavailable("the backup ended early"));
            }
            Ok(Response::new(bytes))
        };
        self.call_within(Work::Long, BackupRequest {}, all).await
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
        self.call_within(Work::Short, request, method).await
    }

    /// Asks one replica after another until one answers, or none has given a sign of life for as long as patience lasts. A long call takes
    /// [`SUBMIT`] plus patience at the most.
    async fn call_within<Q, R, M, F>(&mut self, work: Work, request: Q, method: M) -> Result<R, CallError>
    where
        Q: Clone,
        M: Fn(Client, Request<Q>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let patience = self.patience;
        let last_end = Instant::now() + patience + if work == Work::Long { SUBMIT } else { Duration::ZERO };
        let started = Instant::now();
        // When patience ends; a replica that led a majority and was at work on the call until it failed is a reason for new patience.
        let mut give_up = Instant::now() + patience;
        let mut doubt = false;
        let mut pause = PAUSE.0;
        let mut connecting = if self.addresses.len() > 1 { CONNECTING.0 } else { patience };
        let mut tried: BTreeMap<String, String> = BTreeMap::new();
        // An address that is known gave no answer, or one that is not leads: the list may be out of date.
        let (known, mut failed) = (self.addresses.len(), false);
        loop {
            let (mut hope, mut hopeless) = (false, None);
            // One round: the preferred replica, then the others. A redirect may lengthen the round by the address it adds.
            let mut asked = 0;
            while asked < self.addresses.len().max(1) {
                let left = give_up.saturating_duration_since(Instant::now());
                if asked > 0 && left < LAST_ATTEMPT {
                    break;
                }
                asked += 1;
                let address = self.current().to_owned();
                let left = left.max(LAST_ATTEMPT);
                let answering = match work {
                    Work::Long => SUBMIT.min(last_end.saturating_duration_since(Instant::now())).max(LAST_ATTEMPT),
                    Work::Short if self.addresses.len() > 1 => ATTEMPT.min(left),
                    Work::Short => left,
                };
                let watched = (work == Work::Long).then(|| left.max(VIGIL.0 + VIGIL.1));
                let limits = Limits { connecting: connecting.min(left), answering, watched };
                match self.attempt(&address, limits, request.clone(), &method).await {
                    Attempt::Answer(answer) => {
                        if failed || self.addresses.len() > known {
                            // Another one than was asked may have answered.
                            let answered = self.current().to_owned();
                            self.learn(&answered).await;
                        }
                        return Ok(answer);
                    }
                    Attempt::Refusal(status) => return Err(CallError::Refused(Box::new(status))),
                    Attempt::Redirected => {
                        tried.insert(address, call_error::NOT_LEADER.to_owned());
                        hope = true;
                        continue;
                    }
                    Attempt::Failed(reason, known) => {
                        doubt |= known.doubt;
                        if known.led {
                            give_up = (Instant::now() + patience).min(last_end);
                        }
                        // What a replica said of itself tells more than the silence of the last, short attempts.
                        if !(is_mere_silence(&reason) && tried.contains_key(&address)) {
                            tried.insert(address, reason);
                        }
                        hope = true;
                        failed = true;
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
            if Instant::now() + pause >= give_up {
                return Err(CallError::Unreachable { patience: patience.max(started.elapsed()), tried: tried_list(), doubt });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            connecting = (connecting * 2).min(CONNECTING.1.max(connecting));
        }
    }

    fn current(&self) -> &str {
        self.addresses.get(self.preferred).map_or("", String::as_str)
    }

    async fn attempt<Q, R, M, F>(&mut self, address: &str, limits: Limits, request: Q, method: &M) -> Attempt<R>
    where
        M: Fn(Client, Request<Q>) -> F,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (address, client) = match self.client(address, limits.connecting).await {
            Ok(found) => found,
            Err(attempt) => return attempt,
        };
        let mut request = Request::new(request);
        // The other side should stop working on it, too, when nobody waits any more.
        request.set_timeout(limits.answering);
        let led = AtomicBool::new(false);
        let watched = async {
            let Some(patience) = limits.watched else { return std::future::pending().await };
            let nobody_led = async {
                tokio::time::sleep(patience).await;
                if led.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                status = vigil(client.clone(), &led) => status,
                () = nobody_led => Status::deadline_exceeded("no answer in time"),
            }
        };
        let call = tokio::time::timeout(limits.answering, method(client.clone(), request));
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            status = watched => Ok(Err(status)),
        };
        let status = match answer {
            Ok(Ok(response)) => return Attempt::Answer(response.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer in time"),
        };
        match self.judge(&address, &status) {
            Verdict::Final => Attempt::Refusal(status),
            Verdict::AskLeader(_) => Attempt::Redirected,
            Verdict::TryAnother => {
                let reason = plain_status(&status);
                let known = Known { doubt: !call_error::was_not_taken(&reason), led: led.load(Ordering::Relaxed) };
                Attempt::Failed(reason, known)
            }
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

    /// To this replica, or to the first of the others that answers while it does not; which one it is, is said too.
    async fn client<T>(&mut self, address: &str, deadline: Duration) -> Result<(String, Client), Attempt<T>> {
        let mut address = address.to_owned();
        let channel = match self.channels.get(&address) {
            Some(channel) => channel.clone(),
            None => match tokio::time::timeout(deadline, first_of(self.dials(&address))).await {
                Ok(Ok(Reached { place, value: (found, channel), .. })) => {
                    self.channels.insert(found.clone(), channel.clone());
                    if place > 0 {
                        self.preferred = self.addresses.iter().position(|known| *known == found).unwrap_or(self.preferred);
                        address = found;
                    }
                    channel
                }
                Ok(Err(mut failures)) => {
                    // The one that was asked for, if it is not silent still.
                    failures.sort_by_key(|(place, _)| *place);
                    let Some((_, error)) = failures.into_iter().next() else {
                        return Err(Attempt::Failed("no connection".to_owned(), Known::default()));
                    };
                    let reason = plain_error(&error);
                    return Err(match error {
                        ConnectError::Unreachable { .. } => Attempt::Failed(reason, Known::default()),
                        ConnectError::BadAddress { .. } => Attempt::Hopeless(reason, Exit::BadUsage),
                        _ => Attempt::Hopeless(reason, Exit::Refused),
                    });
                }
                Err(_) => return Err(Attempt::Failed("no connection in time".to_owned(), Known::default())),
            },
        };
        let client = ClientClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok((address, client))
    }

    /// This address, then the others in the order in which they would be asked.
    fn dials(&self, address: &str) -> Vec<impl Future<Output = Result<(String, Channel), ConnectError>> + Send + 'static + use<>> {
        let at = self.addresses.iter().position(|known| known == address);
        let (before, from) = self.addresses.split_at(at.unwrap_or(0));
        let others = from.iter().chain(before).filter(|known| *known != address).cloned();
        let dial = |address: String| {
            let (identity, known) = (self.identity.clone(), self.channels.get(&address).cloned());
            async move {
                match known {
                    Some(channel) => Ok((address, channel)),
                    None => connect(&address, &identity, PeerKind::Scheduler).await.map(|channel| (address, channel)),
                }
            }
        };
        [address.to_owned()].into_iter().chain(others).map(dial).collect()
    }
}

/// Returns when a replica that owes an answer gives no sign of life, follows somebody else, or cannot reach a majority. Says when it could.
async fn vigil(mut client: Client, led: &AtomicBool) -> Status {
    loop {
        tokio::time::sleep(VIGIL.0).await;
        match tokio::time::timeout(VIGIL.1, client.show_cluster(ShowClusterRequest {})).await {
            Ok(Ok(view)) => {
                let view = view.into_inner();
                // Without a leader an election is under way, which this replica may win.
                if view.leader != 0 && view.leader != view.answered_by {
                    return Status::unavailable("another replica leads now");
                }
            }
            Ok(Err(status)) if verdict::of(&status) == Verdict::Final => {}
            Ok(Err(status)) => return status,
            Err(_) => return Status::unavailable("it gives no sign of life"),
        }
        // A small question that takes a majority to answer.
        match tokio::time::timeout(VIGIL.1, client.list_namespaces(ListNamespacesRequest {})).await {
            Ok(Err(status)) if verdict::of(&status) != Verdict::Final => return status,
            Ok(_) => led.store(true, Ordering::Relaxed),
            Err(_) => return Status::unavailable("a majority of the replicas cannot be reached"),
        }
    }
}
