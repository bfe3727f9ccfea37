//! One device: its executor, and the leases on their way to it and back.
//!
//! An actor: everything that happens to the device is an event in one queue, so there is one order of things. It never waits for disk or
//! network itself; preparation, parts and the socket have tasks of their own.

mod life;
mod parts;

use self::parts::start_parts;
use super::{
    child::{Killer, LaunchError, Launched, Launcher},
    edge::EdgeInput,
    logs::{DeviceOutput, LeaseFacts},
    part_file::{PartFile, PartFiles},
    prepare::{Inputs, OutputFile, Prepared, Preparer, leaves_data, name_uploads, sides, source, writes},
    results::store::ResultStore,
    room::{Place, Room},
    shuffle::{
        self,
        copy::{Copied, Copier},
        store::ShuffleStore,
    },
    staging::Staging,
    store,
    watchdog::{self, Hung, Watch},
};
use crate::{
    agent::{listing::output_path, socket},
    executor::ExecutorDevice,
    frame,
    lease::{LeaseKey, OUTPUT_FILE},
    recorder::Recorder,
    session::Input,
};
use raftwerk_proto::v1::{
    CopyTarget, DefineStage, FailureClass, ForgetJobs, Grant, LeaseProgress, RunLease, StageInfo, StopLease, TaskFailure, ToExecutor,
    stage_input::Source, to_executor,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

/// What all devices of an agent share.
pub(crate) struct Common {
    pub(crate) worker: u64,
    pub(crate) launcher: Launcher,
    pub(crate) preparer: Arc<Preparer>,
    pub(crate) store: Arc<ShuffleStore>,
    pub(crate) results: Arc<ResultStore>,
    pub(crate) room: Arc<Room>,
    pub(crate) staging: Arc<Staging>,
    pub(crate) parts: Semaphore,
    pub(crate) copier: Arc<Copier>,
    /// What the operator has said of tasks that show no progress.
    pub(crate) task_patience: Option<Duration>,
    pub(crate) edge: mpsc::UnboundedSender<EdgeInput>,
}

pub(crate) enum DeviceEvent {
    Start(Vec<(Grant, Arc<StageInfo>)>),
    Stop(LeaseKey),
    Release(u64),
    /// Kill the executor: a lease on it does not end.
    Replace,
    Shutdown(oneshot::Sender<()>),
    Prepared(u64, LeaseKey, Prepared),
    FromExecutor(u64, Vec<LeaseProgress>),
    /// The socket is drained and the process has ended.
    Ended(u64, String),
    Launched(u64, Box<Result<Launched, LaunchError>>),
}

#[derive(Clone)]
pub(crate) struct DeviceHandle {
    events: mpsc::UnboundedSender<DeviceEvent>,
}

impl DeviceHandle {
    pub(crate) fn send(&self, event: DeviceEvent) {
        let _ = self.events.send(event);
    }
}

pub(crate) fn start(common: Arc<Common>, index: u32, kind: ExecutorDevice, launched: Launched, output: Arc<DeviceOutput>) -> DeviceHandle {
    let (events, receiver) = mpsc::unbounded_channel();
    let mut device = Device {
        common,
        index,
        kind,
        output,
        events: events.clone(),
        incarnation: 0,
        running: None,
        leases: HashMap::new(),
        waiting: Vec::new(),
        failed_starts: 0,
        withdrawn: false,
        outgoing: Vec::new(),
    };
    device.attach(launched);
    raftwerk_transport::tasks::spawn(device.run(receiver));
    DeviceHandle { events }
}

struct Device {
    common: Arc<Common>,
    index: u32,
    kind: ExecutorDevice,
    output: Arc<DeviceOutput>,
    events: mpsc::UnboundedSender<DeviceEvent>,
    /// Counts executors; events of an earlier one are stale.
    incarnation: u64,
    running: Option<Running>,
    leases: HashMap<LeaseKey, Lease>,
    /// Granted while no executor runs.
    waiting: Vec<(Grant, Arc<StageInfo>)>,
    failed_starts: u32,
    withdrawn: bool,
    /// Frames without descriptors, to go out in one write.
    outgoing: Vec<u8>,
}

struct Running {
    socket: mpsc::UnboundedSender<socket::Outgoing>,
    recorder: Arc<Recorder>,
    killer: Killer,
    since: Instant,
    /// Ended on purpose: what it was running is not charged.
    deliberate: bool,
    watch: Watch,
    /// Ended because it hangs.
    hung: Option<Hung>,
    /// Kills for lack of memory before it began, where they are counted.
    oom_kills: Option<u64>,
    defined: HashMap<(u64, u32), Arc<StageInfo>>,
}

/// A lease between its grant and its final progress.
struct Lease {
    stage: Arc<StageInfo>,
    generation: u32,
    /// A task of it that shows no progress for longer hangs.
    patience: Duration,
    output: Option<OutputFile>,
    /// For the data that it leaves here.
    place: Option<Place>,
    /// The executor knows it.
    sent: bool,
    /// All of it was sent, or it was stopped: no further message may go to the executor.
    complete: bool,
    stopping: bool,
    /// Stopped by this worker itself, which is full.
    handed_back: bool,
    preparation: Option<AbortHandle>,
    tasks_sent: u64,
    tasks_done: u64,
    /// Time spent on fetching input that was not told yet.
    transfer_ns: u64,
    /// Descriptors at the executor, returned when so many tasks are done.
    permits: VecDeque<(u64, OwnedSemaphorePermit)>,
    /// Files of parts that are being made, by task.
    part_files: HashMap<u64, Arc<PartFile>>,
    /// Progress of leases with parts goes through here, in order, because parts take their time.
    parts: Option<mpsc::UnboundedSender<(LeaseProgress, PartFiles)>>,
    /// Workers to copy shuffle data to; progress then goes through `copies` in the same way.
    copy_to: Vec<CopyTarget>,
    copies: Option<mpsc::UnboundedSender<LeaseProgress>>,
}

impl Device {
    async fn run(mut self, mut events: mpsc::UnboundedReceiver<DeviceEvent>) {
        let mut batch = Vec::new();
        let (mut look, mut looked) = (tokio::time::interval(watchdog::LOOK_EVERY), Instant::now());
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What an executor has told counts before its silence does.
                biased;
                received = events.recv_many(&mut batch, 512) => {
                    if received == 0 {
                        return;
                    }
                }
                _ = look.tick() => {}
            }
            for event in batch.drain(..) {
                match event {
                    DeviceEvent::Start(leases) => leases.into_iter().for_each(|(grant, stage)| self.start_lease(grant, stage)),
                    DeviceEvent::Stop(key) => self.stop_lease(key),
                    DeviceEvent::Release(job) => self.release(job),
                    DeviceEvent::Replace => {
                        if let Some(running) = &mut self.running {
                            running.deliberate = true;
                            running.killer.kill();
                        }
                    }
                    DeviceEvent::Prepared(incarnation, key, step) if incarnation == self.incarnation => self.on_prepared(key, step),
                    DeviceEvent::FromExecutor(incarnation, progress) if incarnation == self.incarnation => self.on_progress(progress),
                    DeviceEvent::Ended(incarnation, status) if incarnation == self.incarnation => self.on_ended(&status),
                    DeviceEvent::Launched(incarnation, launched) if incarnation == self.incarnation => self.on_launched(*launched),
                    DeviceEvent::Prepared(..) | DeviceEvent::FromExecutor(..) | DeviceEvent::Ended(..) | DeviceEvent::Launched(..) => {}
                    DeviceEvent::Shutdown(done) => {
                        self.shutdown(events).await;
                        let _ = done.send(());
                        return;
                    }
                }
            }
            self.flush();
            // After every batch too: a busy queue must not keep it from looking.
            if looked.elapsed() >= watchdog::LOOK_EVERY {
                self.look(looked.elapsed());
                looked = Instant::now();
            }
        }
    }

    /// Ends an executor that hangs; `passed` is the time since the last look.
    fn look(&mut self, passed: Duration) {
        let Some(running) = self.running.as_mut().filter(|running| running.hung.is_none()) else { return };
        // Between two messages of one lease the executor may have nothing to do. When it has the last one, it owes the lease's end.
        let has_work = |lease: &&Lease| lease.sent && (lease.complete || lease.tasks_sent > lease.tasks_done);
        let owed: BTreeMap<LeaseKey, Duration> =
            self.leases.iter().filter(|(_, lease)| has_work(lease)).map(|(key, lease)| (*key, lease.patience)).collect();
        if let Some(hung) = running.watch.look(passed, &running.recorder.running(), &owed) {
            tracing::warn!(device = self.index, "{hung}");
            running.hung = Some(hung);
            running.killer.kill();
        }
    }

    fn start_lease(&mut self, grant: Grant, stage: Arc<StageInfo>) {
        let key = LeaseKey::from(grant.lease.unwrap_or_default());
        if self.withdrawn {
            return self.fail_whole(&grant, format!("device {} was withdrawn: its executor does not start", self.index));
        }
        if self.running.is_none() {
            self.waiting.push((grant, stage));
            return;
        }
        if self
            .running
            .as_ref()
            .and_then(|running| running.defined.get(&(stage.job, stage.stage)))
            .is_some_and(|now| round(now) > round(&stage))
        {
            // Of a round that has ended: the lease is over, whether that has been heard here or not.
            return self.tell(vec![LeaseProgress { lease: Some(key.into()), final_report: true, ..LeaseProgress::default() }]);
        }
        let has_sides = !sides(&stage).is_empty();
        if !has_sides {
            self.define(&stage, Vec::new());
        }
        self.output.started(LeaseFacts {
            key,
            job: grant.job,
            stage: grant.stage,
            first_task: grant.first_task,
            task_count: grant.task_count,
            device: self.index,
        });
        let mut lease = Lease {
            stage: stage.clone(),
            generation: grant.generation,
            patience: self.patience(&grant),
            output: None,
            place: None,
            sent: false,
            complete: false,
            stopping: false,
            handed_back: false,
            preparation: None,
            tasks_sent: 0,
            tasks_done: 0,
            transfer_ns: 0,
            permits: VecDeque::new(),
            part_files: HashMap::new(),
            parts: None,
            copy_to: grant.copy_to.clone(),
            copies: None,
        };
        if !has_sides && !writes(&stage) && matches!(source(&stage), Some(Source::Range(_))) {
            // Nothing to open: straight to the executor.
            lease.sent = true;
            lease.complete = true;
            lease.tasks_sent = grant.task_count;
            let run = RunLease {
                lease: grant.lease,
                job: grant.job,
                stage: grant.stage,
                first_task: grant.first_task,
                task_count: grant.task_count,
                ..RunLease::default()
            };
            self.leases.insert(key, lease);
            self.send(to_executor::Message::Run(run), Vec::new());
            return;
        }
        let (events, incarnation) = (self.events.clone(), self.incarnation);
        let tell = move |step| events.send(DeviceEvent::Prepared(incarnation, key, step)).is_ok();
        let preparation = raftwerk_transport::tasks::spawn(self.common.preparer.clone().prepare(grant, stage, tell));
        lease.preparation = Some(preparation.abort_handle());
        self.leases.insert(key, lease);
    }

    fn patience(&self, grant: &Grant) -> Duration {
        let expected = (grant.patience_ms > 0).then(|| Duration::from_millis(grant.patience_ms));
        self.common.task_patience.or(expected).unwrap_or(watchdog::UNKNOWN)
    }

    /// Tells the executor what the stage is, unless it knows; with the files that all its tasks read.
    fn define(&mut self, stage: &Arc<StageInfo>, sides: Vec<OwnedFd>) {
        let place = (stage.job, stage.stage);
        // Another round has begun, with which every lease of the one before has ended. The executor knows one round of a stage at a time, so
        // nothing of an older one may reach it from here on.
        let of_before = |lease: &&Lease| (lease.stage.job, lease.stage.stage) == place && round(&lease.stage) < round(stage);
        let over: Vec<LeaseKey> = self.leases.iter().filter(|(_, lease)| of_before(lease)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| self.stop_lease(key));
        let Some(running) = &mut self.running else { return };
        let known = running.defined.get(&place).is_some_and(|known| Arc::ptr_eq(known, stage) || known == stage);
        if !known {
            running.defined.insert(place, stage.clone());
            let mut info = (**stage).clone();
            name_uploads(&mut info);
            let define = DefineStage { info: Some(info), descriptors: sides.len() as u32 };
            self.send(to_executor::Message::Define(define), sides);
        }
    }

    fn on_prepared(&mut self, key: LeaseKey, step: Prepared) {
        let Some(lease) = self.leases.get_mut(&key) else { return };
        if lease.complete {
            return; // stopped meanwhile
        }
        match step {
            Prepared::Sides(descriptors) => {
                let stage = lease.stage.clone();
                self.define(&stage, descriptors);
            }
            Prepared::Place(place) => lease.place = Some(place),
            Prepared::Output(output) => lease.output = Some(output),
            Prepared::Fetched(took) => lease.transfer_ns = lease.transfer_ns.saturating_add(took.as_nanos() as u64),
            Prepared::Segment { first_task, inputs, permit, part } => {
                if let Some(part) = part {
                    lease.part_files.insert(first_task, part);
                }
                self.send_segment(key, first_task, Some(inputs), permit)
            }
            Prepared::Failed(failures) => {
                let failed: u64 = failures.iter().map(|failure| failure.task_count).sum();
                tracing::warn!(lease = %key, tasks = failed, "{}", failures.first().map_or("", |failure| &failure.message));
                self.tell(vec![LeaseProgress { lease: Some(key.into()), failures, ..LeaseProgress::default() }]);
            }
            Prepared::End => {
                lease.complete = true;
                if lease.sent {
                    self.send_segment(key, 0, None, None);
                } else {
                    self.end_unsent(key);
                }
            }
        }
    }

    /// Sends tasks, or without `inputs` the word that no more will come.
    fn send_segment(&mut self, key: LeaseKey, first_task: u64, inputs: Option<Inputs>, permit: Option<OwnedSemaphorePermit>) {
        let Some(lease) = self.leases.get_mut(&key) else { return };
        let first_message = !std::mem::replace(&mut lease.sent, true);
        let mut run = RunLease {
            lease: Some(key.into()),
            job: lease.stage.job,
            stage: lease.stage.stage,
            first_task,
            more: !lease.complete,
            ..RunLease::default()
        };
        let mut descriptors = inputs.map_or_else(Vec::new, |inputs| inputs.into_message(&mut run));
        if first_message && let Some(output) = &lease.output {
            match output.file.try_clone() {
                Ok(file) => {
                    run.has_output = true;
                    descriptors.push(file.into());
                }
                // The executor will say that it has no output file, and the tasks will run elsewhere.
                Err(error) => tracing::warn!(lease = %key, %error, "cannot pass the output file on"),
            }
        }
        if let Some(part) = lease.part_files.get(&first_task).filter(|_| run.task_count > 0) {
            match part.file.try_clone() {
                Ok(file) => {
                    (run.has_output, run.own_output) = (true, true);
                    descriptors.push(file.into());
                }
                Err(error) => tracing::warn!(lease = %key, %error, "cannot pass the file of a part on"),
            }
        }
        run.descriptors = descriptors.len() as u32;
        lease.tasks_sent += run.task_count;
        if let Some(permit) = permit {
            lease.permits.push_back((lease.tasks_sent, permit));
        }
        self.send(to_executor::Message::Run(run), descriptors);
    }

    /// Ends a lease that the executor never saw; the session says what became of its tasks.
    fn end_unsent(&mut self, key: LeaseKey) {
        if let Some(lease) = self.leases.remove(&key) {
            self.output.ended(key);
            let failures = if lease.handed_back { vec![handed_back()] } else { Vec::new() };
            self.tell(vec![LeaseProgress { lease: Some(key.into()), failures, final_report: true, ..LeaseProgress::default() }]);
        }
    }

    fn stop_lease(&mut self, key: LeaseKey) {
        if let Some(at) = self.waiting.iter().position(|(grant, _)| grant.lease.map(LeaseKey::from) == Some(key)) {
            self.waiting.remove(at);
            return self.tell(vec![LeaseProgress { lease: Some(key.into()), final_report: true, ..LeaseProgress::default() }]);
        }
        let Some(lease) = self.leases.get_mut(&key) else { return };
        if let Some(preparation) = lease.preparation.take() {
            preparation.abort();
        }
        lease.complete = true;
        lease.stopping = true;
        if lease.sent {
            self.send(to_executor::Message::Stop(StopLease { lease: Some(key.into()) }), Vec::new());
        } else {
            self.end_unsent(key);
        }
    }

    fn release(&mut self, job: u64) {
        if let Some(running) = &mut self.running {
            let before = running.defined.len();
            running.defined.retain(|(of, _), _| *of != job);
            if running.defined.len() < before {
                self.send(to_executor::Message::Forget(ForgetJobs { jobs: vec![job] }), Vec::new());
            }
        }
    }

    fn on_progress(&mut self, batch: Vec<LeaseProgress>) {
        if let Some(running) = &mut self.running {
            running.watch.sign();
        }
        self.failed_starts = 0;
        let mut told = Vec::with_capacity(batch.len());
        let mut full = false;
        for mut progress in batch {
            let Some(key) = progress.lease.map(LeaseKey::from) else { continue };
            let Some(lease) = self.leases.get_mut(&key) else { continue };
            // Nothing that an executor could know.
            (progress.copy_worker, progress.copy_incarnation) = (0, 0);
            progress.transfer_ns = std::mem::take(&mut lease.transfer_ns);
            let finished: u64 = progress.results.iter().map(|r| r.task_count).sum();
            let failed: u64 = progress.failures.iter().map(|f| f.task_count).sum();
            lease.tasks_done += finished + failed;
            while lease.permits.front().is_some_and(|(tasks, _)| *tasks <= lease.tasks_done) {
                lease.permits.pop_front();
            }
            if let Some(output) = &lease.output {
                let name = output.name(&self.common.store);
                // The executor has a descriptor and no path; a person with a full disk needs to know which one.
                progress.failures.iter_mut().for_each(|failure| failure.message = failure.message.replace(OUTPUT_FILE, &name));
            }
            let of_parts = lease.stage.output.as_ref().filter(|_| lease.output.is_none());
            for failure in &mut progress.failures {
                if let Some(output) = of_parts {
                    failure.message = failure.message.replace(OUTPUT_FILE, &format!("a part of {}", place_of(&output.url)));
                }
                if failure.class() == FailureClass::Source && failure.source_worker == 0 {
                    // An executor reads nothing but this worker's own blocks.
                    failure.source_worker = self.common.worker;
                    failure.message = format!("shuffle data of worker {}: {}", self.common.worker, failure.message);
                }
                let failed = failure.first_task..failure.first_task.saturating_add(failure.task_count);
                lease.part_files.retain(|task, _| !failed.contains(task));
            }
            if let Some(OutputFile { path: Some(path), .. }) = &lease.output {
                let stage = lease.stage.spec.as_ref().map_or("", |spec| &spec.name);
                self.common.store.add(lease.stage.job, stage, lease.generation, path, &progress.results, &progress.blocks);
                if let Some(place) = &lease.place {
                    place.wrote(finished, progress.blocks.iter().map(|block| block.bytes).sum());
                    place.skipped(failed);
                }
                full = full || self.common.room.full().is_some();
                if lease.copies.is_none() && !lease.copy_to.is_empty() {
                    lease.copies = Some(start_copies(&self.common, key, lease, path.clone()));
                }
            }
            let ended = progress.final_report;
            if ended && lease.handed_back {
                progress.failures.push(handed_back());
            }
            if let Some(copies) = &lease.copies {
                let _ = copies.send(progress);
            } else if lease.stage.output.is_some() {
                let taken =
                    progress.parts.iter().filter_map(|part| Some((part.partition, lease.part_files.remove(&part.partition.into())?)));
                let files = PartFiles { own: taken.collect(), lease: lease.output.as_ref().map(|output| output.file.clone()) };
                let parts = lease.parts.get_or_insert_with(|| start_parts(&self.common, key, &lease.stage));
                let _ = parts.send((progress, files));
            } else {
                told.push(progress);
            }
            if ended {
                self.leases.remove(&key);
                self.output.ended(key);
            }
        }
        self.tell(told);
        if full {
            self.stop_what_leaves_data();
        }
    }

    /// What these leases have done counts; the rest goes elsewhere, or waits.
    fn stop_what_leaves_data(&mut self) {
        let over: Vec<LeaseKey> =
            self.leases.iter().filter(|(_, lease)| !lease.stopping && leaves_data(&lease.stage)).map(|(key, _)| *key).collect();
        for key in over {
            if let Some(lease) = self.leases.get_mut(&key) {
                lease.handed_back = true;
            }
            self.stop_lease(key);
        }
    }

    fn fail_whole(&self, grant: &Grant, message: String) {
        let failure = TaskFailure {
            first_task: grant.first_task,
            task_count: grant.task_count,
            class: FailureClass::Device.into(),
            message,
            source_worker: 0,
        };
        self.tell(vec![LeaseProgress { lease: grant.lease, failures: vec![failure], final_report: true, ..LeaseProgress::default() }]);
    }

    fn send(&mut self, message: to_executor::Message, descriptors: Vec<OwnedFd>) {
        if descriptors.is_empty() {
            frame::push(&mut self.outgoing, &ToExecutor { message: Some(message) });
            return;
        }
        // In order: what was queued before goes first.
        self.flush();
        let mut bytes = Vec::new();
        frame::push(&mut bytes, &ToExecutor { message: Some(message) });
        if let Some(running) = &self.running {
            let _ = running.socket.send(socket::Outgoing { bytes, descriptors });
        }
    }

    fn flush(&mut self) {
        if !self.outgoing.is_empty()
            && let Some(running) = &self.running
        {
            let bytes = std::mem::take(&mut self.outgoing);
            let _ = running.socket.send(socket::Outgoing { bytes, descriptors: Vec::new() });
        }
    }

    fn tell(&self, progress: Vec<LeaseProgress>) {
        if !progress.is_empty() {
            let _ = self.common.edge.send(EdgeInput::Session(Input::Progress(progress)));
        }
    }
}

/// An output as a person knows it.
fn place_of(url: &str) -> String {
    let otherwise = if store::is_url(url) { url } else { "the result" };
    output_path(url).map_or_else(|| otherwise.into(), |path| path.display().to_string())
}

/// Which round of its job the stage is described for; 0 without rounds.
fn round(stage: &StageInfo) -> u32 {
    stage.round.as_ref().map_or(0, |round| round.number)
}

/// For whatever tasks of the lease have no result yet.
fn handed_back() -> TaskFailure {
    let message = "the worker is full, and hands the task back".into();
    TaskFailure { first_task: 0, task_count: u64::MAX, class: FailureClass::Full.into(), message, source_worker: 0 }
}

fn start_copies(common: &Common, key: LeaseKey, lease: &Lease, file: Arc<PathBuf>) -> mpsc::UnboundedSender<LeaseProgress> {
    let copied = Copied {
        lease: key,
        job: lease.stage.job,
        stage: lease.stage.spec.as_ref().map_or_else(String::new, |spec| spec.name.clone()),
        generation: lease.generation,
        file,
        targets: lease.copy_to.clone(),
    };
    shuffle::copy::start(common.copier.clone(), common.preparer.clone(), copied, common.edge.clone())
}
