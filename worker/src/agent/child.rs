//! Starting an executor: the child process, what it inherits, and the handshake up to `Ready`.
use crate::{
    executor::{DESCRIPTORS_ENV, ExecutorDevice},
    frame::Frames,
    recorder::Recorder,
};
use raftwerk_proto::v1::{Device, FromExecutor, from_executor};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::{UnixStream, unix},
    sync::oneshot,
};

/// Opening a GPU and checking its answers takes seconds on a software device; a driver that hangs must not hold up the others for ever.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Host-side threads of a GPU's kernels.
const GPU_THREADS: usize = 2;
/// Slots of the recorder for a GPU: leases that one batch may span.
const GPU_SLOTS: usize = 256;

/// How executors are started here.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) program: PathBuf,
    pub(crate) args_prefix: Vec<String>,
    pub(crate) cpu_threads: usize,
    /// What this worker may take of memory, if that was limited.
    pub(crate) memory: Option<u64>,
}

/// Ends the process, if it still runs.
#[derive(Clone)]
pub(crate) struct Killer {
    /// `None` once it was waited for: the number may belong to somebody else by then.
    pid: Arc<Mutex<Option<Pid>>>,
}

impl Killer {
    pub(crate) fn kill(&self) {
        if let Some(pid) = *self.pid.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// An executor that has said `Ready`.
pub(crate) struct Launched {
    pub(crate) device: Device,
    pub(crate) reader: unix::OwnedReadHalf,
    pub(crate) frames: Frames,
    pub(crate) writer: unix::OwnedWriteHalf,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) killer: Killer,
    /// How it ended.
    pub(crate) exited: oneshot::Receiver<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("{reason}")]
    NotReady { reason: String },
}

/// What a child says; lines of standard output and standard error in the order they came.
pub(crate) trait OutputSink: Send + Sync + 'static {
    fn lines(&self, text: &[u8]);
    /// The last lines, for the reason of an early death.
    fn tail(&self) -> String;
    /// Which recorder tells what is running.
    fn watch(&self, recorder: Arc<Recorder>);
}

/// Settings of ours, and keys to stores: kernels have no use for either.
fn is_the_agents_own(variable: &str) -> bool {
    ["RAFTWERK_", "AWS_", "AZURE_", "GOOGLE_"].iter().any(|beginning| variable.starts_with(beginning))
}

impl Launcher {
    pub(crate) fn new(program: PathBuf, args_prefix: Vec<String>, cpu_threads: u32) -> Self {
        Self { program, args_prefix, cpu_threads: cpu_threads.max(1) as usize, memory: None }
    }

    pub(crate) fn with_memory(self, memory: Option<u64>) -> Self {
        Self { memory, ..self }
    }

    /// What is left of it for tasks on the CPU: agent and executor take some of it themselves, and shuffle data passes through buffers.
    fn task_memory(&self) -> Option<u64> {
        const OWN: u64 = 64 << 20;
        const LEAST: u64 = 4 << 20;
        self.memory.map(|memory| memory.saturating_sub(OWN.min(memory / 2)).max(LEAST))
    }

    /// The GPUs of this machine, in the order of their indices. Asked of a child too: looking already loads drivers, and drivers crash.
    pub(crate) async fn adapters(&self, sink: Arc<dyn OutputSink>) -> Result<Vec<Device>, LaunchError> {
        let Process { mut reader, mut frames, killer, exited, drained, .. } = self.start(ExecutorDevice::Adapters, sink.clone()).await?;
        let mut adapters = Vec::new();
        let listed = tokio::time::timeout(READY_LIMIT, async {
            while let Ok(device) = read_ready(&mut reader, &mut frames).await {
                adapters.push(device);
            }
            exited.await.unwrap_or_default()
        });
        match listed.await {
            Ok(status) if status.ends_with(": 0") => Ok(adapters),
            Ok(status) => {
                let _ = tokio::time::timeout(Duration::from_secs(1), drained).await;
                Err(LaunchError::NotReady { reason: format!("looking for GPUs failed ({status}): {}", sink.tail()) })
            }
            Err(_) => {
                killer.kill();
                Err(LaunchError::NotReady { reason: format!("looking for GPUs took more than {} s", READY_LIMIT.as_secs()) })
            }
        }
    }

    pub(crate) async fn launch(&self, device: ExecutorDevice, sink: Arc<dyn OutputSink>) -> Result<Launched, LaunchError> {
        let Process { mut reader, mut frames, writer, recorder, killer, exited, drained } = self.start(device, sink.clone()).await?;
        match tokio::time::timeout(READY_LIMIT, read_ready(&mut reader, &mut frames)).await {
            Ok(Ok(device)) => Ok(Launched { device, reader, frames, writer, recorder, killer, exited }),
            Ok(Err(reason)) => {
                drop((reader, writer));
                killer.kill();
                let status = exited.await.unwrap_or_default();
                // The pipe closes with the child; what it said last says why.
                let _ = tokio::time::timeout(Duration::from_secs(1), drained).await;
                let tail = sink.tail();
                Err(LaunchError::NotReady { reason: if tail.is_empty() { format!("{reason} ({status})") } else { tail } })
            }
            Err(_) => {
                killer.kill();
                Err(LaunchError::NotReady { reason: format!("it was not ready within {} s", READY_LIMIT.as_secs()) })
            }
        }
    }

    async fn start(&self, device: ExecutorDevice, sink: Arc<dyn OutputSink>) -> Result<Process, LaunchError> {
        let failed = |source: io::Error| LaunchError::Start { program: self.program.clone(), source };
        let (threads, slots) = match device {
            ExecutorDevice::Cpu => (self.cpu_threads, self.cpu_threads),
            ExecutorDevice::Gpu(_) | ExecutorDevice::Adapters => (GPU_THREADS, GPU_SLOTS),
        };
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let (recorder, recorder_fd) = Recorder::create(slots).map_err(failed)?;
        let recorder = Arc::new(recorder);
        sink.watch(recorder.clone());
        let (output_reader, output_writer) = io::pipe().map_err(failed)?;
        let output = unix::pipe::Receiver::from_owned_fd(output_reader.into()).map_err(failed)?;

        let mut command = Command::new(&self.program);
        command.args(&self.args_prefix).args(["--device", &device.to_string(), "--threads", &threads.to_string()]);
        if let (ExecutorDevice::Cpu, Some(memory)) = (device, self.task_memory()) {
            command.args(["--memory", &memory.to_string()]);
        }
        // Secrets and settings of the agent are none of a kernel's business.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_the_agents_own(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.env(DESCRIPTORS_ENV, format!("{},{}", theirs.as_raw_fd(), recorder_fd.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(output_writer.try_clone().map_err(failed)?).stderr(output_writer);
        // What is meant for the worker's group (Ctrl-C, a service manager's SIGTERM) is not for its executors: they would seem to crash, and leases
        // that are to be handed back in order would fail. They end with the worker all the same.
        command.process_group(0);
        let (started, killer, exited) = spawn(command, vec![theirs.into(), recorder_fd]);
        started.await.unwrap_or_else(|_| Err(io::Error::other("the thread that starts executors is gone"))).map_err(failed)?;
        let drained = raftwerk_transport::tasks::spawn(read_output(output, sink));
        let (reader, writer) = UnixStream::from_std(ours).map_err(failed)?.into_split();
        Ok(Process { reader, frames: Frames::default(), writer, recorder, killer, exited, drained })
    }
}

/// A child that has started and said nothing yet.
struct Process {
    reader: unix::OwnedReadHalf,
    frames: Frames,
    writer: unix::OwnedWriteHalf,
    recorder: Arc<Recorder>,
    killer: Killer,
    exited: oneshot::Receiver<String>,
    /// Ends when all of its output was read.
    drained: tokio::task::JoinHandle<()>,
}

type Spawned = (oneshot::Receiver<io::Result<()>>, Killer, oneshot::Receiver<String>);

/// Starts the process on a thread of its own that then waits for it. The thread must live as long as the child: the child asks to be
/// killed when the *thread* that started it ends.
fn spawn(mut command: Command, inherited: Vec<OwnedFd>) -> Spawned {
    let (started_tx, started) = oneshot::channel();
    let (exited_tx, exited) = oneshot::channel();
    let killer = Killer { pid: Arc::default() };
    let pid = killer.pid.clone();
    let work = move || {
        let numbers: Vec<i32> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec only system calls that are async-signal-safe run, on descriptors that `inherited` keeps open.
        // Clearing the flag here and not before keeps the descriptors from leaking into children that others start meanwhile.
        unsafe {
            command.pre_exec(move || {
                for &number in &numbers {
                    rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(number), rustix::io::FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = started_tx.send(Err(error));
                return;
            }
        };
        // Our copies must go, or the end of the child would not close the socket; the command holds the ends of the output pipe.
        drop(inherited);
        drop(command);
        let child_pid = Pid::from_child(&child);
        *pid.lock().unwrap_or_else(PoisonError::into_inner) = Some(child_pid);
        let _ = started_tx.send(Ok(()));
        // Wait without reaping, so that the number stays ours until `kill` can no longer use it.
        while let Err(rustix::io::Errno::INTR) =
            rustix::process::waitid(WaitId::Pid(child_pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {}
        *pid.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let _ = exited_tx.send(status);
    };
    // If no thread can be had, `started` reports it: its sender is dropped.
    let _ = std::thread::Builder::new().name("executor-parent".into()).spawn(work);
    (started, killer, exited)
}

async fn read_ready(reader: &mut unix::OwnedReadHalf, frames: &mut Frames) -> Result<Device, String> {
    loop {
        match frames.decode::<FromExecutor>().map_err(|e| e.to_string())? {
            Some(FromExecutor { message: Some(from_executor::Message::Ready(ready)) }) => return Ok(ready.device.unwrap_or_default()),
            Some(_) => return Err("it spoke before it was ready".into()),
            None => {
                const SPACE: usize = 4 << 10;
                let read = reader.read(frames.space(SPACE)).await.map_err(|e| e.to_string())?;
                frames.filled(SPACE, read);
                if read == 0 {
                    return Err("it ended before it was ready".into());
                }
            }
        }
    }
}

async fn read_output(mut output: unix::pipe::Receiver, sink: Arc<dyn OutputSink>) {
    let (mut buffer, mut partial) = (vec![0; 16 << 10], Vec::new());
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        partial.extend_from_slice(&buffer[..read]);
        // A line without an end is cut, so that it cannot fill the memory.
        let whole = partial.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let whole = if whole == 0 && partial.len() > 8 << 10 { partial.len() } else { whole };
        if whole > 0 {
            sink.lines(&partial[..whole]);
            partial.drain(..whole);
        }
    }
    if !partial.is_empty() {
        sink.lines(&partial);
    }
}

/// What a status means for a person.
pub(crate) fn explain(status: &str) -> &'static str {
    if status.contains("SIGKILL") {
        "; the system kills a process like this when memory runs out"
    } else if status.contains("SIGBUS") {
        "; an input file was cut short while it was read"
    } else {
        ""
    }
}
