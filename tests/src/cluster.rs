//! A cluster of real processes on loopback, each with a data directory of its own that no other process reads.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Fail points that the processes of a cluster are started with, in its home.
const WISHES: &str = "fail-at";

/// How long anything may take on a busy two-core machine before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The `raftwerk` program of this build. `cargo xtask test` builds it first; so does `cargo build`.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("RAFTWERK_PROGRAM") {
        return path.into();
    }
    // Tests lie in target/<profile>/deps, other programs beside `raftwerk`.
    let own = std::env::current_exe().expect("the path of this program");
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join("raftwerk")).find(|program| program.exists());
    beside.unwrap_or_else(|| panic!("no `raftwerk` beside {}; build it with `cargo build -p raftwerk` in the same profile", own.display()))
}

/// How a process is started beyond its own arguments.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// A program with arguments that then becomes `raftwerk`, as `nsenter` does.
    pub through: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Another program than this build's.
    pub program: Option<PathBuf>,
}

/// A child process that dies with this value.
pub struct Process {
    pub name: String,
    pub child: Child,
    args: Vec<String>,
    launch: Launch,
    /// What it printed when it was ready.
    pub ready: Value,
    log: PathBuf,
}

impl Process {
    /// Starts `raftwerk` with these arguments and waits for its ready line.
    pub fn launch(name: &str, args: &[String], home: &Path, launch: &Launch) -> Process {
        let log = home.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let own = launch.program.clone().unwrap_or_else(program);
        let mut words = launch.through.iter().map(std::ffi::OsStr::new).chain([own.as_os_str()]);
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .args(["-o", "json"])
            .args(args)
            .envs(launch.env.iter().cloned())
            .env("RAFTWERK_CONFIG", home.join("contexts.toml"))
            .env("RAFTWERK_FAIL_AT", std::fs::read_to_string(home.join(WISHES)).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .expect("raftwerk starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let _ = sender.send(first);
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        });
        let first = line.recv_timeout(PATIENCE).unwrap_or_default();
        let Ok(ready) = serde_json::from_str(&first) else {
            let _ = child.kill();
            panic!("{name} did not become ready; it said {first:?}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        };
        Process { name: name.into(), child, args: args.to_vec(), launch: launch.clone(), ready, log }
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("it ends");
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for a clean end and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} does not end\n{}", self.name, self.log());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Cluster {
    pub schedulers: Vec<Process>,
    pub workers: Vec<Process>,
    pub home: tempfile::TempDir,
    pub addresses: Vec<String>,
    worker_launch: Launch,
}

impl Cluster {
    /// Schedulers and workers with one CPU core each and no GPU.
    pub fn start(schedulers: usize, workers: usize) -> Cluster {
        Cluster::with_worker_flags(schedulers, workers, &["--cpus", "1", "--no-gpu"])
    }

    /// A home for processes that are added one by one.
    pub fn empty() -> Cluster {
        let home = tempfile::Builder::new().prefix("raftwerk-test-").tempdir().expect("a temporary directory");
        Cluster { schedulers: Vec::new(), workers: Vec::new(), home, addresses: Vec::new(), worker_launch: Launch::default() }
    }

    pub fn with_worker_flags(schedulers: usize, workers: usize, flags: &[&str]) -> Cluster {
        Cluster::launched(Cluster::empty(), schedulers, workers, flags)
    }

    pub fn with_worker_launch(schedulers: usize, workers: usize, flags: &[&str], worker_launch: Launch) -> Cluster {
        Cluster::launched(Cluster { worker_launch, ..Cluster::empty() }, schedulers, workers, flags)
    }

    /// `fail_at` are wishes such as `kill:publish.settled`; each comes true once, in whichever process is there first, which then leaves a file
    /// of the point's name in the home. Debug builds alone have fail points.
    pub fn with_fail_points(schedulers: usize, workers: usize, flags: &[&str], fail_at: &[&str]) -> Cluster {
        let cluster = Cluster::empty();
        let wish = |wish: &&str| {
            let point = wish.split_once(':').map_or(*wish, |(_, point)| point);
            format!("{wish}:{}", cluster.home.path().join(point).display())
        };
        std::fs::write(cluster.home.path().join(WISHES), fail_at.iter().map(wish).collect::<Vec<_>>().join(",")).expect("a file of wishes");
        Cluster::launched(cluster, schedulers, workers, flags)
    }

    fn launched(mut cluster: Cluster, schedulers: usize, workers: usize, flags: &[&str]) -> Cluster {
        for n in 1..=schedulers {
            cluster.add_scheduler(n);
        }
        for n in 1..=workers {
            cluster.add_worker(n, flags);
        }
        cluster.wait_for_workers(workers);
        cluster
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn token_file(&self) -> String {
        self.path("scheduler-1/join-token").display().to_string()
    }

    pub fn add_scheduler(&mut self, n: usize) {
        self.launch_scheduler(n, &Launch::default());
    }

    pub fn launch_scheduler(&mut self, n: usize, launch: &Launch) {
        let name = format!("scheduler-{n}");
        let mut args: Vec<String> = ["scheduler", "start", "--listen", "127.0.0.1:0", "--name", &name].map(String::from).to_vec();
        args.extend(["--data-dir".into(), self.path(&name).display().to_string()]);
        match self.addresses.first() {
            None => args.push("--bootstrap".into()),
            Some(_) => args.extend(["--join".into(), self.addresses.join(","), "--token-file".into(), self.token_file()]),
        }
        let process = Process::launch(&name, &args, self.home.path(), launch);
        self.addresses.push(process.ready["address"].as_str().expect("an address").to_string());
        self.schedulers.push(process);
    }

    pub fn add_worker(&mut self, n: usize, flags: &[&str]) {
        let launch = self.worker_launch.clone();
        self.launch_worker(n, flags, &launch);
    }

    pub fn launch_worker(&mut self, n: usize, flags: &[&str], launch: &Launch) {
        let name = format!("worker-{n}");
        let mut args: Vec<String> = ["worker", "start", "--name", &name, "--join", &self.addresses.join(",")].map(String::from).to_vec();
        args.extend(["--token-file".into(), self.token_file(), "--data-dir".into(), self.path(&name).display().to_string()]);
        args.extend(flags.iter().map(|f| f.to_string()));
        self.workers.push(Process::launch(&name, &args, self.home.path(), launch));
    }

    /// Starts a stopped or killed process again with the same data directory.
    pub fn restart(process: &mut Process, home: &Path) {
        let _ = process.child.kill();
        let _ = process.child.wait();
        let (name, args, launch) = (process.name.clone(), process.args.clone(), process.launch.clone());
        *process = Process::launch(&name, &args, home, &launch);
    }

    /// Ends a process in order, and starts another one on its data directory in another way.
    pub fn replace(process: &mut Process, home: &Path, launch: &Launch) {
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0), "{}", process.log());
        process.launch = launch.clone();
        Cluster::restart(process, home);
    }

    pub fn restart_scheduler(&mut self, index: usize) {
        Cluster::restart(&mut self.schedulers[index], self.home.path());
    }

    /// Starts again whatever has died; how many that were.
    pub fn restart_dead(&mut self) -> usize {
        let home = self.home.path().to_path_buf();
        let mut dead = 0;
        for process in self.schedulers.iter_mut().chain(&mut self.workers) {
            if process.child.try_wait().expect("a child can be waited for").is_some() {
                Cluster::restart(process, &home);
                dead += 1;
            }
        }
        dead
    }

    /// A replica after a forced recovery, with the command that the recovery prints: its directory knows where it listens.
    pub fn restart_survivor(&mut self, index: usize) {
        let args = &mut self.schedulers[index].args;
        for flag in ["--join", "--token-file", "--listen"] {
            if let Some(at) = args.iter().position(|arg| arg == flag) {
                args.drain(at..at + 2);
            }
        }
        self.restart_scheduler(index);
    }

    pub fn restart_worker(&mut self, index: usize) {
        Cluster::restart(&mut self.workers[index], self.home.path());
    }

    /// All schedulers at once: alone, none of them can become ready.
    pub fn restart_all_schedulers(&mut self) {
        let home = self.home.path().to_path_buf();
        std::thread::scope(|scope| {
            for process in &mut self.schedulers {
                let home = &home;
                scope.spawn(move || Cluster::restart(process, home));
            }
        });
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .env("RAFTWERK_CONFIG", self.path("contexts.toml"))
            .env("RAFTWERK_ADDRESS", self.addresses.join(","))
            .env("RAFTWERK_CREDENTIAL", self.path("scheduler-1/admin.pem"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command line against this cluster.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("raftwerk runs")
    }

    /// Runs it and takes its JSON document; panics when it fails.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["-o", "json", "-q"];
        all.extend(args);
        let output = self.run(&all);
        assert!(output.status.success(), "raftwerk {args:?}: {}\n{}", output.status, text(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("raftwerk {args:?} printed no JSON: {e}\n{}", text(&output.stdout)))
    }

    /// Writes a job file into this cluster's home.
    pub fn job_file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a job file");
        path.display().to_string()
    }

    /// Submits without waiting; the job's number.
    pub fn submit(&self, file: &str, more: &[&str]) -> u64 {
        let mut args = vec!["submit", file];
        args.extend(more);
        self.json(&args)["job"].as_u64().expect("a job number")
    }

    pub fn job(&self, job: u64) -> Value {
        self.json(&["job", "show", &job.to_string()])
    }

    /// Waits through `job wait`, which must say that the job is done.
    pub fn wait_done(&self, job: u64) -> Value {
        let output = self.run(&["-q", "job", "wait", &job.to_string()]);
        assert!(output.status.success(), "job wait: {}\n{}\n{:#}", output.status, text(&output.stderr), self.job(job));
        self.job(job)
    }

    pub fn wait_for_workers(&self, count: usize) {
        self.until(&format!("{count} workers"), || {
            let workers = self.json(&["worker", "list"]);
            workers["workers"].as_array().is_some_and(|w| w.iter().filter(|w| w["liveness"] == "alive").count() >= count)
        });
    }

    /// Tasks of the first stage accepted so far.
    pub fn accepted(&self, job: u64) -> u64 {
        self.job(job)["stages"][0]["accepted"].as_u64().unwrap_or(0)
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < PATIENCE, "{what} did not come true\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Index of the scheduler that leads now.
    pub fn leader(&self) -> usize {
        let mut found = None;
        self.until("a leader", || {
            let output = self.run(&["-o", "json", "cluster", "show"]);
            let view: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let leader = view["replicas"].as_array().and_then(|r| r.iter().find(|r| r["leader"] == true)).cloned();
            found = leader.and_then(|l| self.addresses.iter().position(|a| Some(a.as_str()) == l["address"].as_str()));
            found.is_some()
        });
        found.expect("a leader")
    }

    pub fn logs(&self) -> String {
        self.schedulers.iter().chain(&self.workers).map(|p| format!("--- {}\n{}\n", p.name, p.log())).collect()
    }
}

/// Runs a command that must end by itself: its exit code and what it said on stderr.
pub fn until_it_ends(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("raftwerk starts");
    let stderr = child.stderr.take().expect("a pipe");
    let said = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    let started = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status.code();
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} goes on: {}", said.join().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    (code, said.join().unwrap_or_default())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows of all parts of a published directory, merged and sorted.
pub fn merged_rows(dir: &Path) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    let mut parts: Vec<PathBuf> = std::fs::read_dir(dir).expect("a published directory").map(|e| e.expect("an entry").path()).collect();
    parts.sort();
    for part in parts.iter().filter(|p| p.extension().is_some_and(|x| x == "csv")) {
        let mut bytes = Vec::new();
        std::fs::File::open(part).and_then(|mut f| f.read_to_end(&mut bytes)).expect("a readable part");
        // The first line names the columns.
        rows.extend(bytes.split(|b| *b == b'\n').skip(1).filter(|r| !r.is_empty()).map(<[u8]>::to_vec));
    }
    rows.sort();
    rows
}
