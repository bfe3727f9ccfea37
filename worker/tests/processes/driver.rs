//! Plays the agent for one executor: blocking, message by message.
use raftwerk_proto::v1::{
    DefineStage, FromExecutor, IndexRange, KernelRef, LeaseId, LeaseProgress, Param, RunLease, StageInfo, StageInput, StageSpec,
    ToExecutor, from_executor, stage_input::Source, to_executor,
};
use raftwerk_worker::{executor::DESCRIPTORS_ENV, frame, recorder::Recorder};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, ExitStatus, Stdio},
};

pub struct Driver {
    pub child: Child,
    pub socket: UnixStream,
    pub recorder: Recorder,
    frames: frame::Frames,
}

impl Driver {
    /// An executor of the CPU that is ready.
    pub fn new(threads: usize) -> Self {
        Self::spawn("cpu", threads, &[], &[]).until_ready()
    }

    /// An executor of some device that is ready.
    pub fn of_device(device: &str, arguments: &[&str]) -> Self {
        Self::spawn(device, 2, arguments, &[]).until_ready()
    }

    fn until_ready(mut self) -> Self {
        let driver = &mut self;
        let ready = driver.receive().expect("ready");
        assert!(matches!(ready.message, Some(from_executor::Message::Ready(_))), "{ready:?}");
        self
    }

    pub fn spawn(device: &str, threads: usize, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (recorder, recorder_fd) = Recorder::create(threads).unwrap();
        let numbers = [theirs.as_raw_fd(), recorder_fd.as_raw_fd()];
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(arguments).args(["--device", device, "--threads", &threads.to_string()]);
        command.env(DESCRIPTORS_ENV, format!("{},{}", numbers[0], numbers[1])).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: only one async-signal-safe system call per descriptor, and both are open.
        unsafe {
            command.pre_exec(move || {
                for number in numbers {
                    rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(number), rustix::io::FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Self { child, socket: ours, recorder, frames: frame::Frames::default() }
    }

    pub fn send(&mut self, message: to_executor::Message) {
        let mut bytes = Vec::new();
        frame::push(&mut bytes, &ToExecutor { message: Some(message) });
        self.socket.write_all(&bytes).unwrap();
    }

    /// Sends a lease with its descriptors.
    pub fn run(&mut self, mut run: RunLease, descriptors: &[&File]) {
        run.descriptors = descriptors.len() as u32;
        let mut bytes = Vec::new();
        frame::push(&mut bytes, &ToExecutor { message: Some(to_executor::Message::Run(run)) });
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if !borrowed.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        }
        let sent = sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
        self.socket.write_all(&bytes[sent..]).unwrap();
    }

    /// The next message; `None` when the executor is gone.
    pub fn receive(&mut self) -> Option<FromExecutor> {
        loop {
            if let Some(message) = self.frames.decode().unwrap() {
                return Some(message);
            }
            const SPACE: usize = 64 << 10;
            let read = self.socket.read(self.frames.space(SPACE)).unwrap_or(0);
            self.frames.filled(SPACE, read);
            if read == 0 {
                return None;
            }
        }
    }

    /// All progress of one lease up to its end, as one message.
    pub fn finish(&mut self, lease: LeaseId) -> LeaseProgress {
        let mut all = LeaseProgress::default();
        while !all.final_report {
            let message = self.receive().expect("the executor ended early");
            let Some(from_executor::Message::Progress(progress)) = message.message else { panic!("{message:?}") };
            assert_eq!(progress.lease, Some(lease));
            all.results.extend(progress.results);
            all.failures.extend(progress.failures);
            all.blocks.extend(progress.blocks);
            all.parts.extend(progress.parts);
            all.part_ranges.extend(progress.part_ranges);
            all.busy_ns += progress.busy_ns;
            all.input_bytes += progress.input_bytes;
            all.round_end = progress.round_end.or(all.round_end);
            all.final_report = progress.final_report;
        }
        all.results.sort_by_key(|results| results.first_task);
        all
    }

    pub fn define(&mut self, info: StageInfo) {
        self.send(to_executor::Message::Define(DefineStage { info: Some(info), descriptors: 0 }));
    }

    /// Closes the socket and waits.
    pub fn end(self) -> (ExitStatus, String) {
        let Self { child, socket, .. } = self;
        drop(socket);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status, text)
    }
}

pub fn lease(index: u64) -> LeaseId {
    LeaseId { epoch: 0, index, position: 0 }
}

/// A stage of this kernel over an index range, of job 1.
pub fn index_stage(kernel: &str, tallies: &[&str], count: u64, tasks: u64, params: &[(&str, &str)]) -> StageInfo {
    stage(kernel, tallies, Source::Range(IndexRange { start: 0, count, tasks }), tasks, 0, params)
}

pub fn stage(kernel: &str, tallies: &[&str], source: Source, tasks: u64, partitions: u32, params: &[(&str, &str)]) -> StageInfo {
    let tallies = tallies.iter().map(|&tally| tally.into()).collect();
    let spec = StageSpec {
        name: kernel.into(),
        kernel: Some(KernelRef { name: kernel.into(), version: 1, kind: 0, tallies, ..KernelRef::default() }),
        params: params.iter().map(|&(name, value)| Param { name: name.into(), value: value.into() }).collect(),
        inputs: vec![StageInput { name: "input".into(), source: Some(source) }],
        partitions,
        ..StageSpec::default()
    };
    StageInfo { job: 1, stage: 0, spec: Some(spec), output: None, tasks, round: None }
}

pub fn run_index(index: u64, first_task: u64, task_count: u64) -> RunLease {
    RunLease { lease: Some(lease(index)), job: 1, stage: 0, first_task, task_count, ..RunLease::default() }
}
