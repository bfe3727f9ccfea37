//! Every refusal of a job file is pinned down to its text: the message is the interface.

use std::path::Path;

use raftwerk_kernels::{Accepts, Agreement, Descriptor, Kind, ParamSpec, ParamType};
use raftwerk_proto::v1::stage_input::Source;
use raftwerk_proto::v1::{IfExists, JobSpec, KernelKind};

use super::*;

mod records;

const BLANK: Descriptor = Descriptor {
    name: "",
    version: 1,
    kind: Kind::Map,
    summary: "",
    accepts: Accepts::Index,
    params: &[],
    tallies: &[],
    shuffles: false,
    formats: &[],
    reduces_with: &[],
    reduce_defaults: &[],
    gpu: false,
    agreement: Agreement::Exact,
};

static COUNT: Descriptor = Descriptor {
    name: "count_words",
    version: 3,
    accepts: Accepts::Text,
    tallies: &["words", "invalid"],
    shuffles: true,
    reduces_with: &["sum", "top"],
    reduce_defaults: &[("key", "word")],
    ..BLANK
};

static PI: Descriptor = Descriptor {
    name: "pi",
    params: &[
        ParamSpec { name: "seed", kind: ParamType::U64 { min: 0, max: u64::MAX }, default: Some("1"), doc: "key of the random numbers" },
        ParamSpec { name: "scale", kind: ParamType::F64 { min: 0.5, max: 2.0 }, default: Some("1"), doc: "of the square" },
        ParamSpec { name: "mode", kind: ParamType::Choice(&["fast", "slow"]), default: Some("fast"), doc: "how" },
    ],
    tallies: &["hits"],
    gpu: true,
    ..BLANK
};

static NEEDY: Descriptor = Descriptor {
    name: "bins",
    accepts: Accepts::Npy(&["f4"]),
    params: &[ParamSpec { name: "bins", kind: ParamType::U64 { min: 1, max: 4096 }, default: None, doc: "number of bins" }],
    shuffles: true,
    reduces_with: &["sum"],
    ..BLANK
};

static SUM: Descriptor = Descriptor {
    name: "sum",
    kind: Kind::Reduce,
    accepts: Accepts::Shuffle,
    params: &[ParamSpec { name: "key", kind: ParamType::Text, default: Some("key"), doc: "heading" }],
    formats: &["csv", "npy"],
    ..BLANK
};

static PAINT: Descriptor = Descriptor { name: "paint", kind: Kind::Reduce, accepts: Accepts::Shuffle, formats: &["png"], ..BLANK };

fn read_with(text: &str, patches: &Patches) -> Result<JobSpec, JobFileError> {
    let catalogue = Catalogue { kernels: vec![&COUNT, &PI, &NEEDY, &SUM, &PAINT] };
    parse(text, "stem", Path::new("/jobs"), Path::new("/here"), patches, &catalogue).map_err(|problem| problem.in_file("job.toml"))
}

fn read(text: &str) -> JobSpec {
    read_with(text, &Patches::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The message and, after a line break, the hint.
fn refusal_with(text: &str, patches: &Patches) -> String {
    let error = read_with(text, patches).expect_err("this job file should have been refused");
    match &error.fix {
        Some(fix) => format!("{error}\nfix: {fix}"),
        None => error.to_string(),
    }
}

fn refusal(text: &str) -> String {
    refusal_with(text, &Patches::default())
}

fn set(assignments: &[&str]) -> Patches {
    Patches { set: assignments.iter().map(|text| (*text).to_owned()).collect(), ..Patches::default() }
}

const WORDS: &str = "[input]\nfiles = \"a.txt\"\n[map]\nkernel = \"count_words\"\n";
const RANGE: &str = "[input]\nrange = { count = 100, tasks = 10 }\n[map]\nkernel = \"pi\"\n";

mod accepted {
    use super::*;

    #[test]
    fn a_short_file_gets_every_default() {
        let spec = read(WORDS);
        assert_eq!((spec.name.as_str(), spec.namespace.as_str(), spec.max_attempts), ("stem", "default", 4));
        let [map, reduce] = spec.stages.as_slice() else { panic!("{spec:?}") };
        assert_eq!((map.name.as_str(), map.partitions, reduce.name.as_str(), reduce.partitions), ("map", 1, "reduce", 0));
        let kernel = map.kernel.as_ref().unwrap();
        assert_eq!((kernel.name.as_str(), kernel.version, kernel.kind()), ("count_words", 3, KernelKind::Map));
        assert_eq!(kernel.tallies, ["words", "invalid"]);
        let Some(Source::Files(files)) = &map.inputs[0].source else { panic!("{map:?}") };
        assert_eq!(
            (files.patterns.as_slice(), files.format.as_str(), files.split_bytes),
            (["/jobs/a.txt".to_owned()].as_slice(), "text", 16 << 20)
        );
        assert_eq!(reduce.kernel.as_ref().unwrap().name, "sum");
        assert_eq!(map.device.as_ref().unwrap().class, "any");
        assert!(spec.output.is_none());
    }

    #[test]
    fn the_map_kernel_suggests_parameters_for_its_reduce() {
        assert_eq!(read(WORDS).stages[1].params[0].value, "word");
        assert_eq!(read(&format!("{WORDS}[reduce.params]\nkey = \"term\"\n")).stages[1].params[0].value, "term");
    }

    #[test]
    fn every_parameter_is_present_and_sorted() {
        let spec = read(&format!("{RANGE}params = {{ seed = 18446744073709551615, scale = 1.50 }}\n"));
        let params: Vec<(&str, &str)> = spec.stages[0].params.iter().map(|param| (param.name.as_str(), param.value.as_str())).collect();
        assert_eq!(params, [("mode", "fast"), ("scale", "1.5"), ("seed", "18446744073709551615")]);
    }

    #[test]
    fn an_empty_range_is_a_job_without_tasks() {
        let spec = read("[input]\nrange = { count = 0, tasks = 7 }\n[map]\nkernel = \"pi\"\n");
        let Some(Source::Range(range)) = &spec.stages[0].inputs[0].source else { panic!("{spec:?}") };
        assert_eq!((range.count, range.tasks), (0, 0));
    }

    #[test]
    fn an_output_becomes_a_url() {
        let spec = read(&format!("{WORDS}[output]\npath = \"../out\"\nif_exists = \"replace\"\n"));
        let output = spec.output.unwrap();
        assert_eq!((output.url.as_str(), output.format.as_str(), output.if_exists()), ("file:///out", "csv", IfExists::Replace));
    }

    #[test]
    fn an_output_may_stay_on_workers() {
        let output = |text: &str, patches: &Patches| read_with(&format!("{WORDS}{text}"), patches).unwrap().output.unwrap();
        let two = output("[output]\npath = \"worker:\"\ncopies = 2\n", &Patches::default());
        assert_eq!((two.url.as_str(), two.copies), ("worker:", 2));
        let by_flag = output("[output]\npath = \"x\"\n", &Patches { output: Some("worker:".into()), ..Patches::default() });
        assert_eq!((by_flag.url.as_str(), by_flag.copies), ("worker:", 1));
        assert_eq!(output("[output]\npath = \"x\"\ncopies = 1\n", &Patches::default()).copies, 0, "a directory has no copies");
    }

    #[test]
    fn flags_replace_what_the_file_says() {
        let patches = Patches {
            set: vec!["reduce.partitions=4".into(), "map.device=cpu".into(), "job.name = \"x\"".into(), "reduce.params.key=a=b".into()],
            input: vec!["*.md".into(), "/abs/b.txt".into()],
            output: Some("out".into()),
            wait_for_devices: true,
            ..Patches::default()
        };
        let spec = read_with(WORDS, &patches).unwrap();
        assert!(spec.wait_for_devices);
        let Some(Source::Files(files)) = &spec.stages[0].inputs[0].source else { panic!("{spec:?}") };
        assert_eq!(files.patterns, ["/here/*.md", "/abs/b.txt"]);
        assert_eq!(
            (spec.stages[0].partitions, spec.stages[0].device.as_ref().unwrap().class.as_str(), spec.name.as_str()),
            (4, "cpu", "x")
        );
        assert_eq!(spec.stages[1].params[0].value, "a=b");
        assert_eq!(spec.output.unwrap().url, "file:///here/out");
    }

    #[test]
    fn set_reaches_into_a_range() {
        let spec = read_with(RANGE, &set(&["input.range.count=1_000", "input.range.tasks=1000"])).unwrap();
        let Some(Source::Range(range)) = &spec.stages[0].inputs[0].source else { panic!("{spec:?}") };
        assert_eq!((range.start, range.count, range.tasks), (0, 1000, 1000));
    }
}

mod refused_as_a_file {
    use super::*;

    #[test]
    fn what_is_not_toml() {
        assert!(refusal("[job]\nname = \n").starts_with("job.toml:2: not valid TOML: "), "{}", refusal("[job]\nname = \n"));
    }

    #[test]
    fn a_key_that_stands_twice_is_named() {
        assert_eq!(
            refusal("[job]\nname = \"a\"\nname = \"b\"\n"),
            "job.toml:3: not valid TOML: duplicate key `name`\nfix: take one of the two out, or join them"
        );
        let twice = refusal("[job]\nname = \"a\"\n[map]\n[job]\n");
        assert!(twice.starts_with("job.toml:4: not valid TOML: duplicate key `job`"), "{twice}");
    }

    #[test]
    fn an_unknown_section() {
        assert_eq!(refusal(&format!("{WORDS}[redcue]\n")), "job.toml:5: there is no section `redcue`\nfix: did you mean `reduce`?");
    }

    #[test]
    fn an_unknown_key() {
        assert_eq!(
            refusal(&format!("{WORDS}[reduce]\n\npartitons = 2\n")),
            "job.toml:7: [reduce] has no key `partitons`\nfix: did you mean `partitions`?"
        );
    }

    #[test]
    fn a_missing_section() {
        assert_eq!(
            refusal("[map]\nkernel = \"pi\"\n"),
            "job.toml: the section [input] is missing\nfix: give range = { start = 0, count = 1000000, tasks = 100 }"
        );
        assert_eq!(
            refusal("[input]\nfiles = \"x\"\n"),
            "job.toml: the section [map] is missing\nfix: write [map] and kernel = \"..\", one of count_words, pi, bins"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type() {
        assert_eq!(
            refusal(&format!("{WORDS}[reduce]\npartitions = \"4\"\n")),
            "job.toml:6: [reduce] partitions must be an integer, not a string"
        );
        assert_eq!(refusal(&format!("{WORDS}[job]\nname = 4\n")), "job.toml:6: [job] name must be a string, not an integer");
        assert_eq!(
            refusal(&format!("reduce = 3\n{WORDS}")),
            "job.toml:1: `reduce` must be a section, not an integer\nfix: write a line `[reduce]` and its keys below"
        );
    }

    #[test]
    fn a_bad_name_namespace_or_number_of_attempts() {
        assert_eq!(
            refusal(&format!("{WORDS}[job]\nname = \"\"\n")),
            "job.toml:6: [job] name must be 1 to 128 characters without control characters"
        );
        assert_eq!(
            refusal(&format!("{WORDS}[job]\nnamespace = \"A b\"\n")),
            "job.toml:6: [job] namespace must be 1 to 63 of a-z, 0-9 and `-`"
        );
        assert_eq!(refusal(&format!("{WORDS}[job]\nmax_attempts = 0\n")), "job.toml:6: [job] max_attempts must be at least 1");
    }
}

mod refused_as_input {
    use super::*;

    #[test]
    fn both_sources_or_none() {
        let both = "[input] has both `files` and `range`; a job reads one of them\nfix: leave one of them out: kernel `pi` reads `range`";
        assert_eq!(refusal("[input]\nfiles = \"x\"\nrange = { count = 1 }\n[map]\nkernel = \"pi\"\n"), format!("job.toml:1: {both}"));
        let set = Patches { set: vec!["input.files=[\"x\"]".into()], ..Patches::default() };
        assert_eq!(refusal_with(RANGE, &set), format!("--set input.files=[\"x\"]: {both}"));
        assert_eq!(
            refusal("[input]\n[map]\nkernel = \"count_words\"\n"),
            "job.toml:1: [input] needs `files` or `range`\nfix: give files = [\"data/*.txt\"]"
        );
    }

    #[test]
    fn the_source_that_the_kernel_does_not_read() {
        assert_eq!(
            refusal("[input]\nfiles = \"x\"\n[map]\nkernel = \"pi\"\n"),
            "job.toml:2: [input] files is given, but kernel `pi` reads a range of integers\nfix: give range = { start = 0, count = 1000000, tasks = 100 }"
        );
        assert_eq!(
            refusal("[input]\nrange = { count = 1 }\n[map]\nkernel = \"count_words\"\n"),
            "job.toml:2: [input] range is given, but kernel `count_words` reads files\nfix: give files = [\"data/*.txt\"]"
        );
        assert_eq!(
            refusal_with(RANGE, &Patches { input: vec!["a.txt".into()], ..Patches::default() }),
            "--input a.txt: [input] files is given, but kernel `pi` reads a range of integers\nfix: give range = { start = 0, count = 1000000, tasks = 100 }"
        );
    }

    #[test]
    fn a_format_that_the_kernel_does_not_read() {
        let text = "[input]\nfiles = \"x\"\nformat = \"npy\"\n[map]\nkernel = \"count_words\"\n";
        assert_eq!(refusal(text), "job.toml:3: [input] format is \"npy\", but kernel `count_words` reads text");
        let text = "[input]\nfiles = \"x\"\nformat = \"txt\"\n[map]\nkernel = \"count_words\"\n";
        assert_eq!(
            refusal(text),
            "job.toml:3: [input] format must be one of \"text\", \"npy\", \"png\", \"records\", \"csv\", \"jsonl\", \"parquet\", \"arrow\", not \"txt\"\nfix: did you mean \"text\"?"
        );
    }

    #[test]
    fn no_files_and_broken_patterns() {
        assert_eq!(refusal("[input]\nfiles = []\n[map]\nkernel = \"count_words\"\n"), "job.toml:2: [input] files names no file");
        let message = refusal("[input]\nfiles = [\n  \"ok\",\n  \"a***\",\n]\n[map]\nkernel = \"count_words\"\n");
        assert!(message.starts_with("job.toml:4: [input] files is not usable: `/jobs/a***` is not a valid pattern: "), "{message}");
    }

    #[test]
    fn splits_that_are_absurd() {
        let with = |split: &str| refusal(&format!("[input]\nfiles = \"x\"\nsplit = {split}\n[map]\nkernel = \"count_words\"\n"));
        assert_eq!(with("\"10B\""), "job.toml:3: [input] split must be at least 1 KiB, not 10 B");
        assert_eq!(with("\"2TiB\""), "job.toml:3: [input] split must be at most 1 GiB, not 2 TiB");
        assert_eq!(with("-1"), "job.toml:3: [input] split must be a positive size");
        assert_eq!(with("true"), "job.toml:3: [input] split must be a size such as \"16MiB\", not a boolean");
        assert_eq!(
            with("\"lots\""),
            "job.toml:3: [input] split is not a size: `lots`; write a whole number and a unit, as in 16MiB (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)"
        );
    }

    #[test]
    fn ranges_that_are_absurd() {
        let with = |range: &str| refusal(&format!("[input]\nrange = {range}\n[map]\nkernel = \"pi\"\n"));
        assert_eq!(with("{ start = 3 }"), "job.toml:2: [input] range needs `count`, the number of integers");
        assert_eq!(with("{ count = 10, tasks = 0 }"), "job.toml:2: [input] range tasks must be at least 1");
        assert_eq!(
            with("{ count = 10, tasks = 11 }"),
            "job.toml:2: [input] range tasks must be at most the count, 10, not 11: no task may be empty\nfix: give fewer tasks, or leave `tasks` out"
        );
        let shrunk = Patches { set: vec!["input.range.count=10".into()], ..Patches::default() };
        assert_eq!(
            refusal_with("[input]\nrange = { count = 100, tasks = 100 }\n[map]\nkernel = \"pi\"\n", &shrunk),
            "--set input.range.count=10: [input] range tasks must be at most the count, 10, not 100: no task may be empty\n\
             fix: add --set input.range.tasks=10"
        );
        assert_eq!(
            with("{ count = 9000000000000, tasks = 2000000000000 }"),
            "job.toml:2: [input] range tasks must be at most 1000000000000, not 2000000000000"
        );
        assert_eq!(
            with("{ start = 9223372036854775807, count = 1 }"),
            "job.toml:2: [input] range count goes beyond the largest index, 9223372036854775807"
        );
        assert_eq!(with("{ count = -5 }"), "job.toml:2: [input] range count must be at least 0");
        assert_eq!(with("{ cuont = 5 }"), "job.toml:2: [input] range has no key `cuont`\nfix: did you mean `count`?");
    }
}

mod refused_as_a_stage {
    use super::*;

    #[test]
    fn an_unknown_kernel() {
        assert_eq!(
            refusal("[input]\nfiles = \"x\"\n[map]\nkernel = \"word_count\"\n"),
            "job.toml:4: [map] kernel `word_count` is unknown\nfix: known: count_words, pi, bins; `raftwerk kernels list` shows all"
        );
        assert_eq!(
            refusal("[input]\nfiles = \"x\"\n[map]\nkernel = \"count_wrods\"\n"),
            "job.toml:4: [map] kernel `count_wrods` is unknown\nfix: did you mean `count_words`? `raftwerk kernels list` shows all"
        );
    }

    #[test]
    fn a_kernel_of_the_other_kind() {
        assert_eq!(
            refusal("[input]\nfiles = \"x\"\n[map]\nkernel = \"sum\"\n"),
            "job.toml:4: [map] kernel `sum` is a reduce kernel, not a map kernel\nfix: map kernels: count_words, pi, bins"
        );
        assert_eq!(
            refusal(&format!("{WORDS}[reduce]\nkernel = \"pi\"\n")),
            "job.toml:6: [reduce] kernel `pi` is a map kernel, not a reduce kernel\nfix: reduce kernels: sum, paint"
        );
    }

    #[test]
    fn a_reduce_kernel_that_reads_something_else() {
        assert_eq!(
            refusal(&format!("{WORDS}[reduce]\nkernel = \"paint\"\n")),
            "job.toml:6: [reduce] kernel `paint` cannot read what map kernel `count_words` writes\nfix: use sum or top"
        );
    }

    #[test]
    fn a_reduce_or_output_with_nothing_to_read() {
        assert_eq!(
            refusal(&format!("{RANGE}[reduce]\n")),
            "job.toml:5: [reduce] has nothing to read: map kernel `pi` writes tallies only\nfix: take the section out; the tallies are the result"
        );
        assert_eq!(
            refusal(&format!("{RANGE}[output]\npath = \"x\"\n")),
            "job.toml:5: [output] has nothing to write: map kernel `pi` makes tallies only\n\
             fix: take the section (or --output) out; the tallies are shown by `raftwerk job result`"
        );
    }

    #[test]
    fn partitions_that_are_absurd() {
        assert_eq!(refusal(&format!("{WORDS}[reduce]\npartitions = 0\n")), "job.toml:6: [reduce] partitions must be at least 1");
        assert_eq!(
            refusal(&format!("{WORDS}[reduce]\npartitions = 100000\n")),
            "job.toml:6: [reduce] partitions must be at most 65536, not 100000"
        );
        assert_eq!(
            refusal_with(WORDS, &set(&["reduce.partitions=0"])),
            "--set reduce.partitions=0: [reduce] partitions must be at least 1"
        );
    }

    #[test]
    fn a_device_that_the_kernel_cannot_use() {
        assert_eq!(
            refusal("[input]\nfiles = \"x\"\n[map]\nkernel = \"count_words\"\ndevice = \"gpu\"\n"),
            "job.toml:5: [map] device is \"gpu\", but kernel `count_words` has no GPU twin\nfix: use \"any\" or \"cpu\""
        );
        assert_eq!(
            refusal(&format!("{RANGE}device = \"cuda\"\n")),
            "job.toml:5: [map] device must be one of \"any\", \"cpu\", \"gpu\", \"discrete\", \"integrated\", \"software\", not \"cuda\"\nfix: did you mean \"cpu\"?"
        );
    }

    #[test]
    fn parameters_that_are_unknown_missing_or_out_of_range() {
        let with = |params: &str| refusal(&format!("{RANGE}[map.params]\n{params}\n"));
        assert_eq!(with("sede = 1"), "job.toml:6: [map] params: kernel `pi` has no parameter `sede`\nfix: did you mean `seed`?");
        assert_eq!(with("scale = 3"), "job.toml:6: [map] params.scale must be a number from 0.5 to 2, not 3");
        assert_eq!(with("scale = nan"), "job.toml:6: [map] params.scale must be a number from 0.5 to 2, not NaN");
        assert_eq!(with("mode = \"quick\""), "job.toml:6: [map] params.mode must be one of fast, slow, not quick");
        assert_eq!(with("seed = -1"), "job.toml:6: [map] params.seed must be a whole number from 0 to 18446744073709551615, not -1");
        assert_eq!(with("seed = [1]"), "job.toml:6: [map] params.seed must be a number or a string, not an array");
        assert_eq!(
            refusal("[input]\nfiles = \"x.npy\"\n[map]\nkernel = \"bins\"\n"),
            "job.toml:3: [map] params.bins is missing: kernel `bins` needs it\nfix: bins: number of bins"
        );
    }
}

mod refused_as_output {
    use super::*;

    #[test]
    fn a_format_that_the_reduce_kernel_does_not_write() {
        assert_eq!(
            refusal(&format!("{WORDS}[output]\npath = \"x\"\nformat = \"png\"\n")),
            "job.toml:7: [output] format is \"png\", which reduce kernel `sum` does not write\nfix: it writes csv, npy"
        );
    }

    #[test]
    fn a_path_that_is_missing_or_elsewhere() {
        assert_eq!(
            refusal(&format!("{WORDS}[output]\nformat = \"csv\"\n")),
            "job.toml:5: [output] needs `path`, the directory of the result"
        );
        assert_eq!(
            refusal(&format!("{WORDS}[output]\npath = \"ftp://b/x\"\n")),
            "job.toml:6: [output] path is not usable: ftp:// is not supported; write a directory that the workers share, or a prefix in a store (s3://, s3a://, gs://, az://, azure://, adl://, abfs://, abfss://)"
        );
    }

    #[test]
    fn copies_without_a_place_for_them() {
        let said = |output: &str| refusal(&format!("{WORDS}[output]\n{output}\n"));
        let shared = said("path = \"x\"\ncopies = 2");
        assert!(shared.starts_with("job.toml:7: [output] copies is for a result that stays on workers\nfix: "), "{shared}");
        let many = said("path = \"worker:\"\ncopies = 6");
        assert!(many.starts_with("job.toml:7: [output] copies must be at most 5, not 6"), "{many}");
        let replaced = said("path = \"worker:\"\nif_exists = \"replace\"");
        assert!(replaced.contains("is for a directory"), "{replaced}");
    }

    #[test]
    fn a_choice_that_is_no_choice() {
        assert_eq!(
            refusal(&format!("{WORDS}[output]\npath = \"x\"\nif_exists = \"overwrite\"\n")),
            "job.toml:7: [output] if_exists must be one of \"error\", \"replace\", not \"overwrite\""
        );
    }
}

mod refused_as_a_flag {
    use super::*;

    #[test]
    fn a_set_without_its_shape() {
        let shape = "\nfix: write it as `--set map.params.seed=7`: the keys down to the value, joined by dots";
        assert_eq!(refusal_with(RANGE, &set(&["map.params.seed"])), format!("--set map.params.seed: there is no `=`{shape}"));
        assert_eq!(refusal_with(RANGE, &set(&["map..seed=1"])), format!("--set map..seed=1: a key is empty{shape}"));
        assert_eq!(refusal_with(RANGE, &set(&["seed=1"])), format!("--set seed=1: `seed` names no key inside a section{shape}"));
        assert_eq!(refusal_with(RANGE, &set(&["map.kernel.x=1"])), "--set map.kernel.x=1: `kernel` is a value, not a table");
    }

    #[test]
    fn a_set_of_an_unknown_key() {
        assert_eq!(
            refusal_with(RANGE, &set(&["map.param.seed=1"])),
            "--set map.param.seed=1: [map] has no key `param`\nfix: did you mean `params`?"
        );
        assert_eq!(
            refusal_with(RANGE, &set(&["map.params.sed=1"])),
            "--set map.params.sed=1: [map] params: kernel `pi` has no parameter `sed`\nfix: did you mean `seed`?"
        );
    }
}

#[test]
fn a_job_file_that_is_not_there_is_named() {
    let error = load(Path::new("/nowhere/job.toml"), &Patches::default(), &Catalogue { kernels: vec![] }).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/job.toml: cannot read the job file: No such file or directory (os error 2)");
}

#[test]
fn images_are_one_task_and_one_file_each() {
    let text = "[input]\nfiles = \"*.png\"\n[map]\nkernel = \"convolve\"\n";
    let load = |text: &str| parse(text, "job", Path::new("/jobs"), Path::new("/here"), &Patches::default(), &Catalogue::of_this_build());
    let spec = load(text).unwrap();
    assert!(spec.stages[0].partition_per_task && !spec.stages[1].partition_per_task);
    let Some(Source::Files(files)) = &spec.stages[0].inputs[0].source else { panic!("{spec:?}") };
    assert_eq!(files.format, "png");
    let refusal = |text: String| {
        let error = load(&text).unwrap_err().in_file("job.toml");
        format!("{error}\nfix: {}", error.fix.clone().unwrap_or_default())
    };
    assert_eq!(
        refusal(format!("{text}[reduce]\npartitions = 2\n")),
        "job.toml:6: [reduce] partitions has no meaning for kernel `file_per_task`, which writes one file for each map task\nfix: take the line out"
    );
    assert_eq!(
        refusal(text.replace("[map]", "split = \"1MiB\"\n[map]")),
        "job.toml:3: [input] split has no meaning for kernel `convolve`: every file is one task\nfix: take the line out"
    );
}

#[test]
fn every_example_is_accepted() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")).collect();
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        load(&example, &Patches::default(), &Catalogue::of_this_build()).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_kernels_own_rule_is_told_with_the_section() {
    let text = "[input]\nfiles = \"x.npy\"\n\n[map]\nkernel = \"histogram\"\nparams = { low = 5, high = 5 }\n";
    let problem =
        parse(text, "stem", Path::new("/jobs"), Path::new("/here"), &Patches::default(), &Catalogue::of_this_build()).unwrap_err();
    assert_eq!(
        problem.in_file("job.toml").to_string(),
        "job.toml:4: [map] kernel 'histogram': parameter 'low' = 5 must be less than 'high' = 5"
    );
}

#[test]
fn what_a_flag_set_is_blamed_on_the_flag() {
    let text = "[input]\nfiles = \"x.npy\"\n\n[map]\nkernel = \"histogram\"\nparams = { low = 0, high = 5 }\n";
    let patches = Patches { set: vec!["map.params.low=5".into()], ..Patches::default() };
    let problem =
        parse(text, "stem", Path::new("/jobs"), Path::new("/here"), &patches, &Catalogue::of_this_build()).unwrap_err().in_file("job.toml");
    assert_eq!(problem.to_string(), "--set map.params.low=5: [map] kernel 'histogram': parameter 'low' = 5 must be less than 'high' = 5");
}

/// An empty range made a job that failed at its end with "an image without rows"; another count silently made another image.
#[test]
fn a_range_that_is_not_the_image_is_refused_where_it_stands() {
    let refused = |range: &str, flags: &[&str]| {
        let set_flags = set(flags);
        let text = format!("[input]\nrange = {{ {range} }}\n[map]\nkernel = \"mandelbrot\"\nparams = {{ width = 90, height = 60 }}\n");
        let problem = parse(&text, "stem", Path::new("/jobs"), Path::new("/here"), &set_flags, &Catalogue::of_this_build()).unwrap_err();
        let error = problem.in_file("job.toml");
        format!("{error}\nfix: {}", error.fix.as_deref().unwrap_or(""))
    };
    let rows = "but the image has 60 rows (parameter 'height'), and each integer is one row\nfix: set count = 60";
    assert_eq!(refused("count = 0", &[]), format!("job.toml:2: [input] range count is 0, {rows}"));
    assert_eq!(refused("count = 50", &[]), format!("job.toml:2: [input] range count is 50, {rows}, or height = 50"));
    assert_eq!(
        refused("start = 7, count = 60", &[]),
        "job.toml:2: [input] range start is 7, but the image begins with row 0\nfix: leave `start` out"
    );
    assert_eq!(
        refused("count = 60", &["map.params.height=30"]).lines().next().unwrap(),
        "--set map.params.height=30: [input] range count is 60, but the image has 30 rows (parameter 'height'), and each integer is one row"
    );
    assert_eq!(
        refused("count = 60", &["input.range.count=61"]).lines().next().unwrap(),
        "--set input.range.count=61: [input] range count is 61, but the image has 60 rows (parameter 'height'), and each integer is one row"
    );
}

mod shuffle_replicas {
    use super::*;

    #[test]
    fn one_or_two_places_may_be_asked_for() {
        let wish = |n: &str| format!("{WORDS}shuffle_replicas = {n}\n");
        assert_eq!(read(WORDS).stages[0].shuffle_replicas, 0);
        let stages = read(&wish("2")).stages;
        assert_eq!((stages[0].shuffle_replicas, stages[1].shuffle_replicas), (2, 0));
        assert_eq!(refusal(&wish("3")), "job.toml:5: [map] shuffle_replicas must be at most 2, not 3");
        assert_eq!(refusal(&wish("0")), "job.toml:5: [map] shuffle_replicas must be at least 1");
    }

    #[test]
    fn a_kernel_that_shuffles_nothing_has_nothing_to_copy() {
        let said = refusal(&format!("{RANGE}shuffle_replicas = 2\n"));
        assert_eq!(
            said,
            "job.toml:5: [map] shuffle_replicas has nothing to copy: map kernel `pi` writes tallies only\nfix: take the line out"
        );
    }
}
