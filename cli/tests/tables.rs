//! Jobs that read tables, as a script sees them: one process with a cluster in it, and executors of its own.

mod home;

use home::{Home, assert_exit, stderr};
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
