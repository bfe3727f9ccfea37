//! A scheduler of one for tests: signs joins, speaks the session, decides nothing. The test plays the leader.
use raftwerk_proto::v1::{
    Grants, JoinReply, JoinRequest, Report, ReportAck, SchedulerMessage, Welcome, WorkerMessage,
    join_server::{Join, JoinServer},
    scheduler_message::Message as Down,
    worker_message::Message as Up,
    worker_session_server::{WorkerSession, WorkerSessionServer},
};
use raftwerk_transport::{Authority, JoinToken, PeerKind, incoming, require, server};
use raftwerk_worker::{DeviceSelection, RunningWorker, WorkerConfig};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

pub struct Cluster {
    pub authority: Arc<Authority>,
    pub token: JoinToken,
    pub address: String,
    sessions: mpsc::UnboundedReceiver<Session>,
    server: JoinHandle<()>,
}

/// One worker's session, from the leader's side.
pub struct Session {
    pub worker: u64,
    up: mpsc::UnboundedReceiver<WorkerMessage>,
    down: mpsc::UnboundedSender<Result<SchedulerMessage, Status>>,
}

struct Service {
    authority: Arc<Authority>,
    next_id: AtomicU64,
    sessions: mpsc::UnboundedSender<Session>,
}

impl Cluster {
    pub async fn start() -> Self {
        let (authority, token) = Authority::create("c-test").unwrap();
        Self::listen(Arc::new(authority), token, "127.0.0.1:0").await
    }

    async fn listen(authority: Arc<Authority>, token: JoinToken, address: &str) -> Self {
        let identity = authority.issue(PeerKind::Scheduler, 1, "s").unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, sessions) = mpsc::unbounded_channel();
        let service = Arc::new(Service { authority: authority.clone(), next_id: AtomicU64::new(10), sessions: sender });
        let router = server().add_service(JoinServer::from_arc(service.clone())).add_service(WorkerSessionServer::from_arc(service));
        let stream = incoming(listener, &identity);
        let server = tokio::spawn(async move { router.serve_with_incoming(stream).await.unwrap() });
        Self { authority, token, address, sessions, server }
    }

    /// Goes away and comes back at the same address.
    pub async fn restart(self, away: Duration) -> Self {
        let Self { authority, token, address, sessions, server } = self;
        server.abort();
        let _ = server.await;
        drop(sessions);
        tokio::time::sleep(away).await;
        Self::listen(authority, token, &address).await
    }

    pub fn config(&self, name: &str, dir: &Path) -> WorkerConfig {
        WorkerConfig {
            disk: Default::default(),
            compress_shuffle: false,
            task_patience: None,
            bring_results: false,
            labels: Default::default(),
            name: name.into(),
            data_dir: dir.join(name),
            schedulers: vec![self.address.clone()],
            token: Some(self.token.clone()),
            listen: "127.0.0.1:0".into(),
            advertise: None,
            devices: DeviceSelection { cpus: Some(2), no_gpu: true, ..DeviceSelection::default() },
            executor_program: std::env::current_exe().unwrap(),
            executor_args_prefix: Vec::new(),
        }
    }

    pub async fn worker(&mut self, name: &str, dir: &Path) -> (RunningWorker, Session) {
        let worker = raftwerk_worker::start(self.config(name, dir)).await.unwrap();
        let session = self.session().await;
        (worker, session)
    }

    /// The next worker that says hello, welcomed.
    pub async fn session(&mut self) -> Session {
        let mut session = tokio::time::timeout(Duration::from_secs(10), self.sessions.recv()).await.expect("a session in time").unwrap();
        let hello = session.receive().await;
        assert!(matches!(hello, Up::Hello(_)), "{hello:?}");
        session.send(Down::Welcome(Welcome {
            worker: session.worker,
            session: 5,
            lease_ttl_ms: 5_000,
            heartbeat_ms: 200,
            ..Welcome::default()
        }));
        session
    }
}

impl Session {
    pub fn send(&self, message: Down) {
        self.down.send(Ok(SchedulerMessage { message: Some(message) })).unwrap();
    }

    /// The next message that is no heartbeat.
    pub async fn receive(&mut self) -> Up {
        loop {
            let message =
                tokio::time::timeout(Duration::from_secs(10), self.up.recv()).await.expect("a message in time").expect("a session");
            match message.message.unwrap() {
                Up::Heartbeat(_) => {} // answered when it came
                message => return message,
            }
        }
    }

    pub fn grant(&self, grants: Grants) {
        self.send(Down::Grants(grants));
    }

    /// Reports up to the final one of a lease, acknowledged.
    pub async fn finish(&mut self) -> Vec<Report> {
        let mut all: Vec<Report> = Vec::new();
        while !all.last().is_some_and(|report| report.final_report) {
            let message = self.receive().await;
            let Up::Reports(reports) = message else { panic!("{message:?}") };
            let sequences = reports.reports.iter().map(|report| report.sequence).collect();
            self.send(Down::ReportAck(ReportAck { sequences }));
            all.extend(reports.reports);
        }
        all
    }

    /// The same, of which nothing may have failed.
    pub async fn succeed(&mut self) -> Vec<Report> {
        let reports = self.finish().await;
        let failures: Vec<_> = reports.iter().flat_map(|report| &report.failures).collect();
        assert!(failures.is_empty(), "{failures:?}");
        reports
    }
}

#[tonic::async_trait]
impl Join for Service {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        if !self.authority.token_matches(&request.token_secret) {
            return Err(Status::permission_denied("the token is not of this cluster"));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let certificate = self.authority.sign(&request.certificate_request_der, PeerKind::Worker, id, &request.name).unwrap();
        Ok(Response::new(JoinReply {
            cluster: self.authority.cluster().into(),
            id,
            certificate_der: certificate.into(),
            ca_certificate_der: self.authority.ca_certificate_der().to_vec().into(),
            ..JoinReply::default()
        }))
    }
}

#[tonic::async_trait]
impl WorkerSession for Service {
    type SessionStream = UnboundedReceiverStream<Result<SchedulerMessage, Status>>;

    async fn session(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        let worker = require(&request, &[PeerKind::Worker])?.id;
        let mut messages = request.into_inner();
        let (up_sender, up) = mpsc::unbounded_channel();
        let (down, down_receiver) = mpsc::unbounded_channel();
        // Also while the test listens to another session: a worker leaves a leader that falls silent.
        let answers = down.downgrade();
        tokio::spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if let (Some(Up::Heartbeat(heartbeat)), Some(answers)) = (&message.message, answers.upgrade()) {
                    let ack = raftwerk_proto::v1::HeartbeatAck { sequence: heartbeat.sequence, ..Default::default() };
                    let _ = answers.send(Ok(SchedulerMessage { message: Some(Down::HeartbeatAck(ack)) }));
                }
                if up_sender.send(message).is_err() {
                    return;
                }
            }
        });
        let _ = self.sessions.send(Session { worker, up, down });
        Ok(Response::new(UnboundedReceiverStream::new(down_receiver)))
    }
}
