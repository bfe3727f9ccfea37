//! `[input]` of a kernel that reads tables: how the bytes of the files are rows and columns.

use raftwerk_formats::{Columnar, Filter};
use raftwerk_kernels::{Accepts, Descriptor};
use raftwerk_proto::v1::TableFormat;

use super::problem::Problem;
use super::section::{At, Section};

/// Formats of tables, the usual one first.
pub const FORMATS: [&str; 4] = ["csv", "jsonl", "parquet", "arrow"];

const KEYS: [&str; 5] = ["separator", "header", "quoted_newlines", "columns", WHERE];
/// Of all formats, the others of CSV alone.
const WHERE: &str = "where";

/// The columns that a filter compares, for whoever looks for columns in the files.
pub fn filter_columns(table: &TableFormat) -> Vec<String> {
    // It was parsed when it was read.
    let filter = Filter::parse(&table.r#where).ok();
    filter.iter().flat_map(Filter::columns).map(|wanted| wanted.name).collect()
}

/// The most columns that a job may name.
const MAX_NAMES: usize = 10_000;

pub fn read(section: &Section<'_>, kernel: &Descriptor, format: &str) -> Result<Option<TableFormat>, Problem> {
    if kernel.accepts != Accepts::Table {
        return match KEYS.into_iter().find(|key| section.has(key)) {
            None => Ok(None),
            Some(key) => {
                let message = format!("has no meaning for kernel `{}`, which reads {format}", kernel.name);
                Err(section.problem_at(key, &section.origin, message).fix("take the line out"))
            }
        };
    }
    let columnar = match format {
        "parquet" => Some(Columnar::Parquet),
        "arrow" => Some(Columnar::Arrow),
        _ => None,
    };
    if let Some(kind) = columnar {
        kind.check_build().map_err(|error| section.problem(format!("format is \"{format}\": {error}")))?;
    }
    let filter = section.text(WHERE)?;
    if let Some(At { value, origin }) = filter.as_ref().filter(|filter| !filter.value.is_empty()) {
        Filter::parse(value).map_err(|error| section.problem_at(WHERE, origin, format!("is no filter: {error}")))?;
    }
    let filter = filter.map(|filter| filter.value).unwrap_or_default();
    if format != FORMATS[0] {
        if let Some(key) = KEYS.into_iter().find(|key| *key != WHERE && section.has(key)) {
            let message = format!("has no meaning for files of format \"{format}\"");
            return Err(section.problem_at(key, &section.origin, message).fix("take the line out"));
        }
        return Ok(Some(TableFormat { r#where: filter, ..TableFormat::default() }));
    }
    let separator = match section.text("separator")? {
        None => b',',
        Some(At { value, origin }) => match value.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, 0 | b'"' | b'\r' | b'\n') => *byte,
            _ => {
                let problem = section.problem_at("separator", &origin, format!("must be one character, not {value:?}"));
                return Err(problem.fix("use \",\", \";\", \"\\t\" or another ASCII character that is no quote and no line end"));
            }
        },
    };
    let header = section.boolean("header")?.is_none_or(|header| header.value);
    let names = section.texts("columns")?;
    if let Some(names) = names.as_ref().filter(|_| header) {
        let message = "names columns that the first row of every file names";
        return Err(section.problem_at("columns", &names.origin, message).fix("write header = false if the files have no such row"));
    }
    if let Some(names) = names.as_ref().filter(|names| names.value.is_empty() || names.value.len() > MAX_NAMES) {
        return Err(section.problem_at("columns", &names.origin, format!("must name 1 to {MAX_NAMES} columns")));
    }
    Ok(Some(TableFormat {
        separator: separator.into(),
        header,
        whole_files: section.boolean("quoted_newlines")?.is_none_or(|may| may.value),
        names: names.map(|names| names.value.into_iter().map(|name| name.value).collect()).unwrap_or_default(),
        columns: Vec::new(),
        r#where: filter,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use raftwerk_proto::v1::stage_input::Source;
    use raftwerk_proto::v1::{Files, TableFormat};

    use super::super::{Catalogue, Patches, parse};

    fn files(input: &str) -> Result<Files, String> {
        let text = format!(
            "[input]\nfiles = \"a.csv\"\n{input}[map]\nkernel = \"group_by\"\n[map.params]\nby = \"city\"\naggregate = \"count, sum(amount)\"\n"
        );
        let patches = Patches::default();
        let spec = parse(&text, "stem", Path::new("/jobs"), Path::new("/here"), &patches, &Catalogue::of_this_build());
        let spec = spec.map_err(|problem| {
            let error = problem.in_file("job.toml");
            error.fix.as_ref().map_or_else(|| error.to_string(), |fix| format!("{error}; {fix}"))
        })?;
        match spec.stages[0].inputs[0].source.clone() {
            Some(Source::Files(files)) => Ok(files),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_table_has_a_header_commas_and_one_split_for_each_file_unless_the_job_says_otherwise() {
        let usual = files("").unwrap();
        let columns = vec!["city".to_owned(), "amount".to_owned()];
        let table = TableFormat { separator: 44, header: true, whole_files: true, columns: columns.clone(), ..TableFormat::default() };
        assert_eq!((usual.format.as_str(), usual.table), ("csv", Some(table)));
        let other =
            files("separator = \"\\t\"\nheader = false\nquoted_newlines = false\ncolumns = [\"city\", \"amount\"]\nsplit = \"1MiB\"\n")
                .unwrap();
        let table =
            TableFormat { separator: 9, header: false, whole_files: false, names: columns.clone(), columns, ..TableFormat::default() };
        assert_eq!((other.split_bytes, other.table), (1 << 20, Some(table)));
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_line() {
        let refusal = |input: &str| files(input).unwrap_err();
        assert!(refusal("split = \"1MiB\"\n").starts_with("job.toml:3: [input] split has no meaning where cells may hold line ends"));
        assert!(
            refusal("columns = [\"a\"]\n").contains("job.toml:3: [input] columns names columns that the first row of every file names")
        );
        assert!(refusal("separator = \"ab\"\n").contains("job.toml:3: [input] separator must be one character"));
        assert!(refusal("separator = \"\\n\"\n").contains("must be one character"));
        assert!(refusal("header = 1\n").contains("[input] header must be true or false"));
        assert!(refusal("format = \"npy\"\n").contains("reads csv"));
        assert!(refusal("format = \"jsonl\"\nheader = false\n").contains("header has no meaning for files of format \"jsonl\""));
        assert_eq!(files("bad_records = 3\n").unwrap().bad_records, 3);
        assert!(!files("format = \"jsonl\"\nsplit = \"1MiB\"\n").unwrap().table.unwrap().whole_files);
        let text = "[input]\nfiles = \"a.txt\"\nbad_records = 1\n[map]\nkernel = \"word_count\"\n";
        let problem = parse(text, "stem", Path::new("/jobs"), Path::new("/here"), &Patches::default(), &Catalogue::of_this_build());
        assert!(problem.unwrap_err().in_file("job.toml").to_string().contains("bad_records has no meaning for files of format \"text\""));
        let text = "[input]\nfiles = \"a.txt\"\nheader = true\n[map]\nkernel = \"word_count\"\n";
        let problem = parse(text, "stem", Path::new("/jobs"), Path::new("/here"), &Patches::default(), &Catalogue::of_this_build());
        assert!(
            problem
                .unwrap_err()
                .in_file("job.toml")
                .to_string()
                .contains("header has no meaning for kernel `word_count`, which reads text")
        );
    }
}
