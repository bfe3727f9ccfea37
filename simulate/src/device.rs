//! A virtual device: threads that take tasks in order, one lease after another without a pause between them, as a real executor does; and a
//! link that brings the input of the next lease while this one is computed.

use crate::dice::Dice;
use crate::rate::{Ns, Rate};
use raftwerk_core::LeaseId;
use raftwerk_core::ids::TaskRange;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

pub struct Device {
    pub group: u32,
    pub parallelism: u32,
    pub rate: Rate,
    pub alive: bool,
    /// Times at which each thread is free.
    threads: Threads,
    link_free: Ns,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    /// Counts what was done to the queue, so that an event of before is known as such.
    pub turn: u32,
    /// Thread time spent, and of it on what was in vain.
    pub busy: u64,
    pub wasted: u64,
    pub leases: u64,
    pub tasks: u64,
    pub jitter: Option<(f64, Dice)>,
}

/// The stage that a lease is of: places of the job and of the stage in it.
pub type Of = (u32, u32);

/// A lease that has arrived.
pub struct Waiting {
    pub lease: LeaseId,
    pub of: Of,
    pub tasks: TaskRange,
    /// When its input is there.
    pub ready: Ns,
}

/// A lease whose tasks have been taken by threads.
pub struct Running {
    pub lease: LeaseId,
    pub of: Of,
    pub tasks: TaskRange,
    pub begun: Ns,
    pub end: Ns,
    /// Of each task: when it ends and what it takes of its thread. An end of 0: it was told.
    ends: Vec<(Ns, u64)>,
    launch: u64,
    launch_told: bool,
    /// Threads as they were, to take tasks back that nobody has begun.
    before: Threads,
}

/// One thread is most devices; then there is nothing to choose from.
#[derive(Clone)]
enum Threads {
    One(Ns),
    Many(BinaryHeap<Reverse<Ns>>),
}

impl Threads {
    fn new(parallelism: u32, free: Ns) -> Threads {
        if parallelism <= 1 { Threads::One(free) } else { Threads::Many((0..parallelism).map(|_| Reverse(free)).collect()) }
    }

    fn first_free(&self) -> Ns {
        match self {
            Threads::One(free) => *free,
            Threads::Many(free) => free.peek().map_or(0, |f| f.0),
        }
    }

    /// The first free thread takes something that ends at what `until` says of its beginning.
    fn take(&mut self, until: impl FnOnce(Ns) -> Ns) -> (Ns, Ns) {
        match self {
            Threads::One(free) => {
                let from = *free;
                *free = until(from);
                (from, *free)
            }
            Threads::Many(all) => {
                let Some(mut first) = all.peek_mut() else { return (0, 0) };
                let from = first.0;
                let end = until(from);
                *first = Reverse(end);
                (from, end)
            }
        }
    }
}

/// What is told of a lease.
#[derive(Default)]
pub struct Told {
    pub ranges: Vec<TaskRange>,
    pub busy: u64,
    pub last: bool,
}

impl Device {
    pub fn new(group: u32, parallelism: u32, rate: Rate) -> Device {
        Device {
            group,
            parallelism,
            rate,
            alive: true,
            threads: Threads::new(parallelism, 0),
            link_free: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            turn: 0,
            busy: 0,
            wasted: 0,
            leases: 0,
            tasks: 0,
            jitter: None,
        }
    }

    /// A lease arrives; its input takes so long over the link.
    pub fn arrive(&mut self, now: Ns, lease: LeaseId, of: Of, tasks: TaskRange, transfer: Ns) {
        let ready = self.link_free.max(now).saturating_add(transfer);
        self.link_free = ready;
        self.waiting.push_back(Waiting { lease, of, tasks, ready });
        self.leases += 1;
    }

    /// When the next waiting lease can begin.
    pub fn next_begin(&self, now: Ns) -> Option<Ns> {
        self.waiting.front().map(|w| w.ready.max(self.threads.first_free()).max(now))
    }

    pub fn first_waiting(&self) -> Option<Of> {
        self.waiting.front().map(|w| w.of)
    }

    /// Threads take all tasks of the first waiting lease. `takes` gives the full-speed time of a task.
    pub fn begin(&mut self, now: Ns, launch: Ns, mut takes: impl FnMut(u64) -> u64) -> Option<&Running> {
        let waiting = self.waiting.pop_front()?;
        let before = self.threads.clone();
        let slower =
            self.jitter.map_or(1.0, |(percent, dice)| 1.0 + percent / 100.0 * dice.normal(self.leases ^ waiting.tasks.first).abs());
        let rate = &self.rate;
        // The launch holds one thread, and every task until it is over.
        let (_, open) = self.threads.take(|free| rate.finish(free.max(now), launch));
        let (mut end, mut ends) = (open, Vec::with_capacity(waiting.tasks.count() as usize));
        for task in waiting.tasks.first..waiting.tasks.end {
            let work = (takes(task) as f64 * slower) as u64;
            let (from, until) = self.threads.take(|free| rate.finish(free.max(open), work));
            ends.push((until.max(1), until.saturating_sub(from.max(open))));
            end = end.max(until);
        }
        let launch = open.saturating_sub(now);
        self.running.push(Running {
            lease: waiting.lease,
            of: waiting.of,
            tasks: waiting.tasks,
            begun: now,
            end,
            ends,
            launch,
            launch_told: false,
            before,
        });
        self.running.last()
    }

    fn place(&self, lease: LeaseId) -> Option<usize> {
        self.running.iter().position(|r| r.lease == lease)
    }

    /// What of the lease is done by now and was not told; takes the lease out when that is all.
    pub fn tell(&mut self, now: Ns, lease: LeaseId) -> Option<(Told, Span)> {
        let place = self.place(lease)?;
        let running = &mut self.running[place];
        let mut told = Told { last: running.end <= now, ..Told::default() };
        if !std::mem::replace(&mut running.launch_told, true) {
            told.busy += running.launch;
        }
        for (number, (end, busy)) in running.ends.iter_mut().enumerate() {
            if *end == 0 || *end > now {
                continue;
            }
            *end = 0;
            told.busy += *busy;
            let task = running.tasks.first + number as u64;
            match told.ranges.last_mut() {
                Some(last) if last.end == task => last.end += 1,
                _ => told.ranges.push(TaskRange { first: task, end: task + 1 }),
            }
        }
        self.busy += told.busy;
        self.tasks += told.ranges.iter().map(|r| r.count()).sum::<u64>();
        let seen = Span { of: running.of, begun: running.begun, end: running.end };
        if told.last {
            self.running.swap_remove(place);
        }
        Some((told, seen))
    }

    /// The lease has ended elsewhere: what has not begun is not begun, and what runs ends with its task, in vain. Tells what of it was run.
    pub fn stop(&mut self, now: Ns, lease: LeaseId) -> Option<Span> {
        if let Some(at) = self.waiting.iter().position(|w| w.lease == lease) {
            self.waiting.remove(at);
            return None;
        }
        let place = self.place(lease)?;
        let running = self.running.swap_remove(place);
        let spent = running.spent(now);
        self.busy += spent;
        self.wasted += spent;
        if running.ends.iter().any(|(end, busy)| *end > 0 && end.saturating_sub(*busy) > now) {
            // Nothing after it has begun, because its own tasks have not all begun. Tasks that have begun keep their threads.
            let mut threads = running.before;
            let open = running.begun + running.launch;
            threads.take(|free| free.max(open));
            let mut own: Vec<Ns> = running.ends.iter().filter(|(end, busy)| *end > now && end - busy <= now).map(|(end, _)| *end).collect();
            own.sort_unstable();
            let mut left = own.into_iter();
            let mut freed: Vec<Ns> = Vec::new();
            for _ in 0..self.parallelism {
                let mut was = 0;
                threads.take(|free| {
                    was = free;
                    Ns::MAX
                });
                freed.push(if was > now { was } else { left.next().unwrap_or(now) });
            }
            self.threads = match self.parallelism {
                0 | 1 => Threads::One(freed.first().copied().unwrap_or(now)),
                _ => Threads::Many(freed.into_iter().map(Reverse).collect()),
            };
        }
        Some(Span { of: running.of, begun: running.begun, end: running.end.min(now.max(running.begun)) })
    }

    /// Everything on it is gone; what ran is given with its beginning.
    pub fn die(&mut self, now: Ns) -> Vec<Span> {
        self.alive = false;
        self.waiting.clear();
        let mut begun = Vec::new();
        for running in std::mem::take(&mut self.running) {
            let spent = running.spent(now);
            self.busy += spent;
            self.wasted += spent;
            begun.push(Span { of: running.of, begun: running.begun, end: now });
        }
        begun
    }

    pub fn revive(&mut self, now: Ns) {
        self.alive = true;
        self.threads = Threads::new(self.parallelism, now);
        self.link_free = now;
    }
}

/// When a lease began and ends.
pub struct Span {
    pub of: Of,
    pub begun: Ns,
    pub end: Ns,
}

impl Running {
    /// Thread time that it has taken by now and that was not told.
    fn spent(&self, now: Ns) -> u64 {
        let launch = if self.launch_told { 0 } else { self.launch.min(now.saturating_sub(self.begun)) };
        let tasks = self.ends.iter().filter(|(end, _)| *end > 0).map(|(end, busy)| busy.saturating_sub(end.saturating_sub(now)));
        launch + tasks.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(index: u64) -> LeaseId {
        LeaseId { epoch: 0, index, position: 0 }
    }

    fn range(first: u64, count: u64) -> TaskRange {
        TaskRange { first, end: first + count }
    }

    fn with_lease(parallelism: u32, tasks: u64) -> Device {
        let mut device = Device::new(0, parallelism, Rate::default());
        device.arrive(0, lease(1), (0, 0), range(0, tasks), 0);
        device
    }

    #[test]
    fn threads_take_tasks_in_order_and_the_next_lease_begins_without_a_pause() {
        let mut device = with_lease(2, 3);
        device.arrive(0, lease(2), (0, 0), range(3, 2), 0);
        assert_eq!(device.begin(0, 0, |_| 10).map(|r| r.end), Some(20));
        assert_eq!(device.next_begin(0), Some(10), "one thread is free while the third task runs");
        assert_eq!(device.begin(10, 0, |_| 10).map(|r| r.end), Some(30));
        let (told, _) = device.tell(10, lease(1)).expect("it runs");
        assert_eq!((told.ranges, told.busy, told.last), (vec![range(0, 2)], 20, false));
        let (told, _) = device.tell(20, lease(1)).expect("it ends");
        assert_eq!((told.ranges, told.busy, told.last), (vec![range(2, 1)], 10, true));
        assert!(device.tell(20, lease(1)).is_none());
    }

    #[test]
    fn a_launch_holds_every_task_and_input_comes_first() {
        let mut device = Device::new(0, 2, Rate::default());
        device.arrive(0, lease(1), (0, 0), range(0, 2), 100);
        device.arrive(0, lease(2), (0, 0), range(2, 2), 100);
        assert_eq!(device.next_begin(0), Some(100));
        assert_eq!(device.begin(100, 5, |_| 10).map(|r| r.end), Some(115));
        assert_eq!(device.next_begin(100), Some(200), "its input came over the same link, after the first one's");
        assert_eq!(device.tell(115, lease(1)).map(|(told, _)| told.busy), Some(25));
    }

    #[test]
    fn what_a_stopped_lease_has_not_begun_is_not_run() {
        let mut device = with_lease(2, 6);
        device.begin(0, 0, |_| 10);
        device.arrive(3, lease(2), (0, 0), range(6, 2), 0);
        assert_eq!(device.next_begin(3), Some(30));
        let span = device.stop(12, lease(1)).expect("it ran");
        assert_eq!((span.begun, span.end), (0, 12));
        assert_eq!(device.next_begin(12), Some(20), "tasks that run go on to their end");
        assert_eq!((device.busy, device.wasted), (24, 24));
        assert!(device.stop(12, lease(2)).is_none() && device.next_begin(12).is_none(), "one that waits is simply gone");
    }

    #[test]
    fn a_device_that_dies_has_nothing_when_it_comes_back() {
        let mut device = with_lease(1, 4);
        device.begin(0, 0, |_| 10);
        assert_eq!(device.die(15).len(), 1);
        assert_eq!((device.busy, device.alive), (15, false));
        device.revive(50);
        assert!(device.tell(60, lease(1)).is_none());
        device.arrive(55, lease(2), (0, 0), range(0, 1), 0);
        assert_eq!(device.next_begin(55), Some(55));
    }
}
