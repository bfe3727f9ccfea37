//! Where a `dev` cluster keeps its parts, and at which ports its schedulers listen.
//!
//! A replica's address is part of the cluster's membership, so a cluster that is continued must find its ports again: they are kept in
//! `dev.toml` beside the data.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// First port tried; the next ones follow.
const FIRST_PORT: u16 = 7301;

#[derive(Serialize, Deserialize)]
struct Saved {
    ports: Vec<u16>,
}

pub struct Layout {
    dir: PathBuf,
    ports: Vec<u16>,
    /// Scheduler numbers whose directory held nothing yet.
    new: Vec<u32>,
}

impl Layout {
    pub fn open(dir: &Path, schedulers: u32, workers: u32) -> Result<Self, Failure> {
        let file = dir.join("dev.toml");
        let fail = |error: anyhow::Error| Failure::new(Exit::BadUsage, error.context(format!("cannot use {}", file.display())));
        let saved = match std::fs::read_to_string(&file) {
            Ok(text) => Some(toml::from_str::<Saved>(&text).map_err(|error| fail(error.into()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail(error.into())),
        };
        let is_new = saved.is_none();
        let ports = match saved {
            Some(saved) if saved.ports.len() != schedulers as usize => {
                let message = format!("{} holds a cluster of {} schedulers, not {schedulers}", dir.display(), saved.ports.len());
                return Err(
                    Failure::say(Exit::BadUsage, message).fix(format!("give --schedulers {} or another --data-dir", saved.ports.len()))
                );
            }
            Some(saved) => saved.ports,
            None => free_ports(schedulers).map_err(|error| fail(error.into()))?,
        };
        let mut layout = Self { dir: dir.to_owned(), ports, new: Vec::new() };
        layout.new = (1..=schedulers).filter(|number| is_empty(&layout.scheduler_dir(*number))).collect();
        let workers = (1..=workers).map(|number| layout.worker_dir(number));
        for dir in (1..=schedulers).map(|number| layout.scheduler_dir(number)).chain(workers).chain([layout.log_dir()]) {
            std::fs::create_dir_all(&dir).map_err(|error| fail(error.into()))?;
        }
        if is_new {
            let text = toml::to_string(&Saved { ports: layout.ports.clone() }).map_err(|error| fail(error.into()))?;
            std::fs::write(&file, text).map_err(|error| fail(error.into()))?;
        }
        Ok(layout)
    }

    /// Whether this replica has yet to make or join the cluster.
    pub fn is_new(&self, scheduler: u32) -> bool {
        self.new.contains(&scheduler)
    }

    /// Counted from 1.
    pub fn address(&self, scheduler: u32) -> String {
        format!("127.0.0.1:{}", self.ports[scheduler as usize - 1])
    }

    pub fn addresses(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect()
    }

    pub fn scheduler_dir(&self, number: u32) -> PathBuf {
        self.dir.join(format!("scheduler-{number}"))
    }

    pub fn worker_dir(&self, number: u32) -> PathBuf {
        self.dir.join(format!("worker-{number}"))
    }

    pub fn token_file(&self) -> PathBuf {
        self.scheduler_dir(1).join(raftwerk_scheduler::TOKEN_FILE)
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// Ports that nobody listens at: the usual ones where they are free, so that a person recognises them. All stay bound until the last
/// is found, so that no port is given twice.
fn free_ports(count: u32) -> std::io::Result<Vec<u16>> {
    let mut held = Vec::new();
    for number in 0..count {
        let usual = TcpListener::bind(("127.0.0.1", FIRST_PORT + number as u16));
        held.push(usual.or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?);
    }
    held.iter().map(|listener| listener.local_addr().map(|address| address.port())).collect()
}
