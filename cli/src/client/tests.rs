//! The client against replicas that are told how to behave, over real connections.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use raftwerk_proto::v1::client_server::{Client, ClientServer};
use raftwerk_proto::v1::*;
use raftwerk_transport::{Authority, PeerKind};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::failure::{Exit, Failure};

#[derive(Clone, Debug)]
enum Role {
    Leader(JobState),
    Follower {
        leader: String,
    },
    /// Answers, but cannot lead.
    Cut,
    /// Keeps its connections and says nothing, as a paused process does.
    Paused,
    Refuses(tonic::Code),
}

#[derive(Clone)]
struct Replica {
    role: Arc<Mutex<Role>>,
    address: String,
    submits: Arc<Mutex<Vec<String>>>,
}

impl Replica {
    async fn start(authority: &Authority, id: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replica =
            Self { role: Arc::new(Mutex::new(Role::Cut)), address: listener.local_addr().unwrap().to_string(), submits: Arc::default() };
        let identity = authority.issue(PeerKind::Scheduler, id, "s").unwrap();
        let service = ClientServer::new(replica.clone());
        let incoming = raftwerk_transport::incoming(listener, &identity);
        tokio::spawn(async move { raftwerk_transport::server().add_service(service).serve_with_incoming(incoming).await });
        replica
    }

    fn becomes(&self, role: Role) {
        *self.role.lock().unwrap() = role;
    }

    async fn awake(&self) {
        while matches!(*self.role.lock().unwrap(), Role::Paused) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn answer(&self) -> Result<JobView, Status> {
        let role = self.role.lock().unwrap().clone();
        match role {
            Role::Leader(state) => Ok(JobView { job: 7, state: state.into(), ..JobView::default() }),
            Role::Follower { leader } => {
                let mut status = Status::failed_precondition("not the leader");
                status.metadata_mut().insert("raftwerk-leader", leader.parse().unwrap());
                Err(status)
            }
            Role::Cut | Role::Paused => Err(Status::unavailable("no quorum")),
            Role::Refuses(code) => Err(Status::new(code, "no")),
        }
    }
}

#[tonic::async_trait]
impl Client for Replica {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        self.submits.lock().unwrap().push(request.into_inner().idempotency_key);
        self.awake().await;
        self.answer().map(|view| Response::new(SubmitReply { job: view.job, existing: false }))
    }

    async fn get_job(&self, _: Request<GetJobRequest>) -> Result<Response<JobView>, Status> {
        self.awake().await;
        self.answer().map(Response::new)
    }

    type WatchJobStream = ReceiverStream<Result<JobView, Status>>;

    /// A view whenever the role changes its mind about the job; an error when the replica stops to lead.
    async fn watch_job(&self, _: Request<GetJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let first = self.answer()?;
        let (views, stream) = tokio::sync::mpsc::channel(1);
        let replica = self.clone();
        tokio::spawn(async move {
            let mut last = first.clone();
            let mut next = Ok(first);
            loop {
                let ends = next.as_ref().map_or(true, ended);
                if views.send(next).await.is_err() || ends {
                    return;
                }
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    replica.awake().await;
                    match replica.answer() {
                        Ok(view) if view == last => {}
                        answer => {
                            last = answer.clone().unwrap_or_default();
                            next = answer;
                            break;
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_job(&self, _: Request<CancelJobRequest>) -> Result<Response<JobView>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn drop_result(&self, _: Request<DropResultRequest>) -> Result<Response<JobView>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn job_logs(&self, _: Request<JobLogsRequest>) -> Result<Response<JobLogsReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_costs(&self, _: Request<ListCostsRequest>) -> Result<Response<CostsView>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn import_costs(&self, _: Request<ImportCostsRequest>) -> Result<Response<ImportCostsReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release_worker(&self, _: Request<ReleaseWorkerRequest>) -> Result<Response<ReleaseWorkerReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn drain_worker(&self, _: Request<DrainWorkerRequest>) -> Result<Response<DrainWorkerReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn set_namespace(&self, _: Request<SetNamespaceRequest>) -> Result<Response<SetNamespaceReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_namespaces(&self, _: Request<ListNamespacesRequest>) -> Result<Response<ListNamespacesReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn remove_replica(&self, _: Request<RemoveReplicaRequest>) -> Result<Response<RemoveReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }

    type BackupStream = tokio_stream::Empty<Result<BackupChunk, Status>>;
    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn show_cluster(&self, _: Request<ShowClusterRequest>) -> Result<Response<ClusterView>, Status> {
        self.awake().await;
        Err(Status::unimplemented(""))
    }
}

async fn replicas(count: u64) -> (Vec<Replica>, Cluster) {
    let (authority, _) = Authority::create("test").unwrap();
    let mut replicas = Vec::new();
    for id in 1..=count {
        replicas.push(Replica::start(&authority, id).await);
    }
    let admin = authority.issue(PeerKind::Client, 0, "admin").unwrap();
    let cluster = Cluster::new(replicas.iter().map(|replica| replica.address.clone()).collect(), admin, Duration::from_secs(5));
    (replicas, cluster)
}

fn exit(error: CallError) -> Exit {
    Failure::from(error).exit
}

#[tokio::test]
async fn a_call_goes_to_the_leader_that_a_follower_names() {
    let (replicas, mut cluster) = replicas(2).await;
    // The client knows the follower only.
    cluster.addresses.truncate(1);
    replicas[0].becomes(Role::Follower { leader: replicas[1].address.clone() });
    replicas[1].becomes(Role::Leader(JobState::Running));
    assert_eq!(cluster.job(7).await.unwrap().job, 7);
}

#[tokio::test]
async fn a_submit_is_repeated_with_its_key_until_somebody_leads() {
    let (replicas, mut cluster) = replicas(2).await;
    let other = replicas[1].clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        other.becomes(Role::Leader(JobState::Running));
    });
    assert_eq!(cluster.submit(JobSpec::default(), "key".into()).await.unwrap().job, 7);
    let keys: Vec<String> = replicas.iter().flat_map(|replica| replica.submits.lock().unwrap().clone()).collect();
    assert!(keys.len() > 2 && keys.iter().all(|key| key == "key"), "{keys:?}");
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let (replicas, mut cluster) = replicas(2).await;
    for (code, expected) in [
        (tonic::Code::AlreadyExists, Exit::Refused),
        (tonic::Code::PermissionDenied, Exit::Refused),
        (tonic::Code::InvalidArgument, Exit::BadUsage),
        (tonic::Code::NotFound, Exit::NotFound),
    ] {
        replicas[0].becomes(Role::Refuses(code));
        cluster.preferred = 0;
        assert_eq!(exit(cluster.job(7).await.unwrap_err()), expected, "{code:?}");
    }
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_given_up_when_patience_ends() {
    let (_replicas, mut cluster) = replicas(3).await;
    cluster.patience = Duration::from_millis(300);
    let started = Instant::now();
    let error = cluster.job(7).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3));
    let text = error.to_string();
    // It says how long it was, which on a busy machine is more than it should be.
    assert!(text.starts_with("no answer from the cluster within ") && text.contains("no quorum"), "{text}");
    assert_eq!(exit(error), Exit::ContactLost);
}

#[tokio::test]
async fn a_credential_of_another_cluster_fails_at_once() {
    let (replicas, _) = replicas(1).await;
    let (stranger, _) = Authority::create("other").unwrap();
    let identity = stranger.issue(PeerKind::Client, 0, "admin").unwrap();
    let mut cluster = Cluster::new(vec![replicas[0].address.clone()], identity, Duration::from_secs(60));
    let error = cluster.job(7).await.unwrap_err();
    assert!(matches!(&error, CallError::Hopeless { .. }), "{error}");
    assert_eq!(exit(error), Exit::Refused);
}

#[tokio::test]
async fn waiting_survives_a_change_of_leader() {
    let (replicas, mut cluster) = replicas(2).await;
    replicas[0].becomes(Role::Leader(JobState::Running));
    replicas[1].becomes(Role::Follower { leader: replicas[0].address.clone() });
    let (old, new) = (replicas[0].clone(), replicas[1].clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        old.becomes(Role::Cut);
        new.becomes(Role::Cut);
        tokio::time::sleep(Duration::from_millis(200)).await;
        old.becomes(Role::Follower { leader: new.address.clone() });
        new.becomes(Role::Leader(JobState::Running));
        // Long enough that somebody on a busy machine sees it run there, and too short for a question after silence.
        tokio::time::sleep(Duration::from_secs(1)).await;
        new.becomes(Role::Leader(JobState::Done));
    });
    let mut seen = Vec::new();
    let on = |sighting: Sighting<'_>| {
        seen.push(match sighting {
            Sighting::View(view) => format!("{:?}", view.state()),
            Sighting::Lost(_) => "lost".to_owned(),
            Sighting::Back => "back".to_owned(),
            Sighting::Waits(_) => "waits".to_owned(),
        });
    };
    let view = cluster.follow(7, Duration::from_secs(10), on).await.unwrap();
    assert_eq!(view.state(), JobState::Done);
    assert_eq!(seen, ["Running", "lost", "back", "Running", "Done"]);
}

#[tokio::test]
async fn a_paused_leader_does_not_freeze_whoever_waits() {
    let (replicas, mut cluster) = replicas(3).await;
    replicas[0].becomes(Role::Leader(JobState::Running));
    replicas[1].becomes(Role::Follower { leader: replicas[0].address.clone() });
    replicas[2].becomes(Role::Follower { leader: replicas[0].address.clone() });
    let (old, other, new) = (replicas[0].clone(), replicas[1].clone(), replicas[2].clone());
    let paused = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let paused = Instant::now();
        old.becomes(Role::Paused);
        tokio::time::sleep(Duration::from_millis(600)).await;
        other.becomes(Role::Follower { leader: new.address.clone() });
        new.becomes(Role::Leader(JobState::Running));
        tokio::time::sleep(Duration::from_secs(8)).await;
        new.becomes(Role::Leader(JobState::Done));
        paused
    });
    let mut seen = Vec::new();
    let on = |sighting: Sighting<'_>| match sighting {
        Sighting::View(_) => {}
        Sighting::Lost(reason) => seen.push((Instant::now(), format!("lost: {reason}"))),
        Sighting::Back => seen.push((Instant::now(), "back".to_owned())),
        Sighting::Waits(_) => {}
    };
    let view = cluster.follow(7, Duration::from_secs(30), on).await.unwrap();
    let paused = paused.await.unwrap();
    assert_eq!(view.state(), JobState::Done);
    let texts: Vec<&str> = seen.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("lost: nothing heard for") && texts[1] == "back", "{texts:?}");
    // 2 s of silence and 2 s for the question come to 4 s.
    assert!(seen[0].0 - paused < Duration::from_secs(6), "said so after {:?}", seen[0].0 - paused);
    assert!(seen[1].0 - paused < Duration::from_secs(7), "back after {:?}", seen[1].0 - paused);
}

/// It gave up at the moment when it found contact lost: to notice that had taken longer than its patience, and nobody else was asked.
#[tokio::test]
async fn patience_that_is_shorter_than_it_takes_to_notice_still_asks_the_other_replicas() {
    let (replicas, mut cluster) = replicas(3).await;
    replicas[0].becomes(Role::Leader(JobState::Running));
    replicas[1].becomes(Role::Follower { leader: replicas[2].address.clone() });
    replicas[2].becomes(Role::Follower { leader: replicas[0].address.clone() });
    let (old, new) = (replicas[0].clone(), replicas[2].clone());
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        old.becomes(Role::Paused);
        // The others elect one long before a client notices anything.
        tokio::time::sleep(Duration::from_millis(400)).await;
        new.becomes(Role::Leader(JobState::Running));
        tokio::time::sleep(Duration::from_secs(6)).await;
        new.becomes(Role::Leader(JobState::Done));
    });
    let mut seen = Vec::new();
    let on = |sighting: Sighting<'_>| match sighting {
        Sighting::Lost(_) => seen.push("lost"),
        Sighting::Back => seen.push("back"),
        Sighting::View(_) | Sighting::Waits(_) => {}
    };
    let view = cluster.follow(7, Duration::from_secs(1), on).await.unwrap();
    assert_eq!((view.state(), seen), (JobState::Done, vec!["lost", "back"]));
}

/// The other side of it: when nobody is there, patience does end.
#[tokio::test]
async fn patience_begins_when_contact_is_found_lost_and_then_ends() {
    let (replicas, mut cluster) = replicas(3).await;
    replicas[0].becomes(Role::Leader(JobState::Running));
    let all = replicas.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        all.iter().for_each(|replica| replica.becomes(Role::Paused));
    });
    let mut lost = None;
    let on = |sighting: Sighting<'_>| {
        if let Sighting::Lost(_) = sighting {
            lost.get_or_insert_with(Instant::now);
        }
    };
    let error = cluster.follow(7, Duration::from_secs(1), on).await.unwrap_err();
    assert!(matches!(error, Standstill::ContactLost(..)), "{error}");
    let after = lost.expect("contact was lost").elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(12)).contains(&after), "gave up after {after:?}");
}

#[tokio::test]
async fn a_submit_to_a_paused_leader_goes_to_the_next_one() {
    let (replicas, mut cluster) = replicas(3).await;
    replicas[0].becomes(Role::Leader(JobState::Running));
    replicas[1].becomes(Role::Follower { leader: replicas[2].address.clone() });
    replicas[2].becomes(Role::Leader(JobState::Running));
    // The connection stands before the pause.
    cluster.job(7).await.unwrap();
    replicas[0].becomes(Role::Paused);
    let started = Instant::now();
    assert_eq!(cluster.submit(JobSpec::default(), "key".into()).await.unwrap().job, 7);
    assert!(started.elapsed() < Duration::from_secs(8), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn no_call_outlasts_its_patience_for_long() {
    let (replicas, mut cluster) = replicas(3).await;
    replicas.iter().for_each(|replica| replica.becomes(Role::Paused));
    cluster.patience = Duration::from_secs(2);
    let started = Instant::now();
    assert_eq!(exit(cluster.job(7).await.unwrap_err()), Exit::ContactLost);
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn contact_lost_for_good_is_never_the_jobs_end() {
    let (replicas, mut cluster) = replicas(2).await;
    replicas[0].becomes(Role::Leader(JobState::Running));
    let old = replicas[0].clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        old.becomes(Role::Cut);
    });
    let error = cluster.follow(7, Duration::from_millis(500), |_| {}).await.unwrap_err();
    assert!(matches!(error, Standstill::ContactLost(..)), "{error}");
}

#[tokio::test]
async fn waiting_for_a_job_that_is_not_there_ends_at_once() {
    let (replicas, mut cluster) = replicas(1).await;
    replicas[0].becomes(Role::Refuses(tonic::Code::NotFound));
    let error = cluster.follow(7, Duration::from_secs(60), |_| {}).await.unwrap_err();
    assert!(matches!(error, Standstill::Refused(_)), "{error}");
}
