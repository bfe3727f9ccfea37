//! What the log decided of leases and results, and by which entries, read from the logs of the schedulers. Every replica writes it down, the same of
//! each entry, so that the record survives the leader that is killed.

use super::executions::{field, lines};
use raftwerk_core::LeaseId;
use std::collections::{BTreeMap, BTreeSet};

/// A scheduler's log shows what every entry decided.
pub const SCHEDULER_LOG: &str = "info,raftwerk_scheduler::decisions=debug";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The entry's stamp: whoever is given the lease may learn of it much later.
    pub at_us: u64,
    /// Beside another lease that held the tasks.
    pub speculative: bool,
}

/// An entry that took results: its index, the first task, one past the last.
pub type Taken = (u64, u64, u64);

#[derive(Clone, Debug, Default)]
pub struct Decisions {
    pub leases: BTreeMap<LeaseId, Decided>,
    /// By job.
    pub accepted: BTreeMap<u64, BTreeSet<Taken>>,
}

impl Decisions {
    /// Adds what one scheduler has written.
    pub fn read(&mut self, log: &str) {
        for (_, text) in lines(log, "raftwerk_scheduler::decisions") {
            if text.trim_start().starts_with("leased ") {
                self.leases.extend(decided(text));
            } else if let Some((job, taken)) = taken(text) {
                self.accepted.entry(job).or_default().insert(taken);
            }
        }
    }

    /// The entry that took the first result of the task.
    pub fn accepted_by(&self, job: u64, task: u64) -> Option<u64> {
        let mut taken = self.accepted.get(&job)?.iter();
        taken.find(|(_, first, end)| (*first..*end).contains(&task)).map(|(entry, ..)| *entry)
    }
}

fn decided(text: &str) -> Option<(LeaseId, Decided)> {
    let at_us = field(text, "at_ms=")?.parse::<u64>().ok()?.saturating_mul(1000);
    Some((lease(field(text, "lease=")?)?, Decided { at_us, speculative: field(text, "speculative=")? == "true" }))
}

fn taken(text: &str) -> Option<(u64, Taken)> {
    let number = |name| field(text, name)?.parse::<u64>().ok();
    let first = number("first_task=")?;
    Some((number("job=")?, (number("entry=")?, first, first.saturating_add(number("tasks=")?))))
}

/// The id of a lease as logs write it: epoch, entry, place within the entry.
pub fn lease(text: &str) -> Option<LeaseId> {
    let mut parts = text.split('-');
    let epoch = parts.next()?.parse().ok()?;
    let (index, position) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(LeaseId { epoch, index, position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedulers_log_tells_what_was_decided() {
        let log = "\
2026-11-21T09:55:08.000000Z DEBUG raftwerk_scheduler::decisions: leased lease=0-12-1 job=3 stage=0 first_task=7 tasks=2 speculative=true at_ms=1500
2026-11-21T09:55:08.000001Z DEBUG raftwerk_scheduler::decisions: accepted entry=15 lease=0-9-0 job=3 stage=0 first_task=8 tasks=1 at_ms=1502
2026-11-21T09:55:08.000001Z DEBUG raftwerk_scheduler::decisions: accepted entry=13 lease=0-9-0 job=3 stage=0 first_task=7 tasks=2 at_ms=1501
2026-11-21T09:55:08.000002Z  INFO raftwerk_scheduler::edge: leased nothing
2026-11-21T09:55:08.000003Z DEBUG raftwerk_scheduler::decisions: leased lease=0-12
";
        let mut decisions = Decisions::default();
        decisions.read(log);
        // Another replica wrote the same.
        decisions.read(log);
        let id = LeaseId { epoch: 0, index: 12, position: 1 };
        assert_eq!(decisions.leases, BTreeMap::from([(id, Decided { at_us: 1_500_000, speculative: true })]));
        assert_eq!([7, 8, 9].map(|task| decisions.accepted_by(3, task)), [Some(13), Some(13), None]);
        assert_eq!(decisions.accepted_by(4, 7), None);
    }
}
