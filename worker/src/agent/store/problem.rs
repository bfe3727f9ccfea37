//! What can go wrong with a store.
use raftwerk_proto::v1::FailureClass;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[cfg_attr(feature = "object-stores", allow(dead_code, reason = "said by builds without the feature"))]
    #[error("this build reads and writes no object stores, so not {0}: start workers that were built with `--features object-stores`")]
    NotBuilt(String),
    #[error("`{0}` names no object in a store: write it as s3://bucket/key, without empty parts in the key")]
    Url(String),
    #[error("no object matches '{0}'")]
    NothingMatches(String),
    #[error("'{url}' is not a pattern: {source}")]
    Pattern { url: String, source: glob::PatternError },
    #[error(
        "the store refuses access to {url} (bucket `{bucket}`, key `{key}`): {reason}; set {variables} in the worker's environment, or let its keys in there"
    )]
    Denied { url: String, bucket: String, key: String, reason: String, variables: &'static str },
    #[error("the store has no bucket `{bucket}` (asked for {url}); make it, or set {variables} in the worker's environment to where it is")]
    NoBucket { url: String, bucket: String, variables: &'static str },
    #[error("there is no object {0}")]
    NotFound(String),
    #[error("input changed while the job runs: {0}")]
    Changed(String),
    #[error("the store of {url} cannot be used with these settings: {reason}; look at {variables} in the worker's environment")]
    Settings { url: String, reason: String, variables: &'static str },
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("cannot read {url} as {format}: {reason}")]
    Content { url: String, format: String, reason: String },
    #[error("the output {url} exists already: there is {found}; choose another prefix, or remove it")]
    InTheWay { url: String, found: String },
    #[error("part {part}: its checksum changed between executor and agent")]
    Checksum { part: String },
    #[error("the job has ended")]
    Ended,
    #[error("cannot use a file on this worker: {0}")]
    Local(#[from] std::io::Error),
}

impl StoreError {
    /// Whose trouble it is for the task that meets it.
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::Url(_) | Self::NothingMatches(_) | Self::Pattern { .. } | Self::NotFound(_) | Self::Changed(_) => FailureClass::Fatal,
            Self::Content { .. } | Self::InTheWay { .. } => FailureClass::Fatal,
            // Of this worker: another may have the right keys, settings or build.
            Self::NotBuilt(_) | Self::Denied { .. } | Self::NoBucket { .. } | Self::Settings { .. } => FailureClass::Worker,
            Self::Checksum { .. } | Self::Ended | Self::Local(_) => FailureClass::Worker,
            // The store's own: it was tried for a minute, and may be well after another pause.
            Self::Unreachable { .. } => FailureClass::Task,
        }
    }

    /// Whether the same may go well another time, or on another worker.
    pub(crate) fn retryable(&self) -> bool {
        self.class() != FailureClass::Fatal
    }
}
