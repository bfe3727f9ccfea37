//! JSON about a job that is the same wherever it is written: in the manifest of an output, in that of a result that was fetched from workers, and in what
//! `-o json` shows.

use raftwerk_proto::COUNTER_NAMES;
use raftwerk_proto::v1::{BadRecord, DeviceShare, Files, InputFile, JobView, StageCounters, StageInput, StageSpec, stage_input::Source};
use serde_json::{Map, Value, json};

/// Input files that are listed by name; of more there is the number.
pub const LISTED_FILES: usize = 100;

/// What a directory of parts says of itself: counts, checksums, what was read, and who made it.
pub fn manifest(view: &JobView, cluster: &str) -> Value {
    let parts = view.parts.iter().map(|p| {
        json!({"partition": p.partition, "bytes": p.bytes, "rows": p.rows, "name": p.name, "crc32c": format!("{:08x}", p.crc32c), "worker": p.worker})
    });
    let spec = view.spec.clone().unwrap_or_default();
    let stages = spec.stages.iter().zip(&view.stages).map(|(spec, stage)| {
        let kernel = spec.kernel.clone().unwrap_or_default();
        json!({
            "name": spec.name, "kernel": kernel.name, "kernel_version": kernel.version, "params": params(spec), "inputs": inputs(spec),
            "tasks": stage.tasks, "generation": stage.generation, "bounded": kernel.bounded, "reproducible": spec.reproducible,
            "counters": counters(&stage.counters.unwrap_or_default()),
        })
    });
    let devices = view.shares.iter().map(|s| {
        json!({
            "stage": s.stage, "worker": s.worker, "worker_name": s.worker_name, "device": s.device_name, "class": s.class, "tasks": s.tasks,
            "task_ranges": task_ranges(s), "tasks_without_range": s.spans_dropped,
        })
    });
    let set_aside = view
        .set_aside
        .iter()
        .map(|a| json!({"stage": a.stage, "first_task": a.first_task, "task_count": a.task_count, "message": a.message}));
    json!({
        "schema": 1, "cluster": cluster, "job": view.job, "name": spec.name, "format": spec.output.as_ref().map(|output| &output.format),
        "parts": parts.collect::<Vec<_>>(), "stages": stages.collect::<Vec<_>>(), "devices": devices.collect::<Vec<_>>(),
        "set_aside": set_aside.collect::<Vec<_>>(), "rounds": view.rounds.as_ref().map(|rounds| rounds.ended.len()),
        "bad_records": view.bad_records.iter().map(bad_record).collect::<Vec<_>>(),
    })
}

pub fn params(stage: &StageSpec) -> Value {
    stage.params.iter().map(|param| (param.name.clone(), Value::from(param.value.clone()))).collect::<Map<_, _>>().into()
}

/// What a stage reads and how that is cut: the first input is cut into tasks, unless it is a stage; files behind it are read whole by every task.
pub fn inputs(stage: &StageSpec) -> Value {
    stage.inputs.iter().enumerate().filter_map(|(place, input)| one_input(place, input)).collect()
}

fn one_input(place: usize, input: &StageInput) -> Option<Value> {
    Some(match input.source.as_ref()? {
        Source::Range(range) => json!({"kind": "range", "start": range.start, "count": range.count, "tasks": range.tasks}),
        Source::Stage(from) => json!({"kind": "stage", "stage": from.stage}),
        Source::Files(files) if place > 0 => side(&input.name, files),
        Source::Files(files) => cut_files(&input.name, files),
    })
}

fn side(name: &str, files: &Files) -> Value {
    let path = files.listing.first().map(|file| &file.path).or(files.patterns.first());
    json!({"kind": "side", "name": name, "path": path, "format": files.format, "bytes": all(files).1})
}

fn cut_files(name: &str, files: &Files) -> Value {
    let (count, bytes) = all(files);
    let whole = files.table.as_ref().is_some_and(|table| table.whole_files) || files.format == "png";
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "kind": "files", "name": name, "format": files.format, "patterns": files.patterns,
        "file_count": count, "bytes": bytes, "files": files.listing.iter().take(LISTED_FILES).map(file).collect::<Vec<_>>(),
        // Compressed files are one split each, whatever stands here.
        "split_bytes": if whole { Value::Null } else { files.split_bytes.into() }, "record_bytes": Some(files.record_bytes).filter(|bytes| *bytes > 0),
        "compression": text(&files.compression), "where": files.table.as_ref().and_then(|table| text(&table.r#where)),
        "bad_records_allowed": files.bad_records,
    })
}

fn file(file: &InputFile) -> Value {
    let compression = Some(&file.compression).filter(|with| !with.is_empty());
    match file.pack_files {
        0 => json!({"path": file.path, "bytes": file.bytes, "compression": compression}),
        // What lies behind the first one only the workers know.
        files => json!({"path": file.path, "files": files, "bytes": file.bytes, "compression": compression}),
    }
}

/// How many files there are, and their bytes. A listing may have been cut since; what was counted before stands beside it.
fn all(files: &Files) -> (u64, u64) {
    match files.listed_files {
        0 => (files.listing.len() as u64, files.listing.iter().map(|file| file.bytes).fold(0, u64::saturating_add)),
        count => (count, files.listed_bytes),
    }
}

pub fn counters(of: &StageCounters) -> Value {
    let numbers = COUNTER_NAMES.iter().zip(of.numbers());
    numbers.map(|(name, number)| ((*name).to_owned(), Value::from(number))).collect::<Map<_, _>>().into()
}

/// A record that the job went on without, or failed by.
pub fn bad_record(record: &BadRecord) -> Value {
    let counted = |number: u64| Some(number).filter(|number| *number > 0);
    json!({
        "stage": record.stage, "task": record.task, "file": record.path, "offset": record.offset, "bytes": record.bytes,
        "line": counted(record.line), "record": counted(record.record), "reason": record.reason, "text": String::from_utf8_lossy(&record.data),
    })
}

/// Which tasks of a bounded kernel the device ran, as [first, number]; null for an exact one, of which it makes no difference.
pub fn task_ranges(share: &DeviceShare) -> Value {
    match share.spans.as_slice() {
        [] => Value::Null,
        spans => spans.iter().map(|span| vec![span.first_task, span.task_count]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raftwerk_proto::v1::{IndexRange, StageOutput, TableFormat};

    fn input(name: &str, source: Source) -> StageInput {
        StageInput { name: name.into(), source: Some(source) }
    }

    fn listed(count: usize) -> Files {
        let one = |n: usize| InputFile { path: format!("/data/{n}.csv"), bytes: 10, ..InputFile::default() };
        Files {
            patterns: vec!["/data/*.csv".into()],
            format: "csv".into(),
            split_bytes: 64,
            listing: (0..count).map(one).collect(),
            ..Files::default()
        }
    }

    #[test]
    fn a_stage_says_what_it_reads_and_how_that_is_cut() {
        let table = TableFormat { r#where: "n > 1".into(), ..TableFormat::default() };
        let files = Files { table: Some(table), bad_records: 7, ..listed(2) };
        let side = Files { format: "npy".into(), ..listed(1) };
        let stage =
            StageSpec { inputs: vec![input("input", Source::Files(files)), input("b", Source::Files(side))], ..StageSpec::default() };
        let said = inputs(&stage);
        assert_eq!((&said[0]["kind"], &said[0]["file_count"], &said[0]["bytes"]), (&json!("files"), &json!(2), &json!(20)));
        assert_eq!((&said[0]["split_bytes"], &said[0]["where"], &said[0]["bad_records_allowed"]), (&json!(64), &json!("n > 1"), &json!(7)));
        assert_eq!(said[0]["files"][1], json!({"path": "/data/1.csv", "bytes": 10, "compression": null}));
        assert_eq!(said[1], json!({"kind": "side", "name": "b", "path": "/data/0.csv", "format": "npy", "bytes": 10}));

        let range = Source::Range(IndexRange { start: 1, count: 10, tasks: 2 });
        let stage = StageSpec { inputs: vec![input("input", range)], ..StageSpec::default() };
        assert_eq!(inputs(&stage), json!([{"kind": "range", "start": 1, "count": 10, "tasks": 2}]));
        let from = |stage: &str| input(stage, Source::Stage(StageOutput { stage: stage.into() }));
        let stage = StageSpec { inputs: vec![from("left"), from("right")], ..StageSpec::default() };
        assert_eq!(inputs(&stage), json!([{"kind": "stage", "stage": "left"}, {"kind": "stage", "stage": "right"}]));
    }

    #[test]
    fn of_many_files_the_first_are_named_and_all_are_counted() {
        let many = StageSpec { inputs: vec![input("input", Source::Files(listed(5000)))], ..StageSpec::default() };
        let said = inputs(&many);
        assert_eq!((said[0]["files"].as_array().unwrap().len(), &said[0]["file_count"]), (LISTED_FILES, &json!(5000)));
        // Of thousands of files the log has packs.
        let pack = InputFile { path: "/data/0.csv".into(), bytes: 40_960, pack_files: 4096, ..InputFile::default() };
        let packed = Files { listed_files: 4096, listed_bytes: 40_960, listing: vec![pack], ..listed(0) };
        let said = inputs(&StageSpec { inputs: vec![input("input", Source::Files(packed))], ..StageSpec::default() });
        assert_eq!((&said[0]["file_count"], &said[0]["bytes"]), (&json!(4096), &json!(40_960)));
        assert_eq!(said[0]["files"], json!([{"path": "/data/0.csv", "files": 4096, "bytes": 40_960, "compression": null}]));
        // Of an ended job the state keeps the beginning alone.
        let cut = Files { listed_files: 1_000_000, listed_bytes: 7, ..listed(100) };
        let said = inputs(&StageSpec { inputs: vec![input("input", Source::Files(cut))], ..StageSpec::default() });
        assert_eq!((&said[0]["file_count"], &said[0]["bytes"]), (&json!(1_000_000), &json!(7)));
    }
}
