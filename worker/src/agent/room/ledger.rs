//! What is promised of a worker's room and not written yet: copies on their way here, and what the leases that run are expected to write.
//!
//! What a task writes is known when it has written it. So the leases of a stage are admitted by what others of it have written per task, and
//! while nothing is known of one, it runs alone among those that leave data: the quota is then passed by what one lease writes at the most.
use std::collections::BTreeMap;

/// Stages that are remembered; the oldest jobs go first.
const STAGES: usize = 4096;

/// Job and number of a stage.
pub(super) type Stage = (u64, u32);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Bytes of copies and parts that are on their way here.
    pub(super) arriving: u64,
    next: u64,
    leases: BTreeMap<u64, Writing>,
    /// The most bytes per task that a report of a lease has had, by stage.
    seen: BTreeMap<Stage, u64>,
}

#[derive(Debug)]
struct Writing {
    stage: Stage,
    tasks_left: u64,
}

/// Whether a lease may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Under this number.
    Now(u64),
    /// When another lease has told what it wrote, or ended.
    Later,
}

impl Ledger {
    /// What the leases that run are expected to write still, as far as that is known.
    pub(super) fn expected(&self) -> u64 {
        let of = |lease: &Writing| self.seen.get(&lease.stage).map_or(0, |per_task| per_task.saturating_mul(lease.tasks_left));
        self.leases.values().map(of).fold(0, u64::saturating_add)
    }

    /// `free` is what is left of the quota when nothing that is promised counts.
    pub(super) fn admit(&mut self, stage: Stage, tasks: u64, free: u64) -> Admission {
        if !self.leases.is_empty() {
            let known = self.leases.values().all(|lease| self.seen.contains_key(&lease.stage));
            let Some(own) = self.seen.get(&stage).filter(|_| known).map(|per_task| per_task.saturating_mul(tasks)) else {
                return Admission::Later;
            };
            if self.arriving.saturating_add(self.expected()).saturating_add(own) > free {
                return Admission::Later;
            }
        }
        self.next += 1;
        self.leases.insert(self.next, Writing { stage, tasks_left: tasks });
        Admission::Now(self.next)
    }

    /// Tasks of the lease have ended and left so many bytes.
    pub(super) fn wrote(&mut self, lease: u64, tasks: u64, bytes: u64) {
        let Some(writing) = self.leases.get_mut(&lease).filter(|_| tasks > 0) else { return };
        writing.tasks_left = writing.tasks_left.saturating_sub(tasks);
        let most = self.seen.entry(writing.stage).or_default();
        *most = (*most).max(bytes.div_ceil(tasks));
        while self.seen.len() > STAGES {
            self.seen.pop_first(); // job numbers only grow
        }
    }

    /// Tasks of the lease have failed, or run elsewhere.
    pub(super) fn skipped(&mut self, lease: u64, tasks: u64) {
        if let Some(writing) = self.leases.get_mut(&lease) {
            writing.tasks_left = writing.tasks_left.saturating_sub(tasks);
        }
    }

    pub(super) fn ended(&mut self, lease: u64) {
        self.leases.remove(&lease);
    }

    pub(super) fn forget(&mut self, job: u64) {
        self.seen.retain(|(of, _), _| *of != job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(admission: Admission) -> u64 {
        match admission {
            Admission::Now(lease) => lease,
            Admission::Later => panic!("it has to wait"),
        }
    }

    #[test]
    fn a_lease_of_which_nothing_is_known_runs_alone_and_the_others_by_what_it_wrote() {
        let mut ledger = Ledger::default();
        let first = admitted(ledger.admit((1, 0), 4, 100));
        assert_eq!(ledger.admit((1, 0), 1, 100), Admission::Later, "nothing is known");
        ledger.wrote(first, 1, 10);
        assert_eq!(ledger.expected(), 30);
        let second = admitted(ledger.admit((1, 0), 7, 100));
        assert_eq!(ledger.admit((1, 0), 1, 100), Admission::Later, "all is promised");
        assert_eq!(ledger.admit((1, 1), 1, 1_000), Admission::Later, "of this stage nothing is known");
        ledger.ended(first);
        ledger.skipped(second, 3);
        admitted(ledger.admit((1, 0), 1, 100));
    }

    #[test]
    fn the_largest_tasks_count_and_a_stage_that_writes_nothing_never_waits() {
        let mut ledger = Ledger::default();
        let lease = admitted(ledger.admit((1, 0), 10, 50));
        ledger.wrote(lease, 2, 6);
        ledger.wrote(lease, 2, 2);
        assert_eq!(ledger.expected(), 18);
        ledger.ended(lease);
        ledger.forget(1);
        let lease = admitted(ledger.admit((1, 0), 10, 50));
        ledger.wrote(lease, 1, 0);
        admitted(ledger.admit((1, 0), u64::MAX, 50));
        assert_eq!(ledger.expected(), 0);
    }
}
