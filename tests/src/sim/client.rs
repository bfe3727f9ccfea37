//! Clients: each wants one job done. They repeat what is not answered, cancel, and look, as the command line does.

use super::Sim;
use super::audit::{Watched, audit};
use super::kept::KeptPart;
use super::wire::{Ask, Delivery};
use openraft::type_config::AsyncRuntime;
use raftwerk_core::{Job, JobId, Phase, kept};
use raftwerk_proto::v1::{JobSpec, OutputPart};
use raftwerk_scheduler::leader::{Answer, Input, RequestId};
use raftwerk_scheduler::raft::Replica;
use raftwerk_scheduler::raft::sim::SimRuntime;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A call that is not answered for so long is made again, somewhere else.
const PATIENCE_MS: u64 = 3_000;
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What a client saw of its job.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    index: u64,
    phase: Option<Phase>,
    generations: Vec<(u32, u64)>,
    /// Parts of a result that stays on workers, and who keeps them.
    kept: Vec<KeptPart>,
}

/// A read of the leader's state, confirmed by a majority.
struct Read {
    /// Nothing older than this may be seen: somebody has seen it before this read began.
    floor: u64,
    seen: Arc<Mutex<Option<Option<Seen>>>>,
}

pub(super) struct Client {
    spec: JobSpec,
    key: String,
    pub(super) begins_at: u64,
    cancel_after: Option<u64>,
    pub(super) job: Option<JobId>,
    cancelled: bool,
    cancel_refused: bool,
    /// It drops the result so long after it has seen that the job is done.
    drop_after: Option<u64>,
    done_at: Option<u64>,
    dropped: bool,
    asked: Option<(u64, RequestId, Ask)>,
    ask_again_at: u64,
    /// It asks again although it was answered: the answer may have been lost.
    repeats_left: u32,
    conflicts_left: u32,
    acknowledged_at: u64,
    read: Option<Read>,
    next_read: u64,
    last: Option<Seen>,
}

impl Client {
    pub(super) fn new(key: String, spec: JobSpec, begins_at: u64, cancel_after: Option<u64>) -> Client {
        Client {
            spec,
            key,
            begins_at,
            cancel_after,
            job: None,
            cancelled: false,
            cancel_refused: false,
            drop_after: None,
            done_at: None,
            dropped: false,
            asked: None,
            ask_again_at: begins_at,
            repeats_left: 2,
            conflicts_left: 1,
            acknowledged_at: 0,
            read: None,
            next_read: begins_at,
            last: None,
        }
    }

    pub(super) fn dropping(self, after: Option<u64>) -> Client {
        Client { drop_after: after, ..self }
    }

    pub(super) fn input(&self, request: RequestId, ask: &Ask) -> Input {
        match ask {
            Ask::Submit { conflicting } => {
                let mut spec = self.spec.clone();
                if *conflicting {
                    spec.name = "another payload".into();
                }
                Input::Submit { request, spec, idempotency_key: self.key.clone() }
            }
            Ask::Cancel(job) => Input::Cancel { request, job: *job },
            Ask::Drop(job) => Input::DropResult { request, job: *job },
        }
    }

    /// What a leader answers is committed when it is said, whether or not the client hears it.
    pub(super) fn check_answer(&self, answer: &Answer) {
        if let Answer::Submitted { job, existing } = answer {
            audit(|a| a.counters.repeated_submits += u64::from(*existing));
            audit(|a| a.submit_acknowledged(&self.key, *job));
        }
    }

    /// What it wants to ask now.
    fn wants(&mut self, now: u64) -> Option<Ask> {
        if now < self.ask_again_at || self.asked.is_some() {
            return None;
        }
        let Some(job) = self.job else { return Some(Ask::Submit { conflicting: false }) };
        if self.cancel_after.is_some_and(|after| now > self.acknowledged_at + after) && !self.cancelled && !self.cancel_refused {
            return Some(Ask::Cancel(job));
        }
        let drops_at = self.done_at.zip(self.drop_after).map(|(done, after)| done + after);
        if drops_at.is_some_and(|at| at <= now) && !self.dropped {
            audit(|a| a.asks_to_drop(job));
            return Some(Ask::Drop(job));
        }
        if self.repeats_left > 0 {
            self.repeats_left -= 1;
            return Some(Ask::Submit { conflicting: false });
        }
        if self.conflicts_left > 0 {
            self.conflicts_left -= 1;
            return Some(Ask::Submit { conflicting: true });
        }
        None
    }

    fn take_in(&mut self, now: u64, ask: &Ask, answer: Answer) {
        self.ask_again_at = now + 200;
        match (ask, answer) {
            (Ask::Submit { conflicting: false }, Answer::Submitted { job, .. }) => {
                if self.job.is_some_and(|known| known != job) {
                    audit(|a| a.violate("a_key_makes_one_job", format!("key {} made {:?} and {job}", self.key, self.job)));
                }
                if self.job.is_none() {
                    self.acknowledged_at = now;
                }
                self.job = Some(job);
                self.ask_again_at = now + 20_000;
            }
            (Ask::Submit { conflicting: true }, Answer::IdempotencyConflict { job }) if Some(job) == self.job => {}
            (Ask::Submit { conflicting: true }, Answer::Unavailable(_) | Answer::Precondition(_)) => self.conflicts_left += 1,
            (Ask::Submit { conflicting: true }, other) => {
                audit(|a| a.violate("a_key_makes_one_job", format!("key {} with another payload was answered {other:?}", self.key)));
            }
            (Ask::Cancel(job), Answer::Cancelled) => {
                self.cancelled = true;
                audit(|a| a.cancel_acknowledged(*job));
            }
            (Ask::Drop(job), Answer::Released) => {
                self.dropped = true;
                audit(|a| a.drop_acknowledged(*job));
            }
            (Ask::Cancel(_), Answer::Precondition(_)) => self.cancel_refused = true, // it is being published
            // No worker is there: ask again.
            (_, Answer::Unavailable(_) | Answer::Precondition(_)) => self.ask_again_at = now + 1_000,
            (_, other) => audit(|a| a.violate("answers_fit_the_question", format!("{ask:?} was answered {other:?}"))),
        }
    }

    fn wakes_at(&self, now: u64) -> u64 {
        let ask = match &self.asked {
            Some((since, _, _)) => since + PATIENCE_MS,
            None => self.ask_again_at,
        };
        let settled = self.asked.is_none() && self.ask_again_at <= now;
        let read = if self.read.is_some() { now + 5 } else { self.next_read };
        if settled { read } else { ask.min(read) }
    }

    /// Its submit is acknowledged, and so is its cancel if it wanted one.
    pub(super) fn is_content(&self) -> bool {
        self.job.is_some()
    }
}

impl Sim {
    pub(super) fn clients_wake_at(&self) -> u64 {
        self.clients.iter().map(|c| c.wakes_at(self.now)).min().unwrap_or(u64::MAX)
    }

    pub(super) fn step_client(&mut self, index: usize) {
        let now = self.now;
        if now < self.clients[index].begins_at {
            return;
        }
        self.finish_read(index);
        let client = &mut self.clients[index];
        if client.asked.as_ref().is_some_and(|(since, _, _)| now >= since + PATIENCE_MS) {
            client.asked = None;
        }
        if let Some(ask) = self.clients[index].wants(now) {
            let request = RequestId(self.number());
            // Any replica; one that leads by its own account is likelier.
            let leaders: Vec<u64> = self.leaders.keys().copied().collect();
            let known = if leaders.is_empty() || self.dice.below(10) == 0 { self.cluster.ids() } else { leaders };
            let replica = known[self.dice.below(known.len() as u64) as usize];
            self.clients[index].asked = Some((now, request, ask.clone()));
            self.wire.send(now, &mut self.dice, Delivery::Ask { client: index, replica, request, ask });
        }
        if now >= self.clients[index].next_read && self.clients[index].read.is_none() {
            self.begin_read(index);
        }
    }

    pub(super) fn on_answer(&mut self, client: usize, request: RequestId, answer: Answer) {
        let now = self.now;
        let client = &mut self.clients[client];
        // An answer that comes after the client gave up is an answer to nobody.
        if let Some((_, _, ask)) = client.asked.take_if(|(_, asked, _)| *asked == request) {
            client.take_in(now, &ask, answer);
        }
    }

    fn begin_read(&mut self, index: usize) {
        self.clients[index].next_read = self.now + 400 + self.dice.below(2_000);
        let Some(job) = self.clients[index].job else { return };
        let leaders: Vec<u64> = self.leaders.keys().copied().collect();
        if leaders.is_empty() {
            return;
        }
        let id = leaders[self.dice.below(leaders.len() as u64) as usize];
        let Some(replica) = self.cluster.replica(id) else { return };
        let seen = Arc::new(Mutex::new(None));
        self.clients[index].read = Some(Read { floor: self.read_floor, seen: seen.clone() });
        drop(SimRuntime::spawn(async move {
            let confirmed = SimRuntime::timeout(READ_PATIENCE, replica.read_barrier()).await;
            let view = if matches!(confirmed, Ok(Ok(()))) { Some(look(&replica, job)) } else { None };
            *seen.lock().unwrap() = Some(view);
        }));
    }

    /// Observations of clients never go backwards: not for one client, and not from one client to another that asks later.
    fn finish_read(&mut self, index: usize) {
        const NAME: &str = "observations_never_go_backwards";
        let Some(read) = &self.clients[index].read else { return };
        let Some(seen) = read.seen.lock().unwrap().take() else { return };
        let floor = read.floor;
        self.clients[index].read = None;
        let Some(seen) = seen else { return };
        self.counted_reads += 1;
        let client = &mut self.clients[index];
        let who = format!("client {index} of job {:?}", client.job);
        if seen.index < floor {
            audit(|a| a.violate(NAME, format!("{who} saw entry {} after entry {floor} had been seen", seen.index)));
        }
        let Some(phase) = &seen.phase else {
            return audit(|a| a.violate(NAME, format!("{who} was told there is no such job")));
        };
        if let Some(last) = &client.last {
            let final_changed = last.phase.as_ref().is_some_and(|p| p.ended_at().is_some() && p != phase);
            let fell = last.generations.iter().zip(&seen.generations).any(|((g, n), (h, m))| h < g || (g == h && m < n));
            if final_changed || fell {
                audit(|a| a.violate(NAME, format!("{who}: {last:?}, then {seen:?}")));
            }
        }
        let is_done = matches!(phase, Phase::Done { .. });
        if is_done && client.done_at.is_none() {
            client.done_at = Some(self.now);
            // Not later for what it would have asked otherwise.
            client.ask_again_at = client.ask_again_at.min(client.drop_after.map_or(u64::MAX, |after| self.now + after));
        }
        let (job, parts) = (client.job, if is_done { seen.kept.clone() } else { Vec::new() });
        self.read_floor = self.read_floor.max(seen.index);
        client.last = Some(seen);
        if let Some(job) = job.filter(|_| !parts.is_empty()) {
            self.read_result(job, &parts);
        }
    }
}

fn look(replica: &Replica<Watched, SimRuntime>, job: JobId) -> Seen {
    let state = replica.state().read().unwrap();
    let state = state.state();
    let found = state.jobs.get(&job);
    Seen {
        index: state.applied_index,
        phase: found.map(|j| j.phase.clone()),
        generations: found.map(|j| j.stages.iter().map(|s| (s.generation, s.accepted())).collect()).unwrap_or_default(),
        kept: found.filter(|job| job.has_kept_result()).map(kept_parts).unwrap_or_default(),
    }
}

fn kept_parts(job: &Job) -> Vec<KeptPart> {
    let keepers = |part: &OutputPart| kept::keepers(part).map(|worker| worker.0).collect();
    let told = |part: &OutputPart| KeptPart { name: part.staged_name.clone(), crc32c: part.crc32c, keepers: keepers(part) };
    job.parts.values().map(told).collect()
}
