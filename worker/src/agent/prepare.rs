//! Everything a lease needs before its executor can run it: the agent opens, the executor computes.
//!
//! A lease goes to its executor in one or more messages, so that it starts before all of its input is open and so that a lease of
//! thousands of small files needs few descriptors at once.
use super::{
    listing::{self, output_path},
    packs::{self, Packs},
    part_file::{self, PartFile},
    room::{Place, Room},
    scratch::{self, ScratchFiles},
    shuffle::{
        fetch::{FILES_MAPPED, FetchError, Fetcher, Partition, Wanted, nameless_file},
        store::ShuffleStore,
    },
    store,
    uploads::{Uploads, store::UploadStore},
};
use crate::lease::LeaseKey;
use futures::{StreamExt, TryStreamExt, stream};
use raftwerk_proto::upload_path;
use raftwerk_proto::v1::{
    ExecutorInput, FailureClass, Grant, InputFile, KernelKind, RunLease, Scratch, ShuffleSource, Split, StageInfo, StageInput, TaskFailure,
    stage_input::Source,
};
use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Distinct files per message; the system sends at most 253 descriptors at once, and the output file needs one.
const FILES_PER_MESSAGE: usize = 200;
/// Descriptors that may wait at executors. Each is also a mapping there, of which a process may have 65530.
pub(crate) const DESCRIPTORS: usize = 4096;
/// Of one partition: files of this worker's own that hold some of it, one for what came from others, one for the part.
const PARTITION_DESCRIPTORS: u32 = FILES_MAPPED as u32 + 2;
/// Partitions of one lease that are fetched at once, while others compute.
pub(crate) const PARTITIONS_AT_ONCE: usize = 4;
/// Partitions of all leases that are fetched at once.
pub(crate) const FETCHES: usize = 16;

/// Leases whose files are opened at once. The blocking pool would take hundreds, which only makes a disk seek; in turn they also keep
/// the order of their grants.
pub(crate) const OPENS: usize = 8;

/// The output file of a lease.
#[derive(Clone, Debug)]
pub(crate) struct OutputFile {
    /// Where shuffle blocks can be found later; none for parts, which move on to the staging directory.
    pub(crate) path: Option<Arc<PathBuf>>,
    pub(crate) file: Arc<File>,
}

impl OutputFile {
    /// Where it is, for a person.
    pub(crate) fn name(&self, store: &ShuffleStore) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => format!("a file without a name in {}", store.dir().display()),
        }
    }
}

/// One step of a lease's preparation, in order.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// There is room for what the lease will leave here; comes first, for leases that leave something.
    Place(Place),
    /// What all tasks of the stage read whole, open and unchanged; comes before everything else of a lease whose stage has such inputs.
    Sides(Vec<OwnedFd>),
    /// The lease will write; comes before its tasks.
    Output(OutputFile),
    /// Tasks that are ready to run.
    Segment {
        first_task: u64,
        inputs: Inputs,
        permit: Option<OwnedSemaphorePermit>,
        /// For the part of the one task that it has.
        part: Option<Arc<PartFile>>,
    },
    /// Fetching input from other workers took this long; comes before what it brought.
    Fetched(Duration),
    /// Tasks that cannot be run here.
    Failed(Vec<TaskFailure>),
    /// Nothing more will come.
    End,
}

#[derive(Debug)]
pub(crate) enum Inputs {
    Index { tasks: u64 },
    Descriptors { tasks: Vec<ExecutorInput>, descriptors: Vec<OwnedFd> },
}

impl Inputs {
    pub(crate) fn task_count(&self) -> u64 {
        match self {
            Self::Index { tasks } => *tasks,
            Self::Descriptors { tasks, .. } => tasks.len() as u64,
        }
    }

    pub(crate) fn into_message(self, run: &mut RunLease) -> Vec<OwnedFd> {
        run.task_count = self.task_count();
        match self {
            Self::Index { .. } => Vec::new(),
            Self::Descriptors { tasks, descriptors } => {
                run.inputs = tasks;
                descriptors
            }
        }
    }
}

pub(crate) struct Preparer {
    /// This one.
    pub(crate) worker: u64,
    pub(crate) name: String,
    pub(crate) packs: Arc<Packs>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) objects: store::Objects,
    pub(crate) store: Arc<ShuffleStore>,
    pub(crate) room: Arc<Room>,
    pub(crate) fetcher: Fetcher,
    pub(crate) descriptors: Arc<Semaphore>,
    pub(crate) fetches: Arc<Semaphore>,
    pub(crate) opens: Semaphore,
}

/// Whether the tasks of a stage write: shuffle blocks, or parts of the output.
pub(crate) fn writes(stage: &StageInfo) -> bool {
    stage.output.is_some() || stage.spec.as_ref().is_some_and(|spec| spec.partitions > 0)
}

/// Whether they leave shuffle data here, for another stage.
pub(crate) fn leaves_data(stage: &StageInfo) -> bool {
    stage.spec.as_ref().is_some_and(|spec| spec.partitions > 0)
}

/// Whether each task comes alone, with a file for its part.
pub(crate) fn parts_apart(stage: &StageInfo) -> bool {
    stage.output.is_some() && !leaves_data(stage) && matches!(source(stage), Some(Source::Stage(_)))
}

/// The files that all tasks read whole, in the order of the spec. One that was not listed has no path, and cannot be opened.
pub(crate) fn sides(stage: &StageInfo) -> Vec<InputFile> {
    // What is read beside the first is a file, or another stage to join with.
    let is_file = |input: &&StageInput| !matches!(input.source, Some(Source::Stage(_)));
    let inputs = stage.spec.iter().flat_map(|spec| spec.inputs.iter().skip(1)).filter(is_file);
    let listed = |source: &Option<Source>| match source {
        Some(Source::Files(files)) => files.listing.first().cloned().unwrap_or_default(),
        _ => InputFile::default(),
    };
    inputs.map(|input| listed(&input.source)).collect()
}

pub(crate) fn source(stage: &StageInfo) -> Option<&Source> {
    stage.spec.as_ref()?.inputs.first()?.source.as_ref()
}

impl Preparer {
    /// Prepares one lease; `tell` gets the steps in order and says whether the lease is still wanted.
    pub(crate) async fn prepare(self: Arc<Self>, grant: Grant, stage: Arc<StageInfo>, tell: impl Fn(Prepared) -> bool) {
        if leaves_data(&stage) {
            match self.room.place(grant.job, grant.stage, grant.task_count).await {
                Ok(place) => {
                    if !tell(Prepared::Place(place)) {
                        return;
                    }
                }
                Err(reason) => {
                    tell(Prepared::Failed(vec![failure(grant.first_task, grant.task_count, FailureClass::Full, reason)]));
                    tell(Prepared::End);
                    return;
                }
            }
        }
        if !grant.uploads.is_empty() {
            let step = match self.uploads.for_lease(&grant.uploads, self.worker).await {
                Ok(took) => Prepared::Fetched(took),
                Err((class, message)) => Prepared::Failed(vec![failure(grant.first_task, grant.task_count, class, message)]),
            };
            let failed = matches!(step, Prepared::Failed(_));
            if !tell(step) {
                return;
            }
            if failed {
                tell(Prepared::End);
                return;
            }
        }
        let sides = sides(&stage);
        if !sides.is_empty() {
            // With every lease, though the executor maps them once: a file that has changed is found like a changed split.
            type Opened = Result<Vec<OwnedFd>, (FailureClass, String)>;
            let opened: Opened = if sides.iter().any(|side| store::is_url(&side.path)) {
                stream::iter(sides).then(|side| self.open_side(side)).try_collect().await
            } else {
                let uploads = self.uploads.store.clone();
                let open = move || -> Opened { sides.iter().map(|side| open_checked(side, &uploads).map(OwnedFd::from)).collect() };
                self.on_disk(open).await.unwrap_or_else(|error| Err((FailureClass::Worker, error.to_string())))
            };
            match opened {
                Ok(descriptors) => {
                    if !tell(Prepared::Sides(descriptors)) {
                        return;
                    }
                }
                Err((class, message)) => {
                    tell(Prepared::Failed(vec![failure(grant.first_task, grant.task_count, class, message)]));
                    tell(Prepared::End);
                    return;
                }
            }
        }
        if writes(&stage) && !parts_apart(&stage) {
            match self.output_file(&grant, &stage).await {
                Ok(output) => {
                    if !tell(Prepared::Output(output)) {
                        return;
                    }
                }
                Err(error) => {
                    let message = format!("cannot create an output file in {}: {error}", self.store.dir().display());
                    tell(Prepared::Failed(vec![failure(grant.first_task, grant.task_count, FailureClass::Worker, message)]));
                    tell(Prepared::End);
                    return;
                }
            }
        }
        match source(&stage) {
            Some(Source::Files(_)) => self.open_files(&grant, &stage, &tell).await,
            Some(Source::Stage(_)) => {
                #[cfg(debug_assertions)]
                {
                    let point = if reads_parts(&stage) { "part.fetch" } else { "reduce.fetch" };
                    raftwerk_transport::tasks::blocking(|| crate::fail_point::reach(point)).await.unwrap_or_default();
                }
                self.fetch_partitions(&grant, &stage, &tell).await
            }
            _ => {
                tell(Prepared::Segment {
                    first_task: grant.first_task,
                    inputs: Inputs::Index { tasks: grant.task_count },
                    permit: None,
                    part: None,
                });
            }
        }
        tell(Prepared::End);
    }

    async fn output_file(&self, grant: &Grant, stage: &StageInfo) -> io::Result<OutputFile> {
        let store = self.store.clone();
        let lease = LeaseKey::from(grant.lease.unwrap_or_default());
        let (job, number, generation, parts) = (grant.job, grant.stage, grant.generation, stage.output.is_some());
        let create = move || {
            if parts {
                return nameless_file(store.dir()).map(|file| OutputFile { path: None, file: Arc::new(file) });
            }
            store.create(job, number, generation, lease).map(|(path, file)| OutputFile { path: Some(path), file: Arc::new(file) })
        };
        self.on_disk(create).await?
    }

    /// File work, off the runtime's threads and in turn.
    pub(super) async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let _turn = self.opens.acquire().await.map_err(io::Error::other)?;
        raftwerk_transport::tasks::blocking(work).await.map_err(io::Error::other)
    }

    async fn open_side(&self, side: InputFile) -> Result<OwnedFd, (FailureClass, String)> {
        if store::is_url(&side.path) {
            return self.open_object(&side).await;
        }
        let uploads = self.uploads.store.clone();
        let opened = self.on_disk(move || open_checked(&side, &uploads).map(OwnedFd::from)).await;
        opened.unwrap_or_else(|error| Err((FailureClass::Worker, error.to_string())))
    }

    async fn open_files(&self, grant: &Grant, stage: &StageInfo, tell: &impl Fn(Prepared) -> bool) {
        let tasks = packs::tasks_of(&grant.splits);
        if tasks != grant.task_count {
            let message = format!("protocol error: splits of {tasks} tasks for {}", grant.task_count);
            tell(Prepared::Failed(vec![failure(grant.first_task, grant.task_count, FailureClass::Fatal, message)]));
            return;
        }
        let (mut first_task, end) = (grant.first_task, grant.first_task + grant.task_count);
        for piece in packs::pieces(&grant.splits) {
            match self.files_of(piece, stage).await {
                Ok(splits) => {
                    let count = splits.len() as u64;
                    if !self.open_splits(first_task, splits, stage, tell).await {
                        return;
                    }
                    first_task += count;
                }
                Err((class, message)) => {
                    tell(Prepared::Failed(vec![failure(first_task, end - first_task, class, message)]));
                    return;
                }
            }
        }
    }

    /// Whether the lease is still wanted.
    async fn open_splits(&self, begin: u64, splits: Vec<Split>, stage: &StageInfo, tell: &impl Fn(Prepared) -> bool) -> bool {
        let mut first = 0;
        while first < splits.len() {
            let rest = &splits[first..];
            let objects = rest.iter().take_while(|split| store::is_url(path_of(split))).count();
            if objects > 0 {
                if !self.fetch_objects(begin + first as u64, &rest[..objects], stage, tell).await {
                    return false;
                }
                first += objects;
                continue;
            }
            let files = rest.iter().take_while(|split| !store::is_url(path_of(split))).count();
            let (count, descriptors) = group(&rest[..files]);
            let opening = splits[first..first + count].to_vec();
            let first_task = begin + first as u64;
            first += count;
            let Ok(permit) = self.descriptors.clone().acquire_many_owned(descriptors as u32).await else { return false };
            let mut permit = Some(permit);
            let scratch = ScratchFiles { dir: self.store.dir().to_owned(), limits: self.room.limits() };
            let uploads = self.uploads.store.clone();
            let opened = self.on_disk(move || open_group(first_task, opening, &scratch, &uploads)).await;
            let opened = opened.unwrap_or_else(|error| {
                vec![Prepared::Failed(vec![failure(first_task, count as u64, FailureClass::Worker, error.to_string())])]
            });
            for step in opened {
                let step = match step {
                    // A group that breaks into several segments is rare; its permit goes with the first.
                    Prepared::Segment { first_task, inputs, part, .. } => {
                        Prepared::Segment { first_task, inputs, permit: permit.take(), part }
                    }
                    other => other,
                };
                if !tell(step) {
                    return false;
                }
            }
        }
        true
    }

    /// The file of a part, and its share of the permit.
    async fn part_file(&self, stage: &StageInfo, permit: &mut Option<OwnedSemaphorePermit>) -> io::Result<Option<Arc<PartFile>>> {
        if !parts_apart(stage) {
            return Ok(None);
        }
        let output = stage.output.as_ref().and_then(|output| output_path(&output.url));
        let otherwise = self.store.dir().to_owned();
        let file = self.on_disk(move || part_file::create(output.as_deref(), &otherwise)).await??;
        Ok(Some(Arc::new(PartFile { file, _permit: permit.as_mut().and_then(|permit| permit.split(1)) })))
    }

    async fn fetch_partitions(&self, grant: &Grant, stage: &StageInfo, tell: &impl Fn(Prepared) -> bool) {
        let sources = Arc::new(grant.sources.clone());
        let producers = Arc::new(producers(stage));
        let parts = reads_parts(stage);
        let tasks = grant.first_task..grant.first_task + grant.task_count;
        let fetches = tasks.map(|task| {
            // A part is what one task made, the one of the same number.
            let sources = if parts { Arc::new(only(&sources, task)) } else { sources.clone() };
            let wanted = Wanted { job: grant.job, stages: producers.clone(), partition: task as u32, sources };
            async move {
                // Both bounds outlive the call; a closed semaphore means that the agent ends.
                let mut descriptors = self.descriptors.clone().acquire_many_owned(PARTITION_DESCRIPTORS).await.ok();
                let fetch = self.fetches.acquire().await;
                // Waiting for a turn is not the task's cost.
                let began = Instant::now();
                let partition = self.fetcher.partition(&wanted).await;
                drop(fetch);
                let took = began.elapsed();
                let part = self.part_file(stage, &mut descriptors).await;
                // What it does not need goes back at once.
                let need = partition.as_ref().map_or(0, |partition| partition.files.len());
                let spare = descriptors.as_ref().map_or(0, |permit| permit.num_permits().saturating_sub(need));
                drop(descriptors.as_mut().and_then(|permit| permit.split(spare)));
                (task, descriptors, partition, part, took)
            }
        });
        let mut fetched = stream::iter(fetches).buffer_unordered(PARTITIONS_AT_ONCE);
        while let Some((task, permit, partition, part, took)) = fetched.next().await {
            if !tell(Prepared::Fetched(took)) {
                return;
            }
            let step = match (partition, part) {
                (Ok(partition), Ok(part)) => partition_segment(task, partition, permit, part),
                (Ok(_), Err(error)) => {
                    let message = format!("cannot create a file for a part: {error}");
                    Prepared::Failed(vec![failure(task, 1, FailureClass::Worker, message)])
                }
                (Err(error @ FetchError::Source { worker, .. }), _) => {
                    // The others need the same source; telling at once lets the scheduler have it made again at once.
                    let first = failure(task, 1, FailureClass::Source, error.to_string());
                    Prepared::Failed(vec![TaskFailure { source_worker: worker, ..first }])
                }
                (Err(error), _) => Prepared::Failed(vec![failure(task, 1, FailureClass::Worker, error.to_string())]),
            };
            if !tell(step) {
                return;
            }
        }
    }
}

/// The stages that a stage reads, in the order of its inputs.
fn producers(stage: &StageInfo) -> Vec<String> {
    let inputs = stage.spec.iter().flat_map(|spec| &spec.inputs);
    let read = inputs.filter_map(|input| match &input.source {
        Some(Source::Stage(from)) => Some(from.stage.clone()),
        _ => None,
    });
    read.collect()
}

/// Whether the stage's tasks read one part each of another stage, and not a partition of what all its tasks made.
fn reads_parts(stage: &StageInfo) -> bool {
    stage.spec.as_ref().and_then(|spec| spec.kernel.as_ref()).is_some_and(|kernel| kernel.kind() == KernelKind::Map)
}

/// Who holds what this task of the producing stage made.
fn only(sources: &[ShuffleSource], task: u64) -> Vec<ShuffleSource> {
    let has = |source: &&ShuffleSource| source.first_task <= task && task - source.first_task < source.task_count;
    sources.iter().filter(has).map(|source| ShuffleSource { first_task: task, task_count: 1, ..source.clone() }).collect()
}

fn partition_segment(task: u64, partition: Partition, permit: Option<OwnedSemaphorePermit>, part: Option<Arc<PartFile>>) -> Prepared {
    let input = ExecutorInput { bytes: partition.bytes, blocks: partition.blocks, ..ExecutorInput::default() };
    let inputs = Inputs::Descriptors { tasks: vec![input], descriptors: partition.files };
    Prepared::Segment { first_task: task, inputs, permit, part }
}

pub(super) fn failure(first_task: u64, task_count: u64, class: FailureClass, message: String) -> TaskFailure {
    TaskFailure { first_task, task_count, class: class.into(), message, source_worker: 0 }
}

fn path_of(split: &Split) -> &str {
    split.file.as_ref().map_or("", |file| &file.path)
}

/// How many of the first splits fit one message, and how many descriptors they need: one for each file, and one for what a compressed file holds.
fn group(splits: &[Split]) -> (usize, usize) {
    let mut files = HashSet::new();
    let (mut count, mut descriptors) = (0, 0);
    for split in splits {
        let more = match files.contains(path_of(split)) {
            true => 0,
            false => 1 + usize::from(scratch::is_needed(split.file.as_ref())),
        };
        if descriptors + more > FILES_PER_MESSAGE {
            break;
        }
        files.insert(path_of(split));
        descriptors += more;
        count += 1;
    }
    (count, descriptors)
}

/// Opens the files of consecutive tasks. Tasks whose file cannot be opened are left out, which cuts the group there.
fn open_group(first_task: u64, splits: Vec<Split>, scratch: &ScratchFiles, uploads: &UploadStore) -> Vec<Prepared> {
    let mut steps = Vec::new();
    let mut segment = Segment::default();
    for (task, split) in (first_task..).zip(splits) {
        let mut file = split.file.unwrap_or_default();
        match segment.descriptor(&file, uploads).and_then(|descriptor| Ok((descriptor, segment.scratch(&file, scratch)?))) {
            Ok((descriptor, scratch)) => {
                if segment.tasks.is_empty() {
                    segment.first_task = task;
                }
                name_upload(&mut file);
                segment.tasks.push(ExecutorInput {
                    descriptor,
                    offset: split.offset,
                    bytes: split.bytes,
                    file: Some(file),
                    blocks: Vec::new(),
                    scratch,
                });
            }
            Err((class, message)) => {
                segment.close(&mut steps);
                match steps.last_mut() {
                    Some(Prepared::Failed(failures)) if failures.last().is_some_and(|last| last.message == message) => {
                        failures.iter_mut().next_back().into_iter().for_each(|last| last.task_count += 1);
                    }
                    Some(Prepared::Failed(failures)) => failures.push(failure(task, 1, class, message)),
                    _ => steps.push(Prepared::Failed(vec![failure(task, 1, class, message)])),
                }
            }
        }
    }
    segment.close(&mut steps);
    steps
}

#[derive(Default)]
struct Segment {
    first_task: u64,
    tasks: Vec<ExecutorInput>,
    descriptors: Vec<OwnedFd>,
    by_path: HashMap<String, u32>,
}

impl Segment {
    fn descriptor(&mut self, file: &InputFile, uploads: &UploadStore) -> Result<u32, (FailureClass, String)> {
        if let Some(&descriptor) = self.by_path.get(&file.path) {
            return Ok(descriptor);
        }
        let opened = open_checked(file, uploads)?;
        let descriptor = self.descriptors.len() as u32;
        self.descriptors.push(opened.into());
        self.by_path.insert(file.path.clone(), descriptor);
        Ok(descriptor)
    }

    /// Somewhere for what a compressed file holds.
    fn scratch(&mut self, file: &InputFile, files: &ScratchFiles) -> Result<Option<Scratch>, (FailureClass, String)> {
        if !scratch::is_needed(Some(file)) {
            return Ok(None);
        }
        let (opened, scratch) = files.create()?;
        self.descriptors.push(opened.into());
        Ok(Some(Scratch { descriptor: self.descriptors.len() as u32 - 1, ..scratch }))
    }

    fn close(&mut self, steps: &mut Vec<Prepared>) {
        let Self { first_task, tasks, descriptors, .. } = std::mem::take(self);
        if !tasks.is_empty() {
            steps.push(Prepared::Segment { first_task, inputs: Inputs::Descriptors { tasks, descriptors }, permit: None, part: None });
        }
    }
}

/// Kernels, and what they say of their input, know a file of an upload by its name.
fn name_upload(file: &mut InputFile) {
    if let Some((_, name)) = upload_path(&file.path) {
        file.path = name.to_owned();
    }
}

/// The same for a stage, whose side inputs its executor knows from its description.
pub(crate) fn name_uploads(stage: &mut StageInfo) {
    for input in stage.spec.iter_mut().flat_map(|spec| &mut spec.inputs) {
        if let Some(Source::Files(files)) = &mut input.source {
            files.listing.iter_mut().for_each(name_upload);
        }
    }
}

/// Opens an input file and makes sure that it is still the one that was listed.
fn open_checked(file: &InputFile, uploads: &UploadStore) -> Result<File, (FailureClass, String)> {
    // One that has gone since the lease was prepared is fetched again by the next attempt.
    let place = uploads.place(&file.path).map_err(|reason| (FailureClass::Task, reason))?;
    let path = place.as_deref().unwrap_or(Path::new(&file.path));
    let elsewhere = |error: io::Error| (FailureClass::Worker, format!("cannot read {}: {error}", path.display()));
    // Without blocking: a pipe under the name of an input must not hold up the agent.
    let opened = OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path).map_err(elsewhere)?;
    let metadata = opened.metadata().map_err(elsewhere)?;
    if !metadata.is_file() || metadata.len() != file.bytes || listing::version(&metadata) != file.version {
        return Err((FailureClass::Fatal, format!("input changed while the job runs: {}", path.display())));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::room::DiskLimits;

    fn listed(path: &Path) -> InputFile {
        let metadata = path.metadata().unwrap();
        InputFile {
            path: path.to_str().unwrap().into(),
            bytes: metadata.len(),
            version: listing::version(&metadata),
            ..InputFile::default()
        }
    }

    fn split(file: &InputFile) -> Split {
        Split { file: Some(file.clone()), bytes: file.bytes, ..Split::default() }
    }

    #[test]
    fn a_changed_input_fails_the_job_and_a_missing_one_only_this_worker() {
        let dir = tempfile::tempdir().unwrap();
        let [good, changed, missing] = ["a", "b", "c"].map(|name| {
            let path = dir.path().join(name);
            std::fs::write(&path, "text").unwrap();
            (listed(&path), path)
        });
        let scratch = ScratchFiles { dir: dir.path().to_owned(), limits: DiskLimits::default() };
        std::fs::write(&changed.1, "longer text").unwrap();
        std::fs::remove_file(&missing.1).unwrap();
        let uploads = UploadStore::open(dir.path()).unwrap();
        let splits = vec![split(&good.0), split(&good.0), split(&changed.0), split(&missing.0), split(&good.0)];
        let steps = open_group(5, splits, &scratch, &uploads);
        let [Prepared::Segment { first_task: 5, inputs: first, .. }, Prepared::Failed(failures), Prepared::Segment { first_task: 9, .. }] =
            &steps[..]
        else {
            panic!("{steps:?}");
        };
        let Inputs::Descriptors { tasks, descriptors } = first else { panic!() };
        assert_eq!((tasks.len(), descriptors.len()), (2, 1), "one descriptor per file");
        assert_eq!(failures[0].class, i32::from(FailureClass::Fatal));
        assert_eq!(failures[0].message, format!("input changed while the job runs: {}", changed.1.display()));
        assert_eq!(failures[1].class, i32::from(FailureClass::Worker));
        assert!(failures[1].message.contains(missing.1.to_str().unwrap()));
    }

    #[test]
    fn a_task_that_reads_a_part_asks_for_that_part_alone() {
        let source = |worker, first_task, task_count| ShuffleSource { worker, first_task, task_count, ..ShuffleSource::default() };
        let sources = [source(7, 0, 3), source(8, 3, 2)];
        assert_eq!(only(&sources, 2), [source(7, 2, 1)]);
        assert_eq!(only(&sources, 3), [source(8, 3, 1)]);
        assert_eq!(only(&sources, 5), [], "its maker was set aside: there is no part");
    }

    #[test]
    fn a_message_has_a_bounded_number_of_files() {
        let splits: Vec<Split> = (0..500)
            .map(|i| Split { file: Some(InputFile { path: (i / 2).to_string(), ..InputFile::default() }), ..Split::default() })
            .collect();
        assert_eq!(group(&splits), (400, 200));
        assert_eq!(group(&splits[400..]), (100, 50));
        let mut packed = splits;
        packed.iter_mut().filter_map(|split| split.file.as_mut()).for_each(|file| file.compression = "gzip".into());
        assert_eq!(group(&packed), (200, 200), "each with a file for what it holds");
    }
}
