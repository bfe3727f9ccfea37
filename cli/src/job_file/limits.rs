//! How large a job may be. `docs/job-file.md` repeats these numbers.

/// Tasks are ranges in the replicated state, so a task costs nothing until it is leased; beyond this a typing error is more likely than a wish.
pub const MAX_TASKS: u64 = 1_000_000_000_000;

/// Tasks of a range when the job file leaves the number open: enough for forty devices to finish together.
pub const DEFAULT_RANGE_TASKS: u64 = 1_000;

/// Every index of a range is below 2^63, so that it fits a signed column too.
pub const MAX_INDEX: u64 = i64::MAX as u64;

/// Every map task keeps an index entry for every partition.
pub const MAX_SHUFFLE_BLOCKS: u64 = 1_000_000_000;

pub const MAX_PARTITIONS: u64 = 65_536;

/// The worker that made the data, and one more.
pub const MAX_SHUFFLE_REPLICAS: u64 = 2;

/// Workers that keep each part of a result that stays on workers.
pub const MAX_RESULT_COPIES: u64 = 5;

/// A pattern travels in the job spec, which lives in the replicated state.
pub const MAX_PATTERNS: usize = 10_000;

pub const MIN_SPLIT_BYTES: u64 = 1 << 10;

/// A longer record would be longer than the sample that is taken of it, and than a sensible split.
pub const MAX_RECORD_BYTES: u64 = 1 << 20;

/// A split is in the executor's memory as a whole while its task runs.
pub const MAX_SPLIT_BYTES: u64 = 1 << 30;

/// Long enough that the cost of a task is small beside reading it, short enough that 100 MB keep four cores busy.
pub const DEFAULT_SPLIT_BYTES: u64 = 16 << 20;

pub const MAX_ATTEMPTS: u64 = 100;

/// Attempts charged to one task before its job fails, when the job file leaves it open.
pub const DEFAULT_ATTEMPTS: u64 = 4;

/// Higher goes first; 50 is the usual one.
pub const MAX_PRIORITY: u64 = 100;
pub const DEFAULT_PRIORITY: u32 = 50;

pub const MAX_NAME_CHARS: usize = 128;

/// Jobs that one may start after.
pub const MAX_AFTER: usize = 100;
