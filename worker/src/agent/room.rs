//! How much of its disk a worker gives to data that jobs leave on it: what map tasks write, copies of other workers' data, and results.
//!
//! Over the quota, or with too little of the disk left, a worker is full: it takes no more tasks that leave data, and says so with its
//! heartbeats. Tasks that only read what is there go on: they lead to the end of jobs, which gives the space back.
use super::{results::store::ResultStore, shuffle::store::ShuffleStore};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The disk is asked at most this often how much is free: a lease may report hundreds of times a second.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What a worker may use, as its operator says.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskLimits {
    /// Bytes of shuffle data and results together; without it the disk is the limit.
    pub quota_bytes: Option<u64>,
    /// Of the disk under the data directory so much stays free.
    pub min_free_bytes: u64,
}

pub(crate) struct Room {
    limits: DiskLimits,
    dir: PathBuf,
    store: Arc<ShuffleStore>,
    results: Arc<ResultStore>,
    free: Mutex<Option<(Instant, u64)>>,
    was_full: AtomicBool,
}

impl Room {
    pub(crate) fn new(limits: DiskLimits, dir: PathBuf, store: Arc<ShuffleStore>, results: Arc<ResultStore>) -> Self {
        Self { limits, dir, store, results, free: Mutex::default(), was_full: AtomicBool::new(false) }
    }

    pub(crate) fn limits(&self) -> DiskLimits {
        self.limits
    }

    /// Bytes of shuffle data and results.
    pub(crate) fn used(&self) -> u64 {
        self.store.bytes() + self.results.bytes()
    }

    fn free_bytes(&self) -> Option<u64> {
        let mut asked = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = asked.filter(|(at, _)| at.elapsed() < ASK_EVERY) {
            return Some(bytes);
        }
        // A file system that does not say how much is free says no when it is full.
        let bytes = rustix::fs::statvfs(&self.dir).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))?;
        *asked = Some((Instant::now(), bytes));
        Some(bytes)
    }

    /// Why nothing more may be left here, if so.
    pub(crate) fn full(&self) -> Option<String> {
        let used = self.used();
        let reason = match self.limits.quota_bytes {
            Some(quota) if used >= quota => {
                Some(format!("shuffle data and results in {} take {used} bytes, and --shuffle-quota is {quota}", self.dir.display()))
            }
            _ if self.limits.min_free_bytes == 0 => None,
            _ => self.free_bytes().filter(|free| *free < self.limits.min_free_bytes).map(|free| {
                format!(
                    "{free} bytes are free on the disk of {}, and --min-free-disk is {}",
                    self.dir.display(),
                    self.limits.min_free_bytes
                )
            }),
        };
        let full = reason.is_some();
        if self.was_full.swap(full, Ordering::Relaxed) != full {
            match &reason {
                Some(reason) => tracing::warn!(reason, "full: no more tasks that leave data here until jobs have ended"),
                None => tracing::info!("there is room again for tasks that leave data here"),
            }
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::LeaseKey;
    use raftwerk_proto::v1::BlockIndex;

    #[test]
    fn a_worker_is_full_at_its_quota_and_has_room_again_when_the_job_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(ShuffleStore::open(dir.path()).unwrap());
        let results = Arc::new(ResultStore::open(dir.path()).unwrap());
        let room = |quota_bytes, min_free_bytes| {
            Room::new(DiskLimits { quota_bytes, min_free_bytes }, dir.path().to_owned(), store.clone(), results.clone())
        };
        let of_ten = room(Some(10), 0);
        assert_eq!(of_ten.full(), None);
        let (path, _) = store.create(1, 0, 1, LeaseKey { epoch: 0, index: 5, position: 0 }).unwrap();
        store.add(1, "map", 1, &path, &[], &[BlockIndex { bytes: 10, ..BlockIndex::default() }]);
        assert!(of_ten.full().unwrap().contains("take 10 bytes, and --shuffle-quota is 10"));
        assert_eq!(room(None, 0).full(), None);
        assert!(room(None, u64::MAX).full().unwrap().contains("--min-free-disk"));
        store.release(1).unwrap();
        assert_eq!(of_ten.full(), None);
    }
}
