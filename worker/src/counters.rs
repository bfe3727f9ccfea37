//! Counters of tasks, put together range by range: columns that have one number as long as all tasks have the same.

use raftwerk_proto::v1::TaskCounters;

/// Records in and out, bytes in and out, bad records, of one task; in the order of the message's columns.
pub(crate) type Numbers = [u64; 5];

/// The counters of `tasks` tasks get those of one more.
pub(crate) fn push(counters: &mut Option<TaskCounters>, tasks: u64, more: Numbers) {
    if counters.is_none() && more == Numbers::default() {
        return;
    }
    let counters = counters.get_or_insert_default();
    for (column, number) in counters.columns_mut().into_iter().zip(more) {
        join(column, tasks, &[number], 1);
    }
}

/// Those of `tasks` tasks get the ones of the `count` behind them.
pub(crate) fn append(counters: &mut Option<TaskCounters>, tasks: u64, more: Option<TaskCounters>, count: u64) {
    if counters.is_none() && more.is_none() {
        return;
    }
    let more = more.unwrap_or_default();
    for (column, behind) in counters.get_or_insert_default().columns_mut().into_iter().zip(more.columns()) {
        join(column, tasks, behind, count);
    }
}

/// Those of some of the tasks, as a range of places among them.
pub(crate) fn slice(counters: &TaskCounters, from: usize, to: usize) -> TaskCounters {
    let mut part = TaskCounters::default();
    for (column, all) in part.columns_mut().into_iter().zip(counters.columns()) {
        *column = if all.len() <= 1 { all.clone() } else { all[from..to].to_vec() };
    }
    part
}

/// Columns that have a number for each task.
pub(crate) fn long_columns(counters: &TaskCounters) -> usize {
    counters.columns().iter().filter(|column| column.len() > 1).count()
}

fn same(column: &[u64]) -> Option<u64> {
    match column {
        [] => Some(0),
        [same] => Some(*same),
        _ => None,
    }
}

fn join(column: &mut Vec<u64>, tasks: u64, behind: &[u64], count: u64) {
    if tasks == 0 {
        column.clear();
        column.extend(behind.iter().filter(|number| behind.len() > 1 || **number > 0));
        return;
    }
    match (same(column), same(behind)) {
        (Some(first), Some(second)) if first == second => {}
        (first, second) => {
            if let Some(first) = first {
                column.clear();
                column.resize(tasks as usize, first);
            }
            match second {
                Some(second) => column.resize((tasks + count) as usize, second),
                None => column.extend(behind),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: &[Numbers]) -> Option<TaskCounters> {
        let mut counters = None;
        all.iter().enumerate().for_each(|(tasks, numbers)| push(&mut counters, tasks as u64, *numbers));
        counters
    }

    /// What a column says of each task.
    fn spread(counters: &Option<TaskCounters>, tasks: usize) -> Vec<Numbers> {
        let counters = counters.clone().unwrap_or_default();
        assert!(counters.are_of(tasks as u64), "{counters:?} of {tasks}");
        let number = |column: &Vec<u64>, task: usize| same(column).unwrap_or_else(|| column[task]);
        (0..tasks).map(|task| counters.columns().map(|column| number(column, task))).collect()
    }

    #[test]
    fn equal_tasks_take_one_number_and_zeros_none() {
        assert_eq!(of(&[[0; 5]; 3]), None);
        let counters = of(&[[1, 0, 7, 0, 0]; 1000]);
        assert_eq!(counters, Some(TaskCounters { records_in: vec![1], bytes_in: vec![7], ..TaskCounters::default() }));
    }

    #[test]
    fn however_ranges_are_put_together_and_cut_each_task_keeps_its_numbers() {
        let all: Vec<Numbers> = (0..40u64).map(|n| [n / 20, n % 3, 5, u64::from(n > 30), u64::from(n == 0)]).collect();
        for cut in 0..=all.len() {
            for second in [cut, cut + 1, 39] {
                let second = second.clamp(cut, all.len());
                let pieces = [&all[..cut], &all[cut..second], &all[second..]];
                let (mut counters, mut tasks) = (None, 0);
                for piece in pieces {
                    append(&mut counters, tasks, of(piece), piece.len() as u64);
                    tasks += piece.len() as u64;
                }
                assert_eq!(spread(&counters, all.len()), all, "{cut} {second}");
                let middle = Some(slice(&counters.unwrap(), cut, second));
                assert_eq!(spread(&middle, second - cut), pieces[1]);
            }
        }
    }
}
