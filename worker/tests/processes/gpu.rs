//! An executor of a GPU. Any adapter will do, a software one too; without one these tests say so and pass.
use crate::{
    Named,
    driver::{Driver, index_stage, lease, run_index},
    named,
};
use raftwerk_kernels::{Accepts, Agreement, Params, gpu::adapters, registry, resolve_params};
use raftwerk_proto::v1::{FailureClass, LeaseProgress, from_executor};

pub const TESTS: &[Named] =
    named![a_batch_spans_leases_and_blames_one_task, exact_twins_agree_through_their_executors, looking_for_gpus_is_done_by_a_child,];

fn skipped() -> bool {
    let none = adapters().is_empty();
    if none {
        println!("skipped: this machine has no GPU adapter, not even a software one");
    }
    none
}

/// Progress of several leases until all have ended, by lease.
fn finish_all(driver: &mut Driver, leases: usize) -> Vec<LeaseProgress> {
    let mut all = vec![LeaseProgress::default(); leases];
    while !all.iter().all(|lease| lease.final_report) {
        let message = driver.receive().expect("the executor ended early");
        let Some(from_executor::Message::Progress(progress)) = message.message else { panic!("{message:?}") };
        let lease = &mut all[progress.lease.unwrap().index as usize - 1];
        lease.results.extend(progress.results);
        lease.failures.extend(progress.failures);
        lease.busy_ns += progress.busy_ns;
        lease.final_report = progress.final_report;
    }
    all
}

fn a_batch_spans_leases_and_blames_one_task() {
    if skipped() {
        return;
    }
    let mut driver = Driver::of_device("gpu:0", &[]);
    driver.define(index_stage("t-trouble", &[], 100, 100, &[("do", "panic")]));
    for index in 1..=3 {
        driver.run(run_index(index, (index - 1) * 30, 30), &[]);
    }
    let leases = finish_all(&mut driver, 3);
    let failures: Vec<_> = leases.iter().flat_map(|lease| &lease.failures).map(|f| (f.first_task, f.task_count, f.class())).collect();
    assert_eq!(failures, [(3, 1, FailureClass::Task)]);
    let results: u64 = leases.iter().flat_map(|lease| &lease.results).map(|results| results.task_count).sum();
    assert_eq!(results, 89);
    assert!(leases.iter().all(|lease| lease.busy_ns > 0));
}

fn exact_twins_agree_through_their_executors() {
    if skipped() {
        return;
    }
    let kernels = registry().iter().map(|kernel| kernel.descriptor());
    for kernel in
        kernels.filter(|kernel| kernel.gpu && kernel.accepts == Accepts::Index && kernel.agreement == Agreement::Exact && !kernel.shuffles)
    {
        let Ok(params) = resolve_params(kernel, &Params::new()) else { continue };
        let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut info = index_stage(kernel.name, kernel.tallies, 100_000, 50, &params);
        info.spec.as_mut().unwrap().kernel.as_mut().unwrap().version = kernel.version;
        let run = |device: &str| {
            let mut driver = Driver::of_device(device, &["--built-in"]);
            driver.define(info.clone());
            driver.run(run_index(1, 0, 50), &[]);
            let progress = driver.finish(lease(1));
            assert!(progress.failures.is_empty(), "{device}: {:?}", progress.failures);
            let mut tallies = vec![Vec::new(); kernel.tallies.len()];
            for results in progress.results {
                tallies.iter_mut().zip(results.tallies).for_each(|(all, tally)| all.extend(tally.values));
            }
            tallies
        };
        assert_eq!(run("cpu"), run("gpu:0"));
        println!("checked {}", kernel.name);
    }
}

fn looking_for_gpus_is_done_by_a_child() {
    let mut driver = Driver::spawn("adapters", 1, &["--built-in"], &[]);
    let mut found = 0;
    while let Some(message) = driver.receive() {
        assert!(matches!(message.message, Some(from_executor::Message::Ready(_))));
        found += 1;
    }
    assert_eq!(found, adapters().len());
    assert!(driver.end().0.success());
}
