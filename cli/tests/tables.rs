//! Jobs that read tables, as a script sees them: one process with a cluster in it, and executors of its own.

mod home;

use home::{Home, assert_exit, json, stderr, stdout};
use std::process::Output;

const JOB: &str = "[input]\nfiles = [\"*.csv\"]\n\n[map]\nkernel = \"group_by\"\n\n[map.params]\nby = \"city\"\n\
                   aggregate = \"count, sum(amount), distinct(user)\"\n\n[output]\npath = \"out\"\nif_exists = \"replace\"\n";

fn run(home: &Home, more: &[&str]) -> Output {
    home.run(&[&["run", "job.toml", "--no-gpu", "--cpus", "2"], more].concat())
}

fn part(home: &Home) -> String {
    std::fs::read_to_string(home.path().join("out/part-00000.csv")).expect("a part")
}

#[test]
fn a_table_is_grouped_alike_in_one_split_and_in_many() {
    let home = Home::new();
    home.write("job.toml", JOB);
    let mut text = "user,city,amount\n".to_owned();
    // Three cities, of which one has a separator in its name, and amounts whose sum no f64 holds.
    for row in 0..3000 {
        let city = ["Oslo", "\"Lyon, France\"", "Llanfairpwllgwyngyll"][row % 3];
        text += &format!("user {},{city},{}.{:02}\r\n", row % 70, row % 50, row % 100);
    }
    home.write("a.csv", &text);
    home.write("b.csv", "city,user,other,amount\nOslo,\"two\nlines\",x,0.000000000001\n,,,\n");
    assert_exit(&run(&home, &[]), 0);
    let sums = |city: usize| (city..3000).step_by(3).map(|row| (row % 50) * 100 + row % 100).sum::<usize>();
    let decimal =
        |hundredths: usize| format!("{}.{:02}", hundredths / 100, hundredths % 100).trim_end_matches('0').trim_end_matches('.').to_owned();
    let whole = part(&home);
    let lines: Vec<&str> = whole.lines().collect();
    assert_eq!(lines[0], "city,count,sum(amount),distinct(user)");
    assert_eq!(lines[1], ",1,,0");
    assert_eq!(lines[2], format!("Llanfairpwllgwyngyll,1000,{},70", decimal(sums(2))));
    assert_eq!(lines[3], format!("\"Lyon, France\",1000,{},70", decimal(sums(1))));
    assert_eq!(lines[4], format!("Oslo,1001,{}.{:02}0000000001,71", sums(0) / 100, sums(0) % 100));
    assert_eq!(lines.len(), 5);

    // A line end in quotes is refused where line ends are split points, and named.
    let split = ["--set", "input.quoted_newlines=false", "--set", "input.split=1KiB"];
    let output = run(&home, &split);
    assert_exit(&output, 3);
    let said = stderr(&output);
    assert!(said.contains("b.csv") && said.contains("quotes that open at line 2 (byte 28 of the file)"), "{said}");
    home.write("b.csv", "city,user,other,amount\nOslo,two lines,x,0.000000000001\n,,,\n");
    assert_exit(&run(&home, &split), 0);
    assert_eq!(part(&home), whole);
    assert_exit(&run(&home, &[&split[..], &["--set", "output.format=jsonl"]].concat()), 0);
    let json = std::fs::read_to_string(home.path().join("out/part-00000.jsonl")).expect("a part");
    assert!(json.starts_with("{\"city\":\"\",\"count\":1,\"sum(amount)\":null,\"distinct(user)\":0}\n"), "{json}");
}

#[test]
fn what_is_wrong_with_a_table_is_told_with_file_and_place() {
    let home = Home::new();
    home.write("job.toml", JOB);
    let good = "city,amount,user\nOslo,1,ann\n";
    for (bad, code, expected) in [
        ("city,amonut,user\nOslo,1,ann\n", 2, "there is no column 'amount'; did you mean 'amonut'? its columns: 'city', 'amonut', 'user'"),
        ("city,amount,user\nOslo,1,ann\nLyon,2\n", 3, "the row at line 3 (byte 28 of the file) has 2 cells and the table has 3 columns"),
        (
            "city,amount,user\nOslo,1,ann\nLyon,two,bob\n",
            3,
            "the cell at line 3 (byte 33 of the file), column 'amount', is \"two\", which is no number",
        ),
        ("city,amount,user\n\"Oslo,1,ann\n", 3, "the quotes that open at line 2 (byte 17 of the file) are not closed"),
    ] {
        home.write("good.csv", good);
        home.write("bad.csv", bad);
        let output = run(&home, &[]);
        assert_exit(&output, code);
        let said = stderr(&output);
        assert!(said.contains(expected) && said.contains("bad.csv") && !said.contains("good.csv"), "{said}");
        assert!(!home.path().join("out").exists());
    }
}

/// The manifest of the output.
fn manifest(home: &Home) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(home.path().join("out/manifest.json")).expect("a manifest")).expect("JSON")
}

#[test]
fn bad_records_are_left_out_counted_and_named_in_the_report_the_manifest_and_the_json() {
    let home = Home::new();
    home.write("job.toml", JOB);
    home.write("a.csv", "user,city,amount\nann,Oslo,1\nbob,Lyon\nann,Oslo,2\n");
    home.write("b.csv", "user,city,amount\ncyd,Oslo,three\n\"dan\"x,Oslo,3\nann,Lyon,4\n");
    let allow = |n: u32| run(&home, &["--set", &format!("input.bad_records={n}"), "-o", "json"]);
    let output = allow(3);
    assert_exit(&output, 0);
    assert_eq!(part(&home), "city,count,sum(amount),distinct(user)\nLyon,1,4,1\nOslo,2,3,1\n");
    let view = json(&output);
    let counters = &view["stages"][0]["counters"];
    assert_eq!(
        (&counters["records_in"], &counters["bad_records"], &counters["records_out"]),
        (&3.into(), &3.into(), &2.into()),
        "{view:#}"
    );
    assert_eq!(counters["bytes_in"], 48 + 57, "the files");
    assert_eq!((&counters["records_out"], &counters["bytes_out"]), {
        let reduce = &view["stages"][1]["counters"];
        (&reduce["records_in"], &reduce["bytes_in"])
    });
    let bad: Vec<String> = view["bad_records"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|bad| {
            let file = bad["file"].as_str().expect("a path").rsplit('/').next().expect("a name").to_owned();
            format!("{file} {} {} {} {}", bad["line"], bad["offset"], bad["text"], bad["reason"])
        })
        .collect();
    assert_eq!(
        bad,
        [
            "a.csv 3 28 \"bob,Lyon\" \"it has 2 cells and the table has 3 columns\"",
            "b.csv 2 17 \"cyd,Oslo,three\" \"its cell in column 'amount' is \\\"three\\\", which is no number\"",
            "b.csv 3 32 \"\\\"dan\\\"x,Oslo,3\" \"a cell of it goes on behind its closing quotes\"",
        ]
    );
    let manifest = manifest(&home);
    assert_eq!(manifest["bad_records"], view["bad_records"]);
    assert_eq!(manifest["stages"][0]["counters"], *counters);

    let output = run(&home, &["--set", "input.bad_records=3"]);
    assert_exit(&output, 0);
    let said = stdout(&output);
    assert!(said.contains("BAD RECORDS") && said.contains("it has 2 cells and the table has 3 columns"), "{said}");

    // One more than the job allows, over both tasks, and within one.
    for allowed in [2, 1] {
        let output = allow(allowed);
        assert_exit(&output, 3);
        let said = format!("{}{}", stdout(&output), stderr(&output));
        assert!(
            said.contains(&format!("bad_records = {allowed} allows no more"))
                || said.contains(&format!("the {allowed} that bad_records allows")),
            "{said}"
        );
        assert!(said.contains(".csv") && said.contains("line"), "{said}");
    }
    let output = run(&home, &[]);
    assert_exit(&output, 3);
    assert!(stderr(&output).contains("line"), "{}", stderr(&output));
}

#[test]
fn a_file_that_ends_within_a_record_loses_it_where_the_job_allows_that() {
    let home = Home::new();
    home.write("job.toml", "[input]\nfiles = [\"*.bin\"]\nrecord = 4\nsplit = \"1KiB\"\n\n[map]\nkernel = \"sort\"\n\n[output]\npath = \"out\"\nif_exists = \"replace\"\n");
    home.write("a.bin", "zzzzaaaaxx");
    home.write("b.bin", &"mmmm".repeat(256));
    home.write("c.bin", &format!("{}q", "nnnn".repeat(256)));
    let output = run(&home, &[]);
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("no whole number of records"), "{}", stderr(&output));
    let output = run(&home, &["--set", "input.bad_records=2", "-o", "json"]);
    assert_exit(&output, 0);
    let view = json(&output);
    let counters = &view["stages"][0]["counters"];
    assert_eq!(
        (&counters["records_in"], &counters["bad_records"], &counters["bytes_in"]),
        (&514.into(), &2.into(), &(514 * 4).into()),
        "{view:#}"
    );
    let bad: Vec<(&str, u64, &str)> = view["bad_records"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|bad| (bad["text"].as_str().unwrap(), bad["offset"].as_u64().unwrap(), bad["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(bad, [("xx", 8, "the file ends after 2 of its 4 bytes"), ("q", 1024, "the file ends after 1 of its 4 bytes")]);
    assert_eq!(view["stages"][1]["counters"]["records_out"], 514);
}
