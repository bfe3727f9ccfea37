//! The rules once more, as simply as they can be said: one record per task, plain loops, no intervals, no indexes. Written from
//! `docs/operations.md` and the state diagrams, not from the code.

mod failures;

use failures::clear;

use std::collections::{BTreeMap, BTreeSet};

pub type Lease = (u64, u32); // log index, position
type Worker = u64;
type Device = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Task,
    Executor,
    Worker,
    Device,
    Source(Worker),
    Stopped,
    Fatal,
}

#[derive(Clone, Debug)]
pub enum Do {
    Register {
        worker: Worker,
        devices: u32,
    },
    /// `rounds` is 0 for a job without rounds. With `joins` it has five stages: map, reduce, a map over its parts, another map, and a join of those two
    /// in so many tasks.
    Submit {
        tasks: u64,
        partitions: u64,
        joins: u64,
        max_attempts: u32,
        goes_on: bool,
        rounds: u32,
        gang: u32,
    },
    Cancel {
        job: u64,
    },
    Grant(Vec<Placement>),
    Report {
        worker: Worker,
        reports: Vec<Report>,
    },
    End(Vec<Lease>),
    Lose {
        worker: Worker,
        session: u64,
    },
    FinishPublish {
        job: u64,
        fails: bool,
    },
    FailJob {
        job: u64,
    },
    EndQuarantine {
        worker: Worker,
    },
    Drain {
        worker: Worker,
    },
    /// The next number for a machine.
    Mint,
    RemoveReplica {
        replica: u64,
    },
    /// Of the one namespace.
    Terms(Terms),
    Hold {
        job: u64,
        stage: usize,
        devices: Vec<(Worker, Device)>,
        until: u64,
    },
    GiveBack {
        job: u64,
        stage: usize,
        until: u64,
    },
    Start {
        job: u64,
        stage: usize,
        placements: Vec<Placement>,
    },
}

/// What a namespace may have; 0 is no limit. How many devices is for the planner to respect, and no rule of what may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub weight: u32,
    pub max_jobs: u32,
    pub max_devices: u32,
}

/// Of every gang in the test.
pub const HOLD_MS: u64 = 5_000;

/// Devices that are held for a stage, which begins on all of them or none.
#[derive(Clone, Debug, Default)]
pub struct HoldIs {
    pub devices: BTreeSet<(Worker, Device)>,
    pub until: u64,
    pub given_back: u32,
    pub again_at: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub job: u64,
    pub stage: usize,
    pub first: u64,
    pub count: u64,
    pub worker: Worker,
    pub session: u64,
    pub device: Device,
    pub speculative: bool,
}

#[derive(Clone, Debug)]
pub struct Report {
    pub lease: Lease,
    pub job: u64,
    pub stage: usize,
    pub results: Vec<(u64, u64)>,
    pub failures: Vec<(u64, u64, Class)>,
    pub last: bool,
    /// What the reduce task of a job with rounds says.
    pub converged: bool,
}

/// Bytes that every task reads.
pub const BYTES: u64 = 7;

/// The number that a task returns when this worker runs it: a result taken from the loser of a race would show.
pub fn value(task: u64, worker: Worker) -> u64 {
    task + worker * 1_000_000
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskIs {
    Free { not_before: u64 },
    Held(Vec<Lease>),
    Accepted { at: Worker, generation: u32 },
    SetAside,
}

#[derive(Clone, Debug)]
pub struct Task {
    pub is: TaskIs,
    pub charged: u32,
    pub died_on: BTreeSet<Worker>,
    /// Those that died together and have not parted since bear the same number.
    group: u64,
    /// In the tallies already.
    counted: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Stage {
    pub tasks: Vec<Task>,
    pub open: bool,
    pub generation: u32,
    pub tally: u128,
    /// Records read, and bytes: so many that a lost race would show, and as many for every task.
    pub records_in: u64,
    pub bytes_in: u64,
    pub fenced: u64,
    pub failed: u64,
    pub speculated: u64,
    pub wins: u64,
    /// Devices on which it begins at once; 0 for any.
    gang: usize,
    begun: bool,
    /// Stages that it reads.
    reads: Vec<usize>,
}

/// Whether that stage of a job of so many has a map kernel, which counts.
pub fn is_map(stages: usize, stage: usize) -> bool {
    stage == 0 || (stages == 5 && (stage == 2 || stage == 3))
}

impl Stage {
    fn waits_for_gang(&self) -> bool {
        self.open && !self.begun && self.gang > 0
    }

    fn complete(&self) -> bool {
        self.tasks.iter().all(|t| matches!(t.is, TaskIs::Accepted { .. } | TaskIs::SetAside))
    }

    /// Tasks that it runs beside another lease.
    fn raced_by(&self, lease: Lease) -> u64 {
        self.tasks.iter().filter(|t| matches!(&t.is, TaskIs::Held(by) if by.len() == 2 && by.contains(&lease))).count() as u64
    }

    fn take_from(&mut self, lease: Lease) {
        for task in &mut self.tasks {
            let_go(task, lease);
        }
    }

    fn held(&self, lease: Lease) -> impl Iterator<Item = usize> + '_ {
        self.tasks.iter().enumerate().filter(move |(_, t)| matches!(&t.is, TaskIs::Held(by) if by.contains(&lease))).map(|(n, _)| n)
    }
}

fn let_go(task: &mut Task, lease: Lease) {
    if let TaskIs::Held(by) = &mut task.is {
        by.retain(|l| *l != lease);
        if by.is_empty() {
            task.is = TaskIs::Free { not_before: 0 };
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Running,
    Publishing,
    Done,
    Failed,
    Cancelled,
}

#[derive(Clone, Debug)]
pub struct Job {
    pub phase: Phase,
    pub stages: Vec<Stage>,
    max_attempts: u32,
    goes_on: bool,
    pub excluded: BTreeSet<Worker>,
    pub excluded_devices: BTreeSet<(Worker, Device)>,
    source_failures: BTreeMap<Worker, u32>,
    /// Partition -> who prepared it.
    pub parts: BTreeMap<u64, Worker>,
    pub shares: BTreeMap<(usize, Worker, Device), u64>,
    /// Rounds at most; 0: it has none.
    pub max_rounds: u32,
    /// How those that ended did so.
    pub ended: Vec<bool>,
}

impl Job {
    /// Whether somebody has still to read what the stage makes, who is wanted himself; the last one is.
    fn wanted(&self, stage: usize) -> bool {
        let reads = |reader: &usize| self.stages[*reader].reads.contains(&stage);
        let unfinished = |reader: usize| !self.stages[reader].complete() && self.wanted(reader);
        stage + 1 == self.stages.len() || (0..self.stages.len()).filter(reads).any(unfinished)
    }

    fn rounds_are_over(&self) -> bool {
        self.ended.len() as u32 >= self.max_rounds || self.ended.contains(&true)
    }

    fn ended(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Failed | Phase::Cancelled)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    strikes: u32,
    times: u32,
    pub until: u64,
}

#[derive(Clone, Debug)]
pub struct WorkerIs {
    pub session: u64,
    pub devices: u32,
    pub lost: bool,
    pub drained: bool,
    pub standing: Standing,
    pub device_standing: BTreeMap<Device, Standing>,
}

#[derive(Clone, Debug)]
pub struct LeaseIs {
    pub job: u64,
    pub stage: usize,
    generation: u32,
    pub first: u64,
    pub end: u64,
    pub worker: Worker,
    pub device: Device,
    speculative: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub now: u64,
    pub jobs: BTreeMap<u64, Job>,
    pub workers: BTreeMap<Worker, WorkerIs>,
    pub leases: BTreeMap<Lease, LeaseIs>,
    pub holds: BTreeMap<(u64, usize), HoldIs>,
    pub terms: Option<Terms>,
    pub removed_replicas: BTreeSet<u64>,
    minted: u64,
    groups: u64,
}

/// Leases that one device can hold, as the test registers it.
const SLOTS: usize = 8;

enum Then {
    FailJob,
    LoseSource(Worker),
    StrikeWorker,
    StrikeDevice,
}

impl Model {
    /// The numbers that it mints.
    pub fn entry(&mut self, index: u64, now: u64, commands: &[Do]) -> Vec<u64> {
        self.now = self.now.max(now);
        let mut position = 0;
        let mut minted = Vec::new();
        for command in commands {
            match command.clone() {
                Do::Register { worker, devices } => {
                    let times = self.workers.get(&worker).map_or(0, |w| w.standing.times);
                    self.drop_worker(worker);
                    for job in self.jobs.values_mut().filter(|j| !j.ended()) {
                        job.excluded.remove(&worker);
                        job.excluded_devices.retain(|(w, _)| *w != worker);
                    }
                    let standing = Standing { times, ..Standing::default() };
                    let fresh =
                        WorkerIs { session: index, devices, lost: false, drained: false, standing, device_standing: BTreeMap::new() };
                    self.workers.insert(worker, fresh);
                }
                Do::Submit { tasks, partitions, joins, max_attempts, goes_on, rounds, gang } => {
                    self.submit([tasks, partitions, joins], max_attempts, goes_on, rounds, gang as usize)
                }
                Do::Cancel { job } => {
                    if self.jobs.get(&job).is_some_and(|j| j.phase == Phase::Running) {
                        self.end_job(job, Phase::Cancelled);
                    }
                }
                Do::Grant(placements) => {
                    for placement in placements {
                        if self.grantable(&placement, false) {
                            self.grant(placement, (index, position));
                            position += 1;
                        }
                    }
                }
                Do::Report { worker, reports } => reports.into_iter().for_each(|r| self.report(worker, r)),
                Do::End(leases) => leases.into_iter().for_each(|l| self.end_lease(l)),
                Do::Lose { worker, session } => {
                    if self.workers.get(&worker).is_some_and(|w| w.session == session && !w.lost) {
                        self.drop_worker(worker);
                        self.workers.entry(worker).and_modify(|w| w.lost = true);
                    }
                }
                Do::FinishPublish { job, fails } => {
                    if self.jobs.get(&job).is_some_and(|j| j.phase == Phase::Publishing) {
                        self.end_job(job, if fails { Phase::Failed } else { Phase::Done });
                    }
                }
                Do::FailJob { job } => self.end_job(job, Phase::Failed),
                Do::EndQuarantine { worker } => {
                    if let Some(w) = self.workers.get_mut(&worker) {
                        w.standing = Standing::default();
                        w.device_standing.clear();
                        w.drained = false;
                    }
                }
                Do::Drain { worker } => {
                    self.workers.entry(worker).and_modify(|w| w.drained = true);
                }
                Do::Mint => {
                    // The replica that made the cluster is 1.
                    self.minted += 1;
                    minted.push(self.minted + 1);
                }
                Do::RemoveReplica { replica } => {
                    self.removed_replicas.insert(replica);
                }
                Do::Terms(terms) => {
                    if terms.weight <= 1_000 {
                        self.terms = Some(terms);
                    }
                }
                Do::Hold { job, stage, devices, until } => self.hold(job, stage, devices, until),
                Do::GiveBack { job, stage, until } => {
                    let now = self.now;
                    if let Some(hold) =
                        self.holds.get_mut(&(job, stage)).filter(|h| !h.devices.is_empty() && h.until == until && until <= now)
                    {
                        hold.devices.clear();
                        hold.until = 0;
                        hold.given_back += 1;
                        hold.again_at = now + (1_000u64 << (hold.given_back - 1)).min(60_000);
                    }
                }
                Do::Start { job, stage, placements } => {
                    let is_whole = self.starts_whole(job, stage, &placements);
                    for placement in placements.into_iter().filter(|_| is_whole) {
                        self.grant(placement, (index, position));
                        position += 1;
                    }
                    self.tidy_holds();
                }
            }
            self.tidy_holds();
        }
        minted
    }

    fn waits_for_gang(&self, job: u64, stage: usize) -> bool {
        let job = self.jobs.get(&job).filter(|j| j.phase == Phase::Running);
        job.and_then(|j| j.stages.get(stage)).is_some_and(Stage::waits_for_gang)
    }

    /// Nothing is held for a stage that does not wait for it, nor of a hold that is nothing.
    fn tidy_holds(&mut self) {
        let holds = std::mem::take(&mut self.holds);
        let stays =
            |key: &(u64, usize), hold: &HoldIs| self.waits_for_gang(key.0, key.1) && (!hold.devices.is_empty() || hold.given_back > 0);
        self.holds = holds.into_iter().filter(|(key, hold)| stays(key, hold)).collect();
    }

    fn hold(&mut self, job: u64, stage: usize, devices: Vec<(Worker, Device)>, until: u64) {
        let key = (job, stage);
        let mut hold = self.holds.get(&key).cloned().unwrap_or_default();
        if !self.waits_for_gang(job, stage) || self.now < hold.again_at {
            return;
        }
        let is_there = |(worker, device): &(Worker, Device)| self.workers.get(worker).is_some_and(|w| !w.lost && *device < w.devices);
        let is_others = |device: &(Worker, Device)| self.holds.iter().any(|(other, hold)| *other != key && hold.devices.contains(device));
        let named: BTreeSet<(Worker, Device)> = devices.into_iter().filter(|d| is_there(d) && !is_others(d)).collect();
        hold.devices = named.into_iter().take(self.jobs[&job].stages[stage].gang).collect();
        if hold.devices.is_empty() {
            hold.until = 0;
        } else if hold.until == 0 {
            hold.until = until.clamp(self.now + 1, self.now + HOLD_MS);
        }
        self.holds.insert(key, hold);
    }

    /// Whether these placements are one on each device that is held for the stage, as many as its gang has, and each of them is possible.
    fn starts_whole(&self, job: u64, stage: usize, placements: &[Placement]) -> bool {
        let Some(hold) = self.holds.get(&(job, stage)) else { return false };
        let mut devices: Vec<(Worker, Device)> = placements.iter().map(|p| (p.worker, p.device)).collect();
        devices.sort_unstable();
        let mut tasks: Vec<u64> = placements.iter().flat_map(|p| p.first..p.first + p.count).collect();
        tasks.sort_unstable();
        let all = tasks.len();
        tasks.dedup();
        self.waits_for_gang(job, stage)
            && devices.iter().eq(hold.devices.iter())
            && devices.len() == self.jobs[&job].stages[stage].gang
            && tasks.len() == all
            && placements.iter().all(|p| p.job == job && p.stage == stage && !p.speculative && self.grantable(p, true))
    }

    fn submit(&mut self, sizes: [u64; 3], max_attempts: u32, goes_on: bool, rounds: u32, gang: usize) {
        let [tasks, partitions, joins] = sizes;
        let active = self.jobs.values().filter(|job| !job.ended()).count();
        if self.terms.is_some_and(|terms| terms.max_jobs > 0 && active >= terms.max_jobs as usize) {
            return;
        }
        let stage = |count: u64, reads: &[usize]| Stage {
            reads: reads.to_vec(),
            tasks: (0..count)
                .map(|_| Task { is: TaskIs::Free { not_before: 0 }, charged: 0, died_on: BTreeSet::new(), group: 0, counted: false })
                .collect(),
            generation: 1,
            gang: gang.min(count as usize),
            ..Stage::default()
        };
        let mut stages = vec![stage(tasks, &[])];
        if partitions > 0 {
            stages.push(stage(partitions, &[0]));
        }
        if joins > 0 {
            stages.extend([stage(partitions, &[1]), stage(tasks, &[]), stage(joins, &[2, 3])]);
        }
        let id = self.jobs.len() as u64 + 1;
        let job = Job {
            phase: Phase::Running,
            stages,
            max_attempts,
            goes_on,
            excluded: BTreeSet::new(),
            excluded_devices: BTreeSet::new(),
            source_failures: BTreeMap::new(),
            parts: BTreeMap::new(),
            shares: BTreeMap::new(),
            max_rounds: rounds,
            ended: Vec::new(),
        };
        self.jobs.insert(id, job);
        self.advance(id);
    }

    /// Opens what can begin; decides when the last stage is complete.
    fn advance(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| j.phase == Phase::Running) else { return };
        for n in 0..job.stages.len() {
            let complete = job.stages[n].reads.iter().all(|from| job.stages[*from].complete());
            let of_use = job.stages.len() <= 2 || job.wanted(n);
            job.stages[n].open = complete && of_use && !job.stages[n].complete();
        }
        if job.stages[job.stages.len() - 1].complete() {
            if job.stages.len() >= 2 {
                job.phase = Phase::Publishing;
                self.end_leases_of(id);
            } else {
                self.end_job(id, Phase::Done);
            }
        }
    }

    fn end_job(&mut self, id: u64, phase: Phase) {
        if let Some(job) = self.jobs.get_mut(&id).filter(|j| !j.ended()) {
            job.phase = phase;
            self.end_leases_of(id);
        }
    }

    fn end_leases_of(&mut self, job: u64) {
        let of_job: Vec<Lease> = self.leases.iter().filter(|(_, l)| l.job == job).map(|(id, _)| *id).collect();
        of_job.into_iter().for_each(|l| self.end_lease(l));
    }

    fn end_lease(&mut self, id: Lease) {
        if let Some(lease) = self.leases.remove(&id) {
            self.jobs.entry(lease.job).and_modify(|j| {
                let stage = &mut j.stages[lease.stage];
                if lease.speculative {
                    stage.speculated -= stage.raced_by(id);
                }
                stage.take_from(id);
            });
        }
    }

    fn drop_worker(&mut self, worker: Worker) {
        let of_worker: Vec<Lease> = self.leases.iter().filter(|(_, l)| l.worker == worker).map(|(id, _)| *id).collect();
        of_worker.into_iter().for_each(|l| self.end_lease(l));
        for hold in self.holds.values_mut() {
            hold.devices.retain(|(held, _)| *held != worker);
            if hold.devices.is_empty() {
                hold.until = 0;
            }
        }
        let jobs: Vec<u64> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|j| self.lose_shuffle_data(j, worker));
    }

    /// Accepted map output goes with its worker while somebody still needs it.
    fn lose_shuffle_data(&mut self, id: u64, worker: Worker) {
        let Some(job) = self.jobs.get_mut(&id).filter(|j| !j.ended()) else { return };
        if job.stages.len() > 2 {
            return self.lose_of_many(id, worker);
        }
        if job.stages.len() < 2 || job.stages[1].complete() {
            return;
        }
        let map = &mut job.stages[0];
        let mut lost = false;
        for task in &mut map.tasks {
            if matches!(task.is, TaskIs::Accepted { at, .. } if at == worker) {
                task.is = TaskIs::Free { not_before: 0 };
                task.counted = true;
                lost = true;
            }
        }
        if lost {
            map.generation += 1;
            job.source_failures.remove(&worker);
            self.advance(id);
        }
    }

    /// Of more than two stages: what the worker had is nowhere (at 0) from now on. What is needed and nowhere is made again, until nothing more is.
    fn lose_of_many(&mut self, id: u64, worker: Worker) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let last = job.stages.len() - 1;
        for task in job.stages[..last].iter_mut().flat_map(|stage| &mut stage.tasks) {
            match &mut task.is {
                TaskIs::Accepted { at, .. } if *at == worker => *at = 0,
                _ => {}
            }
        }
        let mut again = BTreeSet::new();
        let is_nowhere = |task: &Task| matches!(task.is, TaskIs::Accepted { at: 0, .. });
        while let Some(n) = (0..last).find(|n| job.wanted(*n) && job.stages[*n].tasks.iter().any(is_nowhere)) {
            for task in job.stages[n].tasks.iter_mut().filter(|task| is_nowhere(task)) {
                task.is = TaskIs::Free { not_before: 0 };
                task.counted = true;
            }
            again.insert(n);
        }
        for n in &again {
            job.stages[*n].generation += 1;
        }
        if !again.is_empty() {
            job.source_failures.remove(&worker);
            self.advance(id);
        }
    }

    fn quarantined(&self, worker: Worker, device: Device) -> bool {
        let w = &self.workers[&worker];
        self.now < w.standing.until || w.device_standing.get(&device).is_some_and(|s| self.now < s.until)
    }

    fn grantable(&self, p: &Placement, starts_gang: bool) -> bool {
        let Some(worker) = self.workers.get(&p.worker) else { return false };
        let Some(job) = self.jobs.get(&p.job) else { return false };
        let Some(stage) = job.stages.get(p.stage) else { return false };
        let out = self.leases.values().filter(|l| l.worker == p.worker && l.device == p.device).count();
        let possible = !worker.lost
            && worker.session == p.session
            && p.device < worker.devices
            && !self.quarantined(p.worker, p.device)
            && !self.workers[&p.worker].drained
            && job.phase == Phase::Running
            && (starts_gang || !stage.waits_for_gang())
            && (starts_gang || self.holds.values().all(|hold| !hold.devices.contains(&(p.worker, p.device))))
            && stage.open
            && !job.excluded.contains(&p.worker)
            && !job.excluded_devices.contains(&(p.worker, p.device))
            && out < SLOTS
            && p.count > 0
            && p.first + p.count <= stage.tasks.len() as u64;
        possible
            && (p.first..p.first + p.count).all(|t| match &stage.tasks[t as usize].is {
                TaskIs::Free { not_before } => !p.speculative && *not_before <= self.now,
                TaskIs::Held(by) => p.speculative && by.len() == 1 && self.leases[&by[0]].worker != p.worker,
                _ => false,
            })
    }

    fn grant(&mut self, p: Placement, id: Lease) {
        let stage = &mut self.jobs.get_mut(&p.job).unwrap().stages[p.stage];
        for task in &mut stage.tasks[p.first as usize..(p.first + p.count) as usize] {
            match &mut task.is {
                TaskIs::Held(by) => by.push(id),
                _ => task.is = TaskIs::Held(vec![id]),
            }
        }
        if p.speculative {
            stage.speculated += p.count;
        }
        stage.begun = true;
        let lease = LeaseIs {
            job: p.job,
            stage: p.stage,
            generation: stage.generation,
            first: p.first,
            end: p.first + p.count,
            worker: p.worker,
            device: p.device,
            speculative: p.speculative,
        };
        self.leases.insert(id, lease);
    }

    fn report(&mut self, worker: Worker, report: Report) {
        let offered: u64 = report.results.iter().map(|(_, count)| count).sum();
        let Some(lease) = self.leases.get(&report.lease).filter(|l| l.worker == worker).cloned() else {
            if let Some(stage) = self.jobs.get_mut(&report.job).and_then(|j| j.stages.get_mut(report.stage)) {
                stage.fenced += offered;
            }
            return;
        };
        let job = self.jobs.get_mut(&lease.job).unwrap();
        let (last_stage, counts) = (job.stages.len() - 1, is_map(job.stages.len(), lease.stage));
        let shuffles = lease.stage < last_stage;
        let publishes = job.stages.len() >= 2 && lease.stage == last_stage;
        let stage = &mut job.stages[lease.stage];
        let mut accepted = Vec::new();
        let mut rivals = BTreeSet::new();
        for (first, count) in &report.results {
            for task in *first..first + count {
                let Some(t) = stage.tasks.get_mut(task as usize) else { continue };
                let TaskIs::Held(by) = &t.is else { continue };
                if !by.contains(&report.lease) {
                    continue;
                }
                let others: Vec<Lease> = by.iter().copied().filter(|l| *l != report.lease).collect();
                if !others.is_empty() && lease.speculative {
                    stage.wins += 1;
                }
                rivals.extend(others);
                if !t.counted && counts {
                    stage.tally += u128::from(value(task, worker));
                }
                if !t.counted {
                    stage.records_in += value(task, worker);
                    stage.bytes_in += BYTES;
                }
                t.counted = false;
                t.is = TaskIs::Accepted { at: if shuffles { worker } else { 0 }, generation: lease.generation };
                accepted.push(task);
            }
        }
        stage.fenced += offered - accepted.len() as u64;
        for task in &accepted {
            self.groups = clear(stage, *task, self.groups);
        }
        *job.shares.entry((lease.stage, worker, lease.device)).or_default() += accepted.len() as u64;
        let round_ends = publishes && !accepted.is_empty() && !job.rounds_are_over();
        if round_ends {
            job.ended.push(report.converged);
        }
        let next_round = round_ends && !job.rounds_are_over();
        if publishes {
            job.parts.extend(accepted.iter().map(|task| (*task, worker)));
        }
        let mut then = Vec::new();
        for (first, count, class) in &report.failures {
            then.extend(self.fail(&lease, report.lease, *first, *count, *class));
        }
        if report.last {
            self.end_lease(report.lease);
        }
        for rival in rivals {
            let holds = self.leases.get(&rival).is_some_and(|l| self.jobs[&l.job].stages[l.stage].held(rival).next().is_some());
            if !holds {
                self.end_lease(rival);
            }
        }
        if !accepted.is_empty() {
            let now = self.now;
            let w = self.workers.get_mut(&worker).unwrap();
            if w.standing.until <= now {
                w.standing = Standing::default();
            }
            w.device_standing.retain(|d, s| *d != lease.device || now < s.until);
        }
        for then in then {
            match then {
                Then::FailJob => self.end_job(lease.job, Phase::Failed),
                Then::LoseSource(source) => self.lose_shuffle_data(lease.job, source),
                Then::StrikeWorker => self.strike(worker, None),
                Then::StrikeDevice => self.strike(worker, Some(lease.device)),
            }
        }
        if next_round && self.jobs[&lease.job].phase == Phase::Running {
            self.end_leases_of(lease.job);
            let job = self.jobs.get_mut(&lease.job).unwrap();
            job.parts.clear();
            job.source_failures.clear();
            for stage in &mut job.stages {
                stage.begun = false;
                stage.generation += 1;
                (stage.tally, stage.records_in, stage.bytes_in) = (0, 0, 0);
                for task in &mut stage.tasks {
                    *task = Task { is: TaskIs::Free { not_before: 0 }, charged: 0, died_on: BTreeSet::new(), group: 0, counted: false };
                }
            }
        }
        self.fail_when_nobody_is_left(lease.job);
        self.advance(lease.job);
        self.fail_when_too_few_are_left_for_a_gang(lease.job);
    }
}
