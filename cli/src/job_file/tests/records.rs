//! Input of fixed-size records, and kernels that read several formats.

use super::*;
use raftwerk_proto::v1::Files;

static EITHER: Descriptor = Descriptor {
    name: "either",
    accepts: Accepts::AnyOf(&[Accepts::Text, Accepts::Records]),
    shuffles: true,
    reduces_with: &["shaped"],
    ..BLANK
};

static SHAPED: Descriptor = Descriptor {
    name: "shaped",
    kind: Kind::Reduce,
    accepts: Accepts::Shuffle,
    params: &[ParamSpec { name: "record", kind: ParamType::U64 { min: 0, max: 1 << 20 }, default: Some("0"), doc: "bytes" }],
    formats: &["plain"],
    ..BLANK
};

fn read_job(input: &str, assignments: &[&str]) -> Result<JobSpec, String> {
    let catalogue = Catalogue { kernels: vec![&EITHER, &COUNT, &SHAPED, &SUM] };
    let text = format!("[input]\nfiles = \"x.bin\"\n{input}[map]\nkernel = \"either\"\n");
    parse(&text, "stem", Path::new("/jobs"), Path::new("/here"), &set(assignments), &catalogue).map_err(|problem| {
        let error = problem.in_file("job.toml");
        error.fix.as_ref().map_or_else(|| error.to_string(), |fix| format!("{error}\nfix: {fix}"))
    })
}

fn files(spec: &JobSpec) -> &Files {
    let Some(Source::Files(files)) = &spec.stages[0].inputs[0].source else { panic!("{spec:?}") };
    files
}

#[test]
fn the_format_chooses_among_what_the_kernel_reads_and_a_record_length_is_enough() {
    let shape = |input: &str, assignments: &[&str]| {
        let spec = read_job(input, assignments).unwrap();
        let (files, reduce) = (files(&spec), &spec.stages[1].params[0]);
        (files.format.clone(), files.record_bytes, reduce.value.clone())
    };
    assert_eq!(shape("", &[]), ("text".into(), 0, "0".into()));
    assert_eq!(shape("format = \"text\"\n", &[]), ("text".into(), 0, "0".into()));
    assert_eq!(shape("format = \"records\"\nrecord = 100\n", &[]), ("records".into(), 100, "100".into()));
    assert_eq!(shape("record = \"1KiB\"\n", &[]), ("records".into(), 1024, "1024".into()));
    assert_eq!(shape("", &["input.record=16"]), ("records".into(), 16, "16".into()));
}

#[test]
fn what_does_not_go_together_is_refused_with_its_line() {
    let refused = |input: &str| read_job(input, &[]).unwrap_err();
    assert_eq!(
        refused("format = \"records\"\n"),
        "job.toml:1: [input] needs `record`, the length of a record in bytes\nfix: write record = 100, if each has 100 bytes"
    );
    assert_eq!(
        refused("format = \"text\"\nrecord = 5\n"),
        "job.toml:4: [input] record has no meaning for input of format text\nfix: take the line out"
    );
    assert_eq!(refused("record = 0\n"), "job.toml:3: [input] record must be at least 1 B, not 0 B");
    assert_eq!(refused("record = \"2MiB\"\n"), "job.toml:3: [input] record must be at most 1 MiB, not 2 MiB");
    assert_eq!(refused("format = \"npy\"\n"), "job.toml:3: [input] format is \"npy\", but kernel `either` reads text or records");
}
