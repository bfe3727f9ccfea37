//! What can go wrong with a store.
use raftwerk_proto::v1::FailureClass;

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[cfg_attr(feature = "object-stores", allow(dead_code, reason = "said by builds without the feature"))]
    #[error("this build reads and writes no object stores, so not {0}: start workers that were built with `--features object-stores`")]
    NotBuilt(String),
    #[error("{reason}")]
    Url { url: String, reason: String },
    #[cfg_attr(not(feature = "object-stores"), allow(dead_code, reason = "said of keys that a store is asked for"))]
    #[error("`{0}` names no object in a store: its key has an empty part, `.` or `..`, or a character that no key has")]
    Key(String),
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
    #[cfg_attr(not(feature = "object-stores"), allow(dead_code, reason = "said of objects that were brought"))]
    #[error("{url} has {bytes} bytes instead of {expected}")]
    OtherLength { url: String, bytes: u64, expected: u64 },
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
            Self::Url { .. } | Self::Key(_) | Self::NothingMatches(_) | Self::Pattern { .. } | Self::NotFound(_) | Self::Changed(_) => {
                FailureClass::Fatal
            }
            Self::Content { .. } | Self::InTheWay { .. } | Self::OtherLength { .. } => FailureClass::Fatal,
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

/// Why a result that lies in a store does not come. The texts name the object; what to do about it depends on who asks.
#[derive(Debug, thiserror::Error)]
pub enum StoredResultError {
    #[error("this build reads no object stores, so not {0}")]
    NotBuilt(String),
    /// No keys, wrong ones, or such as may not read this.
    #[error("the store refuses access to {object}: {reason}")]
    Denied { object: String, reason: String, variables: &'static str },
    /// The variables lead to no store that has this.
    #[error("the store of {object} cannot be used: {reason}")]
    Settings { object: String, reason: String, variables: &'static str },
    #[error("{object} is not there")]
    Missing { object: String },
    #[error("{object} is not what the job made: {found}")]
    Different { object: String, found: String },
    #[error("cannot reach {object}: {reason}")]
    Unreachable { object: String, reason: String },
    /// A file here.
    #[error("{0}")]
    Local(std::io::Error),
}

impl From<StoreError> for StoredResultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotBuilt(url) => Self::NotBuilt(url),
            StoreError::Denied { url, reason, variables, .. } => Self::Denied { object: url, reason, variables },
            StoreError::Settings { url, reason, variables } => Self::Settings { object: url, reason, variables },
            StoreError::NoBucket { url, bucket, variables } => {
                Self::Settings { object: url, reason: format!("it has no bucket `{bucket}`"), variables }
            }
            StoreError::NotFound(object) => Self::Missing { object },
            StoreError::OtherLength { url, bytes, expected } => {
                Self::Different { object: url, found: format!("it has {bytes} bytes instead of {expected}") }
            }
            // A range that the object does not have.
            StoreError::Changed(object) => Self::Different { object, found: "it is shorter".into() },
            StoreError::Unreachable { url, reason } => Self::Unreachable { object: url, reason },
            StoreError::Local(error) => Self::Local(error),
            other @ (StoreError::Url { .. }
            | StoreError::Key(_)
            | StoreError::NothingMatches(_)
            | StoreError::Pattern { .. }
            | StoreError::Content { .. }
            | StoreError::InTheWay { .. }
            | StoreError::Checksum { .. }
            | StoreError::Ended) => Self::Local(std::io::Error::other(other.to_string())),
        }
    }
}
