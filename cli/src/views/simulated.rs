//! What a simulation came to: one line per policy, and who did how much.

use raftwerk_simulate::bound::By;
use raftwerk_simulate::{Outcome, Scenario};
use serde_json::{Value, json};

use crate::console::Console;
use crate::table::Table;
use crate::units::{counted, group_digits};

pub fn print(console: &Console, scenario: &Scenario, outcomes: &[Outcome]) {
    let Some(first) = outcomes.first() else { return };
    let by = match first.bound.by {
        By::Area => "the work against the machine time of all devices",
        By::CriticalPath => "what has to come one after the other",
    };
    console.line(format!(
        "{}, {}, {}, seed {}",
        counted(scenario.devices(), "device"),
        if scenario.graph.is_empty() {
            counted(first.jobs as u64, "job")
        } else {
            format!("{} tasks that may wait for others", first.jobs)
        },
        counted(first.tasks_in_all, "task"),
        scenario.seed
    ));
    console.line(match first.bound.seconds.is_finite() {
        true => format!("lower bound: {} s ({by})", seconds(first.bound.seconds)),
        false => "lower bound: none: the work cannot end".to_owned(),
    });
    if let Some(mean) = first.bound.mean_completion_s {
        console.line(format!("lower bound of the mean job: {} s", seconds(mean)));
    }
    console.line("");
    let mut table = Table::new(["policy", ">makespan", ">of bound", ">mean job", ">p95 job", ">busy", ">leases", ">entries"]);
    for outcome in outcomes {
        table.row([
            outcome.policy.as_str().into(),
            time(outcome.makespan_s).into(),
            if outcome.ratio.is_nan() { "-".into() } else { format!("{:.4}", outcome.ratio).into() },
            time(outcome.mean_completion_s).into(),
            time(outcome.p95_completion_s).into(),
            percent(outcome.utilisation).into(),
            group_digits(outcome.leases).into(),
            group_digits(outcome.entries).into(),
        ]);
    }
    console.table(&table);
    for outcome in outcomes.iter().filter(|outcome| outcome.tasks < outcome.tasks_in_all) {
        let (ran, all) = (group_digits(outcome.tasks), counted(outcome.tasks_in_all, "task"));
        console.line(format!(
            "{}: {ran} of {all} ran in the {} s until nothing was left that could go on",
            outcome.policy,
            seconds(outcome.reached_s)
        ));
    }
    console.line("");
    let mut table = Table::new(["policy", "group", ">devices", ">tasks", ">leases", ">busy", ">least", ">most", ">in vain"]);
    for outcome in outcomes {
        for group in &outcome.groups {
            table.row([
                outcome.policy.as_str().into(),
                group.name.as_str().into(),
                group_digits(group.devices).into(),
                group_digits(group.tasks).into(),
                group_digits(group.leases).into(),
                percent(group.utilisation).into(),
                percent(group.lowest).into(),
                percent(group.highest).into(),
                percent(group.wasted).into(),
            ]);
        }
    }
    console.table(&table);
}

/// Of a run that did not come to its end there is none.
fn time(time: f64) -> String {
    if time.is_nan() { "-".into() } else { format!("{} s", seconds(time)) }
}

fn seconds(seconds: f64) -> String {
    if seconds >= 100.0 { format!("{seconds:.1}") } else { format!("{seconds:.3}") }
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// `one_by_one`: every device, too.
pub fn to_json(scenario: &Scenario, outcomes: &[Outcome], one_by_one: bool) -> Value {
    let policies = outcomes.iter().map(|outcome| {
        let mut policy = json!(outcome);
        policy["devices"] = if one_by_one { json!(outcome.devices) } else { Value::Null };
        policy
    });
    json!({ "devices": scenario.devices(), "seed": scenario.seed, "policies": policies.collect::<Vec<Value>>() })
}
