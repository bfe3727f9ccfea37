//! What a job made: its top rows, its tallies, where the whole lies, and which device did how much.

use raftwerk_kernels::Params;
use raftwerk_proto::v1::{JobView, PreviewRow, StageSpec, TallyTotal};
use serde_json::{Value, json};

use super::job;
use crate::console::Console;
use crate::table::{Cell, Table, printable, printable_lines};
use crate::units::{format_bytes, format_duration, group_digits};

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
    if !view.shares.is_empty() {
        blocks.push(Box::new(|| console.table(&job::shares(&view.shares))));
    }
    for (number, block) in blocks.iter().enumerate() {
        if number > 0 {
            console.line("");
        }
        block();
    }
    let took = job::elapsed(view).map_or_else(String::new, |took| format!(" in {}", format_duration(took)));
    let (accepted, _) = job::tasks_of(view);
    console.note(format!("\njob {} {}: {} tasks{took}", view.job, job::state_name(view.state()), group_digits(accepted)));
}

/// The heaviest rows of all parts. Ties go by cells, so that the same result always reads the same.
fn top_rows(view: &JobView) -> Vec<&PreviewRow> {
    let mut rows: Vec<&PreviewRow> = view.parts.iter().flat_map(|part| &part.preview).collect();
    rows.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.cells.cmp(&b.cells)));
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
    let rows: u64 = view.parts.iter().map(|part| part.rows).sum();
    let bytes: u64 = view.parts.iter().map(|part| part.bytes).sum();
    let text = match view.parts.as_slice() {
        [] => format!("full result: {dir} (no parts)"),
        [part] => format!("full result: {dir}/{} ({} rows, {})", part.name, group_digits(rows), format_bytes(bytes)),
        parts => {
            format!("full result: {dir} ({} rows in {} {} parts, {})", group_digits(rows), parts.len(), output.format, format_bytes(bytes))
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
    let Some(used) = &spec.kernel else { return Vec::new() };
    let Ok(kernel) = raftwerk_kernels::find(&used.name) else { return Vec::new() };
    let descriptor = kernel.descriptor();
    let total_of = |name: &&str| totals.iter().find(|total| total.name == *name).map(|total| job::tally(total));
    let in_order: Option<Vec<u128>> = descriptor.tallies.iter().map(total_of).collect();
    let Some(tallies) = in_order.filter(|_| descriptor.version == used.version) else { return Vec::new() };
    let params: Params = spec.params.iter().map(|param| (param.name.clone(), param.value.clone())).collect();
    kernel.present_tallies(&params, &tallies)
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
    use raftwerk_proto::v1::OutputPart;

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
