//! Devices and their workers: they register, take leases, tell what is done, die and come back.

use super::event::Event;
use super::{RunError, Segment, World, device_of, worker_of};
use crate::device::{Device, Of, Span};
use crate::dice::Use;
use crate::rate::Ns;
use raftwerk_core::{Applied, LeaseId, Outcome as Answer};
use raftwerk_proto::v1::{Hello, RegisterWorker, Report, TallyValues, TaskResults, command::Command};

impl World<'_> {
    /// All devices are registered before anything begins.
    pub(super) fn bring_devices(&mut self) -> Result<(), RunError> {
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

    pub(super) fn registration(&self, device: u32) -> Command {
        let group = &self.scenario.groups[self.devices[device as usize].group as usize];
        let hello = Hello {
            name: format!("{}-{device}", group.name),
            devices: vec![group.device(&self.scenario.kernels)],
            incarnation: self.now + 1,
            ..Hello::default()
        };
        Command::RegisterWorker(RegisterWorker { worker: worker_of(device).0, hello: Some(hello) })
    }

    pub(super) fn await_outage(&mut self, device: u32) {
        if let Some((from, back)) = self.devices[device as usize].rate.outage(self.now) {
            self.at(from, Event::Die { device, back });
        }
    }

    pub(super) fn on_registered(&mut self, applied: &Applied) {
        for outcome in &applied.outcomes {
            let Answer::Registered { worker, session } = outcome else { continue };
            let device = device_of(*worker);
            if self.devices[device as usize].alive {
                self.sessions[device as usize] = Some(*session);
                self.present.insert(*worker, *session);
            }
        }
    }

    pub(super) fn on_arrive(&mut self, device: u32, id: LeaseId) {
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
    pub(super) fn arrange(&mut self, device: u32) {
        let held = &mut self.devices[device as usize];
        held.turn += 1;
        let turn = held.turn;
        if let Some(begin) = held.next_begin(self.now) {
            self.at(begin, Event::Begin { device, turn });
        }
    }

    pub(super) fn on_begin(&mut self, device: u32, turn: u32) {
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

    pub(super) fn on_tell(&mut self, device: u32, lease: LeaseId) {
        let Some(session) = self.sessions[device as usize] else { return };
        let Some((told, span)) = self.devices[device as usize].tell(self.now, lease) else { return };
        // Of a lease that goes on for long, every hundredth of it is often enough.
        let pause = self.scenario.delays.report.max(1).max(self.now.saturating_sub(span.begun) / 100);
        let next = span.end.min(self.now.saturating_add(pause));
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
            ..TaskResults::default()
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

    pub(super) fn note(&mut self, device: u32, span: &Span, in_vain: bool) {
        if let Some(segments) = &mut self.segments {
            let (job, stage) = span.of;
            let kernel = self.jobs[job as usize].job.stages[stage as usize].kernel as u32;
            segments.push(Segment { device, job, kernel, begun: span.begun, end: span.end, in_vain });
        }
    }
}
