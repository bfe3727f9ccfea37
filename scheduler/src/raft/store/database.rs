//! The log in a redb database. One commit is one `fdatasync`; redb checks its own pages after a crash, records check themselves always.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use super::StoreError;
use super::medium::{Medium, Visit, Write};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Recent entries are kept decoded by the log store; this serves only reads of older ones.
const CACHE_BYTES: usize = 32 << 20;

pub struct RedbMedium {
    file: PathBuf,
    database: RwLock<Option<Arc<Database>>>,
}

impl RedbMedium {
    /// Opens the database, or makes it when `create`. A file that must exist but is missing or empty is damage, not a fresh start.
    pub fn open(file: &Path, create: bool) -> Result<Self, StoreError> {
        if !create && std::fs::metadata(file).map(|m| m.len()).unwrap_or(0) == 0 {
            return Err(StoreError::damaged(file, "the file is missing or empty, although this replica has run before"));
        }
        let handle =
            OpenOptions::new().read(true).write(true).create(create).truncate(false).open(file).map_err(StoreError::io("open", file))?;
        let medium = RedbMedium { file: file.to_owned(), database: RwLock::new(None) };
        let database = medium.guarded("open", || build(handle))?;
        *medium.database.write().unwrap_or_else(|e| e.into_inner()) = Some(Arc::new(database));
        Ok(medium)
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

fn build(handle: File) -> Result<Database, Failure> {
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_file(handle)?)
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
            }
            transaction.commit()?;
            Ok(())
        })
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
