//! What is done to the fleet, drawn from the seed.

use super::dice::Dice;
use super::fleet::Fleet;
use super::proxy::{CLIENTS, NodeId};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9, and a restart from the same data directory.
    Kill,
    /// SIGSTOP, a while, SIGCONT.
    Stop,
    /// Nothing arrives, both ways, or one way only.
    Cut,
    /// Everything arrives later.
    Delay,
    /// Some of it arrives much later, as after a lost packet.
    Drop,
    /// Connections break.
    Reset,
    /// Connections break at one end; the other is not told.
    HalfOpen,
}

const NAMES: [(&str, Fault); 7] = [
    ("kill", Fault::Kill),
    ("stop", Fault::Stop),
    ("cut", Fault::Cut),
    ("delay", Fault::Delay),
    ("drop", Fault::Drop),
    ("reset", Fault::Reset),
    ("half-open", Fault::HalfOpen),
];

impl Fault {
    pub fn all() -> Vec<Fault> {
        NAMES.iter().map(|(_, fault)| *fault).collect()
    }

    /// Cuts are made with addresses in a network namespace; what treats connections one by one needs the proxies.
    pub fn needs_proxies(self) -> bool {
        matches!(self, Fault::Delay | Fault::Drop | Fault::Reset | Fault::HalfOpen)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, fault)| fault == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let known = || NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, fault)| *fault)
            .ok_or_else(|| format!("there is no fault `{text}`; there are {}", known()))
    }
}

/// What was done, for the report.
#[derive(Default, Debug)]
pub struct Done {
    pub leader_kills: usize,
    /// Seconds from each kill to a new leader that a client is told of.
    pub elections: Vec<f64>,
    pub worker_kills: usize,
    /// One line each.
    pub lines: Vec<String>,
}

/// A gap between two leaders that wants an explanation.
const LONG_GAP_S: f64 = 10.0;

/// Kills the leader, waits for the next one, and restarts the dead one.
pub fn kill_leader(fleet: &mut Fleet, dice: &mut Dice, done: &mut Done) {
    let leader = fleet.living_leader();
    let killed = Instant::now();
    fleet.kill_scheduler(leader);
    let next = fleet.living_leader();
    let gap = killed.elapsed().as_secs_f64();
    if gap > LONG_GAP_S {
        println!("no leader was known for {gap:.1} s; the last that everybody said:\n{}", fleet.logs());
    }
    done.leader_kills += 1;
    done.elections.push(gap);
    done.lines.push(format!("kill -9 of leader scheduler-{}; scheduler-{} leads after {gap:.2} s", leader + 1, next + 1));
    pause(dice, 0, 1000);
    fleet.revive();
}

/// One fault, from its beginning to good weather again. At most one scheduler is harmed at a time, so a majority is always there.
pub fn strike(fleet: &mut Fleet, fault: Fault, dice: &mut Dice, done: &mut Done) {
    let schedulers = fleet.schedulers.len();
    let workers = fleet.workers.len();
    // A third each: the leader, some other scheduler or the leader, a worker.
    let node = match dice.below(3) {
        0 => fleet.living_leader(),
        1 => dice.below(schedulers as u64) as usize,
        _ => fleet.worker_node(dice.below(workers as u64) as usize),
    };
    let is_worker = node >= schedulers;
    let name = if is_worker { format!("worker-{}", node - schedulers + 1) } else { format!("scheduler-{}", node + 1) };
    let line = match fault {
        Fault::Kill if is_worker => {
            fleet.kill_worker(node - schedulers);
            done.worker_kills += 1;
            let ms = pause(dice, 0, 3000);
            format!("kill -9 of {name}, restarted after {ms} ms")
        }
        Fault::Kill if fleet.leader() == Some(node) => {
            kill_leader(fleet, dice, done);
            return;
        }
        Fault::Kill => {
            fleet.kill_scheduler(node);
            let ms = pause(dice, 0, 3000);
            format!("kill -9 of follower {name}, restarted after {ms} ms")
        }
        Fault::Stop => {
            if is_worker {
                fleet.stop_worker(node - schedulers);
            } else {
                fleet.stop_scheduler(node);
            }
            // Now and then longer than a lease.
            let ms = if dice.one_in(4) { pause(dice, 11_000, 20_000) } else { pause(dice, 500, 5000) };
            format!("SIGSTOP of {name} for {ms} ms")
        }
        Fault::Cut => cut(fleet, node, &name, dice),
        Fault::Delay => {
            let ms = dice.between(10, 120);
            each_pair(fleet, node, "delay", |proxies, from, to| proxies.delay(from, to, ms));
            let lasted = pause(dice, 2000, 8000);
            format!("{ms} ms later to and from {name} for {lasted} ms")
        }
        Fault::Drop => {
            let permille = dice.between(20, 150);
            each_pair(fleet, node, "loss", |proxies, from, to| proxies.lose(from, to, permille));
            let lasted = pause(dice, 2000, 8000);
            format!("{permille} of 1000 pieces to and from {name} lost and sent again, for {lasted} ms")
        }
        Fault::Reset => {
            let mut broken = 0;
            for _ in 0..dice.between(1, 4) {
                touch_workers(fleet, node, "reset");
                broken += fleet.network.fine(node).map_or(0, |proxies| proxies.reset(node));
                pause(dice, 100, 700);
            }
            format!("{broken} connections of {name} reset")
        }
        Fault::HalfOpen => {
            touch_workers(fleet, node, "half-open");
            let broken = fleet.network.fine(node).map_or(0, |proxies| proxies.half_open(node));
            let lasted = pause(dice, 1000, 6000);
            format!("{broken} connections into {name} half-open for {lasted} ms")
        }
    };
    done.lines.push(line);
    fleet.heal();
}

fn cut(fleet: &mut Fleet, node: NodeId, name: &str, dice: &mut Dice) -> String {
    let everybody = fleet.everybody();
    let others = everybody.iter().copied().filter(|o| *o != node);
    let how = match dice.below(4) {
        0 => {
            fleet.cut_off(node, others);
            "from everybody"
        }
        1 => {
            // Clients and workers still reach a leader that cannot reach the other replicas.
            let schedulers = fleet.schedulers.len();
            fleet.cut_off(node, 0..schedulers);
            "from the schedulers"
        }
        2 => {
            others.for_each(|other| fleet.cut(node, other));
            "in what it says"
        }
        _ => {
            others.filter(|o| *o != CLIENTS).for_each(|other| fleet.cut(other, node));
            "in what it hears from nodes"
        }
    };
    let ms = if dice.one_in(4) { pause(dice, 11_000, 16_000) } else { pause(dice, 500, 6000) };
    format!("{name} cut off {how} for {ms} ms")
}

fn each_pair(fleet: &mut Fleet, node: NodeId, what: &str, change: impl Fn(&super::proxy::Proxies, NodeId, NodeId)) {
    touch_workers(fleet, node, what);
    for other in fleet.everybody().into_iter().filter(|o| *o != node) {
        if let Some(proxies) = fleet.network.fine(node) {
            change(proxies, node, other);
            change(proxies, other, node);
        }
    }
}

/// A bad line between a scheduler and a worker touches the worker: its session may be lost with it.
fn touch_workers(fleet: &mut Fleet, node: NodeId, what: &str) {
    let schedulers = fleet.schedulers.len();
    let nodes = if node < schedulers { schedulers..schedulers + fleet.workers.len() } else { node..node + 1 };
    nodes.for_each(|worker| fleet.touch_node(worker, what));
}

/// Milliseconds slept.
pub fn pause(dice: &mut Dice, least: u64, most: u64) -> u64 {
    let ms = dice.between(least, most);
    std::thread::sleep(Duration::from_millis(ms));
    ms
}
