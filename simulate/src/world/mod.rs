//! The cluster in virtual time.
//!
//! ```text
//!   report, registration, loss, submit --> pending --+
//!                                                     |  (no entry in flight)
//!   plan(view of the applied state) ------------------+--> entry --commit delay--> apply --network--> devices, revocations
//! ```
//!
//! ```text
//! leader    what is pending becomes an entry, with its placements     devices  leases arrive, run and are told of
//! graph     tasks that wait for others                                event    what happens, and when
//! finish    the measures at the end
//! ```

mod devices;
mod event;
mod finish;
mod graph;
mod leader;

use crate::bound::Bound;
use crate::device::Device;
use crate::outcome::{Effort, Outcome};
use crate::rate::Ns;
use crate::scenario::{Job, Scenario, Weights};
use event::{Event, Timed};
use graph::Graph;
use raftwerk_core::plan::policy::Policy;
use raftwerk_core::{ApplyError, JobId, Outcome as Answer, Session, State, WorkerId};
use raftwerk_proto::v1::{EntryBody, ImportCosts, JobSpec, LoseWorker, ReportResults, SubmitJob, command::Command};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Instant;

/// Worker of the first device.
const FIRST_WORKER: u64 = 2;
/// Cluster time at the beginning: any will do, but not 0, which stands for "never" here and there.
const EPOCH_MS: u64 = 1_000;
/// Ticks of a cluster where nothing runs, arrives or is placed, after which nothing ever will.
const TICKS_AT_REST: u32 = 200;

/// The longer nothing changes, the rarer are ticks: so many in the time that it has been so already.
const TICKS_WHILE_STILL: u64 = 100;

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
    #[error("the costs are refused: {0}")]
    Costs(String),
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
    /// Last moment that was more than a tick.
    last_event: Ns,
    /// Last moment that changed what a plan sees, or that a plan placed something.
    last_change: Ns,
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
            last_event: 0,
            last_change: 0,
        };
        world.bring_costs()?;
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

    /// What the cluster knows before the first job.
    fn bring_costs(&mut self) -> Result<(), RunError> {
        if self.scenario.costs.is_empty() {
            return Ok(());
        }
        let import = Command::ImportCosts(ImportCosts { costs: self.scenario.costs.clone() });
        match self.apply(vec![import])?.outcomes.pop() {
            Some(Answer::Refused(reason)) => Err(RunError::Costs(reason)),
            _ => Ok(()),
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
            if !is_tick {
                self.last_event = self.now;
            }
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
            // While nothing changes only the late become later, and what is late is so by a part of its own length: a hundredth of
            // it is soon enough.
            let still = (self.now - self.last_change) / TICKS_WHILE_STILL;
            self.at(self.now + self.scenario.delays.tick.max(1).max(still), Event::Tick);
        }
    }

    fn stamp(&self) -> u64 {
        EPOCH_MS + self.now / 1_000_000
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
}

fn worker_of(device: u32) -> WorkerId {
    WorkerId(FIRST_WORKER + u64::from(device))
}

fn device_of(worker: WorkerId) -> u32 {
    (worker.0 - FIRST_WORKER) as u32
}
