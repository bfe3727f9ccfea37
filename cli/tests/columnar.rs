//! Jobs over files of columns, as a script sees them: a table as CSV, JSON lines, Arrow and Parquet is the same table.

mod home;

use home::{Home, assert_exit, stderr};
use std::process::Output;

fn job(format: &str) -> String {
    format!(
        "[input]\nfiles = [\"in/*\"]\nformat = \"{format}\"\n\n[map]\nkernel = \"group_by\"\n\n[map.params]\nby = \"city, month\"\n\
         aggregate = \"count, sum(amount), min(amount), distinct(user)\"\n\n[output]\npath = \"out\"\nif_exists = \"replace\"\n"
    )
}

fn run(home: &Home, more: &[&str]) -> Output {
    home.run(&[&["run", "job.toml", "--no-gpu", "--cpus", "2"], more].concat())
}

fn part(home: &Home, extension: &str) -> Vec<u8> {
    std::fs::read(home.path().join(format!("out/part-00000.{extension}"))).expect("a part")
}

fn only(home: &Home, name: &str, bytes: &[u8]) {
    let dir = home.path().join("in");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

/// The forms that this build knows beside those of lines.
fn forms() -> &'static [&'static str] {
    match (cfg!(feature = "parquet"), cfg!(feature = "arrow-ipc")) {
        (true, _) => &["arrow", "parquet"],
        (false, true) => &["arrow"],
        (false, false) => &[],
    }
}

fn sales(rows: usize) -> String {
    let mut csv = "city,month,user,amount\n".to_owned();
    for row in 0..rows {
        let amount = if row % 11 == 0 { String::new() } else { (row * 37 % 1000).to_string() };
        csv += &format!("{},{},user {},{amount}\n", ["Oslo", "Lyon", "Roma"][row % 3], row % 12, row * row % 97);
    }
    csv
}

/// A table as a file of columns, written by a job: each row is a group of its own.
fn as_columns(home: &Home, csv: &str, form: &str) -> Vec<u8> {
    only(home, "a.csv", csv.as_bytes());
    home.write(
        "copy.toml",
        "[input]\nfiles = [\"in/*\"]\n[map]\nkernel = \"top_k\"\n[map.params]\nof = \"row\"\nk = 100_000\norder = \"smallest\"\n\
         columns = \"city, month, user, amount\"\n[output]\npath = \"copy\"\nif_exists = \"replace\"\n",
    );
    assert_exit(&home.run(&["run", "copy.toml", "--no-gpu", "--cpus", "2", "--set", &format!("output.format={form}")]), 0);
    std::fs::read(home.path().join(format!("copy/part-00000.{form}"))).expect("a part")
}

fn numbered(csv: &str) -> String {
    let mut rows = csv.lines();
    let mut out = format!("row,{}\n", rows.next().unwrap());
    rows.enumerate().for_each(|(row, line)| out += &format!("{row},{line}\n"));
    out
}

#[test]
fn a_table_gives_the_same_result_in_every_format() {
    let home = Home::new();
    let csv = sales(9000);
    let filters = ["", "amount >= 500 and city != 'Lyon'", "amount = ''", "user = 'user 4'"];
    home.write("job.toml", &job("csv"));
    only(&home, "a.csv", csv.as_bytes());
    let results = |home: &Home| -> Vec<Vec<u8>> {
        let one = |filter: &&str| {
            assert_exit(&run(home, &["--set", &format!("input.where=\"{filter}\"")]), 0);
            part(home, "csv")
        };
        filters.iter().map(one).collect()
    };
    let expected = results(&home);
    assert!(expected[0] != expected[1] && expected[0].len() > 200);
    for form in forms() {
        let columns = as_columns(&home, &numbered(&csv), form);
        home.write("job.toml", &job(form));
        only(&home, "table", &columns);
        assert_eq!(results(&home), expected, "{form}");
        // What it writes in that form it reads again.
        assert_exit(&run(&home, &["--set", &format!("output.format={form}")]), 0);
        let written = part(&home, form);
        only(&home, "again", &written);
        let again = ["--set", "map.params.by=city", "--set", "map.params.aggregate=sum(count), min(\"min(amount)\")"];
        assert_exit(&run(&home, &again), 0);
        let text = String::from_utf8(part(&home, "csv")).unwrap();
        assert_eq!(text, "city,sum(count),\"min(\"\"min(amount)\"\")\"\nLyon,3000,0\nOslo,3000,0\nRoma,3000,0\n", "{form}");
    }
}

#[test]
fn what_is_wrong_with_a_file_of_columns_is_told_before_the_job_runs() {
    let home = Home::new();
    for form in forms() {
        let columns = as_columns(&home, &numbered(&sales(500)), form);
        home.write("job.toml", &job(form));
        let refused = |name: &str, bytes: &[u8], more: &[&str]| {
            only(&home, name, bytes);
            let output = run(&home, more);
            assert_exit(&output, 2);
            assert!(!home.path().join("out").exists());
            stderr(&output)
        };
        let what = if *form == "arrow" { "Arrow IPC" } else { "Parquet" };
        for length in [0, 3, 20, columns.len() / 2, columns.len() - 1] {
            let said = refused("cut", &columns[..length], &[]);
            assert!(said.contains("in/cut: it is no whole ") && said.contains(what), "{length}: {said}");
        }
        let said = refused("t", &columns, &["--set", "map.params.by=citi"]);
        assert!(said.contains("in/t: there is no column 'citi'; did you mean 'city'?"), "{said}");
        let said = refused("t", &columns, &["--set", "input.where=amuont > 3"]);
        assert!(said.contains("in/t: there is no column 'amuont'; did you mean 'amount'?"), "{said}");
        let said = refused("t", &columns, &["--set", "input.where=amount >"]);
        assert!(said.contains("[input] where is no filter: column 'amount' is compared with nothing"), "{said}");
        let said = refused("t", &columns, &["--set", "input.header=false"]);
        assert!(said.contains("[input] header has no meaning for files of format"), "{said}");
        // What shows only when its data are read fails the job, by name.
        let mut bad = columns.clone();
        let data = 8..bad.len() / 3;
        bad[data].iter_mut().for_each(|byte| *byte = 0xff);
        only(&home, "bad", &bad);
        let output = run(&home, &["--set", "job.max_attempts=1"]);
        if output.status.code() != Some(2) {
            assert_exit(&output, 3);
        }
        assert!(stderr(&output).contains("in/bad"), "{}", stderr(&output));
    }
}

/// A build without the feature says which one it lacks.
#[test]
fn a_build_without_parquet_names_the_feature() {
    if cfg!(feature = "parquet") {
        return println!("skipped: this build reads Parquet");
    }
    let home = Home::new();
    home.write("job.toml", &job("parquet"));
    only(&home, "a.parquet", b"PAR1");
    let output = run(&home, &[]);
    assert_exit(&output, 2);
    assert!(
        stderr(&output).contains("neither reads nor writes Parquet files; use one that was built with `--features parquet`"),
        "{}",
        stderr(&output)
    );
    home.write("job.toml", &job("csv"));
    let output = run(&home, &["--set", "output.format=parquet"]);
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("--features parquet"), "{}", stderr(&output));
}

#[test]
fn a_row_whose_cell_is_no_number_is_left_out_of_a_file_of_columns_and_named_by_its_row() {
    let home = Home::new();
    let (whole, bad) = (sales(60), "Oslo,9,user x,many\n");
    let at = whole.match_indices('\n').nth(21).unwrap().0 + 1;
    let csv = format!("{}{bad}{}", &whole[..at], &whole[at..]);
    home.write("job.toml", &job("csv"));
    only(&home, "a.csv", whole.as_bytes());
    assert_exit(&run(&home, &[]), 0);
    let expected = part(&home, "csv");
    for form in forms() {
        let columns = as_columns(&home, &numbered(&csv), form);
        only(&home, &format!("a.{form}"), &columns);
        home.write("job.toml", &job(form));
        let failed = run(&home, &[]);
        assert_exit(&failed, 3);
        assert!(stderr(&failed).contains("the cell in row 22, column 'amount', is \"many\", which is no number"), "{}", stderr(&failed));
        let done = home.run(&["-o", "json", "run", "job.toml", "--no-gpu", "--cpus", "2", "--set", "input.bad_records=1"]);
        assert_exit(&done, 0);
        assert!(part(&home, "csv") == expected, "{form}: the other rows");
        let view: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let bad = &view["bad_records"][0];
        assert_eq!((&bad["record"], &bad["offset"], view["bad_records"].as_array().unwrap().len()), (&22.into(), &21.into(), 1), "{bad:#}");
        assert_eq!(bad["text"], "city=Oslo, month=9, amount=many, user=user x", "{form}");
        let shown = run(&home, &["--set", "input.bad_records=1"]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains("row 22"), "{}", String::from_utf8_lossy(&shown.stdout));
    }
}
