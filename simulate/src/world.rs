//! The leader's part in virtual time: what arrives becomes an entry, the entry is applied after the log's delay, what it granted goes out.
//!
//! ```text
//!   report, registration, loss, submit --> pending --+
//!                                                     |  (no entry in flight)
//!   plan(view of the applied state) ------------------+--> entry --commit delay--> apply --network--> devices, revocations
//! ```
//!
//! A task that waits for others is held back here, because the core has no such thing: when the results of all that come before it are
//! accepted, it is submitted; tasks of one kernel that are free at the same moment become one job.

use crate::bound::Bound;
use crate::device::{Device, Of, Span};
use crate::dice::Use;
use crate::outcome::{Effort, JobTimes, Outcome};
use crate::rate::Ns;
use crate::scenario::{GraphTask, Job, Scenario, Stage, Units, Weights};
use raftwerk_core::apply::ENTRY_FORMAT;
use raftwerk_core::plan::policy::Policy;
use raftwerk_core::plan::{View, plan};
use raftwerk_core::stage::TaskState;
use raftwerk_core::{
    Applied, ApplyError, Event as Fact, JobId, LeaseId, Outcome as Answer, Session, State, Timestamp, WorkerId, invariants,
};
use raftwerk_proto::v1::{
    Command as Wrapped, EntryBody, GrantLeases, Hello, JobSpec, LoseWorker, RegisterWorker, Report, ReportResults, SubmitJob, TallyValues,
    TaskResults, command::Command,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Instant;

/// Worker of the first device.
const FIRST_WORKER: u64 = 2;
/// Cluster time at the beginning: any will do, but not 0, which stands for "never" here and there.
const EPOCH_MS: u64 = 1_000;
/// Ticks of a cluster where nothing runs, arrives or is placed, after which nothing ever will.
const TICKS_AT_REST: u32 = 200;

/// A run of one policy.
pub struct Run {
    pub outcome: Outcome,
    pub effort: Effort,
    /// Empty unless asked for.
    pub segments: Vec<Segment>,
}

/// A lease on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    pub device: u32,
    /// Place of the job, and of its kernel.
    pub job: u32,
    pub kernel: u32,
    pub begun: Ns,
    pub end: Ns,
    /// Revoked, or lost with its device.
    pub in_vain: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the core refused an entry: {0}")]
    Apply(#[from] ApplyError),
    #[error("job '{job}' is refused: {reason}")]
    Refused { job: String, reason: String },
}

enum Event {
    Submit(u32),
    Commit,
    Tick,
    Arrive {
        device: u32,
        lease: LeaseId,
    },
    Begin {
        device: u32,
        turn: u32,
    },
    Tell {
        device: u32,
        lease: LeaseId,
    },
    Report {
        device: u32,
        report: Box<Report>,
    },
    Revoke {
        device: u32,
        lease: LeaseId,
    },
    Die {
        device: u32,
        back: Ns,
    },
    Back {
        device: u32,
    },
    /// The connection of this session broke.
    Gone {
        device: u32,
        session: Session,
    },
    Lost {
        device: u32,
        session: Session,
    },
}

struct Timed {
    at: Ns,
    number: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Timed) -> bool {
        self.number == other.number
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Timed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Timed) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A job as it is run: one of the scenario's, or free tasks of its graph.
struct Live {
    job: Job,
    /// Places of the tasks in the graph.
    graph: Vec<u32>,
    weights: Vec<Weights>,
    id: Option<JobId>,
    done: Option<Ns>,
}

/// What is left to wait for, of each task of the graph.
struct Graph<'s> {
    tasks: &'s [GraphTask],
    followers: Vec<Vec<u32>>,
    missing: Vec<u32>,
    done: Vec<Option<Ns>>,
}

impl<'s> Graph<'s> {
    fn new(tasks: &'s [GraphTask]) -> Graph<'s> {
        let mut followers = vec![Vec::new(); tasks.len()];
        for (number, task) in tasks.iter().enumerate() {
            task.after.iter().for_each(|before| followers[*before as usize].push(number as u32));
        }
        Graph { tasks, followers, missing: tasks.iter().map(|t| t.after.len() as u32).collect(), done: vec![None; tasks.len()] }
    }
}

struct World<'s> {
    scenario: &'s Scenario,
    policy: &'static dyn Policy,
    now: Ns,
    events: BinaryHeap<Reverse<Timed>>,
    number: u64,
    /// Events other than ticks and what happens to devices anyway.
    lively: u64,
    state: State,
    pending: Vec<Command>,
    /// Jobs of the pending submits, in their order; and of those in the entry in flight.
    submitted: Vec<u32>,
    flying: Option<(EntryBody, Vec<u32>)>,
    replan: bool,
    ticking: bool,
    at_rest: u32,
    devices: Vec<Device>,
    sessions: Vec<Option<Session>>,
    present: BTreeMap<WorkerId, Session>,
    jobs: Vec<Live>,
    by_id: BTreeMap<JobId, u32>,
    unfinished: usize,
    graph: Graph<'s>,
    segments: Option<Vec<Segment>>,
    effort: Effort,
    first_grant: Option<Ns>,
    last_end: Ns,
}

/// Simulates the scenario under a policy.
/// `bound` is the scenario's [`lower_bound`](crate::bound::lower_bound), to measure against.
pub fn run(scenario: &Scenario, bound: Bound, policy: &'static dyn Policy, with_segments: bool) -> Result<Run, RunError> {
    let begun = Instant::now();
    let mut world = World::new(scenario, policy, with_segments)?;
    world.live()?;
    world.effort.wall_ns = begun.elapsed().as_nanos() as u64;
    Ok(world.finish(bound))
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario, policy: &'static dyn Policy, with_segments: bool) -> Result<World<'s>, RunError> {
        let mut world = World {
            scenario,
            policy,
            now: 0,
            events: BinaryHeap::new(),
            number: 0,
            lively: 0,
            state: State::new("simulated"),
            pending: Vec::new(),
            submitted: Vec::new(),
            flying: None,
            replan: false,
            ticking: false,
            at_rest: 0,
            devices: Vec::new(),
            sessions: Vec::new(),
            present: BTreeMap::new(),
            jobs: Vec::new(),
            by_id: BTreeMap::new(),
            unfinished: 0,
            graph: Graph::new(&scenario.graph),
            segments: with_segments.then(Vec::new),
            effort: Effort::default(),
            first_grant: None,
            last_end: 0,
        };
        world.bring_devices()?;
        for (number, job) in scenario.jobs.iter().enumerate() {
            let weights = (0..job.stages.len()).map(|stage| scenario.weights(number, stage)).collect();
            world.jobs.push(Live { job: job.clone(), graph: Vec::new(), weights, id: None, done: None });
            world.unfinished += 1;
            world.at(job.arrives, Event::Submit(number as u32));
        }
        let free: Vec<u32> = (0..scenario.graph.len() as u32).filter(|t| world.graph.missing[*t as usize] == 0).collect();
        world.unfinished += scenario.graph.len();
        world.release(free);
        Ok(world)
    }

    /// All devices are registered before anything begins.
    fn bring_devices(&mut self) -> Result<(), RunError> {
        for (place, group) in self.scenario.groups.iter().enumerate() {
            for number in 0..group.count {
                let mut device = Device::new(place as u32, group.parallelism, self.scenario.rate(place, number));
                if group.jitter > 0.0 {
                    device.jitter = Some((group.jitter, self.scenario.dice().of(Use::Jitter, self.devices.len() as u64)));
                }
                self.devices.push(device);
                self.sessions.push(None);
            }
        }
        let all: Vec<Command> = (0..self.devices.len() as u32).map(|device| self.registration(device)).collect();
        let applied = self.apply(all)?;
        self.on_registered(&applied);
        for device in 0..self.devices.len() as u32 {
            self.await_outage(device);
        }
        Ok(())
    }

    fn registration(&self, device: u32) -> Command {
        let group = &self.scenario.groups[self.devices[device as usize].group as usize];
        let hello = Hello {
            name: format!("{}-{device}", group.name),
            devices: vec![group.device(&self.scenario.kernels)],
            incarnation: self.now + 1,
            ..Hello::default()
        };
        Command::RegisterWorker(RegisterWorker { worker: worker_of(device).0, hello: Some(hello) })
    }

    fn await_outage(&mut self, device: u32) {
        if let Some((from, back)) = self.devices[device as usize].rate.outage(self.now) {
            self.at(from, Event::Die { device, back });
        }
    }

    fn at(&mut self, at: Ns, event: Event) {
        if at == Ns::MAX {
            return;
        }
        if !matches!(event, Event::Tick | Event::Die { .. } | Event::Back { .. }) {
            self.lively += 1;
        }
        self.number += 1;
        self.events.push(Reverse(Timed { at: at.max(self.now), number: self.number, event }));
    }

    fn live(&mut self) -> Result<(), RunError> {
        self.flush();
        while self.unfinished > 0 {
            let Some(Reverse(timed)) = self.events.pop() else { break };
            self.now = timed.at;
            self.effort.events += 1;
            let is_tick = matches!(timed.event, Event::Tick);
            if !matches!(timed.event, Event::Tick | Event::Die { .. } | Event::Back { .. }) {
                self.lively -= 1;
            }
            self.on_event(timed.event)?;
            // Everything of this moment joins the same entry.
            if self.events.peek().is_none_or(|next| next.0.at > self.now) {
                self.flush();
            }
            if is_tick {
                let rests = self.lively == 0 && self.flying.is_none() && self.pending.is_empty();
                self.at_rest = if rests { self.at_rest + 1 } else { 0 };
                if self.at_rest > TICKS_AT_REST && self.events.iter().all(|e| matches!(e.0.event, Event::Tick)) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), RunError> {
        let delays = self.scenario.delays;
        match event {
            Event::Submit(job) => self.submit(job),
            Event::Commit => self.on_commit()?,
            Event::Tick => {
                self.ticking = false;
                self.replan = true;
                self.tick();
            }
            Event::Arrive { device, lease } => self.on_arrive(device, lease),
            Event::Begin { device, turn } => self.on_begin(device, turn),
            Event::Tell { device, lease } => self.on_tell(device, lease),
            Event::Report { device, report } => {
                let session = report.sequence;
                let reports = ReportResults { worker: worker_of(device).0, session, reports: vec![*report] };
                self.pending.push(Command::ReportResults(reports));
            }
            Event::Revoke { device, lease } => {
                if let Some(span) = self.devices[device as usize].stop(self.now, lease) {
                    self.note(device, &span, true);
                }
                self.arrange(device);
            }
            Event::Die { device, back } => {
                for span in self.devices[device as usize].die(self.now) {
                    self.note(device, &span, true);
                }
                if let Some(session) = self.sessions[device as usize] {
                    self.at(self.now + delays.network, Event::Gone { device, session });
                }
                self.at(back, Event::Back { device });
            }
            Event::Back { device } => {
                self.devices[device as usize].revive(self.now);
                self.pending.push(self.registration(device));
                self.await_outage(device);
            }
            Event::Gone { device, session } => {
                if self.sessions[device as usize] == Some(session) {
                    self.present.remove(&worker_of(device));
                    self.at(self.now + delays.detect, Event::Lost { device, session });
                }
            }
            Event::Lost { device, session } => {
                if self.sessions[device as usize] == Some(session) {
                    self.sessions[device as usize] = None;
                    let lost = LoseWorker { worker: worker_of(device).0, session: session.0, reason: "it died".into() };
                    self.pending.push(Command::LoseWorker(lost));
                }
            }
        }
        Ok(())
    }

    fn submit(&mut self, job: u32) {
        let spec: JobSpec = self.jobs[job as usize].job.spec(&self.scenario.kernels);
        self.pending.push(Command::SubmitJob(SubmitJob { spec: Some(spec), ..SubmitJob::default() }));
        self.submitted.push(job);
        self.tick();
    }

    fn tick(&mut self) {
        if !self.ticking && self.unfinished > 0 {
            self.ticking = true;
            self.at(self.now + self.scenario.delays.tick.max(1), Event::Tick);
        }
    }

    /// Proposes what has gathered, with the placements it allows, unless an entry is in flight.
    fn flush(&mut self) {
        if self.flying.is_some() || (self.pending.is_empty() && !self.replan) {
            return;
        }
        let mut commands = std::mem::take(&mut self.pending);
        let submitted = std::mem::take(&mut self.submitted);
        let at_ms = self.stamp();
        if self.replan || !submitted.is_empty() {
            self.replan = false;
            let placements = self.plan(&commands, at_ms);
            if !placements.is_empty() {
                commands.push(Command::GrantLeases(GrantLeases { placements }));
            }
        }
        if commands.is_empty() {
            return;
        }
        let commands = commands.into_iter().map(|command| Wrapped { command: Some(command) }).collect();
        self.flying = Some((EntryBody { format: ENTRY_FORMAT, at_ms, commands }, submitted));
        self.at(self.now + self.scenario.delays.commit, Event::Commit);
    }

    fn stamp(&self) -> u64 {
        EPOCH_MS + self.now / 1_000_000
    }

    fn plan(&mut self, commands: &[Command], at_ms: u64) -> Vec<raftwerk_proto::v1::Placement> {
        let submitted: Vec<(u32, &JobSpec)> = commands
            .iter()
            .enumerate()
            .filter_map(|(position, command)| match command {
                Command::SubmitJob(submit) => submit.spec.as_ref().map(|spec| (position as u32, spec)),
                _ => None,
            })
            .collect();
        if self.state.active_count() == 0 && submitted.is_empty() {
            return Vec::new();
        }
        let nobody = BTreeSet::new();
        let view = View {
            state: &self.state,
            present: &self.present,
            suspects: &nobody,
            returning: &nobody,
            full: &nobody,
            now: Timestamp(at_ms),
            submitted: &submitted,
            policy: self.policy,
        };
        let begun = Instant::now();
        let placements = plan(&view);
        self.effort.round(begun.elapsed().as_nanos() as u64);
        placements
    }

    fn apply(&mut self, commands: Vec<Command>) -> Result<Applied, RunError> {
        let commands = commands.into_iter().map(|command| Wrapped { command: Some(command) }).collect();
        self.apply_body(EntryBody { format: ENTRY_FORMAT, at_ms: self.stamp(), commands })
    }

    fn apply_body(&mut self, body: EntryBody) -> Result<Applied, RunError> {
        let begun = Instant::now();
        let applied = self.state.apply(self.state.applied_index + 1, body)?;
        self.effort.entry(begun.elapsed().as_nanos() as u64);
        Ok(applied)
    }

    fn on_commit(&mut self) -> Result<(), RunError> {
        let Some((body, submitted)) = self.flying.take() else { return Ok(()) };
        let told = if self.graph.tasks.is_empty() { Vec::new() } else { told_by(&body) };
        let applied = self.apply_body(body)?;
        self.replan = true;
        self.on_registered(&applied);
        let mut submitted = submitted.into_iter();
        for outcome in &applied.outcomes {
            match outcome {
                Answer::Submitted { job: id, .. } => {
                    if let Some(job) = submitted.next() {
                        self.jobs[job as usize].id = Some(*id);
                        self.by_id.insert(*id, job);
                    }
                }
                Answer::Refused(reason) => {
                    let job = submitted.next().map(|j| self.jobs[j as usize].job.name.clone()).unwrap_or_default();
                    return Err(RunError::Refused { job, reason: reason.clone() });
                }
                Answer::Granted { leases, stale } => {
                    self.effort.leases += leases.len() as u64;
                    self.effort.stale += u64::from(*stale);
                    if self.first_grant.is_none() && !leases.is_empty() {
                        self.first_grant = Some(self.now);
                    }
                    for id in leases {
                        if let Some(lease) = self.state.leases.get(id) {
                            let device = device_of(lease.worker);
                            self.at(self.now + self.scenario.delays.network, Event::Arrive { device, lease: *id });
                        }
                    }
                }
                _ => {}
            }
        }
        for fact in &applied.events {
            match fact {
                Fact::LeaseEnded { id, lease } => {
                    let device = device_of(lease.worker);
                    self.at(self.now + self.scenario.delays.network, Event::Revoke { device, lease: *id });
                }
                Fact::JobEnded { job } => self.on_job_ended(*job),
                _ => {}
            }
        }
        self.advance_graph(told);
        Ok(())
    }

    fn on_registered(&mut self, applied: &Applied) {
        for outcome in &applied.outcomes {
            let Answer::Registered { worker, session } = outcome else { continue };
            let device = device_of(*worker);
            if self.devices[device as usize].alive {
                self.sessions[device as usize] = Some(*session);
                self.present.insert(*worker, *session);
            }
        }
    }

    fn on_job_ended(&mut self, id: JobId) {
        let Some(&job) = self.by_id.get(&id) else { return };
        let live = &mut self.jobs[job as usize];
        live.done = Some(self.now);
        self.last_end = self.now;
        if live.graph.is_empty() {
            self.unfinished -= 1;
        }
    }

    /// Marks what was accepted of the graph and submits what is free now.
    fn advance_graph(&mut self, told: Vec<(JobId, u64, u64)>) {
        let mut free = Vec::new();
        for (id, first, count) in told {
            let Some(live) = self.by_id.get(&id).map(|job| &self.jobs[*job as usize]) else { continue };
            let Some(stage) = self.state.jobs.get(&id).and_then(|job| job.stages.first()) else { continue };
            for task in first..first.saturating_add(count) {
                let Some(&place) = live.graph.get(task as usize) else { continue };
                let accepted = matches!(stage.state_of(task), Some(TaskState::Accepted { .. }));
                if !accepted || self.graph.done[place as usize].is_some() {
                    continue;
                }
                self.graph.done[place as usize] = Some(self.now);
                self.unfinished -= 1;
                for &next in &self.graph.followers[place as usize] {
                    self.graph.missing[next as usize] -= 1;
                    if self.graph.missing[next as usize] == 0 {
                        free.push(next);
                    }
                }
            }
        }
        self.release(free);
    }

    /// Submits tasks that wait for nothing any more: one job for those of one kernel.
    fn release(&mut self, mut free: Vec<u32>) {
        free.sort_unstable();
        let mut by_kernel: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for task in free {
            by_kernel.entry(self.graph.tasks[task as usize].kernel).or_default().push(task);
        }
        for (kernel, graph) in by_kernel {
            let stage = Stage {
                kernel,
                tasks: graph.len() as u64,
                units: Units { low: 1.0, high: 1.0 },
                input_bytes: 0.0,
                class: "any".into(),
                max_lease_tasks: 0,
            };
            let job =
                Job { name: self.scenario.kernels[kernel].name.clone(), arrives: self.now, stages: vec![stage], policy: String::new() };
            self.jobs.push(Live { job, graph, weights: vec![self.scenario.graph_weights()], id: None, done: None });
            self.submit(self.jobs.len() as u32 - 1);
        }
    }

    fn on_arrive(&mut self, device: u32, id: LeaseId) {
        let Some(lease) = self.state.leases.get(&id) else { return };
        let held = &mut self.devices[device as usize];
        let Some(&job) = self.by_id.get(&lease.job) else { return };
        // What was sent to a process that is gone arrives nowhere.
        if !held.alive || self.sessions[device as usize] != Some(lease.session) {
            return;
        }
        let group = &self.scenario.groups[held.group as usize];
        let bytes = self.jobs[job as usize].job.stages[lease.stage as usize].input_bytes * lease.tasks.count() as f64;
        let transfer = if group.bandwidth > 0.0 { (bytes / group.bandwidth * 1e9) as Ns } else { 0 };
        held.arrive(self.now, id, (job, lease.stage), lease.tasks, group.latency + transfer);
        self.arrange(device);
    }

    /// Sees to it that the next waiting lease begins when it can.
    fn arrange(&mut self, device: u32) {
        let held = &mut self.devices[device as usize];
        held.turn += 1;
        let turn = held.turn;
        if let Some(begin) = held.next_begin(self.now) {
            self.at(begin, Event::Begin { device, turn });
        }
    }

    fn on_begin(&mut self, device: u32, turn: u32) {
        let held = &mut self.devices[device as usize];
        let Some((job, stage)) = held.first_waiting().filter(|_| held.alive && held.turn == turn) else { return };
        let group = &self.scenario.groups[held.group as usize];
        let live = &self.jobs[job as usize];
        let unit_ns = group.unit_ns[live.job.stages[stage as usize].kernel].unwrap_or(0.0);
        let weights = live.weights[stage as usize];
        let takes = |task: u64| {
            let number = live.graph.get(task as usize).map_or(task, |place| u64::from(*place));
            (weights.units(number) * unit_ns) as u64
        };
        let Some(running) = held.begin(self.now, group.launch, takes) else { return };
        let (lease, next) = (running.lease, running.end.min(self.now.saturating_add(self.scenario.delays.report.max(1))));
        self.at(next, Event::Tell { device, lease });
        self.arrange(device);
    }

    fn on_tell(&mut self, device: u32, lease: LeaseId) {
        let Some(session) = self.sessions[device as usize] else { return };
        let Some((told, span)) = self.devices[device as usize].tell(self.now, lease) else { return };
        let next = span.end.min(self.now.saturating_add(self.scenario.delays.report.max(1)));
        if told.last {
            self.note(device, &span, false);
        } else {
            self.at(next, Event::Tell { device, lease });
        }
        if told.ranges.is_empty() && !told.last {
            return;
        }
        let results = told.ranges.iter().map(|range| TaskResults {
            first_task: range.first,
            task_count: range.count(),
            tallies: vec![TallyValues { values: (range.first..range.end).collect() }],
        });
        let (job, stage): Of = span.of;
        let report = Report {
            // Of which session it is; nobody acknowledges here, so the number is free.
            sequence: session.0,
            lease: Some(lease.into()),
            job: self.jobs[job as usize].id.map_or(0, |id| id.0),
            stage,
            results: results.collect(),
            busy_ns: told.busy,
            final_report: told.last,
            ..Report::default()
        };
        self.at(self.now + self.scenario.delays.network, Event::Report { device, report: Box::new(report) });
    }

    fn note(&mut self, device: u32, span: &Span, in_vain: bool) {
        if let Some(segments) = &mut self.segments {
            let (job, stage) = span.of;
            let kernel = self.jobs[job as usize].job.stages[stage as usize].kernel as u32;
            segments.push(Segment { device, job, kernel, begun: span.begun, end: span.end, in_vain });
        }
    }

    fn finish(self, bound: Bound) -> Run {
        let mut problems = Vec::new();
        if let Err(broken) = invariants::check(&self.state) {
            problems.push(broken);
        }
        let mut tasks = 0;
        for live in &self.jobs {
            let Some(job) = live.id.and_then(|id| self.state.jobs.get(&id)).filter(|_| live.done.is_some()) else { continue };
            for (index, stage) in job.stages.iter().enumerate() {
                let n = stage.tasks().len();
                tasks += n;
                let once = u128::from(n) * u128::from(n.saturating_sub(1)) / 2;
                let told: u64 = job.shares.iter().filter(|((s, ..), _)| *s as usize == index).map(|(_, share)| share.tasks).sum();
                if stage.accepted() != n || stage.tallies != [once] || told < n {
                    problems.push(format!(
                        "job '{}' stage {index}: {} of {n} tasks accepted, their numbers add up to {:?}, not {once}",
                        live.job.name,
                        stage.accepted(),
                        stage.tallies
                    ));
                }
            }
        }
        let times = |live: &Live| JobTimes { name: live.job.name.clone(), arrives: live.job.arrives, done: live.done };
        let jobs = if self.scenario.graph.is_empty() {
            self.jobs.iter().map(times).collect()
        } else {
            let named = self.scenario.graph.iter().zip(&self.graph.done);
            named.map(|(task, done)| JobTimes { name: task.name.clone(), arrives: 0, done: *done }).collect()
        };
        let outcome =
            Outcome::of(self.scenario, bound, self.policy.name(), self.last_end, jobs, tasks, &self.devices, problems, &self.effort);
        Run { outcome, effort: self.effort, segments: self.segments.unwrap_or_default() }
    }
}

/// Tasks that reports of the entry brought: job, first task, how many.
fn told_by(body: &EntryBody) -> Vec<(JobId, u64, u64)> {
    let mut told = Vec::new();
    for command in &body.commands {
        let Some(Command::ReportResults(reports)) = &command.command else { continue };
        for report in &reports.reports {
            told.extend(report.results.iter().map(|r| (JobId(report.job), r.first_task, r.task_count)));
        }
    }
    told
}

fn worker_of(device: u32) -> WorkerId {
    WorkerId(FIRST_WORKER + u64::from(device))
}

fn device_of(worker: WorkerId) -> u32 {
    (worker.0 - FIRST_WORKER) as u32
}
