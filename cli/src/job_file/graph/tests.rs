use super::*;
use crate::job_file::{Patches, parse};
use raftwerk_proto::v1::{JobSpec, KernelKind};

const COMPARE: &str = r#"[input.a]
files = "a/*.txt"
[input.b]
files = "b/*.txt"
[[stage]]
name = "join"
kernel = "join"
inputs = ["keyed-a", "keyed-b"]
partitions = 3
params = { kind = "full" }
[[stage]]
name = "count-a"
kernel = "word_count"
inputs = ["a"]
[[stage]]
name = "sum-a"
kernel = "sum_by_key"
inputs = "count-a"
partitions = 2
[[stage]]
name = "keyed-a"
kernel = "key_lines"
inputs = ["sum-a"]
params = { heading = "word,count", value = "rest" }
[[stage]]
name = "keyed-b"
kernel = "key_lines"
inputs = ["b"]
[output]
path = "out"
"#;

fn with(text: &str, patches: &Patches) -> Result<JobSpec, String> {
    let here = Path::new("/jobs");
    parse(text, "stem", here, Path::new("/here"), patches, &Catalogue::of_this_build()).map_err(|problem| {
        let error = problem.in_file("job.toml");
        error.fix.as_ref().map_or_else(|| error.to_string(), |fix| format!("{error} / {fix}"))
    })
}

fn refusal(from: &str, to: &str) -> String {
    assert!(COMPARE.contains(from), "{from}");
    with(&COMPARE.replacen(from, to, 1), &Patches::default()).expect_err("refused")
}

#[test]
fn stages_come_in_an_order_in_which_they_can_run() {
    let spec = with(COMPARE, &Patches::default()).unwrap();
    let shown: Vec<(&str, u32, KernelKind)> =
        spec.stages.iter().map(|s| (s.name.as_str(), s.partitions, s.kernel.as_ref().unwrap().kind())).collect();
    let (map, reduce) = (KernelKind::Map, KernelKind::Reduce);
    assert_eq!(
        shown,
        [("count-a", 2, map), ("sum-a", 2, reduce), ("keyed-a", 3, map), ("keyed-b", 3, map), ("join", 0, reduce)],
        "a stage is cut into what its reader asks for; one that is read as parts has as many as tasks"
    );
    assert_eq!(raftwerk_core::spec::check(&spec), Ok(()));
    let names: Vec<&str> = spec.stages[4].inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(names, ["left", "right"]);
    let params: Vec<&str> = spec.stages[1].params.iter().map(|p| p.value.as_str()).collect();
    assert_eq!(params, ["word", "text", "count"], "a reduce stage inherits from the map stage that it reads");
    let Some(Source::Files(files)) = &spec.stages[3].inputs[0].source else { panic!("{spec:?}") };
    assert_eq!(files.patterns, ["/jobs/b/*.txt"]);
    assert_eq!(spec.output.map(|output| output.format).as_deref(), Some("csv"));
}

#[test]
fn one_input_without_a_name_is_called_input() {
    let text = "[input]\nfiles = \"a\"\n[[stage]]\nname = \"m\"\nkernel = \"word_count\"\ninputs = [\"input\"]\n\
                [[stage]]\nname = \"r\"\nkernel = \"sum_by_key\"\ninputs = [\"m\"]\n";
    let spec = with(text, &Patches { input: vec!["x.txt".into()], ..Patches::default() }).unwrap();
    let Some(Source::Files(files)) = &spec.stages[0].inputs[0].source else { panic!("{spec:?}") };
    assert_eq!((files.patterns[0].as_str(), spec.stages[0].partitions), ("/here/x.txt", 1));
}

#[test]
fn flags_set_values_of_a_stage_by_its_name() {
    let set = |text: &str| with(COMPARE, &Patches { set: vec![text.into()], ..Patches::default() });
    let spec = set("stage.join.params.kind=left").unwrap();
    assert!(spec.stages[4].params.iter().any(|p| p.name == "kind" && p.value == "left"));
    assert_eq!(set("stage.sum-a.partitions=5").unwrap().stages[0].partitions, 5);
    assert_eq!(
        set("stage.joyn.params.kind=left").unwrap_err(),
        "--set stage.joyn.params.kind=left: there is no stage `joyn` / did you mean `join`?"
    );
    assert!(set("stage.join.params.kind=outer").unwrap_err().contains("stage 'join': params.kind must be one of inner, left, full"));
    let input = with(COMPARE, &Patches { input: vec!["x".into()], ..Patches::default() }).unwrap_err();
    assert!(input.contains("--input x: the job has several inputs") && input.contains("--set 'input.a.files="), "{input}");
}

#[test]
fn a_flag_for_the_other_kind_of_job_file_is_named() {
    let set = |text: &str, value: &str| with(text, &Patches { set: vec![value.into()], ..Patches::default() }).unwrap_err();
    let short = "[input]\nrange = { count = 9 }\n[map]\nkernel = \"noop\"\n";
    assert_eq!(
        set(short, "stage.x.y=1"),
        "--set stage.x.y=1: the job file has no [[stage]] tables, but [map] / set values of [map], as in --set map.params.NAME=VALUE"
    );
    assert_eq!(
        set(COMPARE, "map.params.x=1"),
        "--set map.params.x=1: [map] stands beside [[stage]] tables / name the stage, as in --set stage.NAME.params.seed=7"
    );
}

#[test]
fn names_that_are_wrong_are_refused_with_line_and_fix() {
    assert_eq!(
        refusal("inputs = \"count-a\"", "inputs = \"count-x\""),
        "job.toml:18: stage 'sum-a': inputs names `count-x`, which is neither an input nor a stage / did you mean `count-a`?"
    );
    assert_eq!(
        refusal("name = \"keyed-b\"", "name = \"keyed-a\""),
        "job.toml:26: [[stage]] number 5 name is \"keyed-a\", as that of an earlier stage / give each stage a name of its own"
    );
    assert_eq!(
        refusal("name = \"keyed-b\"\n", ""),
        "job.toml:25: [[stage]] number 5 needs `name` / name it, so that other stages can read it"
    );
    assert!(refusal("name = \"keyed-b\"", "name = \"keyed.b\"").contains("must be 1 to 63 of a-z"));
    assert!(refusal("[input.b]", "[input.sum-a]").contains("job.toml:3: [input.sum-a] is called as stage `sum-a` is / rename one of them"));
    assert!(refusal("partitions = 2", "partitons = 2").contains("did you mean `partitions`?"));
    assert!(refusal("kernel = \"join\"", "kernel = \"joyn\"").contains("stage 'join': kernel `joyn` is unknown"));
    assert!(refusal("[[stage]]", "[map]\nkernel = \"noop\"\n[[stage]]").contains("[map] stands beside [[stage]] tables"));
    assert!(refusal("[[stage]]", "[rounds]\nmax = 2\n[[stage]]").contains("[rounds] goes with one [map] and one [reduce]"));
    assert!(refusal("[[stage]]", "[input.c]\nfiles = \"c\"\n[[stage]]").contains("job.toml:5: [input.c] is read by no stage"));
    assert!(with("stage = 3\n", &Patches::default()).unwrap_err().contains("`stage` must be an array of tables, not an integer"));
    assert!(with("[stage.a]\nkernel = \"noop\"\n", &Patches::default()).unwrap_err().contains("write a line `[[stage]]` for each stage"));
}

#[test]
fn graphs_that_cannot_run_are_refused_with_the_stage_and_what_to_do() {
    assert_eq!(
        refusal("inputs = [\"a\"]", "inputs = [\"keyed-a\"]"),
        "job.toml:23: stage 'keyed-a': inputs go in a circle: keyed-a reads sum-a reads count-a reads keyed-a / let one of them read an input instead"
    );
    assert_eq!(
        refusal("inputs = [\"sum-a\"]", "inputs = [\"keyed-a\"]"),
        "job.toml:23: stage 'keyed-a': inputs names the stage itself, `keyed-a`"
    );
    assert!(refusal("\"keyed-a\", \"keyed-b\"", "\"keyed-a\"").contains("has 1 entry, but reduce kernel `join` reads 2"));
    assert!(refusal("inputs = [\"sum-a\"]", "inputs = [\"count-a\"]").contains(
        "names stage 'count-a', a map stage, but `key_lines` is a map kernel too / put a stage with a reduce kernel between them"
    ));
    assert!(
        refusal("inputs = \"count-a\"", "inputs = \"a\"")
            .contains("names the input `a`, but reduce kernel `sum_by_key` reads what a map stage wrote")
    );
    assert!(refusal("\"keyed-a\", \"keyed-b\"", "\"keyed-a\", \"sum-a\"").contains("put a stage with a map kernel between them"));
    assert!(refusal("\"keyed-a\", \"keyed-b\"", "\"keyed-b\", \"keyed-b\"").contains("names one stage twice"));
    assert!(refusal("inputs = [\"b\"]", "inputs = [\"b\", \"a\"]").contains("has 2 entries, but a map kernel reads one"));
    assert!(
        refusal("\"keyed-a\", \"keyed-b\"", "\"keyed-a\", \"count-a\"").contains("`join` cannot read what map kernel `word_count` writes")
    );
    assert!(refusal("kernel = \"join\"", "kernel = \"sum_by_key\"").contains("has 2 entries, but reduce kernel `sum_by_key` reads 1"));
    assert!(
        refusal("inputs = [\"sum-a\"]", "partitions = 2\ninputs = [\"sum-a\"]")
            .contains("has `partitions`, but `key_lines` is a map kernel")
    );
    let two = "[[stage]]\nname = \"lone\"\nkernel = \"key_lines\"\ninputs = [\"sum-a\"]\n[output]";
    assert!(refusal("[output]", two).contains("stage 'lone': is read by nobody, and neither is stage 'join'; a job has one last stage"));
    let lonely = "[input]\nfiles = \"a\"\n[[stage]]\nname = \"m\"\nkernel = \"word_count\"\ninputs = [\"input\"]\n";
    assert!(
        with(lonely, &Patches::default())
            .unwrap_err()
            .contains("is the last one, but map kernel `word_count` writes what a reduce stage has to read / add a stage with sum_by_key")
    );
}

#[test]
fn two_readers_of_one_stage_want_it_cut_alike() {
    let more = "[[stage]]\nname = \"other\"\nkernel = \"sum_by_key\"\ninputs = [\"count-a\"]\npartitions = 4\n\
                [[stage]]\nname = \"more\"\nkernel = \"key_lines\"\ninputs = [\"other\"]\n\
                [[stage]]\nname = \"all\"\nkernel = \"join\"\ninputs = [\"more\", \"again\"]\n\
                [[stage]]\nname = \"again\"\nkernel = \"key_lines\"\ninputs = [\"join\"]\n[output]";
    let refused = refusal("[output]", more);
    assert!(
        refused.contains("stage 'other': reads stage 'count-a' in 4 partitions, and stage 'sum-a' reads it in 2 / give both the same"),
        "{refused}"
    );
    let spec = with(&COMPARE.replacen("[output]", &more.replace("partitions = 4", "partitions = 2"), 1), &Patches::default()).unwrap();
    assert_eq!((spec.stages.len(), raftwerk_core::spec::check(&spec)), (9, Ok(())));
}
