//! Why a job stands still: every worker is held back by something that the cluster tells.

use raftwerk_proto::v1::{JobState, JobView, WorkerView};

/// Jobs that it starts after, named one by one.
const NAMED_JOBS: usize = 8;
/// Workers named one by one; the others are counted.
const NAMED: usize = 3;

/// Whether the job has tasks that could be leased, and none of them is; or starts after others that have not ended.
pub fn stands_still(view: &JobView) -> bool {
    let leased = view.stages.iter().any(|stage| stage.leased > 0);
    let could_run = view.stages.iter().any(|stage| stage.open && stage.ready > stage.waiting);
    view.state() == JobState::Running && !leased && (could_run || !view.waiting_for.is_empty())
}

/// The devices that a job waits for, or what holds back every worker from one that stands still; `None` when one of them is free, and the reason is another.
pub fn why(view: &JobView, workers: &[WorkerView]) -> Option<String> {
    if !stands_still(view) {
        return None;
    }
    if !view.waiting_for.is_empty() {
        let others: Vec<String> = view.waiting_for.iter().take(NAMED_JOBS).map(|job| format!("job {job}")).collect();
        let more = view.waiting_for.len() - others.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Some(format!("it starts after {}{more}", others.join(", ")));
    }
    if !view.waits.is_empty() {
        return Some(view.waits.clone());
    }
    let there: Vec<&WorkerView> = workers.iter().filter(|worker| worker.liveness != "lost").collect();
    let mut held: Vec<String> = there.iter().map(|worker| held_back(worker)).collect::<Option<_>>()?;
    if held.is_empty() {
        return Some("no worker is there".to_owned());
    }
    if held.len() > NAMED {
        let more = held.len() - NAMED;
        held.truncate(NAMED);
        held.push(format!("and {more} more that get no work (`raftwerk worker list`)"));
    }
    Some(held.join("; "))
}

fn held_back(worker: &WorkerView) -> Option<String> {
    let whole = worker.quarantines.iter().any(|quarantine| quarantine.whole_worker);
    let device = |index: u32| worker.quarantines.iter().any(|quarantine| !quarantine.whole_worker && quarantine.device == index);
    let state = if worker.drained {
        "is drained"
    } else if whole || (!worker.devices.is_empty() && worker.devices.iter().all(|offered| device(offered.index))) {
        "is in quarantine"
    } else if worker.load.as_ref().is_some_and(|load| !load.full.is_empty()) {
        "is full"
    } else if worker.liveness == "suspect" {
        "is not heard"
    } else {
        return None;
    };
    Some(format!("worker {} ({}) {state}", worker.worker, worker.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{Device, Load, Quarantine, StageView};

    fn worker(worker: u64) -> WorkerView {
        let devices = vec![Device::default()];
        WorkerView { worker, name: format!("w{worker}"), liveness: "alive".into(), devices, ..WorkerView::default() }
    }

    fn job(ready: u64, waiting: u64, leased: u64) -> JobView {
        let stage = StageView { open: true, ready, waiting, leased, ..StageView::default() };
        JobView { state: JobState::Running.into(), stages: vec![stage], ..JobView::default() }
    }

    #[test]
    fn a_job_waits_for_workers_only_when_each_of_them_is_held_back() {
        let drained = WorkerView { drained: true, ..worker(1) };
        let quarantined = WorkerView { quarantines: vec![Quarantine::default()], ..worker(2) };
        let full = WorkerView { load: Some(Load { full: "the quota".into(), ..Load::default() }), ..worker(3) };
        let suspect = WorkerView { liveness: "suspect".into(), ..worker(4) };
        let lost = WorkerView { liveness: "lost".into(), ..worker(5) };
        assert_eq!(
            why(&job(4, 0, 0), &[drained.clone(), quarantined.clone(), full.clone(), lost.clone()]).as_deref(),
            Some("worker 1 (w1) is drained; worker 2 (w2) is in quarantine; worker 3 (w3) is full")
        );
        let four = [drained.clone(), quarantined, full, suspect];
        assert!(why(&job(4, 0, 0), &four).is_some_and(|said| said.ends_with("and 1 more that get no work (`raftwerk worker list`)")));
        assert_eq!(why(&job(4, 0, 0), std::slice::from_ref(&lost)).as_deref(), Some("no worker is there"));
        // One is free, something runs, or the tasks wait for their next attempt: another reason, or none.
        assert_eq!(why(&job(4, 0, 0), &[drained.clone(), worker(6)]), None);
        assert_eq!(why(&job(4, 0, 1), std::slice::from_ref(&drained)), None);
        assert_eq!(why(&job(4, 4, 0), std::slice::from_ref(&drained)), None);
        let follower = JobView { state: JobState::Running.into(), waiting_for: vec![3, 5], ..JobView::default() };
        assert_eq!(why(&follower, &[worker(6)]).as_deref(), Some("it starts after job 3, job 5"));
    }
}
