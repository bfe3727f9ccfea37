use std::path::{Path, PathBuf};

/// What an operator can do about a data directory that cannot be trusted.
pub(super) const REJOIN: &str = "the other replicas hold everything this one had, so take it out with `raftwerk cluster remove REPLICA`, move this \
     data directory away, and start a new one with `raftwerk scheduler start --join ADDRESS --token-file FILE`. If it is the only replica, start from a \
     backup with `raftwerk scheduler start --restore FILE`";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("data directory {} is in use by another process (pid {pid})", dir.display())]
    InUse { dir: PathBuf, pid: String },

    #[error("cannot {doing} {}", file.display())]
    Io {
        doing: &'static str,
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },

    #[error("{} failed", file.display())]
    Database {
        file: PathBuf,
        #[source]
        source: Box<::redb::Error>,
    },

    #[error("{} is damaged: {what}. To repair: {REJOIN}", file.display())]
    Damaged { file: PathBuf, what: String },

    #[error(
        "{} is missing or empty, although {} holds {commits} commits. It says how many of them were acknowledged; without it nobody can tell whether a vote or an \
         entry that others count on has been lost since. If the file was moved away, put it back. To repair otherwise: {REJOIN}, or, without one, take the \
         log as it is, in a new epoch, with `raftwerk scheduler recover --data-dir DIR --yes`",
        mark.display(), file.display()
    )]
    MarkLost { mark: PathBuf, file: PathBuf, commits: u64 },

    #[error("{what} in {} has format {found}, this version reads format {known}. Run the version that wrote it, or a newer one", file.display())]
    UnknownFormat { file: PathBuf, what: String, found: u16, known: u16 },

    #[error("{} belongs to another cluster ({found}), not to {expected}. Start with the data directory of this cluster", file.display())]
    OtherCluster { file: PathBuf, expected: String, found: String },

    #[error("{} belongs to replica {found}, not to replica {expected}. Start with that replica's own data directory", file.display())]
    OtherReplica { file: PathBuf, expected: u64, found: u64 },

    #[error("{} is closed", file.display())]
    Closed { file: PathBuf },

    #[error("an earlier write failed: {0}")]
    Failed(String),
}

impl StoreError {
    pub(super) fn io(doing: &'static str, file: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
        let file = file.to_owned();
        move |source| StoreError::Io { doing, file, source }
    }

    pub(in crate::raft) fn damaged(file: &Path, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { file: file.to_owned(), what: what.into() }
    }
}
