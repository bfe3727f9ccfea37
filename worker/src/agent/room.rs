//! How much of its disk a worker gives to data that jobs leave on it: what map tasks write, copies of other workers' data, results, and files that
//! clients have brought.
//!
//! Over the quota, or with too little of the disk left, a worker is full: it takes no more tasks that leave data, and says so with its
//! heartbeats. Tasks that only read what is there go on: they lead to the end of jobs, which gives the space back. What comes from other
//! workers is promised its room before a byte of it is taken ([`Room::reserve`]); leases that leave data begin when they fit ([`Room::place`]).
mod ledger;

use super::{results::store::ResultStore, shuffle::store::ShuffleStore, uploads::store::UploadStore};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

use ledger::{Admission, Ledger};

/// The disk is asked at most this often how much is free: a lease may report hundreds of times a second.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What a worker may use, as its operator says.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskLimits {
    /// Bytes of shuffle data, results and uploads together; without it the disk is the limit.
    pub quota_bytes: Option<u64>,
    /// Of the disk under the data directory so much stays free.
    pub min_free_bytes: u64,
}

pub(crate) struct Room {
    limits: DiskLimits,
    dir: PathBuf,
    store: Arc<ShuffleStore>,
    results: Arc<ResultStore>,
    uploads: Arc<UploadStore>,
    free: Mutex<Option<(Instant, u64)>>,
    was_full: AtomicBool,
    ledger: Mutex<Ledger>,
    /// A lease has told what it wrote, or something has ended.
    changed: Notify,
}

/// Room that was promised to data from another worker; given back when it is dropped, and by then the data itself counts.
pub(crate) struct Reserved {
    room: Arc<Room>,
    bytes: u64,
}

/// A lease that leaves data and may run.
pub(crate) struct Place {
    room: Arc<Room>,
    /// Nowhere without a quota.
    number: Option<u64>,
}

impl Room {
    pub(crate) fn new(
        limits: DiskLimits,
        dir: PathBuf,
        store: Arc<ShuffleStore>,
        results: Arc<ResultStore>,
        uploads: Arc<UploadStore>,
    ) -> Self {
        Self {
            limits,
            dir,
            store,
            results,
            uploads,
            free: Mutex::default(),
            was_full: AtomicBool::new(false),
            ledger: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn limits(&self) -> DiskLimits {
        self.limits
    }

    /// Bytes of shuffle data, results and uploads.
    fn used(&self) -> u64 {
        self.store.bytes() + self.results.bytes() + self.uploads.bytes()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises room to data from another worker, or says why there is none.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, String> {
        let mut reserved = Reserved { room: self.clone(), bytes: 0 };
        reserved.grow(bytes)?;
        Ok(reserved)
    }

    fn take(&self, more: u64) -> Result<(), String> {
        if let Some(reason) = self.full() {
            return Err(reason);
        }
        let mut ledger = self.ledger();
        let (used, arriving, expected) = (self.used(), ledger.arriving, ledger.expected());
        let after = arriving.saturating_add(more);
        if let Some(quota) = self.limits.quota_bytes
            && used.saturating_add(expected).saturating_add(after) > quota
        {
            return Err(format!(
                "{more} bytes more do not fit: shuffle data, results and uploads in {} take {used} bytes, {arriving} are on their way, running leases \
                 are expected to leave {expected}, and --shuffle-quota is {quota}",
                self.dir.display()
            ));
        }
        if self.limits.min_free_bytes > 0
            && let Some(free) = self.free_bytes()
            && free.saturating_sub(after) < self.limits.min_free_bytes
        {
            return Err(format!(
                "{more} bytes more do not fit: {free} bytes are free on the disk of {}, {arriving} are on their way, and --min-free-disk is {}",
                self.dir.display(),
                self.limits.min_free_bytes
            ));
        }
        ledger.arriving = after;
        Ok(())
    }

    /// Waits until a lease that leaves data fits beside those that run, or says why nothing more may be left here. It never waits for itself: what
    /// it waits for are leases that run, and they end.
    pub(crate) async fn place(self: &Arc<Self>, job: u64, stage: u32, tasks: u64) -> Result<Place, String> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking: what changes in between must not be missed.
            changed.as_mut().enable();
            if let Some(reason) = self.full() {
                return Err(reason);
            }
            let Some(quota) = self.limits.quota_bytes else { return Ok(Place { room: self.clone(), number: None }) };
            let admission = self.ledger().admit((job, stage), tasks, quota.saturating_sub(self.used()));
            match admission {
                Admission::Now(number) => return Ok(Place { room: self.clone(), number: Some(number) }),
                Admission::Later => changed.await,
            }
        }
    }

    /// The job's data is gone.
    pub(crate) fn released(&self, job: u64) {
        self.ledger().forget(job);
        self.changed.notify_waiters();
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
        let arriving = self.ledger().arriving;
        let reason = match self.limits.quota_bytes {
            Some(quota) if used.saturating_add(arriving) >= quota => {
                let on_their_way = if arriving > 0 { format!(", {arriving} more are on their way") } else { String::new() };
                let dir = self.dir.display();
                Some(format!("shuffle data, results and uploads in {dir} take {used} bytes{on_their_way}, and --shuffle-quota is {quota}"))
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

impl Reserved {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When more comes than was said.
    pub(crate) fn grow(&mut self, to: u64) -> Result<(), String> {
        let more = to.saturating_sub(self.bytes);
        self.room.take(more)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut ledger = self.room.ledger();
        ledger.arriving = ledger.arriving.saturating_sub(self.bytes);
        drop(ledger);
        self.room.changed.notify_waiters();
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.number).finish()
    }
}

impl Place {
    /// Tasks have ended and left so many bytes.
    pub(crate) fn wrote(&self, tasks: u64, bytes: u64) {
        if let Some(number) = self.number {
            self.room.ledger().wrote(number, tasks, bytes);
            self.room.changed.notify_waiters();
        }
    }

    /// Tasks have ended and left nothing.
    pub(crate) fn skipped(&self, tasks: u64) {
        if let Some(number) = self.number {
            self.room.ledger().skipped(number, tasks);
            self.room.changed.notify_waiters();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.room.ledger().ended(number);
            self.room.changed.notify_waiters();
        }
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
        let uploads = Arc::new(UploadStore::open(dir.path()).unwrap());
        let room = |quota_bytes, min_free_bytes| {
            let limits = DiskLimits { quota_bytes, min_free_bytes };
            Room::new(limits, dir.path().to_owned(), store.clone(), results.clone(), uploads.clone())
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

    #[tokio::test]
    async fn what_comes_is_promised_its_room_first_and_a_lease_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(ShuffleStore::open(dir.path()).unwrap());
        let results = Arc::new(ResultStore::open(dir.path()).unwrap());
        let limits = DiskLimits { quota_bytes: Some(100), min_free_bytes: 0 };
        let uploads = Arc::new(UploadStore::open(dir.path()).unwrap());
        let room = Arc::new(Room::new(limits, dir.path().to_owned(), store.clone(), results, uploads));
        let mut copy = room.reserve(60).unwrap();
        let refused = room.reserve(41).err().unwrap();
        assert!(refused.contains("41 bytes more do not fit") && refused.contains("60 are on their way"), "{refused}");
        copy.grow(100).unwrap();
        assert!(copy.grow(101).is_err() && copy.bytes() == 100);
        assert!(room.full().unwrap().contains("100 more are on their way, and --shuffle-quota is 100"));
        drop(copy);
        assert_eq!(room.full(), None);

        let first = room.place(1, 0, 10).await.unwrap();
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.place(1, 0, 5).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "of the stage nothing is known");
        first.wrote(1, 9);
        assert!(room.reserve(20).is_err(), "81 are expected of the lease that runs");
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "it would write 45, and 19 are not promised");
        drop(first);
        waiting.await.unwrap().unwrap();

        let (path, _) = store.create(1, 0, 1, LeaseKey { epoch: 0, index: 5, position: 0 }).unwrap();
        store.add(1, "map", 1, &path, &[], &[BlockIndex { bytes: 100, ..BlockIndex::default() }]);
        assert!(room.place(1, 0, 1).await.is_err() && room.reserve(0).is_err());
    }
}
