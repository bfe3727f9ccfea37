//! A job over much more data than its worker may take of memory, with real processes: what agent and executor hold together stays within `--memory`.

use raftwerk_tests::cluster::Cluster;
use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

const RECORD: usize = 100;
const KEY: usize = 10;
const RECORDS: u64 = 10_000_000;
const BUDGET_MIB: u64 = 32;

/// A generator of numbers (SplitMix64), and a sum over records that does not ask for their order.
fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn hash(record: &[u8]) -> u64 {
    let words = record.chunks(8).map(|word| word.iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte)));
    words.fold(0, |all, word| mix(all ^ word))
}

/// The sum of the hashes of what it writes.
fn write(path: &Path) -> u64 {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).expect("an input"));
    let (mut state, mut sum) = (0u64, 0u64);
    let mut record = [0; RECORD];
    for _ in 0..RECORDS {
        for word in record.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            word.copy_from_slice(&mix(state).to_le_bytes()[..word.len()]);
        }
        sum = sum.wrapping_add(hash(&record));
        out.write_all(&record).expect("room for an input");
    }
    out.flush().expect("room for an input");
    sum
}

/// Bytes that a process has of its own: anonymous memory, and mapped files that are no program. What it shares counts by its share.
fn held(pid: u32) -> u64 {
    let mut bytes = 0;
    let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let mut program = false;
    for line in fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default().lines() {
        let kib = || line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10;
        if line.starts_with(|first: char| first.is_ascii_digit() || ('a'..='f').contains(&first)) {
            let path = line.split_whitespace().nth(5).unwrap_or_default();
            program = Path::new(path) == executable || path.contains(".so");
        } else if line.starts_with(if program { "Anonymous:" } else { "Pss:" }) {
            bytes += kib();
        }
    }
    bytes
}

fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

#[test]
fn a_gigabyte_is_sorted_within_32_mib() {
    let cluster = Cluster::with_worker_flags(1, 1, &["--cpus", "1", "--no-gpu", "--memory", &format!("{BUDGET_MIB}MiB")]);
    let (input, out) = (cluster.path("records"), cluster.path("out"));
    let began = Instant::now();
    let expected = write(&input);
    println!("written after {:?}", began.elapsed());
    let toml = format!(
        "[input]\nfiles = [\"{}\"]\nformat = \"records\"\nrecord = {RECORD}\nsplit = \"4MiB\"\n[map]\nkernel = \"sort\"\nparams = {{ key_bytes = {KEY} }}\n\
         [reduce]\npartitions = 160\n[output]\npath = \"{}\"\n",
        input.display(),
        out.display()
    );
    let file = cluster.job_file("sort.toml", &toml);
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let worker = cluster.workers[0].child.id();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(family(worker).into_iter().map(held).sum(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let job = cluster.submit(&file, &[]);
        let wait = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.wait_done(job)));
        over.store(true, Ordering::Relaxed);
        wait.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    });
    println!("sorted after {:?}", began.elapsed());

    let (mut count, mut sum, mut before) = (0, 0u64, [0; KEY]);
    let mut parts: Vec<_> = fs::read_dir(&out).expect("an output").map(|entry| entry.expect("an entry").path()).collect();
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    parts.sort();
    assert_eq!(parts.len(), 160);
    for part in parts {
        let mut records = BufReader::with_capacity(1 << 20, File::open(part).expect("a part"));
        let mut record = [0; RECORD];
        while !std::io::BufRead::fill_buf(&mut records).expect("a readable part").is_empty() {
            records.read_exact(&mut record).expect("whole records");
            assert!(before[..] <= record[..KEY], "record {count} is out of order");
            before.copy_from_slice(&record[..KEY]);
            (count, sum) = (count + 1, sum.wrapping_add(hash(&record)));
        }
    }
    assert_eq!((count, sum), (RECORDS, expected), "the records are those of the input");
    let mib = most.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
    println!("at most {mib:.1} MiB, checked after {:?}", began.elapsed());
    assert!(mib > 8.0, "a worker that sorts takes something: {mib:.1} MiB");
    assert!(mib <= BUDGET_MIB as f64, "agent and executor took {mib:.1} MiB of {BUDGET_MIB}");
}
