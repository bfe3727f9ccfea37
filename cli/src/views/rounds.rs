//! The rounds of a job: which one it is in, and how those before it went.

use std::time::Duration;

use raftwerk_proto::v1::{RoundRecord, RoundsView};
use serde_json::{Value, json};

use crate::table::Table;
use crate::units::{format_bytes, format_duration};

/// Rounds that a table shows: the first and the last ones.
const SHOWN: usize = 20;

pub fn text(rounds: &RoundsView) -> String {
    format!("round {} of at most {}", rounds.current, rounds.max)
}

pub fn has_converged(rounds: &RoundsView) -> bool {
    rounds.ended.last().is_some_and(|round| round.converged)
}

fn took(round: &RoundRecord) -> Duration {
    Duration::from_millis(round.ended_at_ms.saturating_sub(round.began_at_ms))
}

pub fn table(rounds: &RoundsView) -> Table {
    let mut table = Table::new([">round", ">took", ">left for the next", "the kernel says"]);
    let count = rounds.ended.len();
    for (number, round) in rounds.ended.iter().enumerate() {
        if number >= SHOWN / 2 && number + SHOWN / 2 < count {
            continue;
        }
        let mut said: Vec<String> = round.measures.iter().map(|measure| format!("{} {}", measure.name, measure.value)).collect();
        said.extend(round.converged.then(|| "converged".to_owned()));
        table.row([
            (number + 1).to_string().into(),
            format_duration(took(round)).into(),
            format_bytes(round.state_bytes).into(),
            said.join(", ").into(),
        ]);
    }
    table
}

pub fn to_json(rounds: &RoundsView) -> Value {
    let round = |(number, round): (usize, &RoundRecord)| {
        // Text that is a number is one; what a kernel gives may be something else.
        let value = |text: &str| text.parse().ok().and_then(serde_json::Number::from_f64).map_or_else(|| Value::from(text), Value::from);
        let measures: serde_json::Map<String, Value> = round.measures.iter().map(|m| (m.name.clone(), value(&m.value))).collect();
        json!({
            "round": number + 1, "seconds": took(round).as_secs_f64(), "converged": round.converged, "state_bytes": round.state_bytes,
            "measures": measures,
        })
    };
    json!({
        "current": rounds.current, "max": rounds.max, "converged": has_converged(rounds),
        "ended": rounds.ended.iter().enumerate().map(round).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::Param;

    #[test]
    fn what_a_kernel_says_of_a_round_is_a_number_where_it_is_one() {
        let measure = |name: &str, value: &str| Param { name: name.into(), value: value.into() };
        let measures = vec![measure("objective", "12.5"), measure("shift", "none")];
        let ended = vec![RoundRecord { began_at_ms: 1000, ended_at_ms: 1250, converged: true, state_bytes: 9, measures }];
        let view = RoundsView { current: 1, max: 20, ended };
        let json = to_json(&view);
        assert_eq!(json["ended"][0]["measures"], json!({"objective": 12.5, "shift": "none"}));
        assert_eq!((&json["ended"][0]["seconds"], &json["converged"]), (&json!(0.25), &json!(true)));
        assert_eq!(text(&view), "round 1 of at most 20");
        let many = RoundsView { ended: vec![RoundRecord::default(); 100], ..view };
        assert_eq!(to_json(&many)["ended"].as_array().map(Vec::len), Some(100));
    }
}
