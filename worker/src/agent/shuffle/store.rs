//! Shuffle blocks on this worker's disk, and the index that finds them.
//!
//! ```text
//! <data dir>/shuffle/<job>/<stage>-<generation>-<lease>.blocks      blocks back to back, written by the executor
//!                        .../copy-<generation>-<lease>-<number>.blocks   the same of another worker's lease, as it came over the network
//! ```
//! Nothing here is flushed: what a crash of the machine would lose, the end of this process loses anyway.
//!
//! The index lives in memory: an agent that restarts is a new incarnation, its shuffle data counts as lost and is made again. So the
//! directory is emptied at start.
use crate::{lease::LeaseKey, ranges::TaskRanges};
use raftwerk_proto::v1::{BlockIndex, TaskRange, TaskResults};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Ended jobs that are remembered.
const RELEASED_JOBS: usize = 4096;

pub(crate) struct ShuffleStore {
    dir: PathBuf,
    jobs: Mutex<HashMap<u64, JobData>>,
    /// Ended jobs: a copy that was still on its way must not bring their files back.
    released: Mutex<BTreeSet<u64>>,
    copies: AtomicU64,
}

#[derive(Default)]
struct JobData {
    /// What each lease's file holds: stage, generation and tasks.
    files: HashMap<Arc<PathBuf>, (String, u32, TaskRanges)>,
    /// Files of leases that lost every task to others: what comes for them late is not kept.
    freed: HashSet<PathBuf>,
    stages: HashMap<(String, u32), StageData>,
    /// The same of other workers' leases. Apart, because a lease here may run a task whose accepted data is kept here as a copy, lose it to
    /// the other worker, and take its own file along.
    copies: HashMap<(String, u32), StageData>,
    bytes: u64,
}

#[derive(Default)]
struct StageData {
    /// Tasks whose blocks are all here, tasks that wrote nothing included.
    tasks: TaskRanges,
    partitions: HashMap<u32, BTreeMap<u64, BlockPlace>>,
}

/// Partition, task and place of a block.
pub(crate) type Placed = (u32, u64, BlockPlace);

/// One block on disk.
#[derive(Clone, Debug)]
pub(crate) struct BlockPlace {
    pub(crate) file: Arc<PathBuf>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

/// A task was asked for that this worker does not hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shuffle data of task {task} of stage `{stage}` of job {job} is not on this worker")]
pub(crate) struct NotHeld {
    job: u64,
    stage: String,
    task: u64,
}

impl ShuffleStore {
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("shuffle");
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, jobs: Mutex::default(), released: Mutex::default(), copies: AtomicU64::new(0) })
    }

    /// Where nameless files may be made; emptied at every start.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<u64, JobData>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The output file of a lease.
    pub(crate) fn create(&self, job: u64, stage: u32, generation: u32, lease: LeaseKey) -> io::Result<(Arc<PathBuf>, File)> {
        let dir = self.dir.join(job.to_string());
        let path = dir.join(format!("{stage}-{generation}-{lease}.blocks"));
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&dir)?;
                open()?
            }
            other => other?,
        };
        Ok((Arc::new(path), file))
    }

    /// A file for a copy of another worker's blocks.
    pub(crate) fn create_copy(&self, job: u64, generation: u32, lease: LeaseKey) -> io::Result<(Arc<PathBuf>, File)> {
        if self.is_released(job) {
            return Err(io::Error::other(format!("job {job} has ended")));
        }
        let dir = self.dir.join(job.to_string());
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("copy-{generation}-{lease}-{}.blocks", self.copies.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Arc::new(path), file))
    }

    /// Whether this worker was told that the job has ended.
    pub(crate) fn is_released(&self, job: u64) -> bool {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).contains(&job)
    }

    /// Makes finished tasks findable; before they are reported, because a reduce task may ask for them right after.
    pub(crate) fn add(&self, job: u64, stage: &str, generation: u32, file: &Arc<PathBuf>, results: &[TaskResults], blocks: &[BlockIndex]) {
        let mut jobs = self.jobs();
        // Of a lease that was under way when the job ended: nobody would ever release it.
        if self.is_released(job) {
            return;
        }
        let job = jobs.entry(job).or_default();
        if job.freed.contains(&**file) {
            return;
        }
        let (_, _, held) = job.files.entry(file.clone()).or_insert_with(|| (stage.to_owned(), generation, TaskRanges::default()));
        results.iter().for_each(|result| held.insert(result.first_task, result.task_count));
        let stage = job.stages.entry((stage.to_owned(), generation)).or_default();
        job.bytes += stage.add(file, results, blocks);
    }

    /// Makes a copy of another worker's tasks findable.
    pub(crate) fn add_copy(
        &self,
        job: u64,
        stage: &str,
        generation: u32,
        file: &Arc<PathBuf>,
        results: &[TaskResults],
        blocks: &[BlockIndex],
    ) {
        let mut jobs = self.jobs();
        if self.is_released(job) {
            return;
        }
        let job = jobs.entry(job).or_default();
        let stage = job.copies.entry((stage.to_owned(), generation)).or_default();
        job.bytes += stage.add(file, results, blocks);
    }

    /// The blocks of one partition, by task; all tasks of the ranges must be held.
    pub(crate) fn blocks(
        &self,
        job: u64,
        stage: &str,
        generation: u32,
        partition: u32,
        ranges: &[TaskRange],
    ) -> Result<Vec<(u64, BlockPlace)>, NotHeld> {
        let jobs = self.jobs();
        let key = (stage.to_owned(), generation);
        let places = jobs.get(&job).map(|data| [data.stages.get(&key), data.copies.get(&key)]);
        let places: Vec<&StageData> = places.into_iter().flatten().flatten().collect();
        let mut found = Vec::new();
        for range in ranges {
            let end = range.first_task.saturating_add(range.task_count);
            let mut task = range.first_task;
            // A range may lie partly with what was made here and partly with copies.
            while task < end {
                let held = places.iter().map(|data| (data, data.tasks.first_missing(task, end - task).unwrap_or(end)));
                let Some((data, until)) = held.max_by_key(|(_, until)| *until).filter(|(_, until)| *until > task) else {
                    return Err(NotHeld { job, stage: stage.to_owned(), task });
                };
                let of_partition = data.partitions.get(&partition);
                found.extend(
                    of_partition.into_iter().flat_map(|blocks| blocks.range(task..until)).map(|(&task, place)| (task, place.clone())),
                );
                task = until;
            }
        }
        Ok(found)
    }

    /// The blocks of all partitions, file by file; all tasks of the ranges must be held.
    pub(crate) fn all_blocks(&self, job: u64, stage: &str, generation: u32, ranges: &[TaskRange]) -> Result<Vec<Placed>, NotHeld> {
        let key = (stage.to_owned(), generation);
        let partitions: BTreeSet<u32> = {
            let jobs = self.jobs();
            let places = jobs.get(&job).into_iter().flat_map(|data| [data.stages.get(&key), data.copies.get(&key)]).flatten();
            places.flat_map(|data| data.partitions.keys().copied()).collect()
        };
        // Tasks that wrote nothing must be held as well.
        self.blocks(job, stage, generation, 0, ranges)?;
        let mut found: Vec<Placed> = Vec::new();
        for partition in partitions {
            let blocks = self.blocks(job, stage, generation, partition, ranges)?;
            found.extend(blocks.into_iter().map(|(task, place)| (partition, task, place)));
        }
        found.sort_by(|(_, _, a), (_, _, b)| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        Ok(found)
    }

    /// Deletes the file of a lease that nobody will read from: other leases were first with all of its tasks.
    pub(crate) fn free(&self, lease: LeaseKey) -> io::Result<()> {
        let name = format!("-{lease}.blocks");
        let mut jobs = self.jobs();
        for job in fs::read_dir(&self.dir)? {
            let job = job?;
            let Some(number) = job.file_name().to_str().and_then(|number| number.parse::<u64>().ok()) else { continue };
            for file in fs::read_dir(job.path())? {
                let path = file?.path();
                let own = |name_there: &str| name_there.ends_with(&name) && name_there.starts_with(|first: char| first.is_ascii_digit());
                if path.file_name().and_then(|there| there.to_str()).is_some_and(own) {
                    jobs.entry(number).or_default().forget(&path);
                    return fs::remove_file(path);
                }
            }
        }
        Ok(())
    }

    /// Deletes what generations before this one left of a stage, copies included: they are of rounds that have ended.
    pub(crate) fn free_rounds(&self, job: u64, stage: &str, before: u32) -> io::Result<()> {
        let files: BTreeSet<PathBuf> = {
            let mut jobs = self.jobs();
            let Some(job) = jobs.get_mut(&job) else { return Ok(()) };
            let own = job.files.iter().filter(|(_, (of, generation, _))| of == stage && *generation < before);
            let mut files: BTreeSet<PathBuf> = own.map(|(path, _)| path.to_path_buf()).collect();
            let old = |(of, generation): &(String, u32)| of == stage && *generation < before;
            for kept in [&mut job.stages, &mut job.copies] {
                for (_, data) in kept.extract_if(|key, _| old(key)) {
                    for place in data.partitions.into_values().flat_map(BTreeMap::into_values) {
                        job.bytes -= place.bytes;
                        files.insert(place.file.to_path_buf());
                    }
                }
            }
            job.files.retain(|_, (of, generation, _)| of != stage || *generation >= before);
            job.freed.extend(files.iter().cloned());
            files
        };
        for file in files {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Forgets the job and deletes its files.
    pub(crate) fn release(&self, job: u64) -> io::Result<()> {
        {
            let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.insert(job);
            while released.len() > RELEASED_JOBS {
                released.pop_first(); // job numbers only grow
            }
        }
        self.jobs().remove(&job);
        match fs::remove_dir_all(self.dir.join(job.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.jobs().values().map(|job| job.bytes).sum()
    }
}

impl StageData {
    /// How many bytes more there are.
    fn add(&mut self, file: &Arc<PathBuf>, results: &[TaskResults], blocks: &[BlockIndex]) -> u64 {
        for block in blocks {
            let place = BlockPlace { file: file.clone(), offset: block.offset, bytes: block.bytes, crc32c: block.crc32c };
            self.partitions.entry(block.partition).or_default().insert(block.task, place);
        }
        for result in results {
            self.tasks.insert(result.first_task, result.task_count);
        }
        blocks.iter().map(|block| block.bytes).sum()
    }
}

impl JobData {
    fn forget(&mut self, path: &Path) {
        self.freed.insert(path.to_owned());
        let Some((stage, generation, tasks)) = self.files.remove(&path.to_owned()) else { return };
        let Some(data) = self.stages.get_mut(&(stage.clone(), generation)) else { return };
        for (first, count) in tasks.iter() {
            data.tasks.take(first, count);
        }
        for blocks in data.partitions.values_mut() {
            blocks.retain(|_, place| {
                let kept = **place.file != *path;
                self.bytes -= if kept { 0 } else { place.bytes };
                kept
            });
        }
        // A later lease may have made some of them again.
        for (other_stage, other_generation, tasks) in self.files.values() {
            if (other_stage, *other_generation) == (&stage, generation) {
                tasks.iter().for_each(|(first, count)| data.tasks.insert(first, count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_when_a_lease_that_ran_the_same_tasks_here_is_freed() {
        let dir = tempfile::tempdir().unwrap();
        let store = ShuffleStore::open(dir.path()).unwrap();
        let [winner, loser] = [5, 6].map(|index| LeaseKey { epoch: 0, index, position: 0 });
        let block = |task| BlockIndex { task, partition: 0, offset: 0, bytes: 9, crc32c: 0 };
        let (copy, _) = store.create_copy(1, 1, winner).unwrap();
        store.add_copy(1, "map", 1, &copy, &[results(2, 2)], &[block(2)]);
        let (own, _) = store.create(1, 0, 1, loser).unwrap();
        store.add(1, "map", 1, &own, &[results(0, 3)], &[block(0), block(2)]);
        let range = |first_task, task_count| [TaskRange { first_task, task_count }];
        let both = store.blocks(1, "map", 1, 0, &range(0, 4)).unwrap();
        assert_eq!(both.iter().map(|(task, _)| *task).collect::<Vec<_>>(), [0, 2], "one range, two places");
        store.free(loser).unwrap();
        let kept = store.blocks(1, "map", 1, 0, &range(2, 2)).unwrap();
        assert!(kept.len() == 1 && kept[0].1.file == copy && copy.exists(), "{kept:?}");
        assert_eq!(store.blocks(1, "map", 1, 0, &range(0, 4)).unwrap_err().task, 0);
        store.release(1).unwrap();
        assert!(store.create_copy(1, 1, winner).is_err(), "nothing is kept for a job that has ended");
    }

    fn results(first_task: u64, task_count: u64) -> TaskResults {
        TaskResults { first_task, task_count, ..TaskResults::default() }
    }

    #[test]
    fn what_rounds_that_ended_left_is_freed_and_nothing_of_the_one_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = ShuffleStore::open(dir.path()).unwrap();
        let lease = |index| LeaseKey { epoch: 0, index, position: 0 };
        let block = |task| BlockIndex { task, partition: 0, offset: 0, bytes: 9, crc32c: 0 };
        let mut files = Vec::new();
        for generation in 1..4 {
            let (own, _) = store.create(1, 0, generation, lease(u64::from(generation))).unwrap();
            store.add(1, "map", generation, &own, &[results(0, 2)], &[block(0)]);
            let (copy, _) = store.create_copy(1, generation, lease(9)).unwrap();
            store.add_copy(1, "map", generation, &copy, &[results(2, 2)], &[block(2)]);
            files.push((own, copy));
        }
        store.free_rounds(1, "map", 3).unwrap();
        let there: Vec<(bool, bool)> = files.iter().map(|(own, copy)| (own.exists(), copy.exists())).collect();
        assert_eq!(there, [(false, false), (false, false), (true, true)]);
        let range = [TaskRange { first_task: 0, task_count: 4 }];
        assert_eq!(store.blocks(1, "map", 3, 0, &range).unwrap().len(), 2);
        assert!(store.blocks(1, "map", 2, 0, &range).is_err());
        assert_eq!(store.bytes(), 18);
        // What comes late of a round that has ended is not kept.
        store.add(1, "map", 2, &files[1].0, &[results(1, 1)], &[block(1)]);
        store.free_rounds(1, "map", 3).unwrap();
        store.free_rounds(7, "map", 3).unwrap();
        assert_eq!(store.bytes(), 18);
    }

    #[test]
    fn a_task_without_data_is_held_and_an_unknown_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let store = ShuffleStore::open(dir.path()).unwrap();
        let (path, _) = store.create(1, 0, 2, LeaseKey { epoch: 0, index: 5, position: 1 }).unwrap();
        assert!(path.ends_with("shuffle/1/0-2-0-5-1.blocks"));
        let block = BlockIndex { task: 3, partition: 1, offset: 0, bytes: 9, crc32c: 0 };
        store.add(1, "map", 2, &path, &[results(3, 2)], &[block]);
        let range = |first_task, task_count| [TaskRange { first_task, task_count }];
        assert_eq!(store.blocks(1, "map", 2, 1, &range(3, 2)).unwrap().len(), 1);
        assert_eq!(store.blocks(1, "map", 2, 0, &range(3, 2)).unwrap().len(), 0);
        assert_eq!(store.blocks(1, "map", 2, 0, &range(3, 3)).unwrap_err().task, 5);
        assert_eq!(store.blocks(1, "map", 1, 0, &range(3, 1)).unwrap_err().task, 3, "another generation is other data");
        assert_eq!(store.bytes(), 9);
        store.release(1).unwrap();
        assert!(!path.exists() && store.blocks(1, "map", 2, 1, &range(3, 1)).is_err());
    }

    #[test]
    fn a_lease_that_lost_every_task_is_freed_and_what_comes_late_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = ShuffleStore::open(dir.path()).unwrap();
        let lease = |index| LeaseKey { epoch: 0, index, position: 0 };
        let block = |task| BlockIndex { task, partition: 0, offset: 0, bytes: 9, crc32c: 0 };
        let (lost, _) = store.create(1, 0, 1, lease(5)).unwrap();
        let (kept, _) = store.create(1, 0, 1, lease(15)).unwrap();
        store.add(1, "map", 1, &lost, &[results(0, 4)], &[block(0), block(3)]);
        store.add(1, "map", 1, &kept, &[results(3, 3)], &[block(5)]);
        store.free(lease(5)).unwrap();
        store.add(1, "map", 1, &lost, &[results(2, 1)], &[block(2)]);
        let held =
            |first_task, task_count| store.blocks(1, "map", 1, 0, &[TaskRange { first_task, task_count }]).map(|blocks| blocks.len());
        assert_eq!((held(0, 1).is_err(), held(2, 1).is_err(), held(3, 3)), (true, true, Ok(1)));
        assert!(!lost.exists() && kept.exists());
        assert_eq!(store.bytes(), 9);
        store.free(lease(99)).unwrap();
        store.release(1).unwrap();
        store.add(1, "map", 1, &kept, &[results(3, 3)], &[block(5)]);
        store.add_copy(1, "map", 1, &kept, &[results(3, 3)], &[block(5)]);
        assert_eq!(store.bytes(), 0, "of a job that has ended");
    }
}
