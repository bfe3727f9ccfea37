//! `[input]`: where the map stage's tasks come from. The number of tasks depends on this section and the files alone.

use std::path::Path;

use raftwerk_kernels::{Accepts, Descriptor, RangeField};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{Files, IndexRange, StageInput};

use super::limits::*;
use super::paths;
use super::problem::{Origin, Problem};
use super::section::Section;
use super::stages::Stage;
use super::tables;
use super::tree::Table;

pub const NAME: &str = "input";

pub const KEYS: [&str; 12] = [
    "files",
    "range",
    "format",
    "compression",
    "split",
    "record",
    "separator",
    "header",
    "quoted_newlines",
    "columns",
    "where",
    "bad_records",
];
/// Formats with records that cannot be read while those beside them can.
const SKIPPABLE: [&str; 5] = ["csv", "jsonl", "records", "parquet", "arrow"];
const FORMATS: [&str; 8] = ["text", "npy", "png", "records", "csv", "jsonl", "parquet", "arrow"];
const COMPRESSIONS: [&str; 3] = ["gzip", "zstd", "none"];
/// Formats whose files may be compressed as a whole.
const COMPRESSIBLE: [&str; 3] = ["text", "csv", "jsonl"];

/// `[input]` as the wire wants it, and where the ends of a range stand, for what the kernel has to say about them.
pub struct Input {
    label: String,
    pub stage_input: StageInput,
    range_origins: Option<[Origin; 2]>,
}

impl Input {
    /// The columns that the kernel reads, for whoever lists the files.
    pub fn want(&mut self, columns: Vec<String>) {
        if let Some(Source::Files(Files { table: Some(table), .. })) = &mut self.stage_input.source {
            table.columns = columns;
            for column in tables::filter_columns(table) {
                if !table.columns.contains(&column) {
                    table.columns.push(column);
                }
            }
        }
    }

    /// Lets the kernel look at the range that it shall draw, count or sample.
    pub fn check_range(&self, map: &Stage) -> Result<(), Problem> {
        let (Some(Source::Range(range)), Some([start, count])) = (&self.stage_input.source, &self.range_origins) else { return Ok(()) };
        // Only a test brings a kernel that is not in the registry.
        let Ok(kernel) = raftwerk_kernels::find(map.kernel.name) else { return Ok(()) };
        let range = raftwerk_kernels::IndexRange { start: range.start, count: range.count };
        kernel.check_range(&map.params, &range).map_err(|problem| {
            let (name, origin) = match problem.field {
                RangeField::Start => ("start", start),
                RangeField::Count => ("count", count),
            };
            // Whoever shrank the image by a flag should not look for the fault in the file.
            let origin = match origin {
                Origin::Flag(_) => origin.clone(),
                _ => map.blamed_flag(&problem.message).unwrap_or_else(|| origin.clone()),
            };
            Problem::new(origin, format!("{} range {name} {}", self.label, problem.message)).fix(problem.fix)
        })
    }
}

pub fn read(root: &Table, kernel: &Descriptor, partitions: u32, dir: &Path) -> Result<Input, Problem> {
    let section = Section::open(root, "input", &KEYS)?
        .ok_or_else(|| Problem::new(Origin::File, "the section [input] is missing").fix(wanted_input(kernel)))?;
    read_section(&section, kernel, partitions, dir)
}

/// The input of one map stage.
pub fn read_section(section: &Section<'_>, kernel: &Descriptor, partitions: u32, dir: &Path) -> Result<Input, Problem> {
    let mut range_origins = None;
    let source = match (section.has("files"), section.has("range")) {
        (true, true) => {
            let problem = section.problem("has both `files` and `range`; a job reads one of them");
            let origin = section.flag_of(&["files", "range"]).unwrap_or(problem.origin);
            let wanted = if reads_files(kernel) { "files" } else { "range" };
            let fix = format!("leave one of them out: kernel `{}` reads `{wanted}`", kernel.name);
            return Err(Problem::new(origin, problem.message).fix(fix));
        }
        (false, false) => return Err(section.problem("needs `files` or `range`").fix(wanted_input(kernel))),
        (true, false) => Source::Files(files(section, kernel, dir)?),
        (false, true) => {
            let (range, origins) = range(section, kernel, partitions)?;
            range_origins = Some(origins);
            Source::Range(range)
        }
    };
    let label = section.label().to_owned();
    Ok(Input { label, stage_input: StageInput { name: NAME.to_owned(), source: Some(source) }, range_origins })
}

/// Length of a record of the input, for whoever must know it before the input is read; 0 for everything that has no such records.
pub fn record_bytes(section: &Section<'_>, kernel: &Descriptor) -> Result<u32, Problem> {
    match reads_files(kernel) && section.has("files") && !section.has("range") {
        true => Ok(format(section, kernel)?.2),
        false => Ok(0),
    }
}

fn reads_files(kernel: &Descriptor) -> bool {
    !matches!(kernel.accepts, Accepts::Index | Accepts::Shuffle | Accepts::TwoShuffles)
}

/// What the job reads of that which the kernel accepts, what a job file calls it, and the length of a record, if it has one.
fn format(section: &Section<'_>, kernel: &Descriptor) -> Result<(Accepts, &'static str, u32), Problem> {
    let accepted = match &kernel.accepts {
        Accepts::AnyOf(several) => *several,
        one => std::slice::from_ref(one),
    };
    let known: Vec<(Accepts, &'static str)> = accepted.iter().flat_map(|one| names(one).iter().map(|name| (*one, *name))).collect();
    let record = section.bytes("record", 1, MAX_RECORD_BYTES)?;
    let usual = known.first().copied().unwrap_or((Accepts::Index, "range"));
    let chosen = match section.choice("format", &FORMATS)? {
        Some(format) => known.iter().find(|(_, name)| *name == format.value).copied().ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(_, name)| *name).collect();
            let message = format!("is \"{}\", but kernel `{}` reads {}", format.value, kernel.name, names.join(" or "));
            section.problem_at("format", &format.origin, message)
        })?,
        None if record.is_some() => known.iter().find(|(one, _)| *one == Accepts::Records).copied().unwrap_or(usual),
        None => usual,
    };
    match (chosen, record) {
        ((Accepts::Records, name), Some(record)) => Ok((Accepts::Records, name, record.value as u32)),
        ((Accepts::Records, _), None) => {
            Err(section.problem("needs `record`, the length of a record in bytes").fix("write record = 100, if each has 100 bytes"))
        }
        ((_, name), Some(record)) => {
            let message = format!("has no meaning for input of format {name}");
            Err(section.problem_at("record", &record.origin, message).fix("take the line out"))
        }
        ((one, name), None) => Ok((one, name, 0)),
    }
}

/// Formats of files as a job file calls them, the usual one first.
fn names(accepts: &Accepts) -> &'static [&'static str] {
    match accepts {
        Accepts::Text | Accepts::PlacedText => &["text"],
        Accepts::Npy(_) | Accepts::Rows(_) => &["npy"],
        Accepts::Png => &["png"],
        Accepts::Records => &["records"],
        Accepts::Table => &tables::FORMATS,
        Accepts::Index | Accepts::Shuffle | Accepts::TwoShuffles | Accepts::AnyOf(_) => &[],
    }
}

fn wanted_input(kernel: &Descriptor) -> &'static str {
    let usual = match kernel.accepts {
        Accepts::AnyOf(several) => several.first().copied().unwrap_or(Accepts::Text),
        one => one,
    };
    match usual {
        Accepts::Records => "give files = [\"data/*.bin\"] and record = 100",
        Accepts::Index => "give range = { start = 0, count = 1000000, tasks = 100 }",
        Accepts::Text | Accepts::PlacedText => "give files = [\"data/*.txt\"]",
        Accepts::Png => "give files = [\"images/*.png\"]",
        Accepts::Table => "give files = [\"data/*.csv\"]",
        _ => "give files = [\"data/*.npy\"]",
    }
}

fn files(section: &Section<'_>, kernel: &Descriptor, dir: &Path) -> Result<Files, Problem> {
    let Some(patterns) = section.texts("files")? else { return Err(section.problem("needs `files`")) };
    if !reads_files(kernel) {
        let message = format!("is given, but kernel `{}` reads a range of integers", kernel.name);
        return Err(section.problem_at("files", &patterns.origin, message).fix(wanted_input(kernel)));
    }
    if patterns.value.is_empty() {
        return Err(section.problem_at("files", &patterns.origin, "names no file"));
    }
    if patterns.value.len() > MAX_PATTERNS {
        let message = format!("has {} entries; at most {MAX_PATTERNS} are allowed", patterns.value.len());
        return Err(section
            .problem_at("files", &patterns.origin, message)
            .fix("name a directory's files by a pattern such as \"logs/*.txt\""));
    }
    let resolve = |pattern: &super::section::At<String>| {
        paths::absolute_pattern(dir, &pattern.value)
            .map_err(|message| section.problem_at("files", &pattern.origin, format!("is not usable: {message}")))
    };
    let (accepted, own_format, record_bytes) = format(section, kernel)?;
    let split = section.bytes("split", MIN_SPLIT_BYTES, MAX_SPLIT_BYTES)?;
    if let Some(split) = split.as_ref().filter(|_| kernel.accepts == Accepts::Png) {
        let message = format!("has no meaning for kernel `{}`: every file is one task", kernel.name);
        return Err(section.problem_at("split", &split.origin, message).fix("take the line out"));
    }
    let table = tables::read(section, kernel, own_format)?;
    if let Some(split) = split.as_ref().filter(|_| table.as_ref().is_some_and(|table| table.whole_files)) {
        let message = "has no meaning where cells may hold line ends: every file is one task";
        return Err(section
            .problem_at("split", &split.origin, message)
            .fix("write quoted_newlines = false if no cell of the files holds a line end, or take the line out"));
    }
    let compression = section.choice("compression", &COMPRESSIONS)?;
    if let Some(compression) = compression.as_ref().filter(|_| !COMPRESSIBLE.contains(&own_format)) {
        let message = format!("has no meaning for files of format \"{own_format}\"");
        return Err(section.problem_at("compression", &compression.origin, message).fix("take the line out"));
    }
    let bad_records = section.integer("bad_records", 0, MAX_INDEX)?;
    if let Some(allowed) = bad_records.as_ref().filter(|_| !SKIPPABLE.contains(&own_format)) {
        let message = format!("has no meaning for files of format \"{own_format}\": records are left out of {}", SKIPPABLE.join(", "));
        return Err(section.problem_at("bad_records", &allowed.origin, message).fix("take the line out"));
    }
    Ok(Files {
        bad_records: bad_records.map_or(0, |allowed| allowed.value),
        patterns: patterns.value.iter().map(resolve).collect::<Result<_, _>>()?,
        // Elements and rows are cut into splits in different ways.
        format: if matches!(accepted, Accepts::Rows(_)) { "npy-rows" } else { own_format }.to_owned(),
        split_bytes: split.map_or(DEFAULT_SPLIT_BYTES, |split| split.value),
        record_bytes,
        table,
        compression: compression.map(|compression| compression.value).unwrap_or_default(),
        ..Files::default()
    })
}

fn range(section: &Section<'_>, kernel: &Descriptor, partitions: u32) -> Result<(IndexRange, [Origin; 2]), Problem> {
    let Some(range) = section.inner("range", &["start", "count", "tasks"])? else { return Err(section.problem("needs `range`")) };
    if kernel.accepts != Accepts::Index {
        let message = format!("is given, but kernel `{}` reads files", kernel.name);
        return Err(section.problem_at("range", &range.origin, message).fix(wanted_input(kernel)));
    }
    for key in KEYS.into_iter().filter(|key| !["files", "range"].contains(key)) {
        if section.has(key) {
            let origin = section.flag_of(&[key]).unwrap_or_else(|| section.origin.clone());
            return Err(section.problem_at(key, &origin, "has no meaning for a range; it belongs to `files`"));
        }
    }
    let start = range.integer("start", 0, MAX_INDEX)?;
    let start_origin = start.as_ref().map_or_else(|| range.origin.clone(), |start| start.origin.clone());
    let start = start.map_or(0, |start| start.value);
    let count = range.integer("count", 0, MAX_INDEX)?.ok_or_else(|| range.problem("needs `count`, the number of integers"))?;
    if start.checked_add(count.value).is_none_or(|end| end > MAX_INDEX) {
        return Err(range.problem_at("count", &count.origin, format!("goes beyond the largest index, {MAX_INDEX}")));
    }
    let tasks = match range.integer("tasks", 1, MAX_TASKS)? {
        // An empty range is a valid job with an empty result, whatever number of tasks stands beside it.
        _ if count.value == 0 => 0,
        Some(tasks) if tasks.value > count.value => {
            let message = format!("must be at most the count, {}, not {}: no task may be empty", count.value, tasks.value);
            return Err(match (&count.origin, &tasks.origin) {
                // Whoever shrank the range by a flag has to shrink this too.
                (Origin::Flag(_), Origin::File | Origin::Line(_)) => {
                    let path = range.label().replace(['[', ']'], "").replace(' ', ".");
                    range.problem_at("tasks", &count.origin, message).fix(format!("add --set {path}.tasks={}", count.value))
                }
                _ => range.problem_at("tasks", &tasks.origin, message).fix("give fewer tasks, or leave `tasks` out"),
            });
        }
        Some(tasks) => tasks.value,
        None => count.value.min(DEFAULT_RANGE_TASKS),
    };
    if tasks.saturating_mul(u64::from(partitions)) > MAX_SHUFFLE_BLOCKS {
        let message = format!("times [reduce] partitions ({partitions}) makes more than {MAX_SHUFFLE_BLOCKS} shuffle blocks");
        let origin = range.flag_of(&["tasks", "count"]).unwrap_or_else(|| range.origin.clone());
        return Err(range.problem_at("tasks", &origin, message).fix("use fewer, longer tasks or fewer partitions"));
    }
    Ok((IndexRange { start, count: count.value, tasks }, [start_origin, count.origin]))
}
