//! Consistent hashing: which workers keep the copies of a lease's shuffle data.
//!
//! Every worker owns [`POINTS`] places on a ring of 64-bit numbers; a lease is a place too, and its copy belongs to the owner of the next
//! one (Karger et al., 1997). A worker that comes or goes changes the choice for its own share of the leases only, and leases of one
//! worker spread their copies over all others. Where a copy really went is recorded with the accepted tasks: members come and go.

use crate::ids::{JobId, LeaseId, WorkerId};

/// Places of one worker. With 64 the largest share among ten workers is about a third above the mean.
pub const POINTS: u64 = 64;

#[derive(Clone, Debug, Default)]
pub struct Ring {
    members: Vec<WorkerId>,
    /// Places in ascending order, with their owners.
    points: Vec<(u64, WorkerId)>,
}

impl Ring {
    /// `members` in ascending order.
    pub fn new(members: Vec<WorkerId>) -> Ring {
        let of = |worker: &WorkerId| {
            let worker = *worker;
            (0..POINTS).map(move |n| (mix(mix(worker.0) ^ n), worker))
        };
        let mut points: Vec<(u64, WorkerId)> = members.iter().flat_map(of).collect();
        points.sort_unstable();
        Ring { members, points }
    }

    pub fn members(&self) -> &[WorkerId] {
        &self.members
    }

    /// The first `count` different workers from the lease's place on, without its own.
    pub fn copies(&self, job: JobId, stage: u32, lease: LeaseId, own: WorkerId, count: usize) -> Vec<WorkerId> {
        self.owners(&[job.0, u64::from(stage), u64::from(lease.epoch), lease.index, u64::from(lease.position)], own, count)
    }

    /// The same for the place of anything that numbers name.
    pub fn owners(&self, words: &[u64], own: WorkerId, count: usize) -> Vec<WorkerId> {
        let place = place_of(words);
        let start = self.points.partition_point(|(point, _)| *point < place);
        let mut found = Vec::with_capacity(count.min(self.members.len()));
        for (_, worker) in self.points[start..].iter().chain(&self.points[..start]) {
            if found.len() == count {
                break;
            }
            if *worker != own && !found.contains(worker) {
                found.push(*worker);
            }
        }
        found
    }
}

/// The place of what numbers name.
pub(crate) fn place_of(words: &[u64]) -> u64 {
    words.iter().fold(0, |hash, word| mix(hash ^ mix(*word)))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): every bit of the input reaches every bit of the output.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(members: impl IntoIterator<Item = u64>) -> Ring {
        Ring::new(members.into_iter().map(WorkerId).collect())
    }

    fn lease(index: u64) -> LeaseId {
        LeaseId { epoch: 0, index, position: 0 }
    }

    fn first(ring: &Ring, index: u64) -> WorkerId {
        ring.copies(JobId(1), 0, lease(index), WorkerId(0), 1)[0]
    }

    #[test]
    fn a_copy_never_lies_with_its_own_worker_and_no_worker_is_named_twice() {
        let ring = ring(2..7);
        for index in 0..200 {
            let found = ring.copies(JobId(1), 0, lease(index), WorkerId(3), 9);
            assert_eq!(found.len(), 4, "everybody else, once");
            assert!(!found.contains(&WorkerId(3)));
        }
        assert!(Ring::new(vec![WorkerId(3)]).copies(JobId(1), 0, lease(1), WorkerId(3), 2).is_empty());
        assert!(Ring::default().copies(JobId(1), 0, lease(1), WorkerId(3), 2).is_empty());
    }

    #[test]
    fn a_worker_that_leaves_moves_only_its_own_share() {
        let (all, without) = (ring(2..12), ring((2..12).filter(|n| *n != 7)));
        for index in 0..2000 {
            let before = first(&all, index);
            if before != WorkerId(7) {
                assert_eq!(first(&without, index), before);
            }
        }
    }

    #[test]
    fn copies_spread_over_all_workers() {
        let ring = ring(2..12);
        let mut counts = std::collections::BTreeMap::new();
        for index in 0..10_000 {
            *counts.entry(first(&ring, index)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 10);
        assert!(counts.values().all(|n| (600..1600).contains(n)), "{counts:?}");
    }
}
