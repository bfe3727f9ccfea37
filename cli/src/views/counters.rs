//! What the stages of a job have read and made, and the records that could not be read.

use raftwerk_proto::v1::{BadRecord, JobView, StageCounters, StageView};

use crate::console::Console;
use crate::table::{Table, printable};
use crate::units::{format_bytes, group_digits};

/// Bad records that a table shows; JSON has all that the cluster keeps.
const SHOWN: usize = 10;
/// Characters shown of each.
const SHOWN_CHARS: usize = 60;

fn of(stage: &StageView) -> StageCounters {
    stage.counters.unwrap_or_default()
}

/// Whether anything was counted, or there is a bad record to show: a cluster of an older release counts nothing.
pub fn any(view: &JobView) -> bool {
    !view.bad_records.is_empty() || view.stages.iter().any(|stage| of(stage) != StageCounters::default())
}

fn table(view: &JobView) -> Table {
    let mut table = Table::new(["stage", ">records in", ">bytes in", ">records out", ">bytes out", ">bad records"]);
    for stage in &view.stages {
        let StageCounters { records_in, records_out, bytes_in, bytes_out, bad_records } = of(stage);
        table.row([
            stage.name.as_str().into(),
            group_digits(records_in).into(),
            format_bytes(bytes_in).into(),
            group_digits(records_out).into(),
            format_bytes(bytes_out).into(),
            group_digits(bad_records).into(),
        ]);
    }
    table
}

/// A row of a file of columns has no byte: it is told by those before it. (Records of one byte are never cut off, so none of them looks like one.)
fn is_row(record: &BadRecord) -> bool {
    record.line == 0 && record.record == record.offset.saturating_add(1)
}

fn bad_table(view: &JobView) -> Table {
    let mut table = Table::new(["bad record of", "file", ">line", ">byte", "reason", "begins with"]);
    for record in view.bad_records.iter().take(SHOWN) {
        let text: String = String::from_utf8_lossy(&record.data).chars().take(SHOWN_CHARS).collect();
        table.row([
            format!("{} task {}", record.stage, record.task).into(),
            printable(&record.path).into(),
            match (record.line, record.record) {
                (0, 0) => String::new(),
                (0, number) if is_row(record) => format!("row {number}"),
                (0, number) => format!("record {number}"),
                (line, _) => line.to_string(),
            }
            .into(),
            if is_row(record) { String::new() } else { record.offset.to_string() }.into(),
            printable(&record.reason).into(),
            printable(&text).into(),
        ]);
    }
    table
}

/// The counters, and the first records that could not be read.
pub fn print(console: &Console, view: &JobView) {
    console.table(&table(view));
    if !view.bad_records.is_empty() {
        console.line("");
        print_bad(console, view);
    }
}

/// The first records that could not be read, of a job that has some.
pub fn print_bad(console: &Console, view: &JobView) {
    console.table(&bad_table(view));
    let counted: u64 = view.stages.iter().map(|stage| of(stage).bad_records).sum();
    let kept = view.bad_records.len() as u64;
    // Those of a task that has failed by them are in no counter.
    let (all, shown) = (counted.max(kept), kept.min(SHOWN as u64));
    if all > shown {
        let more = if kept > shown { format!("; `-o json` has the first {kept}") } else { String::new() };
        console.line(format!("{} of {} bad records{more}", group_digits(shown), group_digits(all)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::BadRecord;

    #[test]
    fn a_stage_is_a_row_and_what_a_record_holds_sends_nothing_to_the_terminal() {
        let counters = StageCounters { records_in: 1_000, bytes_in: 2048, bad_records: 1, ..StageCounters::default() };
        let stage = StageView { name: "map".into(), counters: Some(counters), ..StageView::default() };
        let record = BadRecord { stage: "map".into(), path: "/a".into(), data: b"\x1b[2J".as_slice().into(), ..BadRecord::default() };
        let view = JobView { stages: vec![stage], bad_records: vec![record], ..JobView::default() };
        let text = table(&view).render(false);
        let row: Vec<&str> = text.lines().last().unwrap_or_default().split_whitespace().collect();
        assert_eq!(row, ["map", "1,000", "2", "KiB", "0", "0", "B", "1"], "{text}");
        assert!(bad_table(&view).render(false).contains("\\u{1b}[2J"));
        let of_records = BadRecord { record: 5, ..BadRecord::default() };
        assert!(bad_table(&JobView { bad_records: vec![of_records], ..JobView::default() }).render(false).contains("record 5"));
        assert!(!any(&JobView::default()));
    }
}
