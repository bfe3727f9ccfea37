//! Processes made slow with SIGSTOP and SIGCONT, as on a machine that does something else most of the time.

use crate::cluster::PATIENCE;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The worker and its executors.
pub fn family(worker: u32) -> Vec<u32> {
    let mut all = vec![worker];
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    for process in processes.filter_map(|p| p.file_name().to_str()?.parse::<u32>().ok()) {
        let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).unwrap_or_default();
        // The command's name is in brackets and may hold anything; state and parent come behind it.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(worker) {
            all.push(process);
        }
    }
    all
}

fn signal(name: &str, processes: &[u32]) {
    let ids = processes.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(format!("-{name}")).args(ids).stderr(std::process::Stdio::null()).status();
}

/// Lets the processes run for `runs` and stand for `stands`, in turns, while `during` goes on (two minutes of that at the most).
pub fn in_slices<T>(processes: &[u32], runs: Duration, stands: Duration, during: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let started = Instant::now();
            while !over.load(Ordering::Relaxed) && started.elapsed() < PATIENCE {
                signal("STOP", processes);
                std::thread::sleep(stands);
                signal("CONT", processes);
                std::thread::sleep(runs);
            }
        });
        let result = during();
        over.store(true, Ordering::Relaxed);
        result
    })
}
