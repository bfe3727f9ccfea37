//! What must always hold, one function per promise. Each returns what is wrong, or nothing.

use crate::gang;
use crate::ids::WorkerId;
use crate::job::{Job, Phase};
use crate::kept;
use crate::matching::device_fits;
use crate::stage::{Counts, Stage, TaskState};
use crate::state::State;
use crate::worker::DeviceUse;
use std::collections::{BTreeMap, BTreeSet};

/// All promises that one state can show.
pub fn check(state: &State) -> Result<(), String> {
    check_cheap(state)?;
    snapshot_restores_the_same_state(state)
}

/// All of them but the one that encodes and decodes the whole state.
pub fn check_cheap(state: &State) -> Result<(), String> {
    counts_sum_to_the_total(state)?;
    leased_tasks_have_live_leases(state)?;
    set_aside_tasks_have_their_evidence(state)?;
    device_use_equals_its_leases(state)?;
    no_device_holds_more_than_it_has(state)?;
    kept_parts_have_their_keepers(state)?;
    rounds_are_decided_once(state)?;
    stages_are_open_when_their_input_is_there(state)?;
    what_is_needed_is_somewhere(state)?;
    waiting_jobs_wait_for_others(state)?;
    leases_are_where_they_may_be(state)?;
    gang::holds_are_sound(state)?;
    gang::gangs_begin_whole(state)?;
    ended_jobs_hold_nothing(state)
}

pub fn counts_sum_to_the_total(state: &State) -> Result<(), String> {
    for job in state.jobs.values() {
        for (index, stage) in job.stages.iter().enumerate() {
            let walked = Counts::walked(stage.tasks());
            if stage.counts() != walked || walked.sum() != stage.tasks().len() {
                return Err(format!(
                    "job {} stage {index}: counts {:?}, walked {walked:?} of {}",
                    job.id,
                    stage.counts(),
                    stage.tasks().len()
                ));
            }
        }
    }
    Ok(())
}

/// A leased task names a live lease of that job and stage whose range contains it, or two of different workers, the second of which
/// is speculative: at most two holders per task, never both on one worker.
pub fn leased_tasks_have_live_leases(state: &State) -> Result<(), String> {
    for job in state.jobs.values() {
        for (index, stage) in job.stages.iter().enumerate() {
            for (range, task) in stage.tasks().iter() {
                let holders = match task {
                    TaskState::Leased(id) => vec![id],
                    TaskState::Raced { first, second } => vec![first, second],
                    _ => continue,
                };
                for id in &holders {
                    let holds = state.leases.get(id).is_some_and(|l| {
                        l.job == job.id && l.stage as usize == index && l.tasks.first <= range.first && range.end <= l.tasks.end
                    });
                    if !holds {
                        return Err(format!("job {} stage {index}: tasks {range:?} are leased by {id}, which does not hold them", job.id));
                    }
                }
                if let [first, second] = holders[..] {
                    let (first, second) = (&state.leases[&first], &state.leases[&second]);
                    if first.worker == second.worker || !second.speculative {
                        return Err(format!("job {} stage {index}: tasks {range:?} are raced by {first:?} and {second:?}", job.id));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Every task set aside has its evidence, and nothing else has; suspicion ends with the task.
pub fn set_aside_tasks_have_their_evidence(state: &State) -> Result<(), String> {
    for job in state.jobs.values() {
        for (index, stage) in job.stages.iter().enumerate() {
            let named: u64 = stage.evidence.values().map(|e| e.tasks.count()).fold(0, u64::saturating_add);
            let all_aside = stage.evidence.values().all(|e| stage.all(e.tasks, |s| s == TaskState::SetAside));
            if named != stage.set_aside() || !all_aside {
                return Err(format!("job {} stage {index}: {} tasks set aside, evidence of {named}", job.id, stage.set_aside()));
            }
            let over = |s| matches!(s, TaskState::Accepted { .. } | TaskState::SetAside);
            if stage.suspicions.iter().any(|(range, _)| stage.tasks().overlapping(range).any(|(_, s)| over(s))) {
                return Err(format!("job {} stage {index}: a task that is done is under suspicion", job.id));
            }
        }
    }
    Ok(())
}

pub fn device_use_equals_its_leases(state: &State) -> Result<(), String> {
    let mut uses: BTreeMap<_, DeviceUse> = BTreeMap::new();
    for lease in state.leases.values() {
        uses.entry((lease.worker, lease.device)).or_default().add(lease.tasks.count(), &lease.amount);
    }
    if uses == *state.uses() { Ok(()) } else { Err(format!("device use {:?} is not the sum of its leases {uses:?}", state.uses())) }
}

pub fn no_device_holds_more_than_it_has(state: &State) -> Result<(), String> {
    for ((worker, device), used) in state.uses() {
        let capacity = state.workers.get(worker).and_then(|w| w.device(*device)).and_then(|d| d.capacity).unwrap_or_default();
        let over =
            used.held.slots > capacity.slots || used.held.milli_cpu > capacity.milli_cpu || used.held.memory_bytes > capacity.memory_bytes;
        if over {
            return Err(format!("worker {worker} device {device} holds {:?} of {capacity:?}", used.held));
        }
    }
    Ok(())
}

/// A lease is on a device that has all that its stage requires.
pub fn leases_are_where_they_may_be(state: &State) -> Result<(), String> {
    for (id, lease) in &state.leases {
        let stage = state.jobs.get(&lease.job).and_then(|job| job.spec.stages.get(lease.stage as usize));
        let worker = state.workers.get(&lease.worker);
        let device = worker.and_then(|worker| worker.device(lease.device));
        if let (Some(stage), Some(worker), Some(device)) = (stage, worker, device)
            && device_fits(stage, worker, device)
        {
            continue;
        }
        return Err(format!("lease {id} of job {} is on worker {} device {}, which does not fit", lease.job, lease.worker, lease.device));
    }
    Ok(())
}

/// Each part of a result on workers names different workers, no more than asked for, and only these have lost it. Parts of other outputs name nobody
/// but their maker.
pub fn kept_parts_have_their_keepers(state: &State) -> Result<(), String> {
    for job in state.jobs.values() {
        let (on_workers, copies) = (kept::on_workers(&job.spec), kept::copies(&job.spec));
        for part in job.parts.values() {
            let keepers: BTreeSet<_> = kept::keepers(part).collect();
            let gone: BTreeSet<_> = part.gone_at.iter().copied().map(WorkerId).collect();
            let named = usize::from(part.worker != 0) + part.copy_workers.len();
            let fits = match on_workers {
                true => keepers.len() == named && named <= copies && gone.len() == part.gone_at.len() && gone.is_subset(&keepers),
                false => part.copy_workers.is_empty() && gone.is_empty(),
            };
            if !fits {
                return Err(format!("job {} part {} is kept by {} and {:?}", job.id, part.partition, part.worker, part.copy_workers));
            }
        }
    }
    Ok(())
}

/// A round ends before the next begins, none but the last ends the rounds, a decided job has had its last one, and nothing of an earlier round holds
/// a lease or counts.
pub fn rounds_are_decided_once(state: &State) -> Result<(), String> {
    for job in state.jobs.values() {
        let Some(rounds) = &job.rounds else {
            if job.spec.rounds.is_some() {
                return Err(format!("job {} has lost its rounds", job.id));
            }
            continue;
        };
        let spec = job.spec.rounds.unwrap_or_default();
        let (ended, one_after_the_other) = (&rounds.ended, rounds.ended.windows(2).all(|w| w[0].ended_at_ms <= w[1].began_at_ms));
        let early = ended.iter().rev().skip(1).any(|round| round.converged && !spec.all);
        if ended.len() > spec.max as usize || early || !one_after_the_other {
            return Err(format!("job {}: rounds {ended:?} of {spec:?}", job.id));
        }
        let decided = matches!(job.phase, Phase::Publishing | Phase::Done { .. });
        if decided && !rounds.is_over(&job.spec) {
            return Err(format!("job {} is {:?} after {} rounds of {spec:?}", job.id, job.phase, ended.len()));
        }
        if job.phase == Phase::Running && !rounds.is_over(&job.spec) && job.stages.last().is_some_and(Stage::is_complete) {
            return Err(format!("job {}: its round is complete and does not end", job.id));
        }
        for (stage, first) in job.stages.iter().zip(&rounds.first_generations) {
            let old = |s: TaskState| matches!(s, TaskState::Accepted { generation, .. } if generation < *first);
            if stage.tasks().iter().any(|(_, s)| old(s)) {
                return Err(format!("job {}: a result of an earlier round counts", job.id));
            }
        }
        let of_job = state.leases.iter().filter(|(_, lease)| lease.job == job.id);
        for (id, lease) in of_job {
            if lease.generation < rounds.first_generations.get(lease.stage as usize).copied().unwrap_or_default() {
                return Err(format!("job {}: lease {id} of an earlier round lives", job.id));
            }
        }
    }
    Ok(())
}

/// A stage is open only while every stage that it reads is complete.
pub fn stages_are_open_when_their_input_is_there(state: &State) -> Result<(), String> {
    for job in state.jobs.values().filter(|job| job.phase == Phase::Running) {
        for (index, stage) in job.stages.iter().enumerate().filter(|(_, stage)| stage.open) {
            if let Some(from) = job.graph.inputs(index).iter().find(|from| !job.stages[**from].is_complete()) {
                return Err(format!("job {}: stage {index} is open and reads stage {from}, which is not complete", job.id));
            }
            if stage.is_complete() {
                return Err(format!("job {}: stage {index} is complete and open", job.id));
            }
        }
    }
    Ok(())
}

/// Nothing reads a generation that is gone: of a stage that another one has still to read, the output of every accepted task lies with a worker
/// that is there. Jobs of two stages, as older entries made them, keep no account of it while they publish.
pub fn what_is_needed_is_somewhere(state: &State) -> Result<(), String> {
    for job in state.jobs.values().filter(|job| job.is_active() && job.is_beyond_two()) {
        for (index, stage) in job.stages.iter().enumerate().filter(|(index, _)| job.shuffle_needed(*index)) {
            for (range, task) in stage.tasks().iter() {
                let TaskState::Accepted { worker, copy, generation } = task else { continue };
                let is_gone = !state.is_there(worker) || (copy.0 != 0 && !state.is_there(copy));
                if is_gone || generation > stage.generation {
                    return Err(format!("job {}: tasks {range:?} of stage {index} are needed and are with {task:?}", job.id));
                }
            }
        }
    }
    Ok(())
}

/// A job that is to start after others has not begun, and these are there and have not ended.
pub fn waiting_jobs_wait_for_others(state: &State) -> Result<(), String> {
    for job in state.jobs.values().filter(|job| !job.waiting_for.is_empty()) {
        let begun = job.phase != Phase::Running || job.stages.iter().any(|stage| stage.open || stage.leases > 0);
        let over = job.waiting_for.iter().find(|other| state.jobs.get(other).is_none_or(|other| !other.is_active()));
        if begun || over.is_some() || job.waiting_for.contains(&job.id) {
            return Err(format!("job {} is {:?} and waits for {:?}", job.id, job.phase, job.waiting_for));
        }
    }
    Ok(())
}

pub fn ended_jobs_hold_nothing(state: &State) -> Result<(), String> {
    for lease in state.leases.values() {
        if state.jobs.get(&lease.job).is_none_or(|j| j.phase != Phase::Running) {
            return Err(format!("job {} is over and still holds a lease on worker {}", lease.job, lease.worker));
        }
    }
    for job in state.jobs.values() {
        if matches!(job.phase, Phase::Done { .. } | Phase::Publishing) && job.stages.last().is_some_and(|s| !s.is_complete()) {
            return Err(format!("job {} is {:?} with tasks missing", job.id, job.phase));
        }
    }
    Ok(())
}

pub fn snapshot_restores_the_same_state(state: &State) -> Result<(), String> {
    let restored = State::from_snapshot(&state.cluster, &state.to_snapshot()).map_err(|e| e.to_string())?;
    if restored == *state { Ok(()) } else { Err("the snapshot does not restore the same state".into()) }
}

/// Counts that only grow, for comparing an earlier state with a later one of the same replica.
pub fn moves_only_forward(before: &State, after: &State) -> Result<(), String> {
    if after.now < before.now || after.applied_index < before.applied_index {
        return Err("time or index went back".into());
    }
    for (id, old) in &before.jobs {
        let Some(new) = after.jobs.get(id) else { continue };
        if old.phase.ended_at().is_some() && old.phase != new.phase {
            return Err(format!("job {id} left a final phase: {:?} -> {:?}", old.phase, new.phase));
        }
        if old.phase == Phase::Publishing && new.phase == Phase::Running && !lost_parts_are_made_again(old, new) {
            return Err(format!("job {id} went from publishing back to running without a lost part"));
        }
        let rounds = |job: &Job| job.rounds.as_ref().map(|rounds| rounds.ended.clone()).unwrap_or_default();
        let (old_rounds, new_rounds) = (rounds(old), rounds(new));
        if !new_rounds.starts_with(&old_rounds) {
            return Err(format!("job {id}: a round was decided anew: {old_rounds:?} -> {new_rounds:?}"));
        }
        for (index, (old_stage, new_stage)) in old.stages.iter().zip(&new.stages).enumerate() {
            if old_stage.generation == new_stage.generation && new_stage.accepted() < old_stage.accepted() {
                return Err(format!("job {id} stage {index}: progress fell within generation {}", old_stage.generation));
            }
        }
    }
    Ok(())
}

/// The one way back from a decision: parts were lost, and exactly the tasks that make them are open again, under a new generation.
fn lost_parts_are_made_again(old: &Job, new: &Job) -> bool {
    let (Some(before), Some(after)) = (old.stages.last(), new.stages.last()) else { return false };
    let gone: Vec<u32> = old.parts.keys().filter(|p| !new.parts.contains_key(p)).copied().collect();
    let open_again = |p: &u32| !matches!(after.state_of(u64::from(*p)), Some(TaskState::Accepted { .. }) | None);
    after.generation > before.generation
        && !gone.is_empty()
        && gone.iter().all(open_again)
        && before.accepted().checked_sub(after.accepted()) == Some(gone.len() as u64)
}
