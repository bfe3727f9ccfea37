//! Clients that submit jobs of known answers, wait for them, cancel some, and write down what they were told.

use super::dice::Dice;
use super::fleet::Access;
use super::history::{Call, Expect, Story};
use super::{now_us, read_parts};
use crate::cluster::merged_rows;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a client asks for with `--timeout`. With one scheduler of three gone the others elect a leader in half a second; a machine whose disk
/// stands still, as virtual ones do, takes the time that it takes. How long it was is in the report.
pub const TIMEOUT: Duration = Duration::from_secs(90);
/// By its documentation a submit may take a minute more than `--timeout`; the rest is for starting the program on a busy machine.
const SUBMIT_DEADLINE: Duration = Duration::from_secs(90 + 60 + 10);
const CANCEL_DEADLINE: Duration = Duration::from_secs(90 + 10);
/// Jobs here take seconds; faults hold them up for seconds at a time.
const WAIT_DEADLINE: Duration = Duration::from_secs(240);
/// Indices of a job lie within its own range of so many.
const RANGE: u64 = 1_000_000;

/// Generated text and what counting its words gives, byte by byte, for each number of partitions.
pub struct Words {
    input: PathBuf,
    known: BTreeMap<u32, BTreeMap<String, Vec<u8>>>,
}

impl Words {
    /// Counts once with a plain loop and once per number of partitions with the undisturbed cluster; the rows must agree. The published
    /// bytes are what every later job has to give.
    pub fn learn(access: &Access) -> (Words, Vec<Story>) {
        let input = access.home.join("text");
        let expected = write_text(&input);
        let mut words = Words { input, known: BTreeMap::new() };
        let mut stories = Vec::new();
        for partitions in 1..=3 {
            let dir = access.home.join(format!("known-{partitions}"));
            let file = access.home.join(format!("known-{partitions}.toml"));
            std::fs::write(&file, words.job(&dir, partitions)).expect("a job file");
            let key = format!("known-{partitions}");
            let call = submit(access, &file, &key, true);
            assert_eq!(call.exit, Some(0), "{}", call.stderr);
            assert_eq!(merged_rows(&dir), expected, "the undisturbed cluster miscounts");
            let parts = read_parts(&dir).expect("published parts");
            words.known.insert(partitions, parts.clone());
            stories.push(Story { key, expect: Expect::Files { dir, parts }, calls: vec![call] });
        }
        (words, stories)
    }

    fn job(&self, output: &Path, partitions: u32) -> String {
        format!(
            "[job]\nname = \"words\"\n[input]\nfiles = [\"{}/*.txt\"]\nsplit = \"2KiB\"\n[map]\nkernel = \"word_count\"\nmax_lease_tasks = 4\n[reduce]\nkernel = \"sum_by_key\"\npartitions = {partitions}\n[output]\npath = \"{}\"\nformat = \"csv\"\n",
            self.input.display(),
            output.display()
        )
    }
}

/// Text of 2 x 60 KiB; its rows `word,count`, sorted.
fn write_text(dir: &Path) -> Vec<Vec<u8>> {
    std::fs::create_dir_all(dir).expect("an input directory");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut dice = Dice::new(7);
    for file in 0..2 {
        let mut out = std::io::BufWriter::new(std::fs::File::create(dir.join(format!("{file}.txt"))).expect("an input file"));
        for _ in 0..1500 {
            let line: Vec<String> = (0..dice.below(12)).map(|_| format!("w{}", dice.below(797))).collect();
            line.iter().for_each(|word| *counts.entry(word.clone()).or_default() += 1);
            writeln!(out, "{}", line.join(" ")).expect("written");
        }
    }
    let mut rows: Vec<Vec<u8>> = counts.iter().map(|(word, n)| format!("{word},{n}").into_bytes()).collect();
    rows.sort();
    rows
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    access: Access,
    words: Words,
    over: AtomicBool,
    next: AtomicU64,
    stories: Mutex<Vec<Story>>,
}

impl Load {
    pub fn start(access: Access, clients: usize, dice: &mut Dice, words: Words, stories: Vec<Story>) -> Load {
        let shared =
            Arc::new(Shared { access, words, over: AtomicBool::new(false), next: AtomicU64::new(1), stories: Mutex::new(stories) });
        let threads = (0..clients).map(|_| {
            let (shared, mut dice) = (shared.clone(), dice.fork());
            std::thread::spawn(move || {
                while !shared.over.load(Ordering::Relaxed) {
                    let story = shared.live(&mut dice);
                    shared.stories.lock().unwrap_or_else(|e| e.into_inner()).push(story);
                }
            })
        });
        let threads = threads.collect();
        Load { shared, threads }
    }

    pub fn finished(&self) -> usize {
        self.shared.stories.lock().unwrap_or_else(|e| e.into_inner()).len()
    }

    /// Lets every client finish the job it has.
    pub fn finish(self) -> Vec<Story> {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client does not panic");
        }
        std::mem::take(&mut *self.shared.stories.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

impl Shared {
    /// One job from submit to end.
    fn live(&self, dice: &mut Dice) -> Story {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = format!("job-{number}");
        let file = self.access.home.join(format!("{key}.toml"));
        let (expect, text) = self.invent(number, dice);
        std::fs::write(&file, text).expect("a job file");
        let mut calls = Vec::new();
        let cancels = expect == Expect::Cancelled;
        if !cancels && dice.one_in(2) {
            calls.push(submit(&self.access, &file, &key, true));
        } else {
            if dice.one_in(3) {
                // A submit that comes twice, as from a client that did not wait for the answer.
                let (access, file, key) = (self.access.clone(), file.clone(), key.clone());
                let twin = std::thread::spawn(move || submit(&access, &file, &key, false));
                calls.push(submit(&self.access, &self.access.home.join(format!("job-{number}.toml")), &format!("job-{number}"), false));
                calls.push(twin.join().expect("a client does not panic"));
            } else {
                calls.push(submit(&self.access, &file, &key, false));
            }
            if let Some(job) = calls[0].job.map(|j| j.to_string()) {
                if cancels {
                    std::thread::sleep(Duration::from_millis(dice.between(0, 800)));
                    calls.push(call(&self.access, "job cancel", &["job", "cancel", &job, "--timeout", "30s"], CANCEL_DEADLINE));
                }
                calls.push(call(&self.access, "job wait", &["job", "wait", &job, "--timeout", "30s"], WAIT_DEADLINE));
            }
        }
        Story { key, expect, calls }
    }

    fn invent(&self, number: u64, dice: &mut Dice) -> (Expect, String) {
        let noop = |tasks: u64, params: &str, lease: u64| {
            format!(
                "[job]\nname = \"noop\"\n[input]\nrange = {{ start = {}, count = {tasks}, tasks = {tasks} }}\n[map]\nkernel = \"noop\"\nmax_lease_tasks = {lease}\nparams = {{ {params} }}\n",
                number * RANGE
            )
        };
        match dice.below(10) {
            0 => (Expect::Fails, noop(20, "sleep_us = 5000, fail_task = \"11\"", 4)),
            1 => (Expect::Cancelled, noop(400, "sleep_us = 20000", 4)),
            2 | 3 => {
                let partitions = dice.between(1, 3) as u32;
                let dir = self.access.home.join(format!("out-{number}"));
                let text = self.words.job(&dir, partitions);
                (Expect::Files { dir, parts: self.words.known[&partitions].clone() }, text)
            }
            _ => {
                let (tasks, sleep_us, lease) = (dice.between(30, 120), dice.between(5_000, 25_000), *dice.pick(&[0, 1, 4]));
                let text = noop(tasks, &format!("sleep_us = {sleep_us}, print = \"yes\""), lease);
                (Expect::Sum { first: number * RANGE, tasks }, text)
            }
        }
    }
}

fn submit(access: &Access, file: &Path, key: &str, wait: bool) -> Call {
    let file = file.display().to_string();
    let mut args = vec!["submit", &file, "--idempotency-key", key, "--timeout", "30s"];
    if wait {
        args.push("--wait");
        return call(access, "submit --wait", &args, SUBMIT_DEADLINE + WAIT_DEADLINE);
    }
    call(access, "submit", &args, SUBMIT_DEADLINE)
}

/// Runs the command line; when it takes far longer than it may, ends it.
pub fn call(access: &Access, what: &'static str, args: &[&str], deadline: Duration) -> Call {
    let file = |name: &str| tempfile::Builder::new().prefix(name).tempfile_in(&access.home).expect("a temporary file");
    let (stdout, stderr) = (file("stdout-"), file("stderr-"));
    let began_us = now_us();
    let began = Instant::now();
    let mut child = access
        .command(&["-o", "json"])
        .args(args)
        .stdout(Stdio::from(stdout.reopen().expect("a file")))
        .stderr(Stdio::from(stderr.reopen().expect("a file")))
        .spawn()
        .expect("raftwerk runs");
    let exit = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status.code();
        }
        if began.elapsed() > deadline + Duration::from_secs(30) {
            let _ = (child.kill(), child.wait());
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |file: &tempfile::NamedTempFile| std::fs::read(file.path()).unwrap_or_default();
    let document: Value = serde_json::from_slice(&read(&stdout)).unwrap_or_default();
    Call {
        what,
        began_us,
        took: began.elapsed(),
        deadline,
        exit,
        job: document["job"].as_u64(),
        state: document["state"].as_str().map(str::to_owned),
        stderr: crate::cluster::text(&read(&stderr)),
    }
}
