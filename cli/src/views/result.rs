//! What a job made: its top rows, its tallies, where the whole lies, and which device did how much.

use raftwerk_kernels::{Kernel, Params};
use raftwerk_proto::is_store_url;
use raftwerk_proto::v1::{JobView, PreviewRow, StageSpec, TallyTotal};
use serde_json::{Value, json};

use super::{counters, job, kept};
use crate::console::Console;
use crate::table::{Cell, Table, printable, printable_lines};
use crate::units::{counted, format_bytes, format_duration, group_digits};

/// Rows shown of the merged previews. Each part sends at most as many, so the merged top is exact.
pub const TOP_ROWS: usize = 20;

pub fn print(console: &Console, view: &JobView) {
    let mut blocks: Vec<Box<dyn Fn()>> = Vec::new();
    let top = top_table(view);
    if !top.is_empty() {
        blocks.push(Box::new(move || console.table(&top)));
    }
    let lines = tally_lines(view);
    if !lines.is_empty() {
        blocks.push(Box::new(move || {
            lines.iter().for_each(|(name, value)| console.line(format!("{}: {}", printable(name), printable(value))))
        }));
    }
    if let Some(place) = place(view) {
        blocks.push(Box::new(move || console.line(&place)));
    }
    if view.shuffle_copies.iter().any(|copies| copies.one_place > 0) {
        blocks.push(Box::new(|| view.shuffle_copies.iter().for_each(|copies| console.line(job::copies_text(copies)))));
    }
    if !view.shares.is_empty() {
        blocks.push(Box::new(|| console.table(&job::shares(&view.shares))));
    }
    if counters::any(view) {
        blocks.push(Box::new(|| counters::print(console, view)));
    }
    for (number, block) in blocks.iter().enumerate() {
        if number > 0 {
            console.line("");
        }
        block();
    }
    let took = job::elapsed(view).map_or_else(String::new, |took| format!(" in {}", format_duration(took)));
    let (accepted, _) = job::tasks_of(view);
    console.note(format!("\njob {} {}: {}{took}", view.job, job::state_name(view.state()), counted(accepted, "task")));
}

/// The heaviest rows of all parts. Among equals the kernel that made the parts knows the order, so that the same result reads the same
/// for any number of partitions; rows of a kernel that this build does not know go by their text.
fn top_rows(view: &JobView) -> Vec<&PreviewRow> {
    let writer = view.spec.iter().flat_map(|spec| &spec.stages).next_back();
    let kernel = writer.and_then(|stage| Some((known(stage)?, params_of(stage))));
    let mut rows: Vec<&PreviewRow> = view.parts.iter().flat_map(|part| &part.preview).collect();
    rows.sort_by(|a, b| {
        b.weight.cmp(&a.weight).then_with(|| match &kernel {
            Some((kernel, params)) => kernel.compare_preview(params, &a.cells, &b.cells),
            None => a.cells.cmp(&b.cells),
        })
    });
    rows.truncate(TOP_ROWS);
    rows
}

fn columns(view: &JobView) -> &[String] {
    view.parts.iter().map(|part| part.columns.as_slice()).find(|columns| !columns.is_empty()).unwrap_or(&[])
}

fn top_table(view: &JobView) -> Table {
    let rows = top_rows(view);
    let columns = columns(view);
    let numeric = |column: usize| rows.iter().all(|row| row.cells.get(column).is_some_and(|cell| cell.parse::<f64>().is_ok()));
    let title = |(column, title): (usize, &String)| if numeric(column) { format!(">{title}") } else { title.clone() };
    let mut table = Table::new(columns.iter().enumerate().map(title));
    for row in &rows {
        table.row(row.cells.iter().take(columns.len()).map(|cell| Cell::from(cell.as_str())));
    }
    table
}

/// Where the whole result lies.
fn place(view: &JobView) -> Option<String> {
    let output = view.spec.as_ref()?.output.as_ref()?;
    let dir = output.url.strip_prefix("file://").unwrap_or(&output.url);
    if kept::is_on_workers(view) {
        return Some(match view.parts.len() {
            0 => "full result: no parts".to_owned(),
            _ if kept::was_dropped(view) => "full result: it was dropped from the workers".to_owned(),
            parts => {
                let (rows, bytes) = view.parts.iter().fold((0, 0), |(rows, bytes), part| (rows + part.rows, bytes + part.bytes));
                let (rows, parts) = (counted(rows, "row"), counted(parts as u64, &format!("{} part", output.format)));
                let bytes = format_bytes(bytes);
                format!("full result: on workers ({rows} in {parts}, {bytes}); raftwerk job result {} --output DIR", view.job)
            }
        });
    }
    let rows: u64 = view.parts.iter().map(|part| part.rows).sum();
    let bytes: u64 = view.parts.iter().map(|part| part.bytes).sum();
    let text = match view.parts.as_slice() {
        [] => format!("full result: {dir} (no parts)"),
        [part] => {
            // In a store a part keeps the name that its attempt gave it.
            let name = if is_store_url(&output.url) { &part.staged_name } else { &part.name };
            format!("full result: {dir}/{name} ({}, {})", counted(rows, "row"), format_bytes(bytes))
        }
        parts => {
            let parts = counted(parts.len() as u64, &format!("{} part", output.format));
            format!("full result: {dir} ({} in {parts}, {})", counted(rows, "row"), format_bytes(bytes))
        }
    };
    Some(printable_lines(&text))
}

/// The tallies of every stage, and what its kernel makes of them, such as an estimate.
fn tally_lines(view: &JobView) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    for spec in view.spec.iter().flat_map(|spec| &spec.stages) {
        let totals: Vec<&TallyTotal> = view.tallies.iter().filter(|total| total.stage == spec.name).collect();
        let presented = present(spec, &totals);
        for total in totals.iter().filter(|total| presented.iter().all(|(name, _)| *name != total.name)) {
            // Two stages may have a tally of one name; then the stage tells them apart.
            let taken = lines.iter().any(|(name, _)| *name == total.name);
            let name = if taken { format!("{} {}", spec.name, total.name) } else { total.name.clone() };
            lines.push((name, group_digits(job::tally(total))));
        }
        lines.extend(presented.into_iter().map(|(name, value)| (name, grouped(value))));
    }
    lines
}

/// A whole number as the other tallies are written; anything else as the kernel wrote it.
fn grouped(value: String) -> String {
    let whole = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    if whole { group_digits(value) } else { value }
}

/// What the kernel says about its totals; nothing when this build does not know the kernel that the cluster ran.
fn present(spec: &StageSpec, totals: &[&TallyTotal]) -> Vec<(String, String)> {
    let Some(kernel) = known(spec) else { return Vec::new() };
    let total_of = |name: &&str| totals.iter().find(|total| total.name == *name).map(|total| job::tally(total));
    let in_order: Option<Vec<u128>> = kernel.descriptor().tallies.iter().map(total_of).collect();
    in_order.map_or_else(Vec::new, |tallies| kernel.present_tallies(&params_of(spec), &tallies))
}

/// The kernel of a stage, when this build has it in the version that ran.
fn known(spec: &StageSpec) -> Option<&'static dyn Kernel> {
    let used = spec.kernel.as_ref()?;
    raftwerk_kernels::find(&used.name).ok().filter(|kernel| kernel.descriptor().version == used.version)
}

fn params_of(spec: &StageSpec) -> Params {
    spec.params.iter().map(|param| (param.name.clone(), param.value.clone())).collect()
}

/// The job's JSON with the merged top rows.
pub fn to_json(view: &JobView) -> Value {
    let mut document = job::to_json(view);
    if let Value::Object(fields) = &mut document {
        let rows: Vec<Value> = top_rows(view).iter().map(|row| json!({"cells": row.cells, "weight": row.weight})).collect();
        fields.insert("top".to_owned(), json!({"columns": columns(view), "rows": rows}));
        let summary = tally_lines(view).into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>();
        fields.insert("summary".to_owned(), summary.into());
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{JobSpec, KernelRef, OutputPart, Param};

    fn part(rows: &[(&str, u64)]) -> OutputPart {
        let preview =
            rows.iter().map(|(word, count)| PreviewRow { cells: vec![(*word).into(), count.to_string()], weight: *count }).collect();
        OutputPart { columns: vec!["word".into(), "count".into()], preview, ..OutputPart::default() }
    }

    #[test]
    fn rows_of_all_parts_merge_by_weight_then_text() {
        let view = JobView { parts: vec![part(&[("b", 5), ("z", 1)]), part(&[("c", 9), ("a", 5)])], ..JobView::default() };
        assert_eq!(top_table(&view).render(false), "WORD  COUNT\nc         9\na         5\nb         5\nz         1\n");
    }

    /// Bins of a histogram came as 10, 11, 9: the text's order, which also made the rows shown depend on the number of partitions.
    #[test]
    fn equal_rows_keep_the_order_of_the_kernel_that_made_them() {
        let stage = |key_type: &str| StageSpec {
            kernel: Some(KernelRef { name: "sum_by_key".into(), version: 1, ..KernelRef::default() }),
            params: vec![Param { name: "key_type".into(), value: key_type.into() }],
            ..StageSpec::default()
        };
        let keys = |key_type: &str| {
            let spec = JobSpec { stages: vec![stage(key_type)], ..JobSpec::default() };
            let parts = vec![part(&[("10", 5), ("100", 1)]), part(&[("9", 5), ("11", 5)])];
            let view = JobView { spec: Some(spec), parts, ..JobView::default() };
            top_rows(&view).iter().map(|row| row.cells[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(keys("u64"), ["9", "10", "11", "100"]);
        assert_eq!(keys("text"), ["10", "11", "9", "100"], "words that look like numbers are words");
    }

    #[test]
    fn whole_numbers_are_grouped_whoever_wrote_them() {
        assert_eq!(grouped("1000000000".into()), "1,000,000,000");
        assert_eq!(grouped("3.14159265".into()), "3.14159265");
        assert_eq!(grouped("10000 x 20000".into()), "10000 x 20000");
    }

    #[test]
    fn an_empty_result_prints_no_table() {
        assert!(top_table(&JobView::default()).is_empty());
        assert!(top_table(&JobView { parts: vec![part(&[])], ..JobView::default() }).is_empty());
    }
}
