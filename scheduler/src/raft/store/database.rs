//! The log in a redb database. One commit is one `fdatasync`; redb checks its own pages after a crash, records check themselves always.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};

use super::StoreError;
use super::mark::Mark;
use super::medium::{Medium, Visit, Write};
use super::snapshots::sync_directory;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// In the meta table: the number of the commit, counted from 1, and its CRC-32C. See [`super::mark`].
const COMMITS: &str = "commits";

/// Recent entries are kept decoded by the log store; this serves only reads of older ones.
const CACHE_BYTES: usize = 32 << 20;

/// What to do about a database that has commits and no mark: see [`super::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmarked {
    Refuse,
    /// An operator has said that the log is to be taken as it is.
    Accept,
}

pub struct RedbMedium {
    file: PathBuf,
    database: RwLock<Option<Arc<Database>>>,
    mark: Mutex<Mark>,
}

impl RedbMedium {
    /// Opens the database; with `create`, makes it first if there is none. A file that must exist but is missing or empty is damage, not a fresh start.
    pub fn open(file: &Path, create: bool) -> Result<Self, StoreError> {
        Self::open_with(file, create, Unmarked::Refuse)
    }

    /// The same, perhaps also when the database has lost its mark.
    pub fn open_with(file: &Path, create: bool, unmarked: Unmarked) -> Result<Self, StoreError> {
        if !create && std::fs::metadata(file).map(|m| m.len()).unwrap_or(0) == 0 {
            return Err(StoreError::damaged(file, "the file is missing or empty, although this replica has run before"));
        }
        if create {
            make(file)?;
        }
        let handle = OpenOptions::new().read(true).write(true).open(file).map_err(StoreError::io("open", file))?;
        let mark = Mark::open(&file.with_extension("mark"))?;
        Self::on_marked(file, mark, unmarked, || FileBackend::new(handle))
    }

    /// The database on any backend; `file` is what errors call it.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn on<B: StorageBackend>(
        file: &Path,
        mark: Mark,
        backend: impl FnOnce() -> Result<B, redb::DatabaseError>,
    ) -> Result<Self, StoreError> {
        Self::on_marked(file, mark, Unmarked::Refuse, backend)
    }

    fn on_marked<B: StorageBackend>(
        file: &Path,
        mark: Mark,
        unmarked: Unmarked,
        backend: impl FnOnce() -> Result<B, redb::DatabaseError>,
    ) -> Result<Self, StoreError> {
        let medium = RedbMedium { file: file.to_owned(), database: RwLock::new(None), mark: Mutex::new(mark) };
        let build = || {
            let repaired = Arc::new(AtomicBool::new(false));
            let seen = repaired.clone();
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
            let mut database = builder.create_with_backend(backend()?)?;
            // After an unclean stop redb has walked all pages. After a clean one it trusts them, also its list of free ones: a flipped bit
            // there would let the next commit write over a page that is in use.
            if !repaired.load(Ordering::Relaxed) && !database.check_integrity()? {
                tracing::warn!(file = %file.display(), "the database's list of free pages was damaged; it was made anew from the intact log");
            }
            Ok(database)
        };
        let database = medium.guarded("open", build)?;
        *medium.database.write().unwrap_or_else(|e| e.into_inner()) = Some(Arc::new(database));
        medium.check_mark(unmarked)?;
        Ok(medium)
    }

    /// What was acknowledged must be there; what was only begun may have been cut.
    fn check_mark(&self, unmarked: Unmarked) -> Result<(), StoreError> {
        let last = self.last_commit()?;
        let mut mark = self.mark();
        let is_lost = !mark.found && mark.acknowledged == 0 && last > 0;
        if is_lost && unmarked == Unmarked::Refuse {
            return Err(StoreError::MarkLost { mark: mark.path.clone(), file: self.file.clone(), commits: last });
        }
        if is_lost {
            tracing::warn!(file = %mark.path.display(), commits = last, "the file is missing; the log is taken as it is, and the file made anew");
        }
        if last < mark.acknowledged {
            let lost = format!(
                "its newest commit is number {last}, but number {} was acknowledged: a damaged page made redb fall back to an earlier one",
                mark.acknowledged
            );
            return Err(StoreError::damaged(&self.file, lost));
        }
        let file = self.file.display();
        if mark.begun > last {
            tracing::warn!(%file, cut = mark.begun, kept = last, "cut off a write that was under way when the process stopped; it had not been acknowledged");
        } else if last > mark.acknowledged && mark.found {
            tracing::info!(%file, kept = last, "kept a write that was complete but not yet acknowledged when the process stopped");
        }
        if (mark.begun, mark.acknowledged) == (last, last) { Ok(()) } else { mark.acknowledge(last) }
    }

    fn last_commit(&self) -> Result<u64, StoreError> {
        let Some(record) = self.meta(COMMITS)? else { return Ok(0) };
        let number: Option<[u8; 8]> = record.get(..8).and_then(|n| n.try_into().ok());
        match number {
            Some(number) if record[8..] == crc32c::crc32c(&number).to_le_bytes() => Ok(u64::from_le_bytes(number)),
            _ => Err(StoreError::damaged(&self.file, "the number of its newest commit fails its checksum")),
        }
    }

    fn mark(&self) -> MutexGuard<'_, Mark> {
        self.mark.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.read().unwrap_or_else(|e| e.into_inner());
        database.clone().ok_or_else(|| StoreError::Closed { file: self.file.clone() })
    }

    /// redb asserts what it believes about a page that it read, so damage may show as a panic.
    fn guarded<T>(&self, doing: &str, f: impl FnOnce() -> Result<T, Failure>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Store(e))) => Err(e),
            Ok(Err(Failure::Database(e))) => match *e {
                redb::Error::Corrupted(what) => Err(StoreError::damaged(&self.file, what)),
                other => Err(StoreError::Database { file: self.file.clone(), source: Box::new(other) }),
            },
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
                Err(StoreError::damaged(&self.file, format!("redb gave up trying to {doing}: {}", text.unwrap_or("no reason given"))))
            }
        }
    }
}

/// Makes an empty database if there is none. It gets its name only when it is whole and on disk: redb cannot open what a power cut leaves
/// of one half made, and a replica that never acknowledged anything should just start.
fn make(file: &Path) -> Result<(), StoreError> {
    if std::fs::metadata(file).is_ok_and(|m| m.len() > 0) {
        return Ok(());
    }
    let unfinished = file.with_extension("redb.tmp");
    let handle = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished);
    let handle = handle.map_err(StoreError::io("create", &unfinished))?;
    let failed = |e: redb::DatabaseError| StoreError::Database { file: unfinished.clone(), source: Box::new(e.into()) };
    drop(FileBackend::new(handle).and_then(|backend| Database::builder().create_with_backend(backend)).map_err(failed)?);
    File::open(&unfinished).and_then(|f| f.sync_all()).map_err(StoreError::io("flush", &unfinished))?;
    std::fs::rename(&unfinished, file).map_err(StoreError::io("rename into", file))?;
    sync_directory(file.parent().unwrap_or(Path::new(".")))
}

impl Medium for RedbMedium {
    fn file(&self) -> &Path {
        &self.file
    }

    fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        let database = self.database()?;
        self.guarded("read", || {
            let read = database.begin_read()?;
            match read.open_table(META) {
                Ok(table) => Ok(table.get(name)?.map(|v| v.value().to_vec())),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(e) => Err(e.into()),
            }
        })
    }

    fn scan(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let database = self.database()?;
        self.guarded("read", || {
            let read = database.begin_read()?;
            let table = match read.open_table(LOG) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            for row in table.range(range)? {
                let (index, record) = row?;
                if !visit(index.value(), record.value())? {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let database = self.database()?;
        let mut mark = self.mark();
        let number = mark.begun + 1;
        mark.begin(number)?;
        self.guarded("commit", || {
            let transaction = database.begin_write()?; // durability is immediate unless told otherwise
            {
                let mut log = transaction.open_table(LOG)?;
                let mut meta = transaction.open_table(META)?;
                for write in writes {
                    match write {
                        Write::Entry { index, record } => {
                            log.insert(*index, record.as_slice())?;
                        }
                        Write::Remove(range) => log.retain_in(range.clone(), |_, _| false)?,
                        Write::Meta { name, record } => {
                            meta.insert(*name, record.as_slice())?;
                        }
                    }
                }
                let (number, checksum) = (number.to_le_bytes(), crc32c::crc32c(&number.to_le_bytes()).to_le_bytes());
                meta.insert(COMMITS, [number.as_slice(), &checksum].concat().as_slice())?;
            }
            transaction.commit()?;
            Ok(())
        })?;
        mark.acknowledge(number)
    }

    fn close(&self) {
        let database = self.database.write().unwrap_or_else(|e| e.into_inner()).take();
        // Closing writes as well, so it may meet the same damage.
        let _ = self.guarded("close", || {
            drop(database);
            Ok(())
        });
    }
}

enum Failure {
    Database(Box<redb::Error>),
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Failure::Store(e)
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(e: $error) -> Self {
                Failure::Database(Box::new(e.into()))
            }
        })*
    };
}
from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);
