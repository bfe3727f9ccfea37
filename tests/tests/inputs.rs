//! What may be wrong with an input while a job runs, with real processes: the job fails with the file named, and the worker lives.

use raftwerk_tests::cluster::{Cluster, merged_rows, text};
use std::path::Path;

const FLAGS: [&str; 5] = ["--cpus", "1", "--no-gpu", "--shuffle-quota", "4MiB"];

fn words(input: &Path, output: &Path) -> String {
    format!(
        "[job]\nmax_attempts = 1\n[input]\nfiles = [\"{}\"]\n[map]\nkernel = \"word_count\"\n[output]\npath = \"{}\"\n",
        input.display(),
        output.display()
    )
}

/// A zstd frame that says "this byte, so many times" for each of its blocks: 128 KiB in four bytes.
fn bomb(blocks: usize) -> Vec<u8> {
    // Magic; no size, no checksum, and a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    for block in 0..blocks {
        let header = u32::from(block + 1 == blocks) | 1 << 1 | (128 << 10) << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(b'a');
    }
    frame
}

#[test]
fn a_changed_input_and_one_that_holds_too_much_fail_their_jobs_and_the_worker_lives() {
    let cluster = Cluster::with_worker_flags(1, 1, &FLAGS);
    let ended = |job: u64| -> (String, String) {
        let waited = cluster.run(&["job", "wait", &job.to_string()]);
        assert!(!waited.status.success());
        let view = cluster.job(job);
        (view["state"].as_str().expect("a state").to_owned(), view["cause"].as_str().expect("a cause").to_owned())
    };

    // A drained worker lists files, and gets no task before it is released.
    cluster.json(&["worker", "drain", "worker-1"]);
    let changing = cluster.path("changing.txt");
    std::fs::write(&changing, "one two\n").expect("an input file");
    let job = cluster.submit(&cluster.job_file("changing.toml", &words(&changing, &cluster.path("out"))), &[]);
    std::fs::write(&changing, "one two three\n").expect("another input file");
    cluster.json(&["worker", "release", "worker-1"]);
    let (state, cause) = ended(job);
    assert_eq!(state, "failed");
    assert!(cause.contains(&format!("input changed while the job runs: {}", changing.display())), "{cause}");
    assert!(!cluster.path("out").exists());

    // 64 MiB in two kilobytes, where the worker gives 4 MiB to data of jobs.
    let packed = cluster.path("bomb.zst");
    std::fs::write(&packed, bomb(512)).expect("an input file");
    let job = cluster.submit(&cluster.job_file("bomb.toml", &words(&packed, &cluster.path("out"))), &[]);
    let (state, cause) = ended(job);
    assert_eq!(state, "failed");
    assert!(cause.contains("bomb.zst holds more than the 4194304 bytes that the worker gives"), "{cause}");

    // Nothing of that has hurt the worker, and a file that fits is read.
    std::fs::write(&packed, bomb(8)).expect("an input file");
    let job = cluster.submit(&cluster.job_file("fits.toml", &words(&packed, &cluster.path("out"))), &[]);
    cluster.wait_done(job);
    assert_eq!(merged_rows(&cluster.path("out")).len(), 1);
    let shown = text(&cluster.run(&["job", "show", &job.to_string()]).stdout);
    assert!(shown.contains("(all compressed with zstd, which cannot be cut: one split for each)"), "{shown}");
    let workers = cluster.json(&["worker", "list"]);
    assert_eq!(workers["workers"][0]["liveness"], "alive", "{workers:#}");
}
