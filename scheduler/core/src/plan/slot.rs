//! A device during a round: what it holds, what it has been given since, and how long that will take.

use super::costs::{At, RoundCosts};
use super::kinds::Kinds;
use super::speculate::is_overdue;
use super::{QUEUE_NS, View};
use crate::cost::ORDINARY;
use crate::ids::{JobId, Session, TaskRange, WorkerId};
use crate::lease::Held;
use crate::worker::{DeviceUse, StageUse};
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
    /// Of its kind's ordinary time.
    pub(super) speed_permille: u64,
    pub(super) kind: usize,
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
    at: At,
    session: Session,
    /// Any device of the kind.
    device: &'a Device,
    used: DeviceUse,
    /// What of it is out, by job and stage.
    out: &'o [((u32, JobId, u32), &'a StageUse)],
    /// It works on the oldest one; those behind it were expected to end after it.
    oldest: Option<Held>,
}

impl Slot {
    fn open<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>, kinds: &Kinds<'a>, found: &Found<'a, '_>) -> Self {
        let Found { at, session, device, used, out, oldest } = *found;
        let parallelism = u64::from(device.parallelism.max(1));
        let (mut queued_ns, mut busy_ns) = (0u64, 0u64);
        for ((_, job, stage), used) in out.iter().filter(|((on, ..), _)| *on == at.device) {
            let (all, rest) = costs.left_of(at, kinds, (*job, *stage), used);
            queued_ns = queued_ns.saturating_add(all / parallelism);
            busy_ns = busy_ns.saturating_add(rest / parallelism);
        }
        Slot {
            worker: at.worker,
            session,
            device: at.device,
            parallelism,
            capacity: device.capacity.unwrap_or_default(),
            weight: weight(&device.class, parallelism),
            used,
            queued_ns,
            room_ns: QUEUE_NS.saturating_sub(queued_ns),
            busy_ns,
            is_overdue: used.leases > 0 && oldest.is_some_and(|lease| is_overdue(view, at.worker, &lease)),
            reserved: false,
            speed_permille: at.speed_permille,
            kind: at.kind,
        }
    }

    pub(super) fn at(&self) -> At {
        At { worker: self.worker, device: self.device, kind: self.kind, speed_permille: self.speed_permille }
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
}

impl Slots {
    /// All of them, and the kinds of all devices there are. One walk over workers, sessions and leases side by side: thousands of devices looked up
    /// one by one in each of these are most of the time of a round.
    pub(super) fn of<'a>(view: &'a View<'a>, costs: &mut RoundCosts<'a>, isolated: &BTreeSet<(WorkerId, u32)>) -> (Slots, Kinds<'a>) {
        let (mut open, mut kinds) = (Vec::with_capacity(view.state.workers.len()), Kinds::default());
        let mut present = view.present.iter().peekable();
        let mut uses = view.state.uses().iter().peekable();
        let mut stages = view.state.stage_uses().iter().peekable();
        let mut leases = view.state.holders.iter().peekable();
        // Of one worker; filled anew for each.
        let mut held: Vec<(u32, DeviceUse)> = Vec::new();
        let mut out: Vec<((u32, JobId, u32), &StageUse)> = Vec::new();
        let mut oldest: Vec<Held> = Vec::new();
        for (&worker, record) in &view.state.workers {
            while present.next_if(|(id, _)| **id < worker).is_some() {}
            held.clear();
            out.clear();
            oldest.clear();
            while let Some((&(id, device), used)) = uses.next_if(|((id, _), _)| *id <= worker) {
                held.extend((id == worker).then_some((device, *used)));
            }
            while let Some((&(id, device, job, stage), used)) = stages.next_if(|((id, ..), _)| *id <= worker) {
                out.extend((id == worker).then_some(((device, job, stage), used)));
            }
            while let Some((&(id, _), lease)) = leases.next_if(|((id, _), _)| *id <= worker) {
                let is_first = id == worker && oldest.iter().all(|older| older.device != lease.device);
                oldest.extend(is_first.then_some(*lease));
            }
            let session = present.next_if(|(id, _)| **id == worker).map(|(_, session)| *session);
            if record.lost {
                continue;
            }
            let takes_work = session == Some(record.session) && !view.suspects.contains(&worker);
            for alike in &record.devices {
                let Some(kind) = kinds.of(record, alike) else { continue };
                if !takes_work || !record.takes_work(alike.index, view.now) {
                    continue;
                }
                let speed_permille = record.speeds.get(&alike.index).map_or(ORDINARY, |speed| speed.permille);
                let at = At { worker, device: alike.index, kind, speed_permille };
                let found = Found {
                    at,
                    session: record.session,
                    device: kinds.device(kind),
                    used: held.iter().find(|(on, _)| *on == at.device).map_or(DeviceUse::default(), |(_, used)| *used),
                    out: &out,
                    oldest: oldest.iter().find(|lease| lease.device == at.device).copied(),
                };
                let slot = Slot::open(view, costs, &kinds, &found);
                open.push(Slot { reserved: isolated.contains(&(worker, at.device)), ..slot });
            }
        }
        (Slots { open }, kinds)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> + '_ {
        self.open.iter().enumerate()
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
