//! The bytes of a split, where an executor can map them as if they were the file.
//!
//! ```text
//! the object     |..............[== split ==]..............|
//! the file       |              [== split ==...newline]    |     as long as the object; what nobody reads is a hole and takes no memory
//! ```
//! A file without a name, with every byte at its own offset: executors align splits, count offsets and name places as in any other file, and
//! open nothing. What is fetched beyond the split is what alignment looks at: the byte before it, and the rest of its last line. The file is memory
//! (`memfd`), which no disk slows down; with a limit of memory it lies on the worker's disk, and what waits there for its turn is no memory of anybody's.
use super::{
    StoreError,
    address::Address,
    client::{self, Patience, again, explain, version},
};
use crate::{
    agent::{
        part_file::PartFiles,
        shuffle::fetch::{Fetcher, nameless_file},
    },
    lease::LeaseKey,
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use raftwerk_formats::{Columnar, HEAD_BYTES};
use raftwerk_proto::v1::{BlockRange, Files, InputFile, OutputPart, Publish, PublishReport, Split};
use rustix::fs::MemfdFlags;
use std::{
    collections::VecDeque,
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One request reads so much: long enough that its beginning does not count, short enough to be repeated.
const PIECE_BYTES: u64 = 8 << 20;
/// Pieces of one split, and of all, that are under way at once.
const PIECES_OF_SPLIT: usize = 4;
const PIECES: usize = 16;
/// First look for the end of a line behind the split; each further one is twice as long.
const LINE_BYTES: u64 = 64 << 10;
/// Room for input from stores: splits that are on their way, wait at an executor, or run. With a smaller limit of memory not more than that.
const ROOM_BYTES: u64 = 256 << 20;
/// What room is given out in. Small objects take one each, so this bounds their descriptors as well.
const UNIT_BYTES: u64 = 64 << 10;
/// Side inputs that are kept between the leases that ask for them.
const SIDES: usize = 8;
/// A piece whose answer ends too early, although the client has asked again, is begun anew this often.
const TRIES: u32 = 3;

/// What of an object a task reads beside the bytes of its split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The rest of its last line; of tables with a header also the first row.
    Lines { first_row: bool },
    /// The rest of its last record.
    Records,
    /// Of files of columns: the end, and of its groups the columns of these names.
    Groups { kind: Columnar, columns: Vec<String> },
    /// Everything.
    Whole,
}

impl Need {
    /// A format that is not known here is read whole, which is always right.
    pub(super) fn of(files: Option<&Files>) -> Self {
        let Some(files) = files else { return Self::Whole };
        let whole_files = files.table.as_ref().is_some_and(|table| table.whole_files);
        let groups = |kind| Self::Groups { kind, columns: files.table.as_ref().map(|table| table.columns.clone()).unwrap_or_default() };
        match files.format.as_str() {
            "parquet" => groups(Columnar::Parquet),
            "arrow" => groups(Columnar::Arrow),
            "text" | "jsonl" => Self::Lines { first_row: false },
            "csv" if !whole_files => Self::Lines { first_row: true },
            "npy" | "npy-rows" | "records" | "png" => Self::Records,
            _ => Self::Whole,
        }
    }
}

/// What the agent keeps for work with stores.
pub(crate) struct Objects {
    pub(super) worker: String,
    /// Where what is fetched lies, if memory is limited.
    dir: Option<PathBuf>,
    room: Arc<Semaphore>,
    units: u32,
    pieces: Semaphore,
    sides: Mutex<VecDeque<(InputFile, Arc<File>)>>,
    pub(super) outputs: super::output::Outputs,
}

impl Objects {
    /// `memory` is what this worker may take of it, if that is limited; `dir` is on its disk.
    pub(crate) fn new(worker: &str, cluster: &str, dir: PathBuf, memory: Option<u64>) -> Self {
        let units = (memory.unwrap_or(ROOM_BYTES).min(ROOM_BYTES) / UNIT_BYTES).max(1) as u32;
        Self {
            worker: worker.into(),
            dir: memory.map(|_| dir),
            room: Arc::new(Semaphore::new(units as usize)),
            units,
            // Each holds what has come and is not written: as much as one partition does that is fetched from another worker.
            pieces: Semaphore::new(Fetcher::at_once(memory, PIECES)),
            sides: Mutex::default(),
            outputs: super::output::Outputs::new(cluster, memory),
        }
    }

    /// Room for so many bytes. `own` is the lease's, of one permit: it lets every lease have one split whatever the others hold, because tasks of the
    /// lease that an executor runs next must never wait for those behind it.
    pub(super) async fn room(&self, own: &Arc<Semaphore>, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(self.units).min(self.units);
        tokio::select! {
            biased;
            permit = self.room.clone().acquire_many_owned(units) => permit.ok(),
            permit = own.clone().acquire_owned() => permit.ok(),
        }
    }

    /// What tasks read of an object, in a file as long as the object.
    pub(super) async fn fetch(&self, file: &InputFile, need: &Need, splits: &[Split]) -> Result<File, StoreError> {
        #[cfg(debug_assertions)]
        raftwerk_transport::tasks::blocking(|| crate::fail_point::reach("store.fetch")).await.unwrap_or_default();
        let address = Address::parse(&file.path)?;
        // Nobody can begin in the middle of a compressed one.
        let need = if file.compression.is_empty() { need } else { &Need::Whole };
        let object = Object { store: client::open(&address, Patience::Work)?, address, file, target: self.target(file.bytes)? };
        match need {
            Need::Whole => self.pieces_of(&object, 0..file.bytes).await?,
            Need::Groups { kind, columns } => self.groups_of(&object, *kind, columns, splits).await?,
            Need::Records | Need::Lines { .. } => self.splits_of(&object, need, splits).await?,
        }
        Ok(object.target)
    }

    /// An empty file as long as an object.
    fn target(&self, bytes: u64) -> Result<File, StoreError> {
        let Some(dir) = &self.dir else { return in_memory(bytes) };
        let file = nameless_file(dir)?;
        file.set_len(bytes)?;
        Ok(file)
    }

    async fn splits_of(&self, object: &Object<'_>, need: &Need, splits: &[Split]) -> Result<(), StoreError> {
        let file = object.file;
        for split in splits {
            let end = split.offset.saturating_add(split.bytes).min(file.bytes);
            match need {
                Need::Records => {
                    let rest = u64::from(file.record_bytes.max(1)) - 1;
                    self.pieces_of(object, split.offset..end.saturating_add(rest).min(file.bytes)).await?;
                }
                _ => {
                    // The byte before tells whether a line starts at the split's beginning.
                    let from = split.offset.saturating_sub(1);
                    self.pieces_of(object, from..end).await?;
                    self.rest_of_line(object, split.offset, from, end).await?;
                }
            }
        }
        if let Need::Lines { first_row: true } = need {
            self.first_row(object).await?;
        }
        Ok(())
    }

    pub(super) async fn pieces_of(&self, object: &Object<'_>, range: Range<u64>) -> Result<(), StoreError> {
        let starts = (range.start..range.end).step_by(PIECE_BYTES as usize);
        let pieces = starts.map(|start| async move {
            let _turn = self.pieces.acquire().await;
            again(Patience::Work, || object.piece(start..range.end.min(start + PIECE_BYTES))).await
        });
        stream::iter(pieces).buffer_unordered(PIECES_OF_SPLIT).try_collect().await
    }

    /// A line belongs to the split in which it starts, so the last one is read to its end.
    async fn rest_of_line(&self, object: &Object<'_>, offset: u64, from: u64, end: u64) -> Result<(), StoreError> {
        let starts_here = offset == 0 || has_newline(&object.target, from..end.saturating_sub(1))?;
        if !starts_here || end == 0 || has_newline(&object.target, end - 1..end)? {
            return Ok(());
        }
        let (mut at, mut more) = (end, LINE_BYTES);
        while at < object.file.bytes {
            let next = at.saturating_add(more).min(object.file.bytes);
            self.pieces_of(object, at..next).await?;
            if has_newline(&object.target, at..next)? {
                break;
            }
            (at, more) = (next, (more * 2).min(PIECE_BYTES));
        }
        Ok(())
    }

    /// The row that says how many columns there are, and what they are called.
    async fn first_row(&self, object: &Object<'_>) -> Result<(), StoreError> {
        let most = (HEAD_BYTES as u64).min(object.file.bytes);
        let (mut at, mut more) = (0, LINE_BYTES);
        while at < most {
            let next = at.saturating_add(more).min(most);
            self.pieces_of(object, at..next).await?;
            let mut head = vec![0; next as usize];
            object.target.read_exact_at(&mut head, 0)?;
            // Empty lines may stand before it.
            let begin = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
            if begin.is_some_and(|begin| memchr::memchr(b'\n', &head[begin..]).is_some()) {
                break;
            }
            (at, more) = (next, more * 2);
        }
        Ok(())
    }

    /// An object that all tasks of a stage read whole. It is fetched once, and looked at with every lease: one that has changed is found like a
    /// changed split.
    pub(super) async fn side(&self, file: &InputFile) -> Result<File, StoreError> {
        let known = self.known_sides().iter().find(|(known, _)| known == file).map(|(_, side)| side.clone());
        if let Some(side) = known {
            let address = Address::parse(&file.path)?;
            let store = client::open(&address, Patience::Work)?;
            let meta = store.head(&client::key(&address)?).await.map_err(|error| explain(&address, error))?;
            return match (meta.size, version(&meta)) == (file.bytes, file.version) {
                true => Ok(side.try_clone()?),
                false => Err(StoreError::Changed(file.path.clone())),
            };
        }
        let side = Arc::new(self.fetch(file, &Need::Whole, &[]).await?);
        let copy = side.try_clone()?;
        let mut sides = self.known_sides();
        sides.truncate(SIDES - 1);
        sides.push_front((file.clone(), side));
        Ok(copy)
    }

    fn known_sides(&self) -> std::sync::MutexGuard<'_, VecDeque<(InputFile, Arc<File>)>> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads a lease's parts. When this returns, the store has them under the names it sets.
    pub(crate) fn prepare(
        &self,
        url: &str,
        job: u64,
        lease: LeaseKey,
        files: &PartFiles,
        parts: &mut [OutputPart],
        ranges: &[BlockRange],
    ) -> Result<(), StoreError> {
        self.outputs.prepare(url, job, lease, files, parts, ranges)
    }

    pub(crate) fn publish(&self, request: &Publish) -> PublishReport {
        self.outputs.publish(request, &self.worker)
    }

    /// The job has ended: what it left in stores beside its output goes.
    pub(crate) fn release(&self, job: u64) {
        self.outputs.release(job);
    }
}

/// An object on its way here.
pub(super) struct Object<'a> {
    store: Arc<dyn ObjectStore>,
    address: Address,
    pub(super) file: &'a InputFile,
    pub(super) target: File,
}

impl Object<'_> {
    /// Brings one piece. The client itself goes on where an answer broke off; what ends too early without an error is seen here.
    async fn piece(&self, range: Range<u64>) -> Result<(), StoreError> {
        let mut at = range.start;
        for _ in 0..TRIES {
            if at == range.end {
                return Ok(());
            }
            let options = GetOptions { range: Some(GetRange::Bounded(at..range.end)), ..GetOptions::default() };
            let got = self.store.get_opts(&client::key(&self.address)?, options).await;
            let got = got.map_err(|error| match explain(&self.address, error) {
                // It was there when it was listed.
                StoreError::NotFound(url) => StoreError::Changed(url),
                other => other,
            })?;
            if (got.meta.size, version(&got.meta)) != (self.file.bytes, self.file.version) {
                return Err(StoreError::Changed(self.file.path.clone()));
            }
            let mut body = got.into_stream();
            while let Some(bytes) = body.next().await {
                let bytes = bytes.map_err(|error| explain(&self.address, error))?;
                let fits = bytes.len().min((range.end - at) as usize);
                self.target.write_all_at(&bytes[..fits], at)?;
                at += fits as u64;
            }
        }
        match at == range.end {
            true => Ok(()),
            false => {
                let reason = format!("its answers end too early, the last one at byte {at} of {}..{}", range.start, range.end);
                Err(StoreError::Unreachable { url: self.file.path.clone(), reason })
            }
        }
    }
}

pub(super) fn in_memory(bytes: u64) -> Result<File, StoreError> {
    let file = File::from(rustix::fs::memfd_create("object", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?);
    file.set_len(bytes)?;
    Ok(file)
}

fn has_newline(file: &File, range: Range<u64>) -> Result<bool, StoreError> {
    let mut buffer = vec![0; LINE_BYTES.min(range.end.saturating_sub(range.start)) as usize];
    let mut at = range.start;
    while at < range.end {
        let piece = buffer.len().min((range.end - at) as usize);
        file.read_exact_at(&mut buffer[..piece], at)?;
        if memchr::memchr(b'\n', &buffer[..piece]).is_some() {
            return Ok(true);
        }
        at += piece as u64;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{memory::InMemory, path::Path};
    use proptest::prelude::*;
    use raftwerk_proto::v1::TableFormat;
    use std::os::unix::fs::MetadataExt;

    async fn fetched(text: &[u8], need: Need, split: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let store = Arc::new(InMemory::new());
        let put = store.put(&Path::from("a"), text.to_vec().into()).await.unwrap();
        let meta = store.head(&Path::from("a")).await.unwrap();
        assert_eq!(put.e_tag, meta.e_tag);
        let file = InputFile { path: "s3://b/a".into(), bytes: text.len() as u64, version: version(&meta), ..InputFile::default() };
        let objects = Objects::new("anna", "c-1", PathBuf::new(), None);
        let object = Object { store, address: Address::parse(&file.path)?, file: &file, target: in_memory(file.bytes)? };
        let from = split.start.saturating_sub(1);
        objects.pieces_of(&object, from..split.end).await?;
        objects.rest_of_line(&object, split.start, from, split.end).await?;
        if need == (Need::Lines { first_row: true }) {
            objects.first_row(&object).await?;
        }
        let mut bytes = vec![0; text.len()];
        object.target.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn a_split_comes_with_the_byte_before_it_and_the_rest_of_its_last_line_and_nothing_else() {
        let lines = Need::Lines { first_row: false };
        assert_eq!(fetched(b"ab\ncd\nef\n", lines.clone(), 3..5).await.unwrap(), b"\0\0\ncd\nef\n", "a short object is read to its end");
        let long = [b"x".repeat(100_000), b"\n".to_vec(), b"y".repeat(200_000)].concat();
        let got = fetched(&long, lines.clone(), 0..10).await.unwrap();
        assert_eq!(&got[..100_001], &long[..100_001]);
        assert!(got[250_000..].iter().all(|byte| *byte == 0), "the line ends before");
        let got = fetched(&long, lines, 50..60).await.unwrap();
        assert_eq!(got.iter().filter(|byte| **byte != 0).count(), 11, "no line starts in it, so none is read to its end");
        let table = [b"key,value\n".to_vec(), b"a,1\n".repeat(50_000)].concat();
        let got = fetched(&table, Need::Lines { first_row: true }, 150_000..150_010).await.unwrap();
        assert_eq!(&got[..10], b"key,value\n");
    }

    #[tokio::test]
    async fn an_object_that_is_another_than_the_listed_one_is_refused_by_name() {
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("a"), "text".into()).await.unwrap();
        let file = InputFile { path: "s3://b/a".into(), bytes: 4, version: 7, ..InputFile::default() };
        let object = Object { store, address: Address::parse(&file.path).unwrap(), file: &file, target: in_memory(4).unwrap() };
        let error = object.piece(0..4).await.unwrap_err();
        assert_eq!(error.to_string(), "input changed while the job runs: s3://b/a");
        let gone = InputFile { path: "s3://b/gone".into(), ..file.clone() };
        let object = Object { address: Address::parse(&gone.path).unwrap(), file: &gone, ..object };
        assert!(matches!(object.piece(0..4).await, Err(StoreError::Changed(url)) if url == "s3://b/gone"));
    }

    #[tokio::test]
    async fn room_is_bounded_and_every_lease_has_one_split_all_the_same() {
        for (memory, room) in [(None, 256 << 20), (Some(32 << 20), 32 << 20), (Some(4 << 30), 256 << 20)] {
            let objects = Objects::new("anna", "c-1", PathBuf::new(), memory);
            let (first, second) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
            assert_eq!(objects.room.available_permits() as u64 * UNIT_BYTES, room, "with {memory:?}");
            let all = objects.room(&first, u64::MAX).await;
            assert!(all.is_some() && objects.room.available_permits() == 0);
            let beyond = objects.room(&second, 1).await;
            assert!(beyond.is_some() && second.available_permits() == 0);
            let waits = tokio::time::timeout(std::time::Duration::from_millis(50), objects.room(&second, 1)).await;
            assert!(waits.is_err(), "one beyond the bound, not two");
            drop(all);
            assert!(objects.room(&second, 1).await.is_some());
        }
    }

    #[test]
    fn with_a_limit_of_memory_what_is_fetched_lies_on_the_disk_of_the_worker_and_few_pieces_come_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let device = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.len(), metadata.nlink())).unwrap();
        let unlimited = Objects::new("anna", "c-1", dir.path().to_owned(), None);
        let limited = Objects::new("anna", "c-1", dir.path().to_owned(), Some(32 << 20));
        let (memory, disk) = (unlimited.target(12345).unwrap(), limited.target(12345).unwrap());
        let of_dir = dir.path().metadata().unwrap().dev();
        assert_eq!(device(&disk), (of_dir, 12345, 0), "without a name, and all of it a hole");
        assert_ne!(device(&memory).0, of_dir);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!((unlimited.pieces.available_permits(), limited.pieces.available_permits()), (PIECES, 1));
    }

    #[test]
    fn an_unknown_format_is_read_whole() {
        let files = |format: &str, whole_files| Files {
            format: format.into(),
            table: Some(TableFormat { whole_files, ..TableFormat::default() }),
            ..Files::default()
        };
        assert_eq!(Need::of(Some(&files("csv", false))), Need::Lines { first_row: true });
        assert_eq!(Need::of(Some(&files("csv", true))), Need::Whole);
        assert_eq!(Need::of(Some(&files("of-next-year", false))), Need::Whole);
        assert_eq!(Need::of(None), Need::Whole);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What an executor reads of a split is the same in the fetched file as in the whole object.
        #[test]
        fn every_split_reads_the_same_lines_as_from_the_whole_object(lines in prop::collection::vec("[a-c\r]{0,9}", 1..12), split in 1u64..20) {
            let text = lines.join("\n").into_bytes();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for number in 0..(text.len() as u64).div_ceil(split) {
                let (start, end) = (number * split, ((number + 1) * split).min(text.len() as u64));
                let got = runtime.block_on(fetched(&text, Need::Lines { first_row: false }, start..end)).unwrap();
                let (there, here) = (crate::executor::lines_of(&text, start, split), crate::executor::lines_of(&got, start, split));
                prop_assert_eq!(there, here);
            }
        }
    }
}
