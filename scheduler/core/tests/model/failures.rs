//! What failures lead to: tasks that are tried again or set aside, workers and devices that are left out, jobs that cannot go on.

use super::{Class, Device, Lease, LeaseIs, Model, Phase, Stage, TaskIs, Then, Worker, let_go};

impl Model {
    pub(super) fn fail_when_too_few_are_left_for_a_gang(&mut self, id: u64) {
        let job = &self.jobs[&id];
        let there: Vec<(Worker, Device)> =
            self.workers.iter().filter(|(_, is)| !is.lost).flat_map(|(w, is)| (0..is.devices).map(|d| (*w, d))).collect();
        let left = there.iter().filter(|(w, d)| !job.excluded.contains(w) && !job.excluded_devices.contains(&(*w, *d))).count();
        let too_few = |stage: &Stage| stage.waits_for_gang() && left < stage.gang && there.len() >= stage.gang;
        if job.phase == Phase::Running && job.stages.iter().any(too_few) {
            self.end_job(id, Phase::Failed);
        }
    }

    pub(super) fn fail(&mut self, lease: &LeaseIs, id: Lease, first: u64, count: u64, class: Class) -> Option<Then> {
        let now = self.now;
        let job = self.jobs.get_mut(&lease.job).unwrap();
        let stage = &mut job.stages[lease.stage];
        let held: Vec<usize> = stage.held(id).filter(|t| first <= *t as u64 && (*t as u64) < first + count).collect();
        if held.is_empty() {
            return None;
        }
        if class != Class::Stopped {
            stage.failed += held.len() as u64;
        }
        // Neighbours in the same situation are one piece of the report.
        let mut pieces: Vec<Vec<usize>> = Vec::new();
        for task in held.iter().copied() {
            match pieces.last_mut() {
                Some(piece) if piece.last() == Some(&(task - 1)) && stage.tasks[task].is == stage.tasks[task - 1].is => piece.push(task),
                _ => pieces.push(vec![task]),
            }
        }
        let mut hopeless = Vec::new();
        for piece in pieces {
            let raced = matches!(&stage.tasks[piece[0]].is, TaskIs::Held(by) if by.len() == 2);
            piece.iter().for_each(|t| let_go(&mut stage.tasks[*t], id));
            if matches!(class, Class::Source(_)) && !raced {
                piece.iter().for_each(|t| stage.tasks[*t].is = TaskIs::Free { not_before: now + 100 });
            }
            if !matches!(class, Class::Task | Class::Executor) {
                continue;
            }
            piece.iter().for_each(|t| stage.tasks[*t].charged += 1);
            if class == Class::Executor {
                self.groups = die_together(stage, &piece, lease.worker, self.groups);
            }
            if raced {
                continue;
            }
            for t in &piece {
                let me = &stage.tasks[*t];
                let same = |other: usize| {
                    piece.contains(&other) && stage.tasks[other].group == me.group && stage.tasks[other].charged == me.charged
                };
                let alone = me.group != 0 && !(*t > 0 && same(t - 1)) && !same(t + 1);
                if me.charged >= job.max_attempts || (alone && me.died_on.len() >= 3) {
                    hopeless.push(*t);
                } else {
                    let pause = (100u64 << (me.charged - 1)).min(10_000);
                    stage.tasks[*t].is = TaskIs::Free { not_before: now + pause };
                }
            }
        }
        match class {
            Class::Fatal => Some(Then::FailJob),
            Class::Stopped => None,
            Class::Worker => job.excluded.insert(lease.worker).then_some(Then::StrikeWorker),
            Class::Device => job.excluded_devices.insert((lease.worker, lease.device)).then_some(Then::StrikeDevice),
            Class::Source(source) => {
                let failures = job.source_failures.entry(source).or_default();
                *failures += 1;
                (*failures >= 3).then_some(Then::LoseSource(source))
            }
            Class::Task | Class::Executor => {
                for t in &hopeless {
                    stage.tasks[*t].is = TaskIs::SetAside;
                    self.groups = clear(stage, *t as u64, self.groups);
                }
                let all = stage.tasks.iter().all(|t| t.is == TaskIs::SetAside);
                if !hopeless.is_empty() && (!job.goes_on || all) {
                    return Some(Then::FailJob);
                }
                (class == Class::Executor).then_some(Then::StrikeDevice)
            }
        }
    }

    pub(super) fn strike(&mut self, worker: Worker, device: Option<Device>) {
        let now = self.now;
        let others = self.workers.iter().any(|(id, w)| *id != worker && !w.lost && w.standing.until <= now);
        let w = self.workers.get_mut(&worker).unwrap();
        let standing = match device {
            None => &mut w.standing,
            Some(device) => w.device_standing.entry(device).or_default(),
        };
        if now < standing.until {
            return;
        }
        standing.strikes += 1;
        if standing.strikes >= 3 && others {
            standing.times += 1;
            standing.until = now + (30_000u64 << (standing.times - 1).min(20)).min(3_600_000);
            standing.strikes = 2;
        }
    }

    pub(super) fn fail_when_nobody_is_left(&mut self, id: u64) {
        let job = &self.jobs[&id];
        if job.ended() || (job.excluded.is_empty() && job.excluded_devices.is_empty()) {
            return;
        }
        let waits = |s: &Stage| s.open && s.tasks.iter().any(|t| matches!(t.is, TaskIs::Free { .. }));
        let left = self
            .workers
            .iter()
            .any(|(w, is)| !is.lost && !job.excluded.contains(w) && (0..is.devices).any(|d| !job.excluded_devices.contains(&(*w, d))));
        if job.stages.iter().any(waits) && !left {
            self.end_job(id, Phase::Failed);
        }
    }
}

/// Those of `piece` that were in one group stay together; what was in it before and behind them parts from them.
fn die_together(stage: &mut Stage, piece: &[usize], worker: Worker, mut groups: u64) -> u64 {
    let (first, end) = (piece[0], piece[piece.len() - 1] + 1);
    groups = part(stage, first, end, groups);
    let mut run = 0;
    for t in first..end {
        if stage.tasks[t].group == 0 {
            if t == first || run == 0 || stage.tasks[t - 1].group != run {
                groups += 1;
                run = groups;
            }
            stage.tasks[t].group = run;
        }
        stage.tasks[t].died_on.insert(worker);
    }
    groups
}

/// Cuts groups at both ends of a range.
fn part(stage: &mut Stage, first: usize, end: usize, mut groups: u64) -> u64 {
    for cut in [first, end] {
        if cut > 0 && cut < stage.tasks.len() && stage.tasks[cut].group != 0 && stage.tasks[cut].group == stage.tasks[cut - 1].group {
            groups += 1;
            let old = stage.tasks[cut].group;
            let mut t = cut;
            while t < stage.tasks.len() && stage.tasks[t].group == old {
                stage.tasks[t].group = groups;
                t += 1;
            }
        }
    }
    groups
}

pub(super) fn clear(stage: &mut Stage, task: u64, groups: u64) -> u64 {
    let t = task as usize;
    let groups = part(stage, t, t + 1, groups);
    stage.tasks[t].group = 0;
    stage.tasks[t].died_on.clear();
    groups
}
