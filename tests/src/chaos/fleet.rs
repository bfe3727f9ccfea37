//! Three schedulers and three workers that can be killed, stopped and cut off, with a record of what was done to whom.

use super::decisions::SCHEDULER_LOG;
use super::network::Network;
use super::now_us;
use super::proxy::{CLIENTS, NodeId};
use crate::cluster::{Cluster, Launch, PATIENCE, Process, program, text};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A worker's log shows every granted lease and every line of its kernels: the record of executions.
pub const WORKER_LOG: &str = "info,raftwerk_worker::leases=debug,raftwerk_worker::output=debug";

/// What was done to a worker that stood still: SIGSTOP.
pub const STOPPED: &str = "SIGSTOP";

/// How a client reaches the cluster. Clients run on threads of their own while the fleet is being broken.
#[derive(Clone, Debug)]
pub struct Access {
    pub home: PathBuf,
    pub addresses: Vec<String>,
}

impl Access {
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .env("RAFTWERK_CONFIG", self.home.join("contexts.toml"))
            .env("RAFTWERK_ADDRESS", self.addresses.join(","))
            .env("RAFTWERK_CREDENTIAL", self.home.join("scheduler-1/admin.pem"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("raftwerk runs")
    }

    /// Its JSON document; nothing when it failed.
    pub fn ask(&self, args: &[&str]) -> Option<Value> {
        let mut all = vec!["-o", "json", "-q"];
        all.extend(args);
        let output = self.run(&all);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// The same of a cluster that is well.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["-o", "json", "-q"];
        all.extend(args);
        let output = self.run(&all);
        assert!(output.status.success(), "raftwerk {args:?}: {}\n{}", output.status, text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a JSON document")
    }
}

/// A worker that something was done to, and when (Unix microseconds): the only excuse for running one of its tasks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    pub worker: String,
    pub from_us: u64,
    /// `u64::MAX` while it lasts.
    pub to_us: u64,
    pub what: String,
}

pub struct Node {
    pub name: String,
    pub process: Process,
    /// SIGSTOP was sent, SIGCONT was not.
    stopped: bool,
    killed: bool,
}

pub struct Fleet {
    pub network: Network,
    pub schedulers: Vec<Node>,
    pub workers: Vec<Node>,
    pub touches: Vec<Touch>,
    access: Access,
    home: tempfile::TempDir,
}

impl Fleet {
    pub fn start(schedulers: usize, workers: usize, network: Network) -> Fleet {
        let home = tempfile::Builder::new().prefix("raftwerk-chaos-").tempdir().expect("a temporary directory");
        let access = Access { home: home.path().to_path_buf(), addresses: Vec::new() };
        let mut fleet = Fleet { network, schedulers: Vec::new(), workers: Vec::new(), touches: Vec::new(), access, home };
        for place in 0..schedulers {
            let name = format!("scheduler-{}", place + 1);
            let seat = fleet.network.seat(place);
            let mut args = words(&["scheduler", "start", "--name", &name, "--listen", &seat.listen, "--advertise", &seat.advertise]);
            args.extend(["--data-dir".into(), fleet.path(&name)]);
            match fleet.access.addresses.first() {
                None => args.push("--bootstrap".into()),
                Some(first) => args.extend(["--join".into(), first.clone(), "--token-file".into(), fleet.path("scheduler-1/join-token")]),
            }
            let env = vec![("RAFTWERK_LOG".to_string(), SCHEDULER_LOG.to_string())];
            let process = Process::launch(&name, &args, &fleet.access.home, &Launch { through: seat.through, env, ..Launch::default() });
            fleet.network.runs_as(place, process.child.id());
            fleet.access.addresses.push(seat.advertise);
            fleet.schedulers.push(Node { name, process, stopped: false, killed: false });
        }
        for place in 0..workers {
            let name = format!("worker-{}", place + 1);
            let seat = fleet.network.seat(schedulers + place);
            let mut args = words(&["worker", "start", "--name", &name, "--cpus", "1", "--no-gpu"]);
            args.extend(words(&["--listen", &seat.listen, "--advertise", &seat.advertise, "--join", &fleet.access.addresses.join(",")]));
            args.extend(["--data-dir".into(), fleet.path(&name), "--token-file".into(), fleet.path("scheduler-1/join-token")]);
            let env = vec![("RAFTWERK_LOG".to_string(), WORKER_LOG.to_string())];
            let process = Process::launch(&name, &args, &fleet.access.home, &Launch { through: seat.through, env, ..Launch::default() });
            fleet.network.runs_as(schedulers + place, process.child.id());
            fleet.workers.push(Node { name, process, stopped: false, killed: false });
        }
        fleet.until("all workers alive", |fleet| fleet.alive_workers() == workers);
        fleet
    }

    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Keeps the logs of a run that went wrong.
    pub fn keep(&mut self) -> PathBuf {
        self.home.disable_cleanup(true);
        self.access.home.clone()
    }

    fn path(&self, name: &str) -> String {
        self.access.home.join(name).display().to_string()
    }

    pub fn worker_node(&self, worker: usize) -> NodeId {
        self.schedulers.len() + worker
    }

    fn nodes(&self) -> usize {
        self.schedulers.len() + self.workers.len()
    }

    /// Place of the scheduler that leads in its own opinion and in that of another one.
    pub fn leader(&self) -> Option<usize> {
        let view = self.access.ask(&["cluster", "show", "--timeout", "3s"])?;
        let leader = view["replicas"].as_array()?.iter().find(|r| r["leader"] == true)?;
        self.schedulers.iter().position(|s| leader["name"] == s.name.as_str())
    }

    /// Waits for a leader that is none of the nodes that are dead or stopped.
    pub fn living_leader(&self) -> usize {
        let mut found = None;
        self.until("a leader", |fleet| {
            found = fleet.leader().filter(|l| !fleet.schedulers[*l].stopped && !fleet.schedulers[*l].killed);
            found.is_some()
        });
        found.expect("a leader")
    }

    pub fn alive_workers(&self) -> usize {
        let list = self.access.ask(&["worker", "list"]).unwrap_or_default();
        list["workers"].as_array().map_or(0, |w| w.iter().filter(|w| w["liveness"] == "alive").count())
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut(&Fleet) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < PATIENCE, "{what} did not come true\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn logs(&self) -> String {
        let nodes = self.schedulers.iter().chain(&self.workers);
        nodes.map(|n| format!("--- {}\n{}\n", n.name, tail(&n.process.log(), 40))).collect()
    }

    pub fn kill_scheduler(&mut self, place: usize) {
        self.schedulers[place].process.kill();
        self.schedulers[place].killed = true;
    }

    pub fn stop_scheduler(&mut self, place: usize) {
        self.schedulers[place].process.signal("STOP");
        self.schedulers[place].stopped = true;
    }

    pub fn continue_scheduler(&mut self, place: usize) {
        self.schedulers[place].process.signal("CONT");
        self.schedulers[place].stopped = false;
    }

    pub fn kill_worker(&mut self, worker: usize) {
        self.touch(worker, "kill -9");
        self.workers[worker].process.kill();
        self.workers[worker].killed = true;
    }

    pub fn stop_worker(&mut self, worker: usize) {
        self.touch(worker, STOPPED);
        let node = &mut self.workers[worker];
        // The executors too: a machine that pauses pauses all of them.
        for pid in children(node.process.child.id()) {
            signal(pid, "STOP");
        }
        node.process.signal("STOP");
        node.stopped = true;
    }

    pub fn continue_worker(&mut self, worker: usize) {
        let node = &mut self.workers[worker];
        for pid in children(node.process.child.id()) {
            signal(pid, "CONT");
        }
        node.process.signal("CONT");
        node.stopped = false;
        self.untouch(worker);
    }

    /// Starts again whatever is dead and waits until it is ready.
    pub fn revive(&mut self) {
        let home = self.access.home.clone();
        let schedulers = self.schedulers.len();
        for (node, entry) in self.schedulers.iter_mut().chain(&mut self.workers).enumerate().filter(|(_, n)| n.killed) {
            Cluster::restart(&mut entry.process, &home);
            entry.killed = false;
            self.network.runs_as(node, entry.process.child.id());
        }
        for worker in 0..self.workers.len() {
            if !self.network.is_troubled(schedulers + worker) && !self.workers[worker].stopped {
                self.untouch(worker);
            }
        }
    }

    pub fn executors(&self, worker: usize) -> Vec<u32> {
        children(self.workers[worker].process.child.id())
    }

    /// Cuts a node off from these others, both ways.
    pub fn cut_off(&mut self, node: NodeId, others: impl Iterator<Item = NodeId>) {
        for other in others.filter(|o| *o != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Bytes from `from` do not arrive at `to` until the network heals.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.network.cut(from, to);
        self.touch_node(from, "cut");
        self.touch_node(to, "cut");
    }

    pub fn everybody(&self) -> Vec<NodeId> {
        (0..self.nodes()).chain([CLIENTS]).collect()
    }

    pub fn touch_node(&mut self, node: NodeId, what: &str) {
        if let Some(worker) = node.checked_sub(self.schedulers.len()).filter(|w| *w < self.workers.len()) {
            self.touch(worker, what);
        }
    }

    fn touch(&mut self, worker: usize, what: &str) {
        let name = self.workers[worker].name.clone();
        if !self.touches.iter().any(|t| t.worker == name && t.to_us == u64::MAX && t.what == what) {
            self.touches.push(Touch { worker: name, from_us: now_us(), to_us: u64::MAX, what: what.into() });
        }
    }

    fn untouch(&mut self, worker: usize) {
        let name = &self.workers[worker].name;
        self.touches.iter_mut().filter(|t| t.worker == *name && t.to_us == u64::MAX).for_each(|t| t.to_us = now_us());
    }

    /// Good weather, everybody awake and running.
    pub fn heal(&mut self) {
        self.network.heal();
        for place in 0..self.schedulers.len() {
            if self.schedulers[place].stopped {
                self.continue_scheduler(place);
            }
        }
        for worker in 0..self.workers.len() {
            if self.workers[worker].stopped {
                self.continue_worker(worker);
            }
        }
        self.revive();
    }

    pub fn scheduler_logs(&self) -> Vec<String> {
        self.schedulers.iter().map(|scheduler| scheduler.process.log()).collect()
    }

    /// The whole log of each worker, all of its lives in one file.
    pub fn worker_logs(&self) -> Vec<(String, String)> {
        self.workers.iter().map(|w| (w.name.clone(), w.process.log())).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A stopped process is killed all the same, but its executors would wait for their parent's death signal in vain if they are stopped.
        for worker in &self.workers {
            children(worker.process.child.id()).into_iter().for_each(|pid| signal(pid, "CONT"));
        }
        self.network.stop();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

/// Direct children of a process, whichever of its threads started them.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Whether a process of this number runs; one that ended and was not waited for does not.
pub fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

pub fn signal(pid: u32, name: &str) {
    let said = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).output().expect("kill runs");
    if !said.status.success() && runs(pid) {
        panic!("kill -{name} {pid}: {}", text(&said.stderr));
    }
}

fn tail(log: &str, lines: usize) -> String {
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
