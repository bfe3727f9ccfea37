//! The plan of faults: what happens when, all from the seed. How each is done is in [`super::strike`].

use raftwerk_scheduler::raft::sim::Dice;

/// One fault. Times are milliseconds that it lasts; whom it hits is drawn when it happens.
#[derive(Clone, Debug)]
pub enum Fault {
    KillReplica {
        down: u64,
    },
    KillLeader {
        down: u64,
    },
    KillAllReplicas {
        down: u64,
    },
    StopReplica {
        ms: u64,
    },
    StopLeader {
        ms: u64,
    },
    CutReplicas {
        ms: u64,
        one_way: bool,
    },
    IsolateReplica {
        ms: u64,
    },
    /// Its workers still reach it, and it them.
    IsolateLeader {
        ms: u64,
    },
    LossAndRepeats {
        ms: u64,
        loss: u64,
        repeats: u64,
    },
    SlowNetwork {
        ms: u64,
        most: u64,
    },
    SlowDisk {
        ms: u64,
        flush: u64,
    },
    /// The next write to the log or of a snapshot is reported as failed, and the replica stops. Its transaction is there all the same if it is kept, and
    /// torn otherwise; a snapshot is never there.
    FailWrite {
        kept: bool,
        down: u64,
    },
    FlipBit {
        bit: u64,
        down: u64,
    },
    ClockJump {
        hours: i64,
    },
    AddReplica,
    RemoveReplica,
    HandOver,
    KillWorker {
        down: u64,
        silent: bool,
    },
    StopWorker {
        ms: u64,
    },
    /// Longer than the lease time: it comes back as a zombie.
    Zombie {
        ms: u64,
    },
    /// The same, but it works on while nobody hears it.
    CutWorker {
        ms: u64,
        up: bool,
        down: bool,
    },
    ResetStream,
    KillExecutor,
    Goodbye {
        down: u64,
    },
    RepeatReports {
        ms: u64,
    },
    SlowWorkers {
        ms: u64,
        most: u64,
    },
    /// One worker computes so many times slower.
    Straggler {
        ms: u64,
        times: u64,
    },
    CutClient {
        ms: u64,
    },
    /// A worker whose device kills whatever runs there.
    SickDevice {
        ms: u64,
    },
    /// A decided part is gone when its publisher comes.
    LosePart,
    /// All replicas but one are lost for good; it is recovered by force.
    LoseMajority,
}

impl Fault {
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::KillReplica { .. } => "replica killed",
            Fault::KillLeader { .. } => "leader killed",
            Fault::KillAllReplicas { .. } => "all replicas killed at once",
            Fault::StopReplica { .. } => "replica stopped and continued",
            Fault::StopLeader { .. } => "leader stopped and continued",
            Fault::CutReplicas { one_way: true, .. } => "replicas cut one way",
            Fault::CutReplicas { .. } => "replicas cut both ways",
            Fault::IsolateReplica { .. } => "replica cut off from all",
            Fault::IsolateLeader { .. } => "leader cut off while nothing is proposed",
            Fault::LossAndRepeats { .. } => "messages lost, late and repeated",
            Fault::SlowNetwork { .. } => "slow network",
            Fault::SlowDisk { .. } => "slow disk",
            Fault::FailWrite { kept: true, .. } => "write reported as failed, and kept",
            Fault::FailWrite { .. } => "write torn",
            Fault::FlipBit { .. } => "bit flipped on disk",
            Fault::ClockJump { .. } => "clock jumped an hour",
            Fault::AddReplica => "replica added",
            Fault::RemoveReplica => "replica removed",
            Fault::HandOver => "leadership handed over",
            Fault::KillWorker { silent: true, .. } => "worker lost in silence",
            Fault::KillWorker { .. } => "worker killed",
            Fault::StopWorker { .. } => "worker stopped and continued",
            Fault::Zombie { .. } => "worker stopped past its lease",
            Fault::CutWorker { up: true, down: true, .. } => "worker cut both ways",
            Fault::CutWorker { .. } => "worker cut one way",
            Fault::ResetStream => "stream reset",
            Fault::KillExecutor => "executor killed",
            Fault::Goodbye { .. } => "worker shut down",
            Fault::RepeatReports { .. } => "reports repeated",
            Fault::SlowWorkers { .. } => "slow way to workers",
            Fault::Straggler { .. } => "slow worker",
            Fault::CutClient { .. } => "client cut off",
            Fault::LoseMajority => "all replicas but one lost",
            Fault::SickDevice { .. } => "sick device",
            Fault::LosePart => "prepared part lost",
        }
    }

    fn draw(dice: &mut Dice) -> Fault {
        let short = 200 + dice.below(3_000);
        let long = 1_000 + dice.below(9_000);
        match dice.below(43) {
            0 | 1 => Fault::KillReplica { down: long },
            2..=4 => Fault::KillLeader { down: short },
            5 => Fault::KillAllReplicas { down: short },
            6 => Fault::StopReplica { ms: long },
            7 | 8 => Fault::StopLeader { ms: long },
            9 => Fault::CutReplicas { ms: long, one_way: dice.below(2) == 0 },
            // Longer than a lease, so that those who stay with it would be taken for lost.
            10 => Fault::IsolateReplica { ms: long * 3 / 2 },
            11 => Fault::LossAndRepeats { ms: long, loss: 10 + dice.below(150), repeats: 10 + dice.below(150) },
            12 => Fault::SlowNetwork { ms: long, most: 5 + dice.below(60) },
            13 => Fault::SlowDisk { ms: long, flush: 1 + dice.below(80) },
            14 => Fault::FailWrite { kept: dice.below(2) == 0, down: short },
            15 | 16 => Fault::FlipBit { bit: dice.roll(), down: short },
            17 | 18 => Fault::ClockJump { hours: if dice.below(2) == 0 { 1 } else { -1 } },
            19 => Fault::AddReplica,
            20 => Fault::RemoveReplica,
            21 => Fault::HandOver,
            22..=24 => Fault::KillWorker { down: long, silent: dice.below(2) == 0 },
            25 => Fault::StopWorker { ms: short },
            26 | 27 => Fault::Zombie { ms: 10_500 + dice.below(15_000) },
            28 | 29 => {
                let ways = dice.below(3);
                Fault::CutWorker { ms: 4_000 + dice.below(20_000), up: ways != 1, down: ways != 2 }
            }
            30 | 31 => Fault::ResetStream,
            32 => Fault::KillExecutor,
            33 => Fault::Goodbye { down: short },
            // A little slower: it ends about when a second lease begins.
            35 if dice.below(2) == 0 => Fault::Straggler { ms: 3 * long, times: 2 + dice.below(4) },
            35 | 36 => Fault::Straggler { ms: 3 * long, times: 3 + dice.below(40) },
            38 => Fault::LosePart,
            39 => Fault::LoseMajority,
            40 => Fault::SickDevice { ms: long },
            34 => Fault::RepeatReports { ms: long * 3 },
            _ if dice.below(2) == 0 => Fault::SlowWorkers { ms: long, most: 20 + dice.below(400) },
            _ => Fault::CutClient { ms: long },
        }
    }
}

/// Planned for each seed at least: one in ten or so finds nobody to strike, and [`super::run`] wants twenty that were carried out.
const LEAST_PLANNED: usize = 30;

/// Faults from `from` to `until`, with the times at which they begin.
pub fn plan(dice: &mut Dice, from: u64, until: u64) -> Vec<(u64, Fault)> {
    // Some seeds are rough, some are rougher.
    let pause = 3_000 + dice.below(6_000);
    let mut plan = Vec::new();
    let mut at = from;
    while at < until {
        plan.push((at, Fault::draw(dice)));
        at += 200 + dice.below(2 * pause);
    }
    while plan.len() < LEAST_PLANNED {
        plan.push((from + dice.below(until - from), Fault::draw(dice)));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// Every so-manieth seed has a time in which a few long tasks run and nobody has anything to say, and its leader is cut off from the other replicas:
/// without proposals it is only by their silence that it can notice.
pub const QUIET_EVERY: u64 = 3;

/// Of [`Fault::IsolateReplica`].
const LONGEST_CUT_MS: u64 = 15_000;

/// Clears the plan for that time, which begins shortly after `from`, when the long tasks are submitted.
pub fn quiet(plan: &mut Vec<(u64, Fault)>, from: u64) {
    // What cuts replicas off from each other ends for all of them at once: none that began before may end in the middle.
    let cuts = |fault: &Fault| matches!(fault, Fault::CutReplicas { .. } | Fault::IsolateReplica { .. });
    let begins = |fault: &Fault| if cuts(fault) { from.saturating_sub(LONGEST_CUT_MS) } else { from + 500 };
    plan.retain(|(at, fault)| !(begins(fault)..from + 18_000).contains(at));
    plan.push((from + 4_000, Fault::IsolateLeader { ms: 14_000 }));
    plan.sort_by_key(|(at, _)| *at);
}
