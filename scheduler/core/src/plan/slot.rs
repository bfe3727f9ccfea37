//! A device during a round: what it holds, what it has been given since, and how long that will take.

use super::costs::RoundCosts;
use super::speculate::is_overdue;
use super::{QUEUE_NS, View};
use crate::ids::{Session, TaskRange, WorkerId};
use crate::worker::DeviceUse;
use raftwerk_proto::v1::{Capacity, Placement, placement};
use std::collections::BTreeMap;

/// A device of a worker that takes work.
pub struct Slot {
    pub worker: WorkerId,
    pub session: Session,
    /// Index on its worker.
    pub device: u32,
    /// Tasks that make progress at once.
    pub parallelism: u64,
    pub capacity: Capacity,
    /// What it is taken to be able to do, against others, before anything is measured.
    pub weight: u64,
    /// What live leases hold of it, with those of this round.
    pub used: DeviceUse,
    /// Expected time until it has done all it was given.
    pub queued_ns: u64,
    /// Room for work that the round found.
    pub room_ns: u64,
    /// The same without the tasks that its leases have reported.
    pub busy_ns: u64,
    /// It should have ended by far what it holds.
    pub is_overdue: bool,
    /// A task under suspicion runs here alone, or will as soon as the device is idle.
    pub(super) reserved: bool,
}

/// One thread of a CPU is 1. A GPU is what GPUs mostly are beside a CPU of 16 threads: a card of its own four times as much, one that shares the
/// CPU's memory as much, and a software adapter half a thread.
fn weight(class: &str, parallelism: u64) -> u64 {
    match class {
        "discrete" => 128,
        "integrated" => 32,
        "software" => 1,
        _ => 2 * parallelism,
    }
}

impl Slot {
    fn open<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>, worker: WorkerId, device: u32) -> Option<Self> {
        let session = *view.present.get(&worker).filter(|_| !view.suspects.contains(&worker))?;
        let record = view.state.workers.get(&worker).filter(|w| w.session == session)?;
        let found = record.device(device).filter(|_| record.takes_work(device, view.now))?;
        let parallelism = u64::from(found.parallelism.max(1));
        let (mut queued_ns, mut busy_ns, mut overdue) = (0u64, 0u64, false);
        let used = view.state.uses().get(&(worker, device)).copied().unwrap_or_default();
        if used.leases > 0 {
            for (_, lease) in view.state.leases_of(worker).filter(|(_, lease)| lease.device == device) {
                let (all, rest) = costs.left_of(worker, record, found, lease);
                queued_ns = queued_ns.saturating_add(all / parallelism);
                busy_ns = busy_ns.saturating_add(rest / parallelism);
                overdue |= is_overdue(view, lease);
            }
        }
        Some(Slot {
            worker,
            session,
            device,
            parallelism,
            capacity: found.capacity.unwrap_or_default(),
            weight: weight(&found.class, parallelism),
            used,
            queued_ns,
            room_ns: QUEUE_NS.saturating_sub(queued_ns),
            busy_ns,
            is_overdue: overdue,
            reserved: false,
        })
    }

    /// Whether it may be given one more lease of this amount: its queue is not full, and the amount fits.
    pub fn has_room(&self, amount: &Capacity) -> bool {
        self.queued_ns < QUEUE_NS && self.used.fits(&self.capacity, amount)
    }

    /// Takes these tasks, which cost so much device time together.
    pub(super) fn take(&mut self, job: placement::Job, stage: u32, tasks: TaskRange, amount: &Capacity, cost_ns: u64) -> Placement {
        self.used.add(tasks.count(), amount);
        self.queued_ns = self.queued_ns.saturating_add(cost_ns / self.parallelism);
        self.busy_ns = self.busy_ns.saturating_add(cost_ns / self.parallelism);
        Placement {
            job: Some(job),
            stage,
            first_task: tasks.first,
            task_count: tasks.count(),
            worker: self.worker.0,
            session: self.session.0,
            device: self.device,
            speculative: false,
            expected_ms: (self.queued_ns / 1_000_000).max(1),
        }
    }
}

/// The devices looked at in this round; each is opened once.
#[derive(Default)]
pub(super) struct Slots {
    /// Place in `open`; `None` for a device that takes no work now.
    places: BTreeMap<(WorkerId, u32), Option<usize>>,
    open: Vec<Slot>,
}

impl Slots {
    /// The place of a device that takes work now; `reserve` says whether a task under suspicion runs there.
    pub(super) fn find<'a>(
        &mut self,
        view: &'a View<'a>,
        costs: &mut RoundCosts<'a>,
        worker: WorkerId,
        device: u32,
        reserve: impl FnOnce() -> bool,
    ) -> Option<usize> {
        let open = &mut self.open;
        *self.places.entry((worker, device)).or_insert_with(|| {
            let slot = Slot::open(view, costs, worker, device)?;
            open.push(Slot { reserved: reserve(), ..slot });
            Some(open.len() - 1)
        })
    }
}

impl std::ops::Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, place: usize) -> &Slot {
        &self.open[place]
    }
}

impl std::ops::IndexMut<usize> for Slots {
    fn index_mut(&mut self, place: usize) -> &mut Slot {
        &mut self.open[place]
    }
}
