//! When an executor is taken to hang: a task, or the executor as a whole, has shown no sign of progress for longer than the lease has patience.
//!
//! Signs are the recorder (which task each thread runs) and what the executor tells. Time is what this process has lived through: an agent that was
//! stopped, or did not get a processor, must not find its executors guilty of the time in which it could not hear them.
use crate::lease::LeaseKey;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// How often to look.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that came later than this came late because this process stood still.
const LOOK_LATE: Duration = Duration::from_secs(2);
/// When the scheduler expects nothing of a task, and the operator has not said. Tasks are meant to take seconds.
pub(crate) const UNKNOWN: Duration = Duration::from_secs(30 * 60);

/// What a thread of an executor is at: lease, first task and count.
pub(crate) type Running = (LeaseKey, u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Counts up while this process runs.
    lived: Duration,
    last_sign: Duration,
    /// Since when each thread is at what it is at.
    since: HashMap<Running, Duration>,
}

/// An executor that is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hung {
    /// What it hangs in; empty when it does not even begin.
    pub(crate) tasks: Vec<Running>,
    pub(crate) silent: Duration,
    pub(crate) patience: Duration,
}

impl Watch {
    /// The executor has told something.
    pub(crate) fn sign(&mut self) {
        self.last_sign = self.lived;
    }

    /// `owed` are the leases that the executor has to work on, with their patience; `passed` is the time since the last look.
    pub(crate) fn look(&mut self, passed: Duration, running: &[Running], owed: &BTreeMap<LeaseKey, Duration>) -> Option<Hung> {
        self.lived += passed.min(LOOK_LATE);
        let before = std::mem::take(&mut self.since);
        self.since = running.iter().map(|now| (*now, before.get(now).copied().unwrap_or(self.lived))).collect();
        if owed.is_empty() || self.since.len() != before.len() || self.since.keys().any(|now| !before.contains_key(now)) {
            self.sign();
        }
        let patience = |running: &Running| owed.get(&running.0).copied();
        let mut tasks: Vec<(Running, Duration)> = self.since.iter().map(|(running, since)| (*running, self.lived - *since)).collect();
        tasks.retain(|(running, age)| patience(running).is_some_and(|patience| *age > patience));
        tasks.sort_unstable();
        if let Some(silent) = tasks.iter().map(|(_, age)| *age).max() {
            let tasks: Vec<Running> = tasks.into_iter().map(|(running, _)| running).collect();
            let patience = tasks.iter().filter_map(patience).max().unwrap_or_default();
            return Some(Hung { tasks, silent, patience });
        }
        let (patience, silent) = (owed.values().max().copied()?, self.lived - self.last_sign);
        // Threads at leases that this agent has already given up are none of these.
        let mut tasks: Vec<Running> = running.iter().copied().filter(|running| owed.contains_key(&running.0)).collect();
        tasks.sort_unstable();
        (silent > patience).then_some(Hung { tasks, silent, patience })
    }
}

impl std::fmt::Display for Hung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (silent, patience) = (self.silent.as_secs(), self.patience.as_secs());
        write!(f, "the executor was ended: no sign of progress for {silent} s (patience: {patience} s)")?;
        for (at, (lease, first, count)) in self.tasks.iter().enumerate() {
            f.write_str(if at == 0 { " on " } else { ", " })?;
            match count {
                1 => write!(f, "task {first} of lease {lease}")?,
                _ => write!(f, "tasks {first}..{} of lease {lease}", first + count - 1)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseKey = LeaseKey { epoch: 0, index: 5, position: 0 };
    const OTHER: LeaseKey = LeaseKey { epoch: 0, index: 6, position: 0 };
    const SECOND: Duration = Duration::from_secs(1);

    fn owed(leases: &[(LeaseKey, u64)]) -> BTreeMap<LeaseKey, Duration> {
        leases.iter().map(|(lease, seconds)| (*lease, Duration::from_secs(*seconds))).collect()
    }

    /// How many looks pass before it is taken to hang.
    fn looks(watch: &mut Watch, running: impl Fn(u64) -> Vec<Running>, owed: &BTreeMap<LeaseKey, Duration>) -> Option<(u64, Hung)> {
        (1..=100).find_map(|at| watch.look(SECOND, &running(at), owed).map(|hung| (at, hung)))
    }

    #[test]
    fn a_task_that_does_not_end_is_named_though_others_go_on() {
        let running = |at| vec![(LEASE, 3, 1), (LEASE, 100 + at, 1)];
        let (at, hung) = looks(&mut Watch::default(), running, &owed(&[(LEASE, 10)])).unwrap();
        assert_eq!((at, &hung.tasks[..]), (12, &[(LEASE, 3, 1)][..]));
        assert_eq!(hung.to_string(), "the executor was ended: no sign of progress for 11 s (patience: 10 s) on task 3 of lease 0-5-0");
    }

    #[test]
    fn each_lease_has_its_own_patience_and_what_has_none_is_not_blamed() {
        let running = |_| vec![(LEASE, 3, 1), (OTHER, 4, 2), (LeaseKey { epoch: 9, ..LEASE }, 1, 1)];
        let (at, hung) = looks(&mut Watch::default(), running, &owed(&[(LEASE, 50), (OTHER, 20)])).unwrap();
        assert_eq!((at, &hung.tasks[..]), (22, &[(OTHER, 4, 2)][..]));
        assert!(hung.to_string().ends_with("(patience: 20 s) on tasks 4..5 of lease 0-6-0"), "{hung}");
    }

    #[test]
    fn an_executor_that_begins_nothing_hangs_as_well_and_an_idle_one_does_not() {
        let mut watch = Watch::default();
        assert_eq!(looks(&mut watch, |_| Vec::new(), &owed(&[])), None);
        let (at, hung) = looks(&mut watch, |_| Vec::new(), &owed(&[(LEASE, 10)])).unwrap();
        assert!(at == 11 && hung.tasks.is_empty(), "{at} {hung}");
        // What it tells is a sign.
        let mut watch = Watch::default();
        for _ in 0..100 {
            assert_eq!(watch.look(SECOND, &[], &owed(&[(LEASE, 10)])), None);
            watch.sign();
        }
    }

    #[test]
    fn time_in_which_the_agent_itself_stood_still_does_not_count() {
        let (mut watch, owed) = (Watch::default(), owed(&[(LEASE, 10)]));
        assert_eq!(watch.look(SECOND, &[(LEASE, 3, 1)], &owed), None);
        assert_eq!(watch.look(Duration::from_secs(3600), &[(LEASE, 3, 1)], &owed), None);
        assert_eq!(watch.look(SECOND, &[(LEASE, 4, 1)], &owed), None);
        assert!(looks(&mut watch, |_| vec![(LEASE, 4, 1)], &owed).is_some());
    }
}
