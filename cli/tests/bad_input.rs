//! Input that is there and is not what a job says: how it ends, how often it was tried, and what a person reads.

mod home;

use std::io::Write;
use std::process::Output;

use home::{Home, assert_exit, json, stderr};
use serde_json::Value;

fn run(home: &Home, more: &[&str]) -> Output {
    home.run(&[&["run", "job.toml", "--no-gpu", "--cpus", "1", "--output", "out"], more].concat())
}

fn job(home: &Home, file: &str, kernel: &str, more: &str) {
    home.write("job.toml", &format!("[input]\nfiles = [\n  \"in/{file}\",\n]\n[map]\nkernel = \"{kernel}\"\n{more}"));
}

fn input(home: &Home, name: &str, bytes: &[u8]) {
    let dir = home.path().join("in");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

/// f4 elements under a header that says this shape.
fn npy(shape: &str, elements: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let bytes = elements.iter().flat_map(|element| element.to_le_bytes()).collect::<Vec<u8>>();
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &bytes].concat()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A grey image, every pixel another one.
fn png() -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc.sum().to_be_bytes()].concat()
    };
    let rows: Vec<u8> =
        (0..64u8).flat_map(|row| std::iter::once(0).chain((0..64u8).map(move |column| row ^ column.wrapping_mul(7)))).collect();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    packed.write_all(&rows).unwrap();
    let head = [&64u32.to_be_bytes()[..], &64u32.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let chunks = [chunk(b"IHDR", &head), chunk(b"IDAT", &packed.finish().unwrap()), chunk(b"IEND", b"")];
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat()
}

#[test]
fn what_is_no_such_file_ends_with_2_and_is_named_with_the_line_of_the_job_file() {
    let home = Home::new();
    let whole = npy("(4,)", &[1.0, 2.0, 3.0, 4.0]);
    let cases: [(&str, &[u8], &str, &str, &str); 6] = [
        ("cut.npy", &whole[..whole.len() - 3], "statistics", "", "a NumPy array: "),
        ("not.npy", b"text", "statistics", "", "a NumPy array: "),
        ("flat.npy", &whole, "kmeans_assign", "", "a NumPy array: "),
        ("not.png", b"text", "convolve", "", "PNG: "),
        ("not.gz", b"text", "word_count", "", "gzip: "),
        ("odd.bin", b"12345", "sort", "[map.params]\nkey_bytes = 1\n", "records of 2 bytes: "),
    ];
    for (name, bytes, kernel, more, what) in cases {
        input(&home, name, bytes);
        job(&home, name, kernel, more);
        let set: &[&str] = if name == "odd.bin" { &["--set", "input.record=2"] } else { &[] };
        let output = run(&home, set);
        assert_exit(&output, 2);
        let said = stderr(&output);
        assert!(said.contains(&format!("the input cannot be read as {what}")) && said.contains(&format!("in/{name}")), "{said}");
        assert!(said.contains(&format!("job.toml:3: [input] files names `in/{name}`")), "{said}");
        assert!(!said.contains("no worker sees") && !home.path().join("out").exists(), "{said}");
    }
    // What nobody sees is another thing.
    job(&home, "nothing.npy", "statistics", "");
    let output = run(&home, &[]);
    assert_exit(&output, 6);
    let said = stderr(&output);
    assert!(
        said.contains("no worker sees the input; asked 1") && said.contains("job.toml:3: [input] files names `in/nothing.npy`"),
        "{said}"
    );
    let output = run(&home, &["--input", "in/not.npy"]);
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("--input in/not.npy: for [input] files"), "{}", stderr(&output));
}

/// The job's end, its stages, and the attempts of the first that failed.
fn failed(home: &Home, more: &[&str]) -> (Value, u64) {
    let output = run(home, &[&["-o", "json"], more].concat());
    assert_exit(&output, 3);
    let view = json(&output);
    assert_eq!(view["state"], "failed", "{view:#}");
    let attempts = view["stages"].as_array().unwrap().iter().map(|stage| stage["failed_attempts"].as_u64().unwrap()).sum();
    (view, attempts)
}

#[test]
fn what_no_try_can_mend_is_tried_once_and_named() {
    let home = Home::new();
    let once = |more: &[&str], says: &[&str]| {
        let (view, attempts) = failed(&home, more);
        let cause = view["cause"].as_str().unwrap();
        assert!(says.iter().all(|text| cause.contains(text)), "{cause}");
        assert_eq!(attempts, 1, "{cause}");
        assert!(!cause.contains("times"), "{cause}");
    };
    // A picture whose data are damaged, and a file cut off behind its beginning.
    let mut picture = png();
    let middle = picture.len() / 2;
    picture[middle] ^= 0xff;
    input(&home, "bad.png", &picture);
    job(&home, "bad.png", "convolve", "");
    once(&[], &["the PNG file is damaged", "in/bad.png)"]);
    let packed = gzip(&(0..30_000u32).flat_map(|n| format!("{} ", n.wrapping_mul(2_654_435_761)).into_bytes()).collect::<Vec<u8>>());
    input(&home, "cut.gz", &packed[..packed.len() - 9]);
    job(&home, "cut.gz", "word_count", "");
    once(&[], &["in/cut.gz: its gzip data", "at byte"]);
    // Lines without the key's column, in the second split; and in a compressed file.
    let lines: String = (0..500).map(|n| if n == 400 { "lonely\n".to_owned() } else { format!("{n},x\n") }).collect();
    let at = lines.find("lonely").unwrap();
    for kernel in ["dedup", "key_lines"] {
        input(&home, "keys.csv", lines.as_bytes());
        let params = format!("[map.params]\ncolumn = 2\n{}", if kernel == "dedup" { "" } else { "[reduce]\nkernel = \"join\"\n" });
        job(&home, "keys.csv", kernel, &params);
        if kernel == "key_lines" {
            // It goes with a join of two stages.
            let stages = "[input.a]\nfiles = \"in/keys.csv\"\nsplit = \"1KiB\"\n[[stage]]\nname = \"l\"\nkernel = \"key_lines\"\ninputs = [\"a\"]\nparams = { column = 2 }\n\
                          [[stage]]\nname = \"r\"\nkernel = \"key_lines\"\ninputs = [\"a\"]\n[[stage]]\nname = \"j\"\nkernel = \"join\"\ninputs = [\"l\", \"r\"]\n";
            home.write("job.toml", stages);
            once(&[], &["line 'lonely': it has 1 column, and the key is in column 2", &format!("in/keys.csv at line 401, byte {at})")]);
            continue;
        }
        once(&["--set", "input.split=1KiB"], &["line 'lonely': it has 1 column", &format!("in/keys.csv at line 401, byte {at})")]);
        input(&home, "keys.csv.gz", &gzip(lines.as_bytes()));
        job(&home, "keys.csv.gz", kernel, &params);
        once(&[], &["in/keys.csv.gz at line 401, byte"]);
    }
    // Points: fewer than clusters, and not a number among the centroids.
    let points: Vec<f32> = (0..6).map(|n| n as f32).collect();
    input(&home, "points.npy", &npy("(3, 2)", &points));
    job(&home, "points.npy", "kmeans_assign", "[rounds]\nmax = 3\n");
    once(&[], &["the input has 3 points, and clusters = 8: use fewer clusters"]);
    std::fs::write(home.path().join("start.npy"), npy("(1, 2)", &[1.0, f32::NAN])).unwrap();
    job(&home, "points.npy", "kmeans_assign", "params = { clusters = 1 }\n[map.side.centroids]\nfile = \"start.npy\"\n[rounds]\nmax = 3\n");
    once(&[], &["side input 'centroids' (", "start.npy) has NaN in row 0, column 1"]);
}

#[test]
fn a_job_that_says_so_goes_on_without_what_is_damaged() {
    let home = Home::new();
    input(&home, "a.gz", &gzip(b"one two\n"));
    let packed = gzip(&(0..30_000u32).flat_map(|n| format!("{n} ").into_bytes()).collect::<Vec<u8>>());
    input(&home, "b.gz", &packed[..packed.len() - 9]);
    job(&home, "*.gz", "word_count", "[job]\non_set_aside = \"continue\"\n");
    let output = run(&home, &["-o", "json"]);
    assert_exit(&output, 8);
    let view = json(&output);
    assert_eq!((&view["set_aside"][0]["attempts"], view["set_aside"].as_array().unwrap().len()), (&Value::from(1), 1), "{view:#}");
    assert!(view["set_aside"][0]["message"].as_str().unwrap().contains("in/b.gz: its gzip data"), "{view:#}");
    assert_eq!(std::fs::read_to_string(home.path().join("out/part-00000.csv")).unwrap(), "word,count\none,1\ntwo,1\n");
}

#[test]
fn a_job_that_fails_by_bad_records_shows_them() {
    let home = Home::new();
    let rows: String = (0..50).map(|n| if n % 5 == 0 { format!("ragged{n}\n") } else { format!("a,{n}\n") }).collect();
    input(&home, "t.csv", format!("s,n\n{rows}").as_bytes());
    job(&home, "t.csv", "group_by", "params = { by = \"s\" }\n");
    let (view, attempts) = failed(&home, &["--set", "input.bad_records=6"]);
    let cause = view["cause"].as_str().unwrap();
    assert!(cause.contains("than the 6 that bad_records allows; the first of this task: line 2, byte 4: it has 1 cells"), "{cause}");
    assert!(cause.contains("; line 7,") && cause.contains("; line 12,") && cause.contains("the last: the row at line 32"), "{cause}");
    let lines: Vec<u64> = view["bad_records"].as_array().unwrap().iter().map(|bad| bad["line"].as_u64().unwrap()).collect();
    assert_eq!((lines, attempts), (vec![2, 7, 12, 17, 22, 27, 32], 1), "the one that was too many is the last");
    // Where none is allowed, the one that failed the job.
    let (view, _) = failed(&home, &[]);
    assert_eq!(view["bad_records"].as_array().unwrap().len(), 1, "{view:#}");
    assert_eq!((&view["bad_records"][0]["line"], &view["bad_records"][0]["text"]), (&Value::from(2), &Value::from("ragged0")));
}

#[test]
fn a_record_of_a_file_without_lines_has_a_number() {
    let home = Home::new();
    input(&home, "r.bin", b"0\n2\n4\n6");
    job(&home, "r.bin", "sort", "[map.params]\nkey_bytes = 1\n");
    let all = ["--set", "input.record=2", "--set", "input.bad_records=1"];
    let output = run(&home, &[&all[..], &["-o", "json"]].concat());
    assert_exit(&output, 0);
    let bad = &json(&output)["bad_records"][0];
    assert_eq!(
        (&bad["line"], &bad["record"], &bad["offset"], &bad["text"]),
        (&Value::Null, &Value::from(4), &Value::from(6), &Value::from("6"))
    );
    let output = run(&home, &[&all[..], &["--set", "output.if_exists=replace"]].concat());
    assert_exit(&output, 0);
    assert!(home::stdout(&output).contains("record 4"), "{}", home::stdout(&output));
}
