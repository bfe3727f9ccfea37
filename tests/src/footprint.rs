//! What a worker's processes hold of memory, as its limit counts it.

use crate::chaos::fleet::children;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks. A buffer that lives shorter than this may be missed; a task and a partition live longer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Bytes, at the moment when they were most together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Most {
    pub together: u64,
    /// Of these the process that was asked for, the rest is its children's.
    pub own: u64,
    /// The most of the children at any moment.
    pub children: u64,
    pub looks: u32,
}

/// Looks at a process and its children until it is asked what it saw.
pub struct Footprint {
    over: Arc<AtomicBool>,
    watcher: JoinHandle<Most>,
}

impl Footprint {
    pub fn of(pid: u32) -> Footprint {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let watch = move || {
            let mut most = Most::default();
            while !until.load(Ordering::Relaxed) {
                let own = held(pid);
                let of_children = children(pid).into_iter().map(held).sum::<u64>();
                most.children = most.children.max(of_children);
                if own + of_children > most.together {
                    (most.together, most.own) = (own + of_children, own);
                }
                most.looks += 1;
                std::thread::sleep(LOOK_EVERY);
            }
            most
        };
        Footprint { over, watcher: std::thread::spawn(watch) }
    }

    pub fn most(self) -> Most {
        self.over.store(true, Ordering::Relaxed);
        self.watcher.join().expect("the watcher only reads")
    }
}

/// Bytes that a process holds: anonymous memory, and its share of the files that it has mapped (`Pss`: who maps a page together with another holds half
/// of it). The program and its libraries are not counted but for the pages of them that the process has written (`Anonymous`): how much of their code
/// is in memory is the system's to say, and every process of the program shares it. Files that are memory (`memfd`) count as long as the process has them
/// open, mapped or not. Nothing of a process that has ended.
pub fn held(pid: u32) -> u64 {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    counted(&std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default(), &program) + in_memory_files(pid)
}

fn in_memory_files(pid: u32) -> u64 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_memory = open.filter(|path| std::fs::read_link(path).is_ok_and(|there| there.as_os_str().as_bytes().starts_with(b"/memfd:")));
    in_memory.filter_map(|path| Some(path.metadata().ok()?.blocks() * 512)).sum()
}

fn counted(maps: &str, program: &Path) -> u64 {
    let (mut kib, mut counted) = (0, "Pss:");
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if !first.ends_with(':') {
            let path = words.nth(4).unwrap_or_default();
            counted = if Path::new(path) == program || path.contains(".so") { "Anonymous:" } else { "Pss:" };
        } else if first == counted {
            kib += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    kib << 10
}

/// The most that the process ever had in memory at once, its code included (`VmHWM`); the kernel's own count, which misses nothing.
pub fn most_resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_heap_count_and_of_programs_what_was_written() {
        let mapping = |path: &str, pss: u32, anonymous: u32| {
            format!(
                "7f00-7f10 r-xp 00001000 fe:00 12   {path}\nSize: 999 kB\nPss: {pss} kB\nPss_Dirty: 50 kB\nAnonymous: {anonymous} kB\nVmFlags: rd ex\n"
            )
        };
        let of = |path| counted(&mapping(path, 100, 10), Path::new("/opt/raftwerk"));
        assert_eq!(
            ["/data/records.bin", "[heap]", "", "/opt/raftwerk", "/lib/libc.so.6"].map(of),
            [100, 100, 100, 10, 10].map(|kib| kib << 10)
        );
    }

    #[test]
    fn a_file_that_is_memory_counts_before_anybody_maps_it() {
        let file = std::fs::File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 1 << 20], 0).unwrap();
        assert!(in_memory_files(std::process::id()) >= 1 << 20);
    }

    #[test]
    fn a_process_is_read_and_one_that_is_gone_holds_nothing() {
        let own = std::process::id();
        assert!(held(own) > 0 && most_resident(own) > 0);
        assert_eq!((held(u32::MAX), most_resident(u32::MAX)), (0, 0));
    }
}
