//! Where a `dev` cluster keeps its parts, and at which ports its schedulers listen.
//!
//! A replica's address is part of the cluster's membership, so a cluster that is continued must find its ports again: they are kept in
//! `dev.toml` beside the data.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};
use crate::units::counted;

/// First port tried; the next ones follow.
const FIRST_PORT: u16 = 7301;
/// Where the search ends.
const LAST_PORT: u16 = 7999;

#[derive(Serialize, Deserialize)]
struct Saved {
    ports: Vec<u16>,
}

pub struct Layout {
    dir: PathBuf,
    ports: Vec<u16>,
    /// Scheduler numbers whose directory held nothing yet.
    new: Vec<u32>,
    /// Keeps a port of a replica that has yet to start from everybody else; by scheduler number.
    held: BTreeMap<u32, TcpListener>,
    temporary: bool,
}

impl Layout {
    pub fn open(dir: &Path, schedulers: u32, workers: u32, temporary: bool) -> Result<Self, Failure> {
        let file = dir.join("dev.toml");
        let fail = |error: anyhow::Error| Failure::new(Exit::BadUsage, error.context(format!("cannot use {}", file.display())));
        let saved = match std::fs::read_to_string(&file) {
            Ok(text) => Some(toml::from_str::<Saved>(&text).map_err(|error| fail(error.into()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail(error.into())),
        };
        let is_new = saved.is_none();
        if is_new && dir.join("identity").exists() {
            return Err(Failure::say(Exit::BadUsage, format!("{} is the data directory of a scheduler or worker", dir.display()))
                .fix("give a --data-dir of its own"));
        }
        if let Some(name) = (is_new && !temporary).then(|| stranger(dir)).flatten() {
            let message = format!("{} holds files that are no dev cluster's, such as {name}", dir.display());
            return Err(Failure::say(Exit::BadUsage, message).fix("give --data-dir an empty directory, or one that is not there yet"));
        }
        let mut held = BTreeMap::new();
        let ports = match saved {
            Some(saved) if saved.ports.len() != schedulers as usize => {
                let message =
                    format!("{} holds a cluster of {}, not {schedulers}", dir.display(), counted(saved.ports.len() as u64, "scheduler"));
                return Err(
                    Failure::say(Exit::BadUsage, message).fix(format!("give --schedulers {} or another --data-dir", saved.ports.len()))
                );
            }
            Some(saved) => saved.ports,
            None => {
                // All stay bound until their replica starts, so that no port is given twice.
                for number in 1..=schedulers {
                    held.insert(number, free_port(number).map_err(|error| fail(error.into()))?);
                }
                held.values().map(port_of).collect::<Result<_, _>>().map_err(|error| fail(error.into()))?
            }
        };
        let mut layout = Self { dir: dir.to_owned(), ports, new: Vec::new(), held, temporary };
        layout.new = (1..=schedulers).filter(|number| is_empty(&layout.scheduler_dir(*number))).collect();
        let workers = (1..=workers).map(|number| layout.worker_dir(number));
        for dir in (1..=schedulers).map(|number| layout.scheduler_dir(number)).chain(workers).chain([layout.log_dir()]) {
            std::fs::create_dir_all(&dir).map_err(|error| fail(error.into()))?;
        }
        if is_new {
            layout.save()?;
        }
        Ok(layout)
    }

    fn save(&self) -> Result<(), Failure> {
        let file = self.dir.join("dev.toml");
        let fail = |error: anyhow::Error| Failure::new(Exit::BadUsage, error.context(format!("cannot write {}", file.display())));
        let text = toml::to_string(&Saved { ports: self.ports.clone() }).map_err(|error| fail(error.into()))?;
        std::fs::write(&file, text).map_err(|error| fail(error.into()))
    }

    /// Lets go of the replica's port, which it is about to take.
    pub fn release(&mut self, scheduler: u32) {
        self.held.remove(&scheduler);
    }

    /// Whether the replica did not start because somebody else took its port meanwhile.
    pub fn lost_port(&self, scheduler: u32) -> bool {
        let log = std::fs::read(self.log_of(&format!("scheduler-{scheduler}"))).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(&format!("cannot listen on {}", self.address(scheduler)))
    }

    /// Another port for a replica that no other one knows yet.
    pub fn move_port(&mut self, scheduler: u32) -> Result<(), Failure> {
        let fail = |error: std::io::Error| Failure::new(Exit::Internal, error).context("cannot find a free port");
        let listener = free_port(scheduler).map_err(fail)?;
        self.ports[scheduler as usize - 1] = port_of(&listener).map_err(fail)?;
        self.held.insert(scheduler, listener);
        self.save()
    }

    /// Whether everything here goes when the command ends.
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub fn log_of(&self, process: &str) -> PathBuf {
        self.log_dir().join(format!("{process}.log"))
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

/// The first thing there that no `dev` has made. One that was interrupted leaves directories without `dev.toml`, and a new file system has one of
/// its own.
fn stranger(dir: &Path) -> Option<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let known = |name: &String| {
        ["logs", "lost+found"].contains(&name.as_str()) || ["scheduler-", "worker-"].iter().any(|start| name.starts_with(start))
    };
    names.filter(|name| !known(name)).min()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// A port that nobody listens at, bound: the usual one where it is free, so that a person recognises it. Two clusters that start at the
/// same time look from different places on, so that they do not follow each other from one port to the next.
fn free_port(number: u32) -> std::io::Result<TcpListener> {
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
    let mut random = [0_u8; 2];
    // Without random numbers all begin at one place, which is slower and no worse.
    let _ = getrandom::fill(&mut random);
    let span = LAST_PORT - FIRST_PORT + 1;
    let start = u16::from_le_bytes(random) % span;
    bind(FIRST_PORT + number as u16 - 1)
        .or_else(|error| (0..span).find_map(|step| bind(FIRST_PORT + (start + step) % span).ok()).ok_or(error))
        .or_else(|_| bind(0))
}

fn port_of(listener: &TcpListener) -> std::io::Result<u16> {
    listener.local_addr().map(|address| address.port())
}
