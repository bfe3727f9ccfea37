//! A whole cluster inside this process, for `raftwerk run`: one scheduler replica with a durable log and one worker with this machine's
//! devices. They talk over mutual TLS on loopback like any other cluster; only the executors are processes of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use raftwerk_scheduler::{RunningScheduler, SchedulerConfig, StartMode};
use raftwerk_worker::{DeviceSelection, DiskLimits, RunningWorker, WorkerConfig};

use crate::client::Cluster;
use crate::commands::executor;
use crate::commands::worker::refused_start;
use crate::credential::{load_credential, read_token};
use crate::failure::{Exit, Failure};

/// The scheduler is in this very process; whatever takes longer than this will not come.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Embedded {
    scheduler: RunningScheduler,
    worker: RunningWorker,
    dir: PathBuf,
}

impl Embedded {
    /// Starts both below `dir`. Returns when the worker's devices are ready; its session with the scheduler begins at about the same time.
    pub async fn start(dir: &Path, devices: DeviceSelection) -> Result<Self, Failure> {
        let mut config = SchedulerConfig::new("embedded", dir.join("scheduler"));
        config.start = StartMode::Bootstrap;
        config.listen = Some("127.0.0.1:0".to_owned());
        let scheduler = raftwerk_scheduler::start(config)
            .await
            .map_err(|error| Failure::new(Exit::Internal, error).context("the embedded scheduler cannot start"))?;
        let worker = WorkerConfig {
            name: "embedded".to_owned(),
            data_dir: dir.join("worker"),
            schedulers: vec![scheduler.address().to_owned()],
            token: Some(read_token(&scheduler.data_dir().join(raftwerk_scheduler::TOKEN_FILE))?),
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            devices,
            labels: Default::default(),
            // The job may have all of the disk; it ends with an error when that is not enough.
            disk: DiskLimits::default(),
            compress_shuffle: false,
            task_patience: None,
            bring_results: false,
            executor_program: executor::program()?,
            executor_args_prefix: executor::args_prefix(),
        };
        match raftwerk_worker::start(worker).await {
            Ok(worker) => Ok(Self { scheduler, worker, dir: dir.to_owned() }),
            Err(error) => {
                scheduler.stop().await;
                Err(refused_start(error).context("the embedded worker cannot start"))
            }
        }
    }

    /// The cluster's name, which no other cluster has.
    pub fn name(&self) -> &str {
        self.scheduler.cluster()
    }

    pub fn client(&self) -> Result<Cluster, Failure> {
        let credential = load_credential(&self.dir.join("scheduler").join(raftwerk_scheduler::ADMIN_FILE))?;
        Ok(Cluster::new(vec![self.scheduler.address().to_owned()], credential, PATIENCE))
    }

    /// Returns when a part of the cluster ends by itself, which it should not.
    pub async fn broke(&mut self) -> Failure {
        tokio::select! {
            ended = self.scheduler.wait() => {
                Failure::say(Exit::Internal, format!("the embedded scheduler stopped: {}", ended.err().unwrap_or_else(|| "no reason given".into())))
            }
            ended = self.worker.wait() => match ended {
                Ok(()) => Failure::say(Exit::Internal, "the embedded worker stopped"),
                Err(error) => Failure::new(Exit::Internal, error).context("the embedded worker stopped"),
            },
        }
    }

    /// The worker first, so that it says goodbye to a scheduler that still listens.
    pub async fn stop(self) {
        self.worker.stop().await;
        self.scheduler.stop().await;
    }
}
