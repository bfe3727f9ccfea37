use super::*;

fn run(params: &[(&str, &str)], number: u64, start: u64, count: u64) -> Result<TaskOutput, KernelError> {
    let params = params.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let stage = StageContext { params, tasks: 10, partitions: 1, ..StageContext::default() };
    Noop.prepare(&stage)?.run_cpu(&Task { number, input: Input::Index { start, count } })
}

#[test]
fn tasks_of_one_index_sum_to_the_triangle_number() {
    let sum: u64 = (0..1000).map(|index| run(&[], index, index, 1).unwrap().tallies[0]).sum();
    assert_eq!(sum, 1000 * 999 / 2);
}

#[test]
fn any_grouping_of_the_range_gives_the_same_sum() {
    assert_eq!(run(&[], 0, 0, 1000).unwrap().tallies, [1000 * 999 / 2]);
    assert_eq!(run(&[], 0, 7, 0).unwrap().tallies, [0]);
    assert_eq!(run(&[], 0, 0, 600).unwrap().tallies[0] + run(&[], 1, 600, 400).unwrap().tallies[0], 1000 * 999 / 2);
}

#[test]
fn a_sum_beyond_64_bits_is_an_error_and_not_a_wrapped_number() {
    assert!(matches!(run(&[], 0, u64::MAX, 2), Err(KernelError::Input(_))));
    assert!(matches!(run(&[], 0, u64::MAX, u64::MAX), Err(KernelError::Input(_))));
    assert_eq!(run(&[], 0, u64::MAX, 1).unwrap().tallies, [u64::MAX]);
}

#[test]
fn fail_task_fails_that_task_only() {
    assert!(run(&[("fail_task", "3")], 2, 0, 1).is_ok());
    let error = run(&[("fail_task", "3")], 3, 0, 1).unwrap_err();
    assert_eq!(error.to_string(), "task 3 fails because parameter 'fail_task' names it");
    assert!(matches!(run(&[("fail_task", "x")], 0, 0, 1), Err(KernelError::Param(_))));
}

#[test]
fn sleep_takes_at_least_that_long() {
    let start = std::time::Instant::now();
    run(&[("sleep_us", "20000")], 0, 0, 1).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
}
