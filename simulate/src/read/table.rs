//! Plain tables, as CSV with a line of titles or as a JSON array of objects, so that published measurements can be brought as they are.
//!
//! - times: `kernel`, `device`, `seconds` of one task; a pair that is missing cannot run there;
//! - tasks: `task`, `kernel`, `after`: the tasks it waits for, by name, with spaces or semicolons between (in JSON an array).

use super::{Cluster, In, InputError, MAX_TASKS, kernel, known};
use crate::scenario::{GraphTask, Scenario};
use serde_json::Value;
use std::collections::BTreeMap;

/// Seconds of one task of a kernel on a device of a group.
pub(super) struct Times {
    pub(super) rows: BTreeMap<(String, String), f64>,
}

impl Times {
    pub(super) fn seconds(&self, kernel: &str, device: &str) -> Option<f64> {
        self.rows.get(&(kernel.to_owned(), device.to_owned())).copied()
    }

    pub(super) fn knows(&self, kernel: &str) -> bool {
        self.rows.range((kernel.to_owned(), String::new())..).next().is_some_and(|((name, _), _)| name == kernel)
    }
}

/// One row: its line (or place in the array, from 1) and its cells in the order of the titles asked for.
struct Row {
    line: usize,
    cells: Vec<String>,
}

pub(super) fn times(place: In<'_>) -> Result<Times, InputError> {
    let mut rows = BTreeMap::new();
    for row in rows_of(place, &["kernel", "device", "seconds"], 3)? {
        let [kernel, device, seconds] = &row.cells[..] else { continue };
        let value = seconds.parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0);
        let Some(value) = value else {
            return Err(place.at_line(row.line, format!("seconds = \"{seconds}\" is no time"), "give a number above 0, such as 0.012"));
        };
        if kernel.is_empty() || device.is_empty() || kernel.contains('@') {
            return Err(place.at_line(row.line, "kernel and device need names", "fill both cells; a kernel's name has no @"));
        }
        if rows.insert((kernel.clone(), device.clone()), value).is_some() {
            let message = format!("kernel \"{kernel}\" on device \"{device}\" is there twice");
            return Err(place.at_line(row.line, message, "keep one of the rows"));
        }
    }
    if rows.is_empty() {
        return Err(place.error("there is no row", "give rows of kernel, device, seconds"));
    }
    Ok(Times { rows })
}

pub(super) fn tasks(place: In<'_>, cluster: &Cluster, times: &Times, scenario: &mut Scenario) -> Result<(), InputError> {
    let rows = rows_of(place, &["task", "kernel", "after"], 2)?;
    if rows.is_empty() || rows.len() as u64 > MAX_TASKS.min(u64::from(u32::MAX)) {
        return Err(place.error(format!("{} tasks are not possible", rows.len()), "give rows of task, kernel, after"));
    }
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        if by_name.insert(&row.cells[0], number as u32).is_some() {
            return Err(place.at_line(row.line, format!("task \"{}\" is there twice", row.cells[0]), "give each task a name of its own"));
        }
    }
    let names: Vec<&str> = cluster.groups.iter().map(|(group, _)| group.name.as_str()).collect();
    for row in &rows {
        let name = &row.cells[1];
        if !times.knows(name) {
            let kernels: Vec<&str> = times.rows.keys().map(|(kernel, _)| kernel.as_str()).collect();
            let fix = format!("{}; it needs rows in the table of times", known(name, &kernels));
            return Err(place.at_line(row.line, format!("nothing is said of kernel \"{name}\""), fix));
        }
        let place_of = kernel(scenario, name, false, |group| times.seconds(name, &group.name).map(|s| s * 1e9));
        if scenario.groups.iter().all(|group| group.unit_ns[place_of].is_none()) {
            let message = format!("kernel \"{name}\" has a time on no device of the cluster");
            return Err(place.at_line(
                row.line,
                message,
                format!("its devices in the table of times must be groups: {}", names.join(", ")),
            ));
        }
        let mut after = Vec::new();
        for before in row.cells[2].split([' ', ';']).filter(|word| !word.is_empty()) {
            let Some(number) = by_name.get(before) else {
                let words: Vec<&str> = by_name.keys().copied().collect();
                let message = format!("task \"{}\" waits for \"{before}\", which is no task", row.cells[0]);
                return Err(place.at_line(row.line, message, known(before, &words)));
            };
            if !after.contains(number) {
                after.push(*number);
            }
        }
        scenario.graph.push(GraphTask { name: row.cells[0].clone(), kernel: place_of, after });
    }
    let order = scenario.order();
    if order.len() < rows.len() {
        let in_order: std::collections::BTreeSet<usize> = order.into_iter().collect();
        let stuck = (0..rows.len()).find(|number| !in_order.contains(number)).unwrap_or(0);
        let message = format!("task \"{}\" waits, over others, for itself", rows[stuck].cells[0]);
        return Err(place.at_line(rows[stuck].line, message, "take one `after` of the circle out"));
    }
    Ok(())
}

/// The rows with these columns; those beyond the first `needed` may be missing.
fn rows_of(place: In<'_>, titles: &[&str], needed: usize) -> Result<Vec<Row>, InputError> {
    let text = place.text()?;
    if place.0.extension().is_some_and(|x| x == "json") { json(place, &text, titles, needed) } else { csv(place, &text, titles, needed) }
}

fn json(place: In<'_>, text: &str, titles: &[&str], needed: usize) -> Result<Vec<Row>, InputError> {
    let shape = format!("give an array of objects with {}", titles.join(", "));
    let value: Value = serde_json::from_str(text).map_err(|e| place.at_line(e.line(), format!("that is no JSON: {e}"), shape.clone()))?;
    let Value::Array(items) = value else { return Err(place.error("that is no JSON array", shape)) };
    let mut rows = Vec::with_capacity(items.len());
    for (number, item) in items.iter().enumerate() {
        let Value::Object(object) = item else { return Err(place.error(format!("item {}: that is no object", number + 1), shape)) };
        if let Some(key) = object.keys().find(|key| !titles.contains(&key.as_str())) {
            return Err(place.error(format!("item {}: there is no key \"{key}\"", number + 1), known(key, titles)));
        }
        let mut cells = Vec::with_capacity(titles.len());
        for (column, title) in titles.iter().enumerate() {
            cells.push(match object.get(*title) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
                Some(Value::Array(names)) => {
                    names.iter().map(|n| n.as_str().map_or_else(|| n.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
                }
                None | Some(Value::Null) if column >= needed => String::new(),
                _ => return Err(place.error(format!("item {}: \"{title}\" is missing or of the wrong kind", number + 1), shape)),
            });
        }
        rows.push(Row { line: number + 1, cells });
    }
    Ok(rows)
}

fn csv(place: In<'_>, text: &str, titles: &[&str], needed: usize) -> Result<Vec<Row>, InputError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let shape = format!("begin with a line of titles: {}", titles.join(","));
    let Some((first, head)) = lines.next() else { return Err(place.error("the file is empty", shape)) };
    let found = split(head.trim_start_matches('\u{feff}'));
    let mut columns = Vec::with_capacity(titles.len());
    for (number, title) in titles.iter().enumerate() {
        let column = found.iter().position(|own| own == title);
        if column.is_none() && number < needed {
            return Err(place.at_line(first + 1, format!("there is no column \"{title}\""), shape));
        }
        columns.push(column);
    }
    if let Some(other) = found.iter().find(|own| !titles.contains(&own.as_str())) {
        return Err(place.at_line(first + 1, format!("there is no column \"{other}\""), known(other, titles)));
    }
    let mut rows = Vec::new();
    for (number, line) in lines {
        let cells = split(line);
        if cells.len() > found.len() {
            let message = format!("the row has {} cells, the titles are {}", cells.len(), found.len());
            return Err(place.at_line(number + 1, message, "put cells with commas into double quotes"));
        }
        let cell = |column: &Option<usize>| column.and_then(|c| cells.get(c)).cloned().unwrap_or_default();
        rows.push(Row { line: number + 1, cells: columns.iter().map(cell).collect() });
    }
    Ok(rows)
}

/// Cells of one line; a cell in double quotes may hold commas, and two double quotes for one.
fn split(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.trim_end_matches('\r').chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell).trim().to_owned()),
            _ => cell.push(letter),
        }
    }
    cells.push(cell.trim().to_owned());
    cells
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn cells_may_be_quoted() {
        assert_eq!(split("a, b ,\"c,d\",\"say \"\"x\"\"\",\r"), ["a", "b", "c,d", "say \"x\"", ""]);
    }
}
