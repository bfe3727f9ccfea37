//! What leases have cost: a table, and the JSON that can be imported again.

use std::time::Duration;

use raftwerk_proto::v1::{CostRecord, CostSample, CostsView, SpeedView};
use raftwerk_scheduler::cost::{BELIEVED, ORDINARY, Scores, beyond_limits};
use serde_json::{Value, json};

use crate::console::Console;
use crate::table::Table;
use crate::units::format_duration;

pub fn print(console: &Console, view: &CostsView) {
    if view.costs.is_empty() {
        console.note("nothing is known yet: costs are learnt from the first jobs on");
        return;
    }
    console.table(&table(&view.costs));
    if let Some(line) = overall(&view.costs) {
        console.line("");
        console.line(line);
    }
    let unlike: Vec<&SpeedView> = view.speeds.iter().filter(|speed| speed.permille.abs_diff(ORDINARY) > ORDINARY / 10).collect();
    if !unlike.is_empty() {
        console.line("");
        console.table(&speeds(&unlike));
    }
}

fn table(costs: &[CostRecord]) -> Table {
    let mut table = Table::new(["kernel", "parameters", "device", ">task size", ">fixed", ">per unit", ">leases", ">spread", ">error"]);
    for cost in costs {
        let error = Scores::from_wire(&cost.scores).and_then(|scores| scores.median_permille());
        table.row([
            cost.kernel.as_str().into(),
            cost.footprint.as_str().into(),
            cost.model.as_str().into(),
            format!("2^{}", cost.size_class).into(),
            nanoseconds(cost.fixed_ns).into(),
            per_unit(cost.per_unit_fs).into(),
            leases(cost.samples).into(),
            percent(cost.spread_permille).into(),
            error.map_or_else(|| "-".to_owned(), percent).into(),
        ]);
    }
    table
}

/// How far predictions were off over all keys.
fn overall(costs: &[CostRecord]) -> Option<String> {
    let mut all = Scores::default();
    costs.iter().filter_map(|cost| Scores::from_wire(&cost.scores)).for_each(|scores| all.merge(&scores));
    let median = all.median_permille()?;
    Some(format!("half of {} predictions were off by less than {}", all.count(), percent(median)))
}

fn speeds(unlike: &[&SpeedView]) -> Table {
    let mut table = Table::new(["worker", "name", "device", "model", "speed"]);
    for speed in unlike {
        table.row([
            speed.worker.to_string().into(),
            speed.worker_name.as_str().into(),
            speed.device.to_string().into(),
            speed.model.as_str().into(),
            against_model(speed.permille).into(),
        ]);
    }
    table
}

fn against_model(permille: u64) -> String {
    if permille >= ORDINARY {
        format!("{}.{:02} times slower than its model", permille / 1000, permille % 1000 / 10)
    } else {
        let times = 100_000 / permille.max(1);
        format!("{}.{:02} times faster than its model", times / 100, times % 100)
    }
}

/// Not believed before there are enough.
fn leases(samples: u64) -> String {
    if samples < BELIEVED { format!("{samples} of {BELIEVED}") } else { samples.to_string() }
}

fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

/// A unit is a number or a byte, and may take next to no time.
fn per_unit(fs: u64) -> String {
    match fs {
        0..1_000 => format!("{fs} fs"),
        1_000..1_000_000 => format!("{}.{} ps", fs / 1_000, fs % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} ns", fs / 1_000_000, fs % 1_000_000 / 100_000),
        _ => nanoseconds(fs / 1_000_000),
    }
}

/// Short times with a digit that tells them apart.
fn nanoseconds(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{}.{} µs", ns / 1_000, ns % 1_000 / 100),
        1_000_000..100_000_000 => format!("{}.{} ms", ns / 1_000_000, ns % 1_000_000 / 100_000),
        _ => format_duration(Duration::from_nanos(ns)),
    }
}

pub fn to_json(view: &CostsView) -> Value {
    let cost = |cost: &CostRecord| {
        json!({
            "kernel": cost.kernel, "footprint": cost.footprint, "size_class": cost.size_class, "model": cost.model, "fixed_ns": cost.fixed_ns,
            "per_unit_fs": cost.per_unit_fs, "samples": cost.samples, "believed": cost.samples >= BELIEVED, "spread_permille": cost.spread_permille,
            "error_permille": Scores::from_wire(&cost.scores).and_then(|scores| scores.median_permille()), "scores": cost.scores,
            "window": cost.window.iter().map(|sample| json!([sample.units, sample.ns])).collect::<Vec<_>>(),
        })
    };
    let speed = |speed: &SpeedView| {
        json!({
            "worker": speed.worker, "worker_name": speed.worker_name, "device": speed.device, "model": speed.model, "permille": speed.permille,
            "samples": speed.samples,
        })
    };
    json!({"costs": view.costs.iter().map(cost).collect::<Vec<_>>(), "speeds": view.speeds.iter().map(speed).collect::<Vec<_>>()})
}

/// What is wrong with a document, with the place, and what to do about it where that is not plain.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread {
    pub what: String,
    pub fix: Option<String>,
}

impl From<String> for Unread {
    fn from(what: String) -> Self {
        Self { what, fix: None }
    }
}

/// Reads what [`to_json`] made; what is derived there is not looked at.
pub fn from_json(text: &str) -> Result<Vec<CostRecord>, Unread> {
    let document: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    let reads = format!("this program reads schema {}", crate::console::SCHEMA);
    if let Some(schema) = document.get("schema").filter(|schema| **schema != json!(crate::console::SCHEMA)) {
        return Err(Unread {
            what: format!("is of schema {schema}; {reads}"),
            fix: Some("print it with a `raftwerk` of this release, or import it with the one that has printed it".to_owned()),
        });
    }
    let costs = document.get("costs").and_then(Value::as_array).ok_or_else(|| "has no array `costs`".to_owned())?;
    if document.get("schema").is_none() {
        return Err(Unread {
            what: format!("does not say its schema; {reads}"),
            fix: Some(format!(
                "give the whole document that was printed; to one that was written by hand add \"schema\": {}",
                crate::console::SCHEMA
            )),
        });
    }
    costs.iter().enumerate().map(|(n, cost)| taken(n, cost)).collect()
}

fn taken(number: usize, cost: &Value) -> Result<CostRecord, Unread> {
    let cost = record(cost).map_err(|problem| format!("costs[{number}]: {problem}"))?;
    match beyond_limits(&cost) {
        None => Ok(cost),
        Some(problem) => Err(Unread {
            what: format!("costs[{number}] ({} on {}): {problem}", cost.kernel, cost.model),
            fix: Some("take this one out, or measure it anew: `raftwerk doctor --calibrate -o json`".to_owned()),
        }),
    }
}

fn record(cost: &Value) -> Result<CostRecord, String> {
    let text = |name: &str| cost.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| format!("`{name}` must be a string"));
    let number = |name: &str| cost.get(name).and_then(Value::as_u64).ok_or_else(|| format!("`{name}` must be a whole number"));
    let list = |name: &str| match cost.get(name) {
        None => Ok(Vec::new()),
        Some(list) => list.as_array().cloned().ok_or_else(|| format!("`{name}` must be an array")),
    };
    let sample = |value: &Value| match value.as_array().map(Vec::as_slice) {
        Some([units, ns]) => Some(CostSample { units: units.as_u64()?, ns: ns.as_u64()? }),
        _ => None,
    };
    let scores: Option<Vec<u64>> = list("scores")?.iter().map(Value::as_u64).collect();
    let window: Option<Vec<CostSample>> = list("window")?.iter().map(sample).collect();
    Ok(CostRecord {
        kernel: text("kernel")?,
        footprint: text("footprint")?,
        size_class: u32::try_from(number("size_class")?).map_err(|_| "`size_class` is too large")?,
        model: text("model")?,
        fixed_ns: number("fixed_ns")?,
        per_unit_fs: number("per_unit_fs")?,
        samples: number("samples")?,
        spread_permille: number("spread_permille")?,
        scores: scores.ok_or("`scores` must hold whole numbers")?,
        window: window.ok_or("`window` must hold pairs of whole numbers, [units, ns]")?,
        ..CostRecord::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost() -> CostRecord {
        CostRecord {
            kernel: "k@1".into(),
            footprint: "bins=7".into(),
            size_class: 20,
            model: "A card".into(),
            fixed_ns: 1_500_000,
            per_unit_fs: 12_340,
            samples: 40,
            spread_permille: 85,
            scores: vec![3, 9, 1],
            window: vec![CostSample { units: 7, ns: 9 }],
            ..CostRecord::default()
        }
    }

    /// As the console prints it.
    fn document(costs: Vec<CostRecord>) -> Value {
        let mut document = to_json(&CostsView { costs, speeds: Vec::new() });
        document["schema"] = json!(crate::console::SCHEMA);
        document
    }

    #[test]
    fn what_is_exported_can_be_imported() {
        let costs = vec![cost(), CostRecord { model: "B".into(), samples: 3, ..cost() }];
        assert_eq!(from_json(&document(costs.clone()).to_string()), Ok(costs));
    }

    #[test]
    fn a_problem_names_its_place() {
        assert!(from_json("{").is_err_and(|problem| problem.what.starts_with("is no JSON")));
        assert!(from_json("{}").is_err_and(|problem| problem.what.contains("`costs`")));
        let mut document = document(vec![cost(), cost()]);
        document["costs"][1]["samples"] = json!("many");
        assert_eq!(from_json(&document.to_string()), Err("costs[1]: `samples` must be a whole number".to_owned().into()));
        document["costs"][1]["samples"] = json!(1);
        document["costs"][0]["window"] = json!([[1]]);
        assert_eq!(
            from_json(&document.to_string()),
            Err("costs[0]: `window` must hold pairs of whole numbers, [units, ns]".to_owned().into())
        );
    }

    #[test]
    fn a_cost_that_cannot_be_is_refused_with_its_place_and_the_limit() {
        let mut document = document(vec![cost(), cost()]);
        document["costs"][1]["spread_permille"] = json!(u64::MAX);
        let refused = from_json(&document.to_string()).expect_err("refused");
        assert_eq!(
            refused.what,
            "costs[1] (k@1 on A card): `spread_permille` is 18446744073709551615; the most that is taken is 10000 (tenfold, as any larger error counts)"
        );
        assert!(refused.fix.is_some_and(|fix| fix.contains("--calibrate")));
    }

    #[test]
    fn a_document_of_another_schema_or_of_none_is_refused() {
        let mut document = document(vec![cost()]);
        assert_eq!(from_json(&document.to_string()), Ok(vec![cost()]));
        let bare = json!({ "costs": document["costs"] });
        let refused = from_json(&bare.to_string()).expect_err("refused");
        assert!(refused.what == "does not say its schema; this program reads schema 1", "{refused:?}");
        assert!(refused.fix.is_some_and(|fix| fix.contains("add \"schema\": 1")));
        for other in [json!(2), json!("1"), Value::Null] {
            document["schema"] = other;
            let refused = from_json(&document.to_string()).expect_err("refused");
            assert!(refused.what.contains("this program reads schema 1") && refused.fix.is_some(), "{refused:?}");
        }
    }

    #[test]
    fn what_is_not_believed_yet_is_shown_with_what_it_needs() {
        let text = table(&[cost(), CostRecord { samples: 3, scores: Vec::new(), ..cost() }]).render(false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("2^20") && lines[1].contains("12.3 ps") && lines[1].contains("8.5 %"), "{text}");
        assert!(lines[2].contains("3 of 10") && lines[2].ends_with('-'), "{text}");
        assert_eq!(against_model(3_050), "3.05 times slower than its model");
        assert_eq!(against_model(500), "2.00 times faster than its model");
    }
}
