//! `consistent-hash`: the same tasks of the same input go to the same device, in every round and every job, so that it finds in its caches what
//! it has read before. Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016): devices and blocks of tasks are places on
//! a ring, a block belongs to the next device, and a device that has a quarter more than its even share passes it on to the one after it.
//!
//! Where a block was read last (`homes`) counts for more than its place on the ring: the same device comes first, then another one of the same
//! machine, in whose memory it may be as well; both within the bound of all that is left.
//!
//! A block that waits for its own device is passed over as long as others of the round are there; only a device that would stand idle takes what
//! is not its own.

use super::{Candidate, LEASE_NS, Policy, StageRound};
use crate::homes::{Device, NOBODY};
use crate::ids::TaskRange;
use crate::interval_map::IntervalMap;
use crate::ring::place_of;

pub struct ConsistentHash;

/// Places of one device on the ring. Fewer than the ring of copies has: ten thousand devices are put on it in every round, and the bound on
/// loads takes the place of evenness.
const POINTS: u64 = 8;
/// Blocks of a stage per device, about.
const BLOCKS: u64 = 16;
/// Blocks looked at in one round: as many as twice the devices' even shares, and no more than this.
const WINDOW: usize = 8_192;
/// A device may have its even share and a quarter of it.
const BOUND: (u128, u128) = (5, 4);

impl Policy for ConsistentHash {
    fn name(&self) -> &'static str {
        "consistent-hash"
    }

    fn place(&self, stage: &mut StageRound<'_>) {
        let devices = stage.candidates.len();
        // The ring is not made for nobody.
        if !stage.candidates.iter().any(|c| stage.has_room(c)) {
            return;
        }
        let mut points: Vec<(u64, usize)> = Vec::with_capacity(devices * POINTS as usize);
        for (place, candidate) in stage.candidates.iter().enumerate() {
            let slot = stage.slot(candidate);
            points.extend((0..POINTS).map(|n| (place_of(&[slot.worker.0, u64::from(slot.device), n]), place)));
        }
        points.sort_unstable();
        let even = stage.left().div_ceil(2 * devices as u64).max(1);
        let (input, home) = (stage.input(), stage.home());
        let blocks = blocks(stage);
        let mut all: u64 = stage.candidates.iter().map(|c| stage.slot(c).used.tasks).fold(0, u64::saturating_add);
        // Blocks that were read by one device follow each other: what it may have of them is seen at the end only.
        let left = blocks.iter().map(|(_, tasks)| tasks.count()).fold(all, u64::saturating_add);
        let fair = u64::try_from(u128::from(left) * BOUND.0 / (BOUND.1 * devices as u128)).unwrap_or(u64::MAX).max(1);
        let mut others = Vec::new();
        for (block, tasks) in blocks {
            if stage.is_full() {
                return;
            }
            let place = place_of(&[input, block]);
            let from = points.partition_point(|(point, _)| *point < place);
            let share = (u128::from(all) + u128::from(tasks.count())) * BOUND.0 / (BOUND.1 * devices as u128);
            let bound = u64::try_from(share).unwrap_or(u64::MAX).max(1);
            let around = points[from..].iter().chain(&points[..from]).map(|(_, device)| *device);
            // Within the bound whether it has room now or not: it will have some, and a block is better waited for than moved.
            let used = |device: &usize| stage.slot(&stage.candidates[*device]).used.tasks;
            let own = home.and_then(|home| near(stage, home, tasks, |device| used(device) < fair));
            let own = own.or_else(|| around.into_iter().find(|device| used(device) < bound));
            let mut rest = tasks;
            if let Some(candidate) = own.map(|device| stage.candidates[device]) {
                while !rest.is_empty() && lease_some(stage, &candidate, &mut rest, even) {}
                all = all.saturating_add(tasks.count() - rest.count());
            }
            if !rest.is_empty() {
                others.push((from, rest));
            }
        }
        let mut idle = stage.candidates.iter().filter(|c| stage.slot(c).queued_ns < LEASE_NS && stage.has_room(c)).count();
        for (from, mut rest) in others {
            while !rest.is_empty() && idle > 0 && !stage.is_full() {
                let around = points[from..].iter().chain(&points[..from]).map(|(_, device)| *device);
                let next = around.into_iter().find(|device| {
                    let candidate = &stage.candidates[*device];
                    stage.slot(candidate).queued_ns < LEASE_NS && stage.has_room(candidate)
                });
                let Some(device) = next else { return };
                let candidate = stage.candidates[device];
                lease_some(stage, &candidate, &mut rest, even);
                idle -= usize::from(stage.slot(&candidate).queued_ns >= LEASE_NS || !stage.has_room(&candidate));
            }
            if idle == 0 {
                return;
            }
        }
    }
}

/// The device that ran most of the block last, if it is there and within the bound; or else the least busy one of its machine.
fn near(stage: &StageRound<'_>, home: &IntervalMap<Device>, block: TaskRange, is_within: impl Fn(&usize) -> bool) -> Option<usize> {
    let mut ran: Vec<(Device, u64)> = Vec::new();
    for (piece, device) in home.overlapping(block).filter(|(_, device)| *device != NOBODY) {
        match ran.iter_mut().find(|(known, _)| *known == device) {
            Some((_, tasks)) => *tasks += piece.count(),
            None => ran.push((device, piece.count())),
        }
    }
    let (last, _) = ran.into_iter().rev().max_by_key(|(_, tasks)| *tasks)?;
    let key = |candidate: &Candidate| (stage.slot(candidate).worker, stage.slot(candidate).device);
    if let Some(device) = stage.candidates.binary_search_by_key(&last, key).ok().filter(&is_within) {
        return Some(device);
    }
    let first = stage.candidates.partition_point(|candidate| key(candidate).0 < last.0);
    let of_machine = (first..stage.candidates.len()).take_while(|device| key(&stage.candidates[*device]).0 == last.0);
    of_machine.filter(&is_within).min_by_key(|device| stage.slot(&stage.candidates[*device]).used.tasks)
}

/// Leases the beginning of a block: what the device does in one lease, or half its even share of what is left.
fn lease_some(stage: &mut StageRound<'_>, candidate: &Candidate, rest: &mut TaskRange, even: u64) -> bool {
    let count = stage.tasks_by_time(candidate).min(even).min(rest.count());
    let given = stage.lease(candidate, TaskRange { first: rest.first, end: rest.first + count });
    if given {
        rest.first += count;
    }
    given
}

/// Ready tasks cut where blocks end, with the numbers of their blocks. A block is a power of two, so that it is the same for a similar cluster.
fn blocks(stage: &mut StageRound<'_>) -> Vec<(u64, TaskRange)> {
    let about = (stage.tasks / (BLOCKS * stage.candidates.len() as u64).max(1)).max(1);
    let length = (1u64 << about.ilog2()).min(stage.longest.max(1));
    let window = WINDOW.min(2 * BLOCKS as usize * stage.candidates.len());
    let mut blocks = Vec::new();
    while blocks.len() < window {
        let Some(ready) = stage.next_ready() else { break };
        let mut first = ready.first;
        while first < ready.end && blocks.len() < window {
            let end = (first / length).saturating_add(1).saturating_mul(length).min(ready.end);
            blocks.push((first / length, TaskRange { first, end }));
            first = end;
        }
    }
    blocks
}
