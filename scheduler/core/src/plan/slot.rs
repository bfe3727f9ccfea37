//! A device during a round: what it holds, what it has been given since, and how long that will take.

use super::costs::RoundCosts;
use super::speculate::is_overdue;
use super::{QUEUE_NS, View};
use crate::ids::{JobId, Session, TaskRange, WorkerId};
use crate::worker::{DeviceUse, StageUse, Worker};
use raftwerk_proto::v1::{Capacity, Device, Placement, placement};
use std::collections::BTreeSet;

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

/// What the state has of one device, side by side.
struct Found<'a, 'o> {
    worker: WorkerId,
    session: Session,
    record: &'a Worker,
    device: &'a Device,
    used: DeviceUse,
    /// By job and stage.
    out: &'o [((JobId, u32), &'a StageUse)],
}

impl Slot {
    fn open<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>, found: &Found<'a, '_>) -> Self {
        let Found { worker, session, record, device, used, out } = *found;
        let parallelism = u64::from(device.parallelism.max(1));
        let (mut queued_ns, mut busy_ns) = (0u64, 0u64);
        for (of, used) in out {
            let (all, rest) = costs.left_of(worker, record, device, *of, used);
            queued_ns = queued_ns.saturating_add(all / parallelism);
            busy_ns = busy_ns.saturating_add(rest / parallelism);
        }
        // It works on the oldest one; those behind it were expected to end after it.
        let oldest = || view.state.leases_of(worker).map(|(_, lease)| lease).find(|lease| lease.device == device.index);
        Slot {
            worker,
            session,
            device: device.index,
            parallelism,
            capacity: device.capacity.unwrap_or_default(),
            weight: weight(&device.class, parallelism),
            used,
            queued_ns,
            room_ns: QUEUE_NS.saturating_sub(queued_ns),
            busy_ns,
            is_overdue: used.leases > 0 && oldest().is_some_and(|lease| is_overdue(view, lease)),
            reserved: false,
        }
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

/// The devices that take work in this round, in the order of (worker, device).
#[derive(Default)]
pub(super) struct Slots {
    open: Vec<Slot>,
    /// Where the last one was found: stages ask in order.
    last: usize,
}

impl Slots {
    /// All of them, with what is registered of each. One walk over workers, sessions and leases side by side: thousands of devices looked up
    /// one by one in each of these are most of the time of a round.
    pub(super) fn of<'a>(
        view: &'a View<'a>,
        costs: &mut RoundCosts<'a>,
        isolated: &BTreeSet<(WorkerId, u32)>,
    ) -> (Slots, Vec<(&'a Worker, &'a Device)>) {
        let (mut open, mut records) = (Vec::with_capacity(view.state.workers.len()), Vec::with_capacity(view.state.workers.len()));
        let mut present = view.present.iter().peekable();
        let mut uses = view.state.uses().iter().peekable();
        let mut stages = view.state.stage_uses().iter().peekable();
        // Of one worker, and of one device of it; filled anew for each.
        let mut held: Vec<(u32, DeviceUse)> = Vec::new();
        let mut out: Vec<((u32, JobId, u32), &StageUse)> = Vec::new();
        let mut indices: Vec<u32> = Vec::new();
        let mut own: Vec<((JobId, u32), &StageUse)> = Vec::new();
        for (&worker, record) in &view.state.workers {
            while present.next_if(|(id, _)| **id < worker).is_some() {}
            held.clear();
            out.clear();
            while let Some((&(id, device), used)) = uses.next_if(|((id, _), _)| *id <= worker) {
                held.extend((id == worker).then_some((device, *used)));
            }
            while let Some((&(id, device, job, stage), used)) = stages.next_if(|((id, ..), _)| *id <= worker) {
                out.extend((id == worker).then_some(((device, job, stage), used)));
            }
            let Some(session) = present.next_if(|(id, _)| **id == worker).map(|(_, session)| *session) else { continue };
            if record.lost || record.session != session || view.suspects.contains(&worker) {
                continue;
            }
            indices.clear();
            indices.extend(record.hello.devices.iter().map(|d| d.index));
            indices.sort_unstable();
            indices.dedup();
            for &index in &indices {
                let Some(device) = record.device(index).filter(|_| record.takes_work(index, view.now)) else { continue };
                own.clear();
                own.extend(out.iter().filter(|((on, ..), _)| *on == index).map(|((_, job, stage), used)| ((*job, *stage), *used)));
                let used = held.iter().find(|(on, _)| *on == index).map_or(DeviceUse::default(), |(_, used)| *used);
                let slot = Slot::open(view, costs, &Found { worker, session, record, device, used, out: &own });
                open.push(Slot { reserved: isolated.contains(&(worker, index)), ..slot });
                records.push((record, device));
            }
        }
        (Slots { open, last: 0 }, records)
    }

    /// The place of a device, if it takes work now.
    pub(super) fn find(&mut self, worker: WorkerId, device: u32) -> Option<usize> {
        let key = |slot: &Slot| (slot.worker, slot.device);
        let is_it = |place: usize| self.open.get(place).is_some_and(|slot| key(slot) == (worker, device));
        let found = if is_it(self.last + 1) { Some(self.last + 1) } else { self.open.binary_search_by_key(&(worker, device), key).ok() };
        self.last = found.unwrap_or(self.last);
        found
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
