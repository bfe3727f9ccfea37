//! What the clients did and were told, and whether it was true.
//!
//! [`check`] compares the history with what the cluster says in the end, with the known answers, and with the record of executions. Every
//! rule is a function of its own; the tests below plant a lie for each of them.

use super::decisions::Decisions;
use super::executions::{Execution, GrantSeen};
use super::fleet::{STOPPED, Touch};
use raftwerk_core::LeaseId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long after its pause a worker's old results may still be on their way, or its leases be given to others: the lease time and a bit.
const AFTERMATH_US: u64 = 15_000_000;

/// From a task's end to the leader's knowledge of it: workers report ten times a second, and the entry has to be committed.
const REPORT_US: u64 = 500_000;

/// What a job must come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Indices `first .. first + tasks`, one per task; their sum.
    Sum { first: u64, tasks: u64 },
    /// A published directory whose part files have these bytes.
    Files { dir: std::path::PathBuf, parts: BTreeMap<String, Vec<u8>> },
    /// A kernel that refuses one of its tasks.
    Fails,
    /// Cancelled by its client while it runs.
    Cancelled,
}

impl Expect {
    /// Index ranges of jobs do not overlap, so a sum that is right cannot come from another job's tasks.
    pub fn sum(&self) -> Option<u128> {
        match self {
            Expect::Sum { first, tasks } => {
                let (first, tasks) = (u128::from(*first), u128::from(*tasks));
                Some(first * tasks + tasks * tasks.saturating_sub(1) / 2)
            }
            _ => None,
        }
    }
}

/// One run of the command line.
#[derive(Clone, Debug)]
pub struct Call {
    pub what: &'static str,
    pub began_us: u64,
    pub took: Duration,
    /// How long it may take, by what its documentation says.
    pub deadline: Duration,
    pub exit: Option<i32>,
    /// The job it named.
    pub job: Option<u64>,
    /// The state it printed.
    pub state: Option<String>,
    pub stderr: String,
}

/// One job as its client lived it.
#[derive(Clone, Debug)]
pub struct Story {
    pub key: String,
    pub expect: Expect,
    pub calls: Vec<Call>,
}

impl Story {
    fn acknowledged(&self) -> impl Iterator<Item = (&Call, u64)> {
        self.calls.iter().filter_map(|c| Some((c, c.job?)))
    }
}

/// All that is known when everything has ended.
pub struct Evidence {
    pub stories: Vec<Story>,
    /// `job list`, and `job show` of each: by job.
    pub jobs: BTreeMap<u64, Value>,
    pub executions: Vec<Execution>,
    pub grants: Vec<GrantSeen>,
    pub decisions: Decisions,
    pub touches: Vec<Touch>,
}

pub fn check(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for story in &evidence.stories {
        acknowledged_submits_are_there(story, &evidence.jobs, &mut wrong);
        a_key_is_one_job(story, &evidence.jobs, &mut wrong);
        exit_codes_tell_the_truth(story, &evidence.jobs, &mut wrong);
        nothing_outlasts_its_deadline(story, &mut wrong);
        nobody_gave_up(story, &mut wrong);
        if let Some(job) = job_of(story, &evidence.jobs) {
            the_end_is_the_known_one(story, job, &mut wrong);
            nothing_is_counted_twice_or_never(story, job, &mut wrong);
        }
        outputs_are_the_known_bytes(story, &evidence.jobs, &mut wrong);
    }
    nobody_elses_jobs(evidence, &mut wrong);
    finished_tasks_of_untouched_workers_ran_once(evidence, &mut wrong);
    wrong
}

fn job_of<'a>(story: &Story, jobs: &'a BTreeMap<u64, Value>) -> Option<&'a Value> {
    jobs.values().find(|j| j["idempotency_key"] == story.key.as_str())
}

fn acknowledged_submits_are_there(story: &Story, jobs: &BTreeMap<u64, Value>, wrong: &mut Vec<String>) {
    for (call, job) in story.acknowledged() {
        match jobs.get(&job) {
            None => {
                wrong.push(format!("{}: {} named job {job}, which is not there: an acknowledged submit was lost", story.key, call.what))
            }
            Some(view) if view["idempotency_key"] != story.key.as_str() => {
                wrong.push(format!("{}: {} named job {job}, which belongs to key {}", story.key, call.what, view["idempotency_key"]));
            }
            Some(_) => {}
        }
    }
}

fn a_key_is_one_job(story: &Story, jobs: &BTreeMap<u64, Value>, wrong: &mut Vec<String>) {
    let of_key: Vec<u64> = jobs.iter().filter(|(_, j)| j["idempotency_key"] == story.key.as_str()).map(|(id, _)| *id).collect();
    if of_key.len() > 1 {
        wrong.push(format!("{}: one key made jobs {of_key:?}", story.key));
    }
}

fn exit_codes_tell_the_truth(story: &Story, jobs: &BTreeMap<u64, Value>, wrong: &mut Vec<String>) {
    let Some(job) = job_of(story, jobs) else { return };
    let state = job["state"].as_str().unwrap_or_default();
    for call in story.calls.iter().filter(|c| c.what.contains("wait")) {
        let said = match call.exit {
            Some(0) => "done",
            Some(3) => "failed",
            Some(4) => "cancelled",
            _ => continue,
        };
        if said != state {
            wrong.push(format!("{}: {} ended with {:?} (\"{said}\"), but the job is {state}", story.key, call.what, call.exit));
        }
        if call.state.as_deref().is_some_and(|printed| printed != said) {
            wrong.push(format!("{}: {} printed {:?} and ended with {:?}", story.key, call.what, call.state, call.exit));
        }
    }
}

fn nothing_outlasts_its_deadline(story: &Story, wrong: &mut Vec<String>) {
    for call in story.calls.iter().filter(|c| c.took > c.deadline) {
        wrong.push(format!("{}: {} took {:.1?}, its deadline is {:.1?}", story.key, call.what, call.took, call.deadline));
    }
}

/// A majority and a worker were always there, so nobody had a reason to lose contact for good or to see an unexpected error.
fn nobody_gave_up(story: &Story, wrong: &mut Vec<String>) {
    for call in &story.calls {
        let fine = match &story.expect {
            Expect::Fails => matches!(call.exit, Some(0 | 3)),
            Expect::Cancelled => matches!(call.exit, Some(0 | 4)),
            _ => call.exit == Some(0),
        };
        if !fine {
            let said = call.stderr.lines().filter(|l| l.starts_with("error") || l.contains("caused by")).collect::<Vec<_>>().join(" / ");
            wrong.push(format!("{}: {} ended with {:?}: {said}", story.key, call.what, call.exit));
        }
    }
}

fn the_end_is_the_known_one(story: &Story, job: &Value, wrong: &mut Vec<String>) {
    let state = job["state"].as_str().unwrap_or_default();
    let fine = match &story.expect {
        Expect::Sum { .. } | Expect::Files { .. } => state == "done",
        Expect::Fails => state == "failed" && job["cause"].as_str().is_some_and(|c| c.contains("fail_task")),
        // The cancel may come too late.
        Expect::Cancelled => matches!(state, "cancelled" | "done"),
    };
    if !fine {
        wrong.push(format!("{}: job {} is {state} ({}), expected {:?}", story.key, job["job"], job["cause"], kind(&story.expect)));
    }
}

fn kind(expect: &Expect) -> &'static str {
    match expect {
        Expect::Sum { .. } => "done with a sum",
        Expect::Files { .. } => "done with files",
        Expect::Fails => "failed",
        Expect::Cancelled => "cancelled",
    }
}

fn nothing_is_counted_twice_or_never(story: &Story, job: &Value, wrong: &mut Vec<String>) {
    if job["state"] != "done" {
        return;
    }
    let stages: Vec<&Value> = job["stages"].as_array().into_iter().flatten().collect();
    for (place, stage) in stages.iter().enumerate() {
        // Output that was read before its worker died need not be made again: then only the last stage is whole.
        let whole = place + 1 == stages.len() || stage["generation"].as_u64().unwrap_or(0) == 0;
        if whole && stage["accepted"] != stage["tasks"] {
            wrong
                .push(format!("{}: job {} is done with {} of {} tasks accepted", story.key, job["job"], stage["accepted"], stage["tasks"]));
        }
    }
    if let Some(sum) = story.expect.sum() {
        let total = job["tallies"][0]["total"].as_str().unwrap_or_default();
        if total != sum.to_string() {
            wrong.push(format!("{}: job {} sums to {total}, the answer is {sum}", story.key, job["job"]));
        }
    }
}

fn outputs_are_the_known_bytes(story: &Story, jobs: &BTreeMap<u64, Value>, wrong: &mut Vec<String>) {
    let Expect::Files { dir, parts } = &story.expect else { return };
    if job_of(story, jobs).is_none_or(|j| j["state"] != "done") {
        return;
    }
    match super::read_parts(dir) {
        Ok(found) if found == *parts => {}
        Ok(found) => {
            let differ: Vec<&String> = parts.keys().chain(found.keys()).filter(|name| parts.get(*name) != found.get(*name)).collect();
            wrong.push(format!("{}: {} differs from the known answer in {differ:?}", story.key, dir.display()));
        }
        Err(error) => wrong.push(format!("{}: {} cannot be read: {error}", story.key, dir.display())),
    }
}

fn nobody_elses_jobs(evidence: &Evidence, wrong: &mut Vec<String>) {
    for (id, job) in &evidence.jobs {
        if !evidence.stories.iter().any(|s| job["idempotency_key"] == s.key.as_str()) {
            wrong.push(format!("job {id} has the key {}, which nobody used", job["idempotency_key"]));
        }
    }
}

/// A task may run again when the worker that ran it was killed, stopped or cut off around that time: the death of a scheduler is no
/// reason. And a task that was late and not known to be finished may have been leased a second time, beside the first lease: see [`repetition`].
fn finished_tasks_of_untouched_workers_ran_once(evidence: &Evidence, wrong: &mut Vec<String>) {
    let mut by_index: BTreeMap<u64, Vec<&Execution>> = BTreeMap::new();
    for execution in &evidence.executions {
        by_index.entry(execution.index).or_default().push(execution);
    }
    for runs in by_index.values_mut().filter(|r| r.len() > 1) {
        runs.sort_by_key(|e| e.at_us);
        for pair in runs.windows(2) {
            let (first, again) = (pair[0], pair[1]);
            let around = |t: &Touch| t.from_us <= again.at_us && t.to_us.saturating_add(AFTERMATH_US) >= first.at_us;
            let touched = evidence.touches.iter().filter(|t| t.worker == first.worker).any(around);
            if touched || a_zombie_came_to_it(evidence, first, again) {
                continue;
            }
            if let Some(why) = repetition(evidence, first, again) {
                wrong.push(format!(
                    "the task of index {} ran on {} and {:.1} s later on {}, though nothing was done to {}: {why}",
                    first.index,
                    first.worker,
                    (again.at_us - first.at_us) as f64 / 1e6,
                    again.worker,
                    first.worker
                ));
            }
        }
    }
}

/// For how long a process has to have been stopped before its lease may be over: the lease time, less a heartbeat.
const STOPPED_US: u64 = 9_500_000;

/// The one who ran it last had been given it first, and was stopped for so long that its lease was over and another had it when it went on: in front
/// of its task, which no process can prevent. Whoever was only cut off, or stopped for less, has no such excuse.
fn a_zombie_came_to_it(evidence: &Evidence, first: &Execution, again: &Execution) -> bool {
    let Some((job, task)) = task_of(evidence, first.index) else { return false };
    let (Some(newer), Some(older)) = (lease_of(evidence, job, task, first), lease_of(evidence, job, task, again)) else { return false };
    let Some(decided) = evidence.decisions.leases.get(&newer).filter(|_| older < newer) else { return false };
    let stopped = |t: &Touch| {
        t.worker == again.worker
            && t.what == STOPPED
            && t.from_us + STOPPED_US <= decided.at_us
            && t.to_us.saturating_add(AFTERMATH_US) >= again.at_us
    };
    evidence.touches.iter().any(stopped)
}

/// Why the second run was a repetition of what had been done; nothing if it was speculation. That is decided by the log, and not by when the worker
/// heard of it: a leader may die when its decision is committed and not sent, and the next one hands out what was decided. So the later one of the
/// two leases has to be speculative, decided by an entry before the one that took the task's result, and, by that entry's stamp, no later than the
/// result may have been on its way.
fn repetition(evidence: &Evidence, first: &Execution, again: &Execution) -> Option<String> {
    let Some((job, task)) = task_of(evidence, first.index) else { return Some("no job has it".into()) };
    let (Some(earlier), Some(later)) = (lease_of(evidence, job, task, first), lease_of(evidence, job, task, again)) else {
        return Some("a worker ran it without a lease".into());
    };
    if earlier == later {
        return Some(format!("both times under lease {later}"));
    }
    let second = earlier.max(later);
    let Some(decided) = evidence.decisions.leases.get(&second) else {
        return Some(format!("no scheduler has written down that it decided lease {second}"));
    };
    if !decided.speculative {
        return Some(format!("lease {second} is no second lease beside lease {}", earlier.min(later)));
    }
    match evidence.decisions.accepted_by(job, task) {
        None => return Some(format!("leased a second time as lease {second}, and no entry has taken a result of it")),
        Some(entry) if entry <= second.index => {
            return Some(format!("lease {second} was decided when entry {entry} had taken its result"));
        }
        Some(_) => {}
    }
    let late = decided.at_us.saturating_sub(first.at_us);
    (late > REPORT_US).then(|| format!("lease {second} was decided {:.1} s after the first run", late as f64 / 1e6))
}

/// Job and task of an index.
fn task_of(evidence: &Evidence, index: u64) -> Option<(u64, u64)> {
    let (story, task) = evidence.stories.iter().find_map(|s| match s.expect {
        Expect::Sum { first, tasks } if (first..first + tasks).contains(&index) => Some((s, index - first)),
        _ => None,
    })?;
    Some((job_of(story, &evidence.jobs)?["job"].as_u64()?, task))
}

/// The lease under which it was run: the last one with the task that its worker had been given by then.
fn lease_of(evidence: &Evidence, job: u64, task: u64, execution: &Execution) -> Option<LeaseId> {
    let of_task = |g: &&GrantSeen| {
        g.job == job && g.worker == execution.worker && g.at_us <= execution.at_us && (g.first_task..g.first_task + g.tasks).contains(&task)
    };
    evidence.grants.iter().filter(of_task).max_by_key(|g| g.at_us).map(|g| g.lease)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::decisions::Decided;
    use serde_json::json;

    fn call(what: &'static str, exit: i32, job: Option<u64>) -> Call {
        let deadline = Duration::from_secs(10);
        let took = Duration::from_secs(1);
        Call { what, began_us: 0, took, deadline, exit: Some(exit), job, state: None, stderr: String::new() }
    }

    fn story(calls: Vec<Call>) -> Story {
        Story { key: "k".into(), expect: Expect::Sum { first: 100, tasks: 3 }, calls }
    }

    fn job(state: &str, total: &str) -> Value {
        json!({"job": 7, "idempotency_key": "k", "state": state, "cause": null,
            "stages": [{"tasks": 3, "accepted": 3}], "tallies": [{"total": total}]})
    }

    fn evidence(stories: Vec<Story>, jobs: Vec<Value>) -> Evidence {
        let jobs = jobs.into_iter().map(|j| (j["job"].as_u64().expect("a number"), j)).collect();
        Evidence { stories, jobs, executions: Vec::new(), grants: Vec::new(), decisions: Decisions::default(), touches: Vec::new() }
    }

    fn sole(evidence: &Evidence, words: &str) {
        let wrong = check(evidence);
        assert!(wrong.len() == 1 && wrong[0].contains(words), "{wrong:?}");
    }

    #[test]
    fn an_honest_history_has_nothing_wrong() {
        let calls = vec![call("submit", 0, Some(7)), call("job wait", 0, Some(7))];
        assert_eq!(check(&evidence(vec![story(calls)], vec![job("done", "303")])), Vec::<String>::new());
    }

    #[test]
    fn a_lost_submit_is_seen() {
        sole(&evidence(vec![story(vec![call("submit", 0, Some(7))])], vec![]), "an acknowledged submit was lost");
    }

    #[test]
    fn a_key_with_two_jobs_is_seen() {
        let mut second = job("done", "303");
        second["job"] = json!(8);
        sole(&evidence(vec![story(vec![call("submit", 0, Some(7))])], vec![job("done", "303"), second]), "made jobs [7, 8]");
    }

    #[test]
    fn a_wrong_sum_is_seen() {
        sole(&evidence(vec![story(vec![call("job wait", 0, Some(7))])], vec![job("done", "404")]), "the answer is 303");
    }

    #[test]
    fn a_missing_task_is_seen() {
        let mut missing = job("done", "303");
        missing["stages"][0]["accepted"] = json!(2);
        sole(&evidence(vec![story(vec![])], vec![missing]), "2 of 3 tasks");
    }

    #[test]
    fn an_exit_code_that_lies_is_seen() {
        let lie = evidence(vec![story(vec![call("submit --wait", 0, Some(7))])], vec![job("failed", "303")]);
        let wrong = check(&lie);
        assert!(wrong.iter().any(|w| w.contains("but the job is failed")), "{wrong:?}");
        let mut printed = call("job wait", 0, Some(7));
        printed.state = Some("failed".into());
        sole(&evidence(vec![story(vec![printed])], vec![job("done", "303")]), "printed Some(\"failed\")");
    }

    #[test]
    fn a_call_that_hangs_or_gives_up_is_seen() {
        let mut slow = call("submit", 0, Some(7));
        slow.took = Duration::from_secs(11);
        sole(&evidence(vec![story(vec![slow])], vec![job("done", "303")]), "took 11.0s");
        sole(&evidence(vec![story(vec![call("submit", 5, None)])], vec![job("done", "303")]), "ended with Some(5)");
    }

    #[test]
    fn a_job_of_nobody_is_seen() {
        let mut strange = job("done", "303");
        strange["idempotency_key"] = json!("other");
        sole(&evidence(vec![], vec![strange]), "which nobody used");
    }

    #[test]
    fn a_file_that_differs_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("part-00000.csv"), "a,2\n").expect("a part");
        let parts = BTreeMap::from([("part-00000.csv".to_owned(), b"a,1\n".to_vec())]);
        let expect = Expect::Files { dir: dir.path().to_path_buf(), parts };
        let mut view = job("done", "");
        view["tallies"] = json!([]);
        sole(&evidence(vec![Story { key: "k".into(), expect, calls: vec![] }], vec![view]), "part-00000.csv");
    }

    #[test]
    fn a_second_run_needs_an_excuse_of_the_worker_that_ran_first() {
        let ran = |worker: &str, at_us| Execution { worker: worker.into(), at_us, index: 5 };
        let touched = |worker: &str, from_us, to_us| Touch { worker: worker.into(), from_us, to_us, what: "SIGSTOP".into() };
        let mut evidence = evidence(vec![], vec![]);
        evidence.executions = vec![ran("a", 1_000_000), ran("b", 3_000_000)];
        sole(&evidence, "though nothing was done to a");
        evidence.touches = vec![touched("b", 0, u64::MAX)];
        sole(&evidence, "though nothing was done to a");
        evidence.touches = vec![touched("a", 4_000_000, u64::MAX)];
        sole(&evidence, "though nothing was done to a");
        evidence.touches = vec![touched("a", 2_000_000, 2_500_000)];
        assert_eq!(check(&evidence), Vec::<String>::new());
    }

    /// A task that worker a ran at 5.0 s and worker b at 9.0 s, b having been given it at `given_us`. The second lease was decided by entry 20 at
    /// `decided_us`; entry `accepted` took the result.
    fn ran_twice(given_us: u64, decided_us: u64, speculative: bool, accepted: u64) -> Evidence {
        let ran = |worker: &str, at_us| Execution { worker: worker.into(), at_us, index: 101 };
        let lease = |index| LeaseId { epoch: 0, index, position: 0 };
        let given =
            |worker: &str, at_us, index| GrantSeen { worker: worker.into(), at_us, lease: lease(index), job: 7, first_task: 0, tasks: 2 };
        let mut evidence = evidence(vec![story(vec![call("job wait", 0, Some(7))])], vec![job("done", "303")]);
        evidence.executions = vec![ran("a", 5_000_000), ran("b", 9_000_000)];
        evidence.grants = vec![given("a", 1_000_000, 10), given("b", given_us, 20)];
        evidence.decisions.leases.insert(lease(10), Decided { at_us: 1_000_000, speculative: false });
        evidence.decisions.leases.insert(lease(20), Decided { at_us: decided_us, speculative });
        evidence.decisions.accepted.entry(7).or_default().insert((accepted, 1, 2));
        evidence
    }

    #[test]
    fn a_second_lease_of_what_was_late_is_no_repetition_of_what_was_finished() {
        assert_eq!(check(&ran_twice(4_000_000, 4_000_000, true, 25)), Vec::<String>::new());
        // Decided by a leader that died of it, and handed out by the next one when the first holder had long finished, and was not heard yet.
        assert_eq!(check(&ran_twice(8_000_000, 4_900_000, true, 25)), Vec::<String>::new());
        // The copy ran first, and the first holder came to the task later.
        let mut crossed = ran_twice(4_000_000, 4_000_000, true, 25);
        crossed.executions.iter_mut().for_each(|e| e.at_us = 14_000_000 - e.at_us);
        assert_eq!(check(&crossed), Vec::<String>::new());
    }

    #[test]
    fn who_was_stopped_in_front_of_a_task_for_longer_than_its_lease_is_no_repetition_either() {
        // Leased to b by entry 10 and, when b was lost, to a by entry 20 at 14.0 s. a ran it at 15.0 s, b when it went on at 19.0 s.
        let story = |from_us, what: &str| {
            let mut evidence = ran_twice(14_000_000, 14_000_000, false, 25);
            evidence.grants.iter_mut().for_each(|g| g.worker = if g.worker == "a" { "b".into() } else { "a".into() });
            evidence.executions.iter_mut().for_each(|e| e.at_us += 10_000_000);
            evidence.touches = vec![Touch { worker: "b".into(), from_us, to_us: 18_900_000, what: what.into() }];
            evidence
        };
        assert_eq!(check(&story(3_000_000, STOPPED)), Vec::<String>::new());
        // A lease that was ended too early, and a fence that did not hold.
        sole(&story(10_000_000, STOPPED), "is no second lease beside lease 0-10-0");
        sole(&story(3_000_000, "cut"), "is no second lease beside lease 0-10-0");
        // Nor does it excuse anybody else.
        let mut other = ran_twice(4_000_000, 4_000_000, false, 25);
        other.touches = story(3_000_000, STOPPED).touches;
        sole(&other, "is no second lease beside lease 0-10-0");
    }

    #[test]
    fn a_repetition_of_what_was_finished_is_seen() {
        sole(&ran_twice(8_000_000, 4_000_000, true, 20), "lease 0-20-0 was decided when entry 20 had taken its result");
        sole(&ran_twice(8_000_000, 4_000_000, true, 15), "when entry 15 had taken its result");
        sole(&ran_twice(8_000_000, 7_000_000, true, 25), "was decided 2.0 s after the first run");
        sole(&ran_twice(4_000_000, 4_000_000, false, 25), "lease 0-20-0 is no second lease beside lease 0-10-0");
    }

    #[test]
    fn a_second_run_that_nobody_has_decided_is_seen() {
        let honest = || ran_twice(4_000_000, 4_000_000, true, 25);
        let mut evidence = honest();
        evidence.grants.pop();
        sole(&evidence, "without a lease");
        evidence = honest();
        evidence.decisions.leases.pop_last();
        sole(&evidence, "no scheduler has written down");
        evidence = honest();
        evidence.decisions.accepted.clear();
        sole(&evidence, "no entry has taken a result");
        // The same worker, which was given the lease once and ran it twice.
        evidence = honest();
        evidence.executions[1].worker = "a".into();
        sole(&evidence, "both times under lease 0-10-0");
    }
}
