//! The limit of memory of a worker, with real processes: what agent and executor hold while more data than that passes through them.

use raftwerk_tests::chaos::fleet::children;
use raftwerk_tests::cluster::Cluster;
use raftwerk_tests::footprint::{Footprint, most_resident};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const RECORD: usize = 100;
const KEY: usize = 10;
/// What a worker takes at least.
const LEAST: u64 = 32 << 20;

/// A record whose key says nothing of its number, which stands behind it; each key is that of two records.
fn record(number: u64) -> [u8; RECORD] {
    let mut record = [b'.'; RECORD];
    let key = (number / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    record[..8].copy_from_slice(&key.to_be_bytes());
    record[KEY..KEY + 8].copy_from_slice(&number.to_be_bytes());
    record[KEY + 8..KEY + 16].copy_from_slice(&(!number).to_le_bytes());
    record
}

fn write_records(path: &Path, count: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).expect("a file"));
    (0..count).for_each(|number| out.write_all(&record(number)).expect("room on the disk"));
    out.flush().expect("room on the disk");
}

/// Goes through the parts in their order. Keys rise, of equal ones the first of the input comes first, so no record is there twice; each is, to the byte,
/// one that was written; and there are as many.
fn check_sorted(dir: &Path, count: u64) {
    let mut names: Vec<_> = std::fs::read_dir(dir).expect("a published directory").map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "bin"));
    names.sort();
    let (mut before, mut seen) = ([0; KEY + 8], 0);
    let mut buffer = vec![0; RECORD << 13];
    for name in names {
        let mut part = File::open(&name).expect("a part");
        let mut left = part.metadata().expect("a length").len() as usize;
        assert_eq!(left % RECORD, 0, "{} ends within a record", name.display());
        while left > 0 {
            let piece = left.min(buffer.len());
            part.read_exact(&mut buffer[..piece]).expect("as long as it said");
            for found in buffer[..piece].chunks_exact(RECORD) {
                let number = u64::from_be_bytes(*found[KEY..].first_chunk().expect("a number"));
                assert!(number < count && found == record(number), "{}: no record of the input: {found:?}", name.display());
                assert!(
                    seen == 0 || before[..] < found[..KEY + 8],
                    "{}: {number} is behind one that is larger, or there twice",
                    name.display()
                );
                before.copy_from_slice(&found[..KEY + 8]);
                seen += 1;
            }
            left -= piece;
        }
    }
    assert_eq!(seen, count, "records");
}

/// Split size and partitions that fit, by what docs/operations.md says of `sort`. Partitions are as even as a sample of the input makes them.
fn fitting(memory: u64, threads: u64, bytes: u64) -> (u64, u64) {
    let each = (memory - (64 << 20).min(memory / 2)) / threads;
    let split = (each - (3 << 20)) * 10 / 22;
    (1 << split.ilog2(), bytes.div_ceil(each / 2))
}

#[test]
fn a_gigabyte_is_sorted_in_the_least_memory_that_a_worker_takes() {
    let (count, threads) = (10_000_000, 1);
    let memory = format!("{}MiB", LEAST >> 20);
    let cluster = Cluster::with_worker_flags(1, 1, &["--cpus", &threads.to_string(), "--no-gpu", "--memory", &memory]);
    let (input, out) = (cluster.path("records.bin"), cluster.path("out"));
    let began = Instant::now();
    write_records(&input, count);
    let made = began.elapsed();
    let (split, partitions) = fitting(LEAST, threads, count * RECORD as u64);
    let toml = format!(
        "[job]\nname = \"sort\"\n[input]\nfiles = [\"{}\"]\nformat = \"records\"\nrecord = {RECORD}\nsplit = \"{}KiB\"\n[map]\nkernel = \"sort\"\n\
         params = {{ key_bytes = {KEY} }}\n[reduce]\npartitions = {partitions}\n[output]\npath = \"{}\"\n",
        input.display(),
        split >> 10,
        out.display()
    );
    let worker = cluster.workers[0].child.id();
    let footprint = Footprint::of(worker);
    std::thread::sleep(Duration::from_millis(500));
    let idle = footprint.most().together;
    let footprint = Footprint::of(worker);
    let began = Instant::now();
    let job = cluster.submit(&cluster.job_file("sort.toml", &toml), &[]);
    cluster.wait_done(job);
    let sorted = began.elapsed();
    let most = footprint.most();
    let resident: Vec<u64> = [worker].into_iter().chain(children(worker)).map(|pid| most_resident(pid) >> 10).collect();
    let began = Instant::now();
    check_sorted(&out, count);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let said = format!(
        "at most {:.1} MiB together, {:.1} before, of {memory} (agent {:.1}, executor {:.1} then and {:.1} at most, {} looks; VmHWM with code {resident:?} KiB); splits of {} KiB, \
         {partitions} partitions; made in {made:.1?}, sorted in {sorted:.1?}, checked in {:.1?}",
        mib(most.together),
        mib(idle),
        mib(most.own),
        mib(most.together - most.own),
        mib(most.children),
        most.looks,
        split >> 10,
        began.elapsed()
    );
    println!("{said}");
    assert!(most.looks > 20, "it was looked at too rarely to tell: {said}");
    assert!(most.together <= LEAST, "{said}");
}
