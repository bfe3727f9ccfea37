//! The executor: a child process per device that runs kernels and nothing else.
//!
//! ```text
//!             socket (inherited)                         claim a chunk of tasks, first lease first
//!  agent ---> reader thread ---> queue of segments ---> CPU: one loop per core in the rayon pool    ---> lease: results so far
//!        <--- writer thread <--- finished leases at once, progress every 100 ms <-----  GPU: one thread, one dispatch per batch
//! ```
//! **An executor opens no path and no socket.** What it reads and writes comes as descriptors from the agent; a GPU's own device files
//! are opened before `Ready`. A crash in here (a kernel, a driver, a truncated mapping, the out-of-memory killer) ends this process and
//! nothing else; the agent learns from the [recorder](crate::recorder) which tasks were running.

mod align;
mod chunk;
mod cpu;
mod gpu;
mod input;
mod lease;
mod part_file;
mod queue;
mod reading;
mod rounds;
mod sides;
mod socket;
mod stage;
mod unpack;
mod writer;

pub use stage::{BuiltIn, Kernels};

/// The lines of a split, for tests of what is fetched for one.
#[cfg(all(test, feature = "object-stores"))]
pub(crate) fn lines_of(file: &[u8], offset: u64, bytes: u64) -> Vec<u8> {
    file[align::lines(file, offset, bytes)].to_vec()
}

use crate::recorder::Recorder;
use queue::Queue;
use raftwerk_proto::v1::{Device, FromExecutor, Ready, from_executor, to_executor};
use std::{
    collections::HashMap,
    fs::File,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::net::UnixStream,
    str::FromStr,
    sync::Arc,
};

/// Names the inherited descriptors: socket, then recorder, as decimal numbers with a comma between.
pub const DESCRIPTORS_ENV: &str = "RAFTWERK_EXECUTOR_DESCRIPTORS";
/// Exit status of an executor whose device failed its self test; the reason is on its standard error.
pub const EXIT_SELF_TEST: i32 = 3;
/// Exit status for a broken protocol or missing descriptors.
pub const EXIT_PROTOCOL: i32 = 4;
/// The device was lost while running; the failures were reported before.
pub const EXIT_DEVICE_LOST: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutorDevice {
    Cpu,
    /// Index among the adapters that the GPU runtime lists.
    Gpu(usize),
    /// Not a device: say what GPUs there are, one `Ready` each, and end.
    Adapters,
}

impl FromStr for ExecutorDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "adapters" => Ok(Self::Adapters),
            Some(("gpu", index)) => index.parse().map(Self::Gpu).map_err(|_| format!("`{text}`: the adapter index is not a number")),
            _ => Err(format!("`{text}` is no device: expected `cpu` or `gpu:N`")),
        }
    }
}

impl std::fmt::Display for ExecutorDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
            Self::Adapters => f.write_str("adapters"),
        }
    }
}

/// Arguments of the hidden `raftwerk executor` command.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorArgs {
    pub device: ExecutorDevice,
    /// Threads of the CPU pool; on a GPU the host-side threads of its kernels.
    pub threads: usize,
    /// What tasks on the CPU may take of memory together, input included; one that takes more runs alone. `u64::MAX`: as many as there are threads.
    pub memory: u64,
}

impl ExecutorArgs {
    /// Reads `--device D --threads N [--memory BYTES]`, as an agent passes them.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut device, mut threads, mut memory) = (None, None, u64::MAX);
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("`{name}` lacks its value"))?;
            match name.as_str() {
                "--device" => device = Some(value.parse()?),
                "--threads" => threads = Some(value.parse().map_err(|_| format!("`{value}` is no number of threads"))?),
                "--memory" => memory = value.parse().map_err(|_| format!("`{value}` is no number of bytes"))?,
                _ => return Err(format!("`{name}` is no argument of an executor")),
            }
        }
        Ok(Self { device: device.ok_or("--device is missing")?, threads: threads.ok_or("--threads is missing")?, memory })
    }
}

/// What all threads share.
struct Shared {
    threads: usize,
    /// Memory is: what is mapped is just what was asked for.
    limited: bool,
    /// Of outputs each thread keeps so much before it writes them.
    write_bytes: usize,
    queue: Queue,
    writer: writer::Writer,
    recorder: Recorder,
}

/// Runs until the agent closes the socket; the result is the exit status of the process.
pub fn executor_main(args: ExecutorArgs) -> i32 {
    executor_main_with(args, &BuiltIn)
}

/// The same with other kernels, for tests.
pub fn executor_main_with(args: ExecutorArgs, kernels: &'static dyn Kernels) -> i32 {
    match run(args, kernels) {
        Ok(()) => 0,
        Err((status, reason)) => {
            eprintln!("executor {}: {reason}", args.device);
            status
        }
    }
}

type Failure = (i32, String);

fn run(args: ExecutorArgs, kernels: &'static dyn Kernels) -> Result<(), Failure> {
    let protocol = |reason: String| (EXIT_PROTOCOL, reason);
    // The agent's death closes the socket as well; this covers an executor that is stuck in a kernel and does not read.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(|e| protocol(e.to_string()))?;
    let (socket, recorder) = inherited().map_err(protocol)?;
    raise_descriptor_limit();
    let limited = args.memory < u64::MAX;
    if limited {
        crate::heap::keep_little(args.memory);
    }
    let recorder = {
        let file = recorder; // closed once it is mapped
        Recorder::open(&file).map_err(|e| protocol(format!("recorder: {e}")))?
    };
    let threads = args.threads.clamp(1, recorder.slots().max(1));
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("kernel-{i}"))
        .build_global()
        .map_err(|e| protocol(format!("thread pool: {e}")))?;

    let not_offered = |reason: String| (EXIT_SELF_TEST, reason);
    let (device, gpu) = match args.device {
        ExecutorDevice::Cpu => (stage::cpu_device(kernels, threads), None),
        ExecutorDevice::Adapters => return list_adapters(kernels, socket).map_err(|e| protocol(e.to_string())),
        ExecutorDevice::Gpu(index) => {
            let (device, gpu) = kernels.open_gpu(index).map_err(not_offered)?;
            (device, Some(gpu))
        }
    };
    kernels.self_test(gpu.as_ref()).map_err(|e| not_offered(format!("self test: {e}")))?;

    let write_bytes = chunk::write_bytes(args.memory, threads);
    let shared =
        Arc::new(Shared { threads, limited, write_bytes, queue: Queue::new(args.memory), writer: writer::Writer::default(), recorder });
    let output = socket.try_clone().map_err(|e| protocol(e.to_string()))?;
    writer::start(shared.clone(), output, &ready(device)).map_err(|e| protocol(e.to_string()))?;
    let runs_on_gpu = gpu.is_some();
    if let Some(gpu) = gpu {
        gpu::start(shared.clone(), gpu).map_err(|e| protocol(e.to_string()))?;
    }
    serve(&shared, kernels, socket, runs_on_gpu).map_err(protocol)
}

fn list_adapters(kernels: &dyn Kernels, mut socket: UnixStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    kernels.adapters().into_iter().for_each(|device| crate::frame::push(&mut buffer, &ready(device)));
    std::io::Write::write_all(&mut socket, &buffer)
}

fn ready(device: Device) -> FromExecutor {
    FromExecutor { message: Some(from_executor::Message::Ready(Ready { device: Some(device) })) }
}

fn inherited() -> Result<(UnixStream, File), String> {
    let text =
        std::env::var(DESCRIPTORS_ENV).map_err(|_| format!("{DESCRIPTORS_ENV} is not set: an agent starts executors, not a person"))?;
    let numbers: Vec<RawFd> = text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|e| format!("{DESCRIPTORS_ENV}: {e}"))?;
    let &[socket, recorder] = &numbers[..] else { return Err(format!("{DESCRIPTORS_ENV}: expected two numbers")) };
    close_all_but(&numbers);
    let own = |number: RawFd| {
        if number < 3 {
            return Err(format!("{DESCRIPTORS_ENV}: descriptor {number} is a standard stream"));
        }
        // SAFETY: the agent passes these numbers for this purpose alone and nothing in this process has used them before.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        // A kernel must not hand them on to a process that it may start.
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(|e| format!("descriptor {number}: {e}"))?;
        Ok(fd)
    };
    Ok((UnixStream::from(own(socket)?), File::from(own(recorder)?)))
}

/// Descriptors that leaked into the agent from whoever started it must not reach a kernel.
fn close_all_but(keep: &[RawFd]) {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<RawFd> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2 && !keep.contains(number)) {
        // SAFETY: at the start of the process, with one thread, nobody in it owns a descriptor above the standard streams. The listing's
        // own one was in the list and is closed by now, hence the question first.
        unsafe {
            if rustix::io::fcntl_getfd(BorrowedFd::borrow_raw(number)).is_ok() {
                rustix::io::close(number);
            }
        }
    }
}

/// A lease may bring thousands of small files; the usual soft limit is 1024. Not being allowed to raise it is found out later, by name.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The reader: turns messages into queued segments until the socket closes.
fn serve(shared: &Arc<Shared>, kernels: &'static dyn Kernels, socket: UnixStream, gpu: bool) -> Result<(), String> {
    let mut receiver = socket::Receiver::new(socket);
    let mut stages: HashMap<(u64, u32), Arc<stage::Stage>> = HashMap::new();
    loop {
        while let Some(message) = receiver.next_decoded().map_err(|e| e.to_string())? {
            match message.message {
                Some(to_executor::Message::Define(define)) => {
                    let info = define.info.ok_or("DefineStage without a stage")?;
                    let sides = receiver.take_descriptors(define.descriptors as usize).ok_or("a DefineStage lacks its descriptors")?;
                    let before = stages.get(&(info.job, info.stage)).cloned();
                    stages.insert((info.job, info.stage), Arc::new(stage::Stage::prepare(kernels, &info, sides, before.as_deref())));
                }
                Some(to_executor::Message::Run(run)) => {
                    let descriptors = receiver.take_descriptors(run.descriptors as usize).ok_or("a RunLease lacks its descriptors")?;
                    let stage = stages.get(&(run.job, run.stage)).ok_or("a RunLease of a stage that was not defined")?;
                    shared.enqueue(run, descriptors, stage)?;
                    if !gpu {
                        cpu::wake(shared);
                    }
                }
                Some(to_executor::Message::Stop(stop)) => shared.stop(stop.lease.ok_or("StopLease without a lease")?.into()),
                Some(to_executor::Message::Forget(forget)) => stages.retain(|(job, _), _| !forget.jobs.contains(job)),
                Some(to_executor::Message::Shutdown(_)) => return Ok(()),
                None => return Err("a message of a kind this build does not know".into()),
            }
        }
        if !receiver.receive().map_err(|e| format!("socket: {e}"))? {
            return Ok(());
        }
    }
}
