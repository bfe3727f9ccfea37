//! Plain tables, as CSV with a line of titles or as a JSON array of objects, so that published measurements can be brought as they are.
//!
//! - times: `kernel`, `device`, `seconds` of one task; a pair that is missing cannot run there;
//! - tasks: `task`, `kernel`, `after`: the tasks it waits for, by name, with spaces or semicolons between (in JSON an array).

use super::{Cluster, In, InputError, KERNEL_NAMES, MAX_TASK_S, MAX_TASKS, is_kernel_name, kernel, known};
use crate::scenario::{GraphTask, Scenario};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The one title whose cells name several tasks.
const AFTER: &str = "after";

/// Seconds of one task of a kernel on a device of a group.
pub(super) struct Times {
    /// With the line that says so.
    rows: BTreeMap<(String, String), (f64, usize)>,
}

impl Times {
    pub(super) fn seconds(&self, kernel: &str, device: &str) -> Option<f64> {
        self.rows.get(&(kernel.to_owned(), device.to_owned())).map(|(seconds, _)| *seconds)
    }

    pub(super) fn knows(&self, kernel: &str) -> bool {
        self.rows.range((kernel.to_owned(), String::new())..).next().is_some_and(|((name, _), _)| name == kernel)
    }

    pub(super) fn devices(&self) -> BTreeSet<&str> {
        self.rows.keys().map(|(_, device)| device.as_str()).collect()
    }

    /// Each once.
    pub(super) fn kernels(&self) -> Vec<&str> {
        let names: BTreeSet<&str> = self.rows.keys().map(|(kernel, _)| kernel.as_str()).collect();
        names.into_iter().collect()
    }

    /// A row of a device that is no group would count for nothing.
    pub(super) fn check_devices(&self, place: In<'_>, cluster: &Cluster) -> Result<(), InputError> {
        let names: Vec<&str> = cluster.groups.iter().map(|(group, _)| group.name.as_str()).collect();
        let stray = self.rows.iter().filter(|((_, device), _)| !names.contains(&device.as_str()));
        match stray.min_by_key(|(_, (_, line))| *line) {
            None => Ok(()),
            Some(((_, device), (_, line))) => {
                let message = format!("device \"{device}\" is no group of the cluster");
                Err(place.at_line(*line, message, format!("{}; or take the row out", known(device, &names))))
            }
        }
    }
}

/// One row: its line and its cells in the order of the titles asked for.
struct Row {
    line: usize,
    cells: Vec<String>,
    /// Names of the last title, where they come as an array: they may have spaces.
    list: Option<Vec<String>>,
}

pub(super) fn times(place: In<'_>) -> Result<Times, InputError> {
    let mut rows = BTreeMap::new();
    for row in rows_of(place, &["kernel", "device", "seconds"], 3)? {
        let [kernel, device, seconds] = &row.cells[..] else { continue };
        let value = seconds.parse::<f64>().ok().filter(|s| *s > 0.0 && *s <= MAX_TASK_S);
        let Some(value) = value else {
            let fix = format!("give a number above 0 and up to {MAX_TASK_S}, such as 0.012");
            return Err(place.at_line(row.line, format!("seconds = \"{seconds}\" is no time"), fix));
        };
        if !is_kernel_name(kernel) || device.is_empty() {
            return Err(place.at_line(row.line, "kernel and device need names", format!("fill both cells; of the kernel, {KERNEL_NAMES}")));
        }
        if rows.insert((kernel.clone(), device.clone()), (value, row.line)).is_some() {
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
    let rows = rows_of(place, &["task", "kernel", AFTER], 2)?;
    if rows.is_empty() || rows.len() as u64 > MAX_TASKS.min(u64::from(u32::MAX)) {
        return Err(place.error(format!("{} tasks are not possible", rows.len()), "give rows of task, kernel, after"));
    }
    let mut by_name: BTreeMap<&str, u32> = BTreeMap::new();
    for (number, row) in rows.iter().enumerate() {
        if row.cells[0].is_empty() {
            return Err(place.at_line(row.line, "a task has no name", "fill its cell in the column `task`"));
        }
        if by_name.insert(&row.cells[0], number as u32).is_some() {
            return Err(place.at_line(row.line, format!("task \"{}\" is there twice", row.cells[0]), "give each task a name of its own"));
        }
    }
    let names: Vec<&str> = cluster.groups.iter().map(|(group, _)| group.name.as_str()).collect();
    for row in &rows {
        let name = &row.cells[1];
        if !times.knows(name) {
            let fix = format!("{}; it needs rows in the table of times", known(name, &times.kernels()));
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
        let words = || row.cells[2].split([' ', ';']).filter(|word| !word.is_empty()).collect();
        for before in row.list.as_ref().map_or_else(words, |names| names.iter().map(String::as_str).collect::<Vec<&str>>()) {
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

/// An object as it is written, so that a key that is there twice is seen.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn json(place: In<'_>, text: &str, titles: &[&str], needed: usize) -> Result<Vec<Row>, InputError> {
    let shape = format!("give an array of objects with {}", titles.join(", "));
    let items: Vec<Pairs> =
        serde_json::from_str(text).map_err(|e| place.at_line(e.line(), format!("that is no JSON array of objects: {e}"), shape.clone()))?;
    let lines = lines_of_items(text);
    let mut rows = Vec::with_capacity(items.len());
    for (number, Pairs(pairs)) in items.iter().enumerate() {
        let line = lines.get(number).copied().unwrap_or(1);
        let wrong = |message: String, fix: String| place.at_line(line, format!("item {}: {message}", number + 1), fix);
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        if let Some((place, key)) = keys.iter().enumerate().find(|(place, key)| keys[..*place].contains(key)) {
            return Err(wrong(format!("\"{key}\" is there twice, the second time as {}", pairs[place].1), "keep one of the two".into()));
        }
        if let Some((key, fix)) = mistyped(&keys, titles) {
            return Err(wrong(format!("there is no key \"{key}\""), fix));
        }
        let (mut cells, mut list) = (Vec::with_capacity(titles.len()), None);
        for (column, title) in titles.iter().enumerate() {
            let value = pairs.iter().find(|(key, _)| key == title).map(|(_, value)| value);
            let cell = match value {
                Some(Value::Array(names)) if *title == AFTER => {
                    list = names.iter().map(plain).collect::<Option<Vec<String>>>();
                    list.as_ref().map(|_| String::new())
                }
                None | Some(Value::Null) if column >= needed => Some(String::new()),
                Some(value) => plain(value),
                None => None,
            };
            let Some(cell) = cell else { return Err(wrong(format!("\"{title}\" is missing or of the wrong kind"), shape)) };
            cells.push(cell);
        }
        rows.push(Row { line, cells, list });
    }
    Ok(rows)
}

/// A text or a number.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Measured tables have more columns than are read here, and that is right. One that is nearly called like a title that is missing is not.
fn mistyped(given: &[&str], titles: &[&str]) -> Option<(String, String)> {
    let missing: Vec<&str> = titles.iter().copied().filter(|title| !given.contains(title)).collect();
    let likeness = |own: &str, title: &str| strsim::jaro_winkler(&own.to_lowercase(), title);
    let like = |own: &&&str| !titles.contains(own) && missing.iter().any(|title| likeness(own, title) >= 0.8);
    given.iter().find(like).map(|own| ((*own).to_owned(), known(own, &missing)))
}

/// Lines on which the items of an array of objects begin. The text is good JSON.
fn lines_of_items(text: &str) -> Vec<usize> {
    let (mut lines, mut line, mut depth, mut quoted, mut escaped) = (Vec::new(), 1, 0u32, false, false);
    for byte in text.bytes() {
        match byte {
            b'\n' => line += 1,
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                if depth == 1 {
                    lines.push(line);
                }
                depth += 1;
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    lines
}

fn csv(place: In<'_>, text: &str, titles: &[&str], needed: usize) -> Result<Vec<Row>, InputError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let shape = format!("begin with a line of titles: {}", titles.join(","));
    let cells_of = |number: usize, line: &str| {
        split(line).ok_or_else(|| {
            place.at_line(
                number + 1,
                "a double quote is not closed",
                "close it on the same line; a double quote in a cell is written twice",
            )
        })
    };
    let Some((first, head)) = lines.next() else { return Err(place.error("the file is empty", shape)) };
    let found = cells_of(first, head.trim_start_matches('\u{feff}'))?;
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    if let Some(title) = titles.iter().find(|title| names.iter().filter(|own| own == title).count() > 1) {
        return Err(place.at_line(first + 1, format!("column \"{title}\" is there twice"), "take one of the two out"));
    }
    let mut columns = Vec::with_capacity(titles.len());
    for (number, title) in titles.iter().enumerate() {
        let column = names.iter().position(|own| own == title);
        if column.is_none() && number < needed {
            return Err(place.at_line(first + 1, format!("there is no column \"{title}\""), shape));
        }
        columns.push(column);
    }
    if let Some((other, fix)) = mistyped(&names, titles) {
        return Err(place.at_line(first + 1, format!("there is no column \"{other}\""), fix));
    }
    let mut rows = Vec::new();
    for (number, line) in lines {
        let cells = cells_of(number, line)?;
        if cells.len() > found.len() {
            let message = format!("the row has {} cells, the titles are {}", cells.len(), found.len());
            return Err(place.at_line(number + 1, message, "put cells with commas into double quotes"));
        }
        let cell = |column: &Option<usize>| column.and_then(|c| cells.get(c)).cloned().unwrap_or_default();
        rows.push(Row { line: number + 1, cells: columns.iter().map(cell).collect(), list: None });
    }
    Ok(rows)
}

/// Cells of one line; a cell in double quotes may hold commas, and two double quotes for one. Nothing when a quote is not closed.
fn split(line: &str) -> Option<Vec<String>> {
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
    (!quoted).then_some(cells)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn cells_may_be_quoted() {
        let cells = split("a, b ,\"c,d\",\"say \"\"x\"\"\",\r").expect("cells");
        assert_eq!(cells, ["a", "b", "c,d", "say \"x\"", ""]);
        assert_eq!(split("a,\"b,c"), None);
    }
}
