//! The processes of a `dev` cluster.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{self, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use super::layout::Layout;
use crate::commands::executor;
use crate::console::Console;
use crate::failure::{Exit, Failure, Outcome};

/// A GPU's self-test compiles shaders, which a cold driver does in seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Time for a clean end before a process is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Lines of a dead process's log that are shown.
const LAST_LINES: usize = 10;

pub struct Child {
    name: String,
    process: process::Child,
    /// Closing it asks the process to end. It closes by itself, too, when this process is killed.
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    log: PathBuf,
    /// Whether the log goes when `dev` ends.
    temporary: bool,
}

impl Child {
    pub fn start(name: &str, line: &[&str], layout: &Layout) -> Result<Self, Failure> {
        let log = layout.log_of(name);
        let fail = |error: std::io::Error| Failure::new(Exit::Internal, error).context(format!("cannot start {name}"));
        let file = File::options().create(true).append(true).open(&log).map_err(fail)?;
        let mut command = Command::new(executor::program()?);
        command.args(line).args(["--until-stdin-closes", "--format", "json"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        // In a group of its own, Ctrl-C reaches `dev` alone, which then stops all in order and does not mistake them for crashed.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn().map_err(fail)?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        Ok(Self { name: name.to_owned(), process, stdin, stdout, log, temporary: layout.is_temporary() })
    }

    /// Waits for the line that says the process is ready.
    async fn ready(mut self) -> Result<Self, Failure> {
        let line = match &mut self.stdout {
            Some(stdout) => tokio::time::timeout(READY_WITHIN, stdout.next_line()).await,
            None => Ok(Ok(None)),
        };
        match line {
            Ok(Ok(Some(_))) => Ok(self),
            Ok(_) => {
                let ended = self.process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(self.failure(format!("{} ended before it was ready ({ended})", self.name)))
            }
            Err(_) => Err(self.failure(format!("{} was not ready within {} s", self.name, READY_WITHIN.as_secs()))),
        }
    }

    /// With the end of its log, and with the log's name when it is still there to be read.
    fn failure(&self, message: String) -> Failure {
        let failure = Failure::say(Exit::Internal, format!("{message}; the last lines of its log:\n    {}", self.last_lines()));
        if self.temporary { failure } else { failure.fix(format!("the whole log is {}", self.log.display())) }
    }

    fn last_words(&self) -> String {
        format!("its log is {}; the last lines:\n    {}", self.log.display(), self.last_lines())
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        last.join("\n    ")
    }
}

#[derive(Default)]
pub struct Children {
    starting: Vec<Child>,
    running: Vec<Child>,
}

impl Children {
    /// To be waited for by [`Self::all_ready`].
    pub fn starting(&mut self, child: Child) {
        self.starting.push(child);
    }

    pub async fn all_ready(&mut self, console: &Console) -> Outcome {
        let mut waiting = JoinSet::new();
        for child in self.starting.drain(..) {
            waiting.spawn(child.ready());
        }
        while let Some(joined) = waiting.join_next().await {
            let child = joined.map_err(|error| Failure::new(Exit::Internal, error))??;
            console.note(format!("{} is ready (pid {})", child.name, child.process.id().unwrap_or(0)));
            self.running.push(child);
        }
        self.running.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Says which process ends, and goes on with the others; returns when none is left.
    pub async fn watch(&mut self, console: &Console) {
        while !self.running.is_empty() {
            let exits =
                self.running.iter_mut().enumerate().map(|(place, child)| Box::pin(async move { (place, child.process.wait().await) }));
            let (place, status) = first(exits.collect()).await;
            let child = self.running.remove(place);
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            console.note(format!("{} ended unexpectedly ({status}); the others go on\n  {}", child.name, child.last_words()));
        }
    }

    /// Workers first, so that they say goodbye to schedulers that still listen.
    pub async fn stop(mut self, console: &Console) {
        self.running.append(&mut self.starting);
        let (workers, schedulers): (Vec<Child>, Vec<Child>) = self.running.into_iter().partition(|child| child.name.starts_with("worker"));
        for group in [workers, schedulers] {
            let mut stopping = JoinSet::new();
            for child in group {
                stopping.spawn(stop(child));
            }
            while let Some(joined) = stopping.join_next().await {
                if let Ok(Some(name)) = joined {
                    console.note(format!("{name} did not end within {} s and was killed", STOP_WITHIN.as_secs()));
                }
            }
        }
    }
}

/// The name of the process when it had to be killed.
async fn stop(mut child: Child) -> Option<String> {
    drop(child.stdin.take());
    match tokio::time::timeout(STOP_WITHIN, child.process.wait()).await {
        Ok(_) => None,
        Err(_) => {
            let _ = child.process.kill().await;
            Some(child.name)
        }
    }
}

/// The result of whichever future is done first.
async fn first<T>(mut futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> T {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                return std::task::Poll::Ready(value);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
