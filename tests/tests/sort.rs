//! A total order over all parts, with real processes: on any cluster, and when a worker is killed in the middle.

use raftwerk_tests::cluster::{Cluster, text};
use std::path::Path;

const RECORD: usize = 100;

/// Records with few keys, so that many are equal, and a tail that tells them apart.
fn records(count: u32) -> Vec<u8> {
    let record = |number: u32| {
        let key = format!("{:>10}", number.wrapping_mul(2_654_435_761) % 5003);
        let mut record = key.into_bytes();
        record.extend_from_slice(&number.to_be_bytes());
        // Newlines and zeros are bytes like others.
        record.extend((0..).map(|at: u32| (number ^ at) as u8).take(RECORD - record.len()));
        record
    };
    (0..count).flat_map(record).collect()
}

fn sorted(bytes: &[u8], key: usize, descending: bool) -> Vec<u8> {
    let mut items: Vec<&[u8]> = bytes.chunks_exact(RECORD).collect();
    items.sort_by(|a, b| if descending { b[..key].cmp(&a[..key]) } else { a[..key].cmp(&b[..key]) });
    items.concat()
}

/// The parts of a published directory behind each other, and their lengths.
fn parts(dir: &Path, extension: &str) -> (Vec<u8>, Vec<usize>) {
    let mut names: Vec<_> = std::fs::read_dir(dir).expect("a published directory").map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| path.file_name().is_some_and(|name| name != "manifest.json"));
    names.sort();
    assert!(names.iter().all(|path| path.extension().is_some_and(|found| found == extension)), "{names:?}");
    let parts: Vec<Vec<u8>> = names.iter().map(|path| std::fs::read(path).expect("a part")).collect();
    (parts.concat(), parts.iter().map(Vec::len).collect())
}

fn job(input: &str, params: &str, partitions: u32, out: &Path) -> String {
    format!(
        "[job]\nname = \"sort\"\n[input]\n{input}[map]\nkernel = \"sort\"\nparams = {{ {params} }}\nmax_lease_tasks = 3\n\
         [reduce]\npartitions = {partitions}\nmax_lease_tasks = 1\n[output]\npath = \"{}\"\n",
        out.display()
    )
}

fn record_input(path: &Path) -> String {
    format!("files = [\"{}\"]\nformat = \"records\"\nrecord = {RECORD}\nsplit = \"64KiB\"\n", path.display())
}

#[test]
fn records_are_in_one_order_over_all_parts_whatever_the_cluster() {
    let bytes = records(20_000);
    for (workers, descending) in [(1, false), (3, true)] {
        let cluster = Cluster::start(1, workers);
        let (input, out) = (cluster.path("records.bin"), cluster.path("out"));
        std::fs::write(&input, &bytes).expect("written");
        let params = if descending { "key_bytes = 10, order = \"descending\"" } else { "key_bytes = 10" };
        let toml = job(&record_input(&input), params, 6, &out);
        let job = cluster.submit(&cluster.job_file("sort.toml", &toml), &[]);
        let view = cluster.wait_done(job);
        let (joined, lengths) = parts(&out, "bin");
        assert!(joined == sorted(&bytes, 10, descending), "{workers} workers: the parts are not the sorted input");
        assert!(lengths.len() == 6 && lengths.iter().all(|length| *length > bytes.len() / 12), "partitions are about even: {lengths:?}");
        let tallies = view["tallies"].as_array().expect("tallies");
        let records: Vec<_> = tallies.iter().filter(|tally| tally["name"] == "records").map(|tally| tally["total"].as_str()).collect();
        assert_eq!(records, [Some("20000"); 2], "read and written: {tallies:?}");
    }
}

#[test]
fn lines_are_sorted_by_a_range_of_their_bytes_and_keep_their_ends() {
    let cluster = Cluster::start(1, 2);
    let (input, out) = (cluster.path("lines.txt"), cluster.path("out"));
    let line = |number: u32| format!("{number:>5} {:>4}{}", number * 7919 % 997, if number.is_multiple_of(3) { "\r\n" } else { "\n" });
    let mut lines: Vec<String> = (0..6000).map(line).collect();
    let whole = lines.concat();
    // The last line has no newline, and gets one.
    std::fs::write(&input, whole.trim_end()).expect("written");
    *lines.last_mut().expect("a line") = format!("{}\n", lines.last().expect("a line").trim_end());
    lines.sort_by(|a, b| a.as_bytes()[6..10].cmp(&b.as_bytes()[6..10]));
    let toml = job(&format!("files = [\"{}\"]\nsplit = \"8KiB\"\n", input.display()), "key_offset = 6, key_bytes = 4", 3, &out);
    cluster.wait_done(cluster.submit(&cluster.job_file("sort.toml", &toml), &[]));
    assert!(parts(&out, "txt").0 == lines.concat().as_bytes(), "the parts are not the sorted lines");

    // Nothing to sort is sorted too, and the files say what they would hold.
    std::fs::write(&input, "").expect("written");
    let (empty, out) = (cluster.path("empty.toml"), cluster.path("nothing"));
    std::fs::write(&empty, toml.replace("/out\"", "/nothing\"")).expect("written");
    cluster.wait_done(cluster.submit(&empty.display().to_string(), &[]));
    assert_eq!(parts(&out, "txt"), (Vec::new(), vec![0, 0, 0]));
}

#[test]
fn a_killed_worker_changes_no_byte() {
    if !cfg!(debug_assertions) {
        return println!("skipped: fail points are compiled into debug builds only");
    }
    let mut cluster = Cluster::with_fail_points(1, 3, &["--cpus", "1", "--no-gpu"], &["pause:reduce.fetch"]);
    let bytes = records(20_000);
    let (input, out) = (cluster.path("records.bin"), cluster.path("out"));
    std::fs::write(&input, &bytes).expect("written");
    let job = cluster.submit(&cluster.job_file("sort.toml", &job(&record_input(&input), "key_bytes = 10", 5, &out)), &[]);
    cluster.until("the reduce stage began", || cluster.path("reduce.fetch").exists());
    let view = cluster.job(job);
    let holder = view["shares"].as_array().and_then(|shares| shares.iter().find(|share| share["stage"] == "map")).expect("a share");
    let name = holder["worker_name"].as_str().expect("a name").to_owned();
    cluster.workers.iter_mut().find(|process| process.name == name).expect("a worker of that name").kill();
    cluster.until("the loss is seen", || {
        let workers = cluster.json(&["worker", "list"]);
        workers["workers"].as_array().is_some_and(|all| all.iter().any(|w| w["name"] == name.as_str() && w["liveness"] == "lost"))
    });
    std::fs::write(cluster.path("reduce.fetch.go"), "").expect("go on");
    let after = cluster.wait_done(job);
    assert!(parts(&out, "bin").0 == sorted(&bytes, 10, false), "the parts are not the sorted input");
    assert_eq!(after["stages"][0]["generation"], 2, "what was lost was made again: {after:#}");
}

#[test]
fn a_file_that_holds_no_whole_number_of_records_is_refused_at_submit() {
    let cluster = Cluster::start(1, 1);
    let input = cluster.path("short.bin");
    std::fs::write(&input, vec![b'x'; 250]).expect("written");
    let file = cluster.job_file("sort.toml", &job(&record_input(&input), "key_bytes = 10", 1, &cluster.path("out")));
    let refused = cluster.run(&["submit", &file]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("short.bin has 250 bytes"), "{said}");
    assert!(said.contains("no whole number of records of 100 bytes; set [input] record"), "{said}");
}
