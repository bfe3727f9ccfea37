//! A job: one line of a list, the whole, and its JSON.

use std::time::Duration;

use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{
    DeviceMatch, DeviceShare, Files, JobSpec, JobState, JobView, KernelKind, OutputSpec, Param, SetAside, ShuffleCopies, StageSpec,
    StageView, TallyTotal,
};
use raftwerk_scheduler::document;
use serde_json::{Value, json};

use super::names::Names;
use super::{counters, failures, kept, rounds};
use crate::calendar::utc;
use crate::console::Console;
use crate::job_file::DEFAULT_PRIORITY;
use crate::table::{Cell, Colour, Table};
use crate::units::{counted, format_bytes, format_duration, group_digits};

pub fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Running => "running",
        JobState::Publishing => "publishing",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

fn state_cell(state: JobState) -> Cell {
    let colour = match state {
        JobState::Done => Colour::Green,
        JobState::Failed => Colour::Red,
        JobState::Cancelled => Colour::Yellow,
        _ => Colour::None,
    };
    Cell::coloured(state_name(state), colour)
}

/// With the round that a running job is in.
fn state_in_list(view: &JobView) -> Cell {
    match &view.rounds {
        _ if view.state() == JobState::Running && !view.waiting_for.is_empty() => "waiting".into(),
        Some(rounds) if view.state() == JobState::Running => format!("running {}/{}", rounds.current, rounds.max).into(),
        _ => state_cell(view.state()),
    }
}

pub fn name(view: &JobView) -> &str {
    view.spec.as_ref().map_or("", |spec| &spec.name)
}

/// Time from submit to the end, as the cluster's clock has it; `None` while the job runs.
pub fn elapsed(view: &JobView) -> Option<Duration> {
    (view.finished_at_ms != 0).then(|| Duration::from_millis(view.finished_at_ms.saturating_sub(view.submitted_at_ms)))
}

pub fn tasks_of(view: &JobView) -> (u64, u64) {
    view.stages.iter().fold((0, 0), |(done, all), stage| (done + stage.accepted, all + stage.tasks))
}

pub fn list(jobs: &[JobView]) -> Table {
    let mut table = Table::new(["job", "name", "namespace", "state", ">accepted", ">tasks", "submitted", ">took"]);
    for view in jobs {
        let (accepted, tasks) = tasks_of(view);
        table.row([
            view.job.to_string().into(),
            name(view).into(),
            view.spec.as_ref().map_or("", |spec| &spec.namespace).into(),
            state_in_list(view),
            group_digits(accepted).into(),
            group_digits(tasks).into(),
            utc(view.submitted_at_ms).into(),
            elapsed(view).map_or_else(String::new, format_duration).into(),
        ]);
    }
    table
}

pub fn print(console: &Console, view: &JobView) {
    let mut head = Table::new(["job", "name", "namespace", "state", "submitted", "finished", ">took"]);
    head.row([
        view.job.to_string().into(),
        name(view).into(),
        view.spec.as_ref().map_or("", |spec| &spec.namespace).into(),
        state_cell(view.state()),
        utc(view.submitted_at_ms).into(),
        utc(view.finished_at_ms).into(),
        elapsed(view).map_or_else(String::new, format_duration).into(),
    ]);
    console.table(&head);
    if !view.cause.is_empty() {
        console.line(format!("\ncause: {}", crate::table::printable_lines(&view.cause)));
    }
    console.line("");
    console.table(&stages(view));
    if counters::any(view) {
        console.line("");
        counters::print(console, view);
    }
    if let Some(spec) = &view.spec {
        console.line("");
        for stage in &spec.stages {
            console.line(format!("{}: {}", stage.name, stage_text(stage)));
        }
        console.line(terms(spec));
        if let Some(output) = &spec.output {
            console.line(output_text(view, output));
        }
    }
    for copies in &view.shuffle_copies {
        console.line(copies_text(copies));
    }
    if let Some(all) = &view.rounds {
        console.line(format!("{}{}", rounds::text(all), if rounds::has_converged(all) { ", converged" } else { "" }));
        if !all.ended.is_empty() {
            console.line("");
            console.table(&rounds::table(all));
        }
    }
    if !view.set_aside.is_empty() {
        console.line("");
        console.table(&set_aside(&view.set_aside));
    }
    if !view.failures.is_empty() {
        console.line("");
        console.table(&failures::table(&view.failures));
    }
    if !view.shares.is_empty() {
        console.line("");
        console.table(&shares(&view.shares));
    }
}

fn output_text(view: &JobView, output: &OutputSpec) -> String {
    let copies = if kept::is_on_workers(view) { format!(", copies of each part: {}", kept::wanted(view)) } else { String::new() };
    // The path is somebody's text.
    crate::table::printable(&format!("output: {} ({}){copies}", output.url, output.format))
}

/// Tasks that will not be tried again, and why.
fn set_aside(all: &[SetAside]) -> Table {
    let mut table = Table::new(["set aside", ">tasks", ">attempts", "executor died on", "last message"]);
    for aside in all {
        let workers: Vec<String> = aside.workers.iter().map(|worker| format!("worker {worker}")).collect();
        let message = crate::table::printable(aside.message.lines().last().unwrap_or_default());
        table.row([
            format!("{} task {}", aside.stage, aside.first_task).into(),
            group_digits(aside.task_count).into(),
            group_digits(aside.attempts).into(),
            workers.join(", ").into(),
            message.into(),
        ]);
    }
    table
}

/// In words, the first few: `map task 7, map tasks 9-12`.
pub fn set_aside_text(view: &JobView) -> String {
    const SHOWN: usize = 5;
    let one = |aside: &SetAside| match aside.task_count {
        1 => format!("{} task {}", aside.stage, aside.first_task),
        count => format!("{} tasks {}-{}", aside.stage, aside.first_task, aside.first_task + count - 1),
    };
    let mut text = view.set_aside.iter().take(SHOWN).map(one).collect::<Vec<_>>().join(", ");
    if view.set_aside.len() > SHOWN {
        text.push_str(&format!(" and {} more", view.set_aside.len() - SHOWN));
    }
    text
}

fn stages(view: &JobView) -> Table {
    let titles = [
        "stage",
        "kernel",
        "state",
        ">tasks",
        ">ready",
        ">leased",
        ">accepted",
        ">leases",
        ">failed attempts",
        ">fenced",
        ">generation",
        ">set aside",
        ">speculated",
    ];
    let mut table = Table::new(titles);
    for (place, stage) in view.stages.iter().enumerate() {
        let kernel = view.spec.as_ref().and_then(|spec| spec.stages.get(place)).and_then(|stage| stage.kernel.as_ref());
        table.row([
            stage.name.as_str().into(),
            kernel.map_or_else(String::new, |kernel| format!("{}@{}", kernel.name, kernel.version)).into(),
            stage_state(stage).into(),
            group_digits(stage.tasks).into(),
            group_digits(stage.ready).into(),
            group_digits(stage.leased).into(),
            group_digits(stage.accepted).into(),
            group_digits(stage.leases).into(),
            group_digits(stage.failed_attempts).into(),
            group_digits(stage.fenced).into(),
            group_digits(stage.generation).into(),
            group_digits(stage.set_aside).into(),
            group_digits(stage.speculated).into(),
        ]);
    }
    table
}

/// Side inputs: name and path.
fn sides(stage: &StageSpec) -> impl Iterator<Item = (&str, &str)> {
    stage.inputs.iter().skip(1).filter_map(|input| match &input.source {
        Some(Source::Files(files)) => Some((input.name.as_str(), files.patterns.first().map_or("", String::as_str))),
        _ => None,
    })
}

fn stage_state(stage: &StageView) -> &'static str {
    match (stage.complete, stage.open) {
        (true, _) => "complete",
        (false, true) => "open",
        (false, false) => "waiting",
    }
}

/// What the job asked of the scheduler.
fn terms(spec: &JobSpec) -> String {
    let policy = if spec.policy.is_empty() { String::new() } else { format!(", policy {}", spec.policy) };
    let after = spec.after.as_ref().map_or_else(String::new, |after| {
        let how = if after.any { ", however they end" } else { "" };
        format!("\nafter: jobs {}{how}", after.jobs.join(", "))
    });
    format!("priority: {}{policy}{after}", priority(spec))
}

fn priority(spec: &JobSpec) -> u32 {
    if spec.priority == 0 { DEFAULT_PRIORITY } else { spec.priority }
}

/// What the listing found that says how files are cut, or which rows of them count.
fn remarks(files: &Files) -> String {
    let packed: Vec<&str> = files.listing.iter().map(|file| file.compression.as_str()).filter(|with| !with.is_empty()).collect();
    let mut text = String::new();
    let in_packs = files.listing.iter().any(|file| file.pack_files > 0);
    if in_packs {
        // What they are called only the workers know.
        text += &format!(" ({}, listed in packs)", counted(files.listed_files, "file"));
    }
    if let Some(first) = packed.first() {
        let with = if packed.iter().all(|with| with == first) { *first } else { "gzip and zstd" };
        let which = match (packed.len(), files.listing.len()) {
            // What a pack says is of some of its files.
            _ if in_packs => "some".to_owned(),
            // Of a long listing a view has its beginning only.
            (some, listed) if listed >= 100 => format!("{some} of the first {listed}"),
            (all, listed) if all == listed => "all".to_owned(),
            (some, listed) => format!("{some} of {listed}"),
        };
        text += &format!(" ({which} compressed with {with}, which cannot be cut: one split for each)");
    }
    let groups: u64 = files.listing.iter().map(|file| u64::from(file.groups)).sum();
    if groups > 0 {
        let what = if files.format == "parquet" { "row groups" } else { "record batches" };
        let many = if files.listing.len() < 100 { format!(", of which there are {}", group_digits(groups)) } else { String::new() };
        text += &format!(" (of whole {what}{many})");
    }
    if let Some(table) = files.table.as_ref().filter(|table| !table.r#where.is_empty()) {
        text += &format!(", rows where {}", table.r#where);
    }
    text
}

/// One line that says what a stage does, on what, and where.
fn stage_text(stage: &StageSpec) -> String {
    let read_stages: Vec<&str> = stage
        .inputs
        .iter()
        .filter_map(|input| match &input.source {
            Some(Source::Stage(from)) => Some(from.stage.as_str()),
            _ => None,
        })
        .collect();
    let is_map = stage.kernel.as_ref().is_some_and(|kernel| kernel.kind() == KernelKind::Map);
    let input = match stage.inputs.first().and_then(|input| input.source.as_ref()) {
        Some(Source::Stage(_)) if read_stages.len() > 1 => format!("stages {}", read_stages.join(" and ")),
        Some(Source::Stage(stage)) if is_map => format!("the parts of stage {}", stage.stage),
        Some(Source::Range(range)) => {
            format!("range {}..{} in {}", range.start, range.start.saturating_add(range.count), counted(range.tasks, "task"))
        }
        Some(Source::Files(files)) => {
            let more = files.patterns.len().saturating_sub(1);
            let first = files.patterns.first().map_or("", String::as_str);
            let rest = if more > 0 { format!(" and {}", counted(more as u64, "more pattern")) } else { String::new() };
            let splits = match &files.table {
                Some(table) if table.whole_files => "one split for each".to_owned(),
                _ => format!("splits of {}", format_bytes(files.split_bytes)),
            };
            format!("{} files {first}{rest}, {splits}{}", files.format, remarks(files))
        }
        Some(Source::Stage(stage)) => format!("stage {}", stage.stage),
        None => "nothing".to_owned(),
    };
    let class = stage.device.as_ref().map_or("any", |device| &device.class);
    let class = if stage.reproducible { format!("{class}, reproducible") } else { class.to_owned() };
    let class = wants(stage).into_iter().fold(class, |text, wanted| format!("{text}, {wanted}"));
    let input = sides(stage).fold(input, |text, (name, path)| format!("{text}, side input {name} {path}"));
    let given = stage.params.iter().filter(|param| !param.value.is_empty());
    let params: Vec<String> = given.map(|Param { name, value }| format!("{name}={value}")).collect();
    let params = if params.is_empty() { String::new() } else { format!("; {}", params.join(" ")) };
    crate::table::printable(&format!("reads {input}; device {class}{params}"))
}

/// What a stage wants of its devices beyond their class.
fn wants(stage: &StageSpec) -> Vec<String> {
    let one = |wanted: &DeviceMatch| {
        let class = (!wanted.class.is_empty()).then(|| format!("class {}", wanted.class));
        let list = |what: &str, words: &[String]| (!words.is_empty()).then(|| format!("{what} {}", words.join(" or ")));
        let features = (!wanted.features.is_empty()).then(|| format!("features {}", wanted.features.join(" and ")));
        let memory = (wanted.memory_bytes > 0).then(|| format!("{} of memory", format_bytes(wanted.memory_bytes)));
        let labels = wanted.labels.iter().map(|label| format!("label {}={}", label.key, label.value));
        let lists = [class, list("vendor", &wanted.vendors), list("backend", &wanted.backends), features, memory];
        lists.into_iter().flatten().chain(labels).collect::<Vec<_>>().join(" ")
    };
    let require = stage.require.as_ref().map(|wanted| format!("requires {}", one(wanted)));
    let prefer = stage.prefer.as_ref().map(|wanted| format!("prefers {}", one(wanted)));
    let gang = stage.gang.as_ref().map(|gang| format!("begins on {} at once", counted(gang.devices.into(), "device")));
    [require, prefer, gang].into_iter().flatten().collect()
}

/// Whether the copies of shuffle data that the job asked for were made.
pub fn copies_text(copies: &ShuffleCopies) -> String {
    let (two, one) = (counted(copies.two_places, "task"), group_digits(copies.one_place));
    match copies.one_place {
        0 => format!("shuffle data of {}: {two} at two workers", copies.stage),
        _ => format!(
            "shuffle data of {}: {two} at two workers, {one} at one only (no other worker was there or had room to take a copy, or one was lost)",
            copies.stage
        ),
    }
}

/// Which device did how much.
pub fn shares(shares: &[DeviceShare]) -> Table {
    let mut table = Table::new(["device", "class", "worker", "stage", ">tasks", ">share", ">busy", ">input"]);
    let names = Names::of(shares.iter().map(|share| (share.worker, share.worker_name.as_str())));
    for share in shares {
        let all: u64 = shares.iter().filter(|other| other.stage == share.stage).map(|other| other.tasks).sum();
        let percent = if all == 0 { 0.0 } else { share.tasks as f64 * 100.0 / all as f64 };
        table.row([
            share.device_name.as_str().into(),
            share.class.as_str().into(),
            names.get(share.worker).into(),
            share.stage.as_str().into(),
            group_digits(share.tasks).into(),
            format!("{percent:.1} %").into(),
            format_duration(Duration::from_nanos(share.busy_ns)).into(),
            if share.input_bytes == 0 { String::new() } else { format_bytes(share.input_bytes) }.into(),
        ]);
    }
    table
}

pub fn tally(total: &TallyTotal) -> u128 {
    (u128::from(total.high) << 64) | u128::from(total.low)
}

pub fn to_json(view: &JobView) -> Value {
    let spec = view.spec.as_ref();
    let stage = |(place, stage): (usize, &StageView)| {
        let spec = spec.and_then(|spec| spec.stages.get(place));
        json!({
            "name": stage.name, "tasks": stage.tasks, "ready": stage.ready, "leased": stage.leased, "accepted": stage.accepted,
            "leases": stage.leases, "failed_attempts": stage.failed_attempts, "fenced": stage.fenced, "generation": stage.generation,
            "waiting": stage.waiting, "set_aside": stage.set_aside, "speculated": stage.speculated, "speculative_wins": stage.speculative_wins,
            "state": stage_state(stage), "counters": document::counters(&stage.counters.unwrap_or_default()),
            "kernel": spec.and_then(|spec| spec.kernel.as_ref()).map(|kernel| json!({"name": kernel.name, "version": kernel.version})),
            "params": spec.map(document::params),
            "inputs": spec.map(document::inputs),
            "device": spec.and_then(|spec| spec.device.as_ref()).map(|device| device.class.clone()),
            "reproducible": spec.map(|spec| spec.reproducible),
        })
    };
    let share = |share: &DeviceShare| {
        json!({
            "worker": share.worker, "worker_name": share.worker_name, "device": share.device, "device_name": share.device_name,
            "class": share.class, "stage": share.stage, "tasks": share.tasks, "busy_ns": share.busy_ns, "input_bytes": share.input_bytes,
            "task_ranges": document::task_ranges(share), "tasks_without_range": share.spans_dropped,
        })
    };
    json!({
        "job": view.job,
        "name": name(view),
        "namespace": spec.map(|spec| spec.namespace.clone()),
        "priority": spec.map(priority),
        "policy": spec.map(|spec| &spec.policy).filter(|policy| !policy.is_empty()),
        "state": state_name(view.state()),
        "after": spec.and_then(|spec| spec.after.as_ref()).map(|after| json!({"jobs": after.jobs, "any": after.any})),
        "waiting_for": view.waiting_for,
        "waits": if view.waits.is_empty() { Value::Null } else { view.waits.clone().into() },
        "cause": if view.cause.is_empty() { Value::Null } else { view.cause.clone().into() },
        "idempotency_key": view.idempotency_key,
        "submitted_at_ms": view.submitted_at_ms,
        "finished_at_ms": if view.finished_at_ms == 0 { Value::Null } else { view.finished_at_ms.into() },
        "stages": view.stages.iter().enumerate().map(stage).collect::<Vec<_>>(),
        // 128-bit sums as decimal text: most JSON readers lose digits above 2^53.
        "tallies": view.tallies.iter().map(|total| json!({"stage": total.stage, "name": total.name, "total": tally(total).to_string()})).collect::<Vec<_>>(),
        "output": spec.and_then(|spec| spec.output.as_ref()).map(|output| json!({
            "url": output.url, "format": output.format, "copies": kept::is_on_workers(view).then(|| kept::wanted(view)),
        })),
        "parts": view.parts.iter().map(|part| json!({
            "partition": part.partition, "name": part.name, "bytes": part.bytes, "rows": part.rows, "crc32c": format!("{:08x}", part.crc32c),
            "workers": kept::is_on_workers(view).then(|| kept::keepers(part).collect::<Vec<_>>()),
            "gone_at": kept::is_on_workers(view).then(|| part.gone_at.clone()),
        })).collect::<Vec<_>>(),
        "set_aside": view.set_aside.iter().map(|aside| json!({
            "stage": aside.stage, "first_task": aside.first_task, "task_count": aside.task_count, "attempts": aside.attempts,
            "workers": aside.workers, "message": aside.message, "at_ms": aside.at_ms,
        })).collect::<Vec<_>>(),
        "failures": view.failures.iter().map(failures::to_json).collect::<Vec<_>>(),
        "bad_records": view.bad_records.iter().map(document::bad_record).collect::<Vec<_>>(),
        "shares": view.shares.iter().map(share).collect::<Vec<_>>(),
        "rounds": view.rounds.as_ref().map(rounds::to_json),
        "shuffle_copies": view.shuffle_copies.iter().map(|copies| json!({
            "stage": copies.stage, "two_places": copies.two_places, "one_place": copies.one_place,
        })).collect::<Vec<_>>(),
    })
}

/// Of a list, which says how jobs stand and not what they made.
pub fn to_json_in_list(view: &JobView) -> Value {
    let mut document = to_json(view);
    if let Value::Object(fields) = &mut document {
        for key in ["parts", "failures"] {
            fields.insert(key.to_owned(), Value::Null);
        }
    }
    if let Some(Value::Object(rounds)) = document.get_mut("rounds") {
        // Whether they converged is known by the last one that has ended.
        for key in ["converged", "ended"] {
            rounds.insert(key.to_owned(), Value::Null);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_does_not_say_that_there_is_nothing_of_what_it_leaves_out() {
        let view = JobView { rounds: Some(Default::default()), ..JobView::default() };
        let (whole, listed) = (to_json(&view), to_json_in_list(&view));
        assert!(whole["parts"].is_array() && whole["failures"].is_array() && whole["rounds"]["ended"].is_array(), "{whole}");
        assert!(listed["parts"].is_null() && listed["failures"].is_null() && listed["rounds"]["ended"].is_null(), "{listed}");
        assert_eq!((&listed["rounds"]["converged"], &listed["set_aside"]), (&Value::Null, &json!([])));
    }

    #[test]
    fn large_numbers_are_written_as_beside_them_and_what_is_empty_is_left_out() {
        let stage = StageView { name: "map".into(), tasks: 1000, accepted: 1234567, ..StageView::default() };
        let view = JobView { job: 1001, stages: vec![stage], ..JobView::default() };
        let list = list(std::slice::from_ref(&view)).render(false);
        assert!(list.contains("1,234,567") && list.contains("1,000") && list.contains("1001"), "{list}");
        assert!(stages(&view).render(false).contains("1,234,567"));
        let param = |name: &str, value: &str| Param { name: name.into(), value: value.into() };
        let spec = StageSpec { params: vec![param("crash_task", ""), param("seed", "7"), param("fail_task", "")], ..StageSpec::default() };
        assert!(stage_text(&spec).ends_with("; seed=7"), "{}", stage_text(&spec));
    }

    #[test]
    fn an_output_path_sends_nothing_to_the_terminal() {
        let output = OutputSpec { url: "file:///out\u{1b}[2J".into(), format: "csv".into(), ..OutputSpec::default() };
        assert_eq!(output_text(&JobView::default(), &output), "output: file:///out\\u{1b}[2J (csv)");
    }

    #[test]
    fn tallies_are_128_bits_wide() {
        assert_eq!(tally(&TallyTotal { low: 1, high: 1, ..TallyTotal::default() }), (1 << 64) + 1);
    }
}
